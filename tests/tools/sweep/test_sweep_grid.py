"""Which points a grid has, and what they are called."""

from __future__ import annotations

import pytest

from federatedscope.core.errors import UserError
from federatedscope_ext.tools.sweep.grid import all_points, parse_grid, point_names, split_values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0,1,2", ["0", "1", "2"]),
        ("fedavg", ["fedavg"]),
        ("[4,8],[16,32]", ["[4,8]", "[16,32]"]),
        ("[{'r': 4, 'x': (1,2)}],[]", ["[{'r': 4, 'x': (1,2)}]", "[]"]),
        ("'a,b',\"c,d\"", ["'a,b'", '"c,d"']),
        ("['a]','b'],c", ["['a]','b']", "c"]),
        ("it's,so", ["it's", "so"]),
        ("-1,1e-3", ["-1", "1e-3"]),
        (" a , b ", ["a", "b"]),
        ("''", ["''"]),
    ],
)
def test_values_are_split_at_commas_outside_of_brackets_and_quotes(
    text: str, values: list[str]
) -> None:
    assert split_values(text) == values


@pytest.mark.parametrize(
    ("axis", "said"),
    [
        ("seed", "not of the form"),
        ("=1", "not of the form"),
        ("seed=", "is empty"),
        ("seed=0,,1", "is empty"),
        ("seed=0,", "is empty"),
        ("seed=0,1,0", "0 is there twice"),
        ("a.b=[1,2", "']' is missing"),
        ("a.b='x", '"\'" is missing'),
        ("a.b=1]", "closes a ']'"),
        ("a.b=[1)", "closes a ')'"),
    ],
)
def test_a_wrong_axis_is_refused(axis: str, said: str) -> None:
    with pytest.raises(UserError, match="--grid") as caught:
        parse_grid([axis])
    assert said in str(caught.value)


def test_a_key_twice_in_one_grid_is_refused() -> None:
    with pytest.raises(UserError, match="seed is in this grid twice"):
        parse_grid(["seed=0", "seed=1"])


def test_the_points_are_the_product_and_grids_are_united() -> None:
    first = parse_grid(["federate.method=a,b", "seed=0,1"])
    second = parse_grid(["seed=1,2", "federate.method=b"])
    points = all_points([first, second])
    assert [(p["federate.method"], p["seed"]) for p in points] == [
        ("a", "0"), ("a", "1"), ("b", "0"), ("b", "1"), ("b", "2")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("point", "name"),
    [
        ({"federate.method": "fedavg", "seed": "0"}, "method=fedavg,seed=0"),
        ({"llm.adapter.client_ranks": "[4, 8]"}, "client_ranks=4-8"),
        ({"model.type": "/a/b/MiniLM@huggingface_llm"}, "model.type=MiniLM@huggingface_llm"),
        ({"data.type": "x", "model.type": "y"}, "data.type=x,model.type=y"),
        ({"data.seed": "1", "seed": "2"}, "data.seed=1,seed=2"),
        ({"client_1.train.lr": "1", "client_2.train.lr": "2"}, "client_1.lr=1,client_2.lr=2"),
        ({"a.lr": "1", "b.lr": "2"}, "a.lr=1,b.lr=2"),
        ({"a.x": "''"}, "x=empty"),
        ({"a.x": "[{'r': 4}]"}, "x=r-4"),
    ],
)
def test_names_say_the_values(point: dict[str, str], name: str) -> None:
    assert point_names([point]) == [name]


def test_names_are_unique_and_do_not_change_when_the_grid_grows() -> None:
    base = [{"a.x": "/one/m", "seed": str(seed)} for seed in range(2)]
    alone = point_names(base)
    assert point_names([*base, {"a.x": "other", "seed": "0"}])[:2] == alone
    clash = [{"a.x": "/one/m"}, {"a.x": "/two/m"}, {"a.x": "/two/M"}]
    names = point_names(clash)
    assert len({name.lower() for name in names}) == 3
    assert all(name.startswith(("x=m~", "x=M~")) for name in names)


def test_long_values_make_no_long_folder_names() -> None:
    points = [{f"a.key{i}": "v" * 100 + end for i in range(9)} for end in "xy"]
    names = point_names(points)
    assert len(set(names)) == 2
    assert max(map(len, names)) <= 200

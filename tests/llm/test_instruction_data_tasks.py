"""Natural Instructions as its own repository has them: ``tasks/taskNNN_name.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from natural_instructions_runs import config_of

from federatedscope.core.auxiliaries.data_builder import get_data
from federatedscope.core.errors import ConfigError
from federatedscope.core.preflight_rows import describe_left_out
from federatedscope.llm.dataset.natural_instructions import find
from federatedscope.llm.dataset.task_files import SPLITS, Division


def task(number: int, rows: int = 20, **changed: Any) -> dict[str, Any]:
    """A file of the data set's own repository."""
    instances = [
        {"id": f"{number}-{i}", "input": f"w{number} good {i}", "output": [f"fine {i}", "dull"]}
        for i in range(rows)
    ]
    content = {
        "Contributors": ["somebody"],
        "Categories": [f"kind {number}", "another"],
        "Definition": [f"say w{number}"],
        "Positive Examples": [],
        "Instances": instances,
    }
    return {key: value for key, value in (content | changed).items() if value is not ...}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Tasks 2, 10 and 100, and task 7, which is excluded."""
    root = tmp_path / "natural-instructions"
    (root / "tasks").mkdir(parents=True)
    (root / "splits" / "default").mkdir(parents=True)
    for number in (100, 7, 10, 2):
        (root / "tasks" / f"task{number}_name.json").write_text(json.dumps(task(number)))
    (root / "tasks" / "README.md").write_text("about")
    (root / "splits" / "default" / "train_tasks.txt").write_text("task2_name\ntask10_name\n")
    (root / "splits" / "default" / "test_tasks.txt").write_text("task100_name\n")
    (root / "splits" / "default" / "excluded_tasks.txt").write_text("task7_name\n")
    return root


@pytest.mark.parametrize("place", ["above", "itself", "tasks", "renamed"])
def test_where_it_is_found(repository: Path, place: str) -> None:
    if place == "renamed":
        repository = repository.rename(repository.parent / "natural_instructions")
    roots = {"itself": repository, "tasks": repository / "tasks"}
    source = find(str(roots.get(place, repository.parent)))
    assert source.clients == [0, 1, 2]
    names = [f"kind {number}" for number in (2, 10, 100)]
    assert [source.read("train", [k])[0][0]["category"] for k in source.clients] == names


def test_a_row(repository: Path) -> None:
    record, *_ = find(str(repository)).read("val", [1])[0]
    number = record["input"].rpartition(" ")[2]
    assert record == {
        "instruction": "say w10",
        "input": f"w10 good {number}",
        "output": f"fine {number}",
        "references": json.dumps([f"fine {number}", "dull"]),
        "category": "kind 10",
    }


def test_text_instead_of_lists(repository: Path) -> None:
    plain = task(
        2, Definition="say it", Categories="kind", Instances=[{"input": "a", "output": "b"}]
    )
    (repository / "tasks" / "task2_name.json").write_text(json.dumps(plain))
    whole = Division((1.0, 0.0, 0.0))
    records, _ = find(str(repository), whole).read("train", [0])
    assert records == [{"instruction": "say it", "input": "a", "output": "b", "category": "kind"}]


def test_its_rows_are_divided(repository: Path) -> None:
    source = find(str(repository), Division((0.5, 0.25, 0.25), 3))
    inputs = {}
    for split, rows in (("train", 10), ("val", 5), ("test", 5)):
        records, owners = source.read(split, [0, 2])
        assert owners.tolist() == [0] * rows + [2] * rows
        inputs[split] = [record["input"] for record in records]
    everything = [f"w{k} good {i}" for k in (2, 100) for i in range(20)]
    assert sorted(text for texts in inputs.values() for text in texts) == sorted(everything)


def test_the_seed_and_the_task_decide(repository: Path) -> None:
    def read(seed: int, chosen: list[int]) -> list[str]:
        records, _ = find(str(repository), Division(seed=seed)).read("val", chosen)
        return [record["input"] for record in records]

    assert read(1, [0, 1, 2]) == read(1, [0]) + read(1, [1]) + read(1, [2])
    assert read(1, [0, 1, 2]) != read(2, [0, 1, 2])
    first, second = ([text.split()[2] for text in read(1, [k])] for k in (0, 1))
    assert first != second
    before = read(1, [1])
    (repository / "splits" / "default" / "excluded_tasks.txt").unlink()
    assert read(1, [2]) == before


def test_a_file_is_parsed_once(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = find(str(repository))
    parts, seen = source._parts, []
    monkeypatch.setattr(source, "_parts", lambda file: seen.append(file.stem) or parts(file))
    for split in ("train", "val", "test"):
        source.read(split, [0, 2])
    assert seen == ["task2_name", "task100_name"]


@pytest.mark.parametrize(
    ("pairs", "rows"),
    [
        ((), (16, 2, 2)),
        (("data.rows_per_client", 5, "eval.max_rows", 1), (5, 1, 1)),
        (("data.rows_per_client", 5, "data.subsample", 0.5), (5, 2, 2)),
        (("data.rows_per_client", 9, "data.subsample", 0.5), (8, 2, 2)),
    ],
)
def test_clients(
    rig: Any, options: Any, repository: Path, pairs: Any, rows: tuple[int, ...]
) -> None:
    data, cfg = get_data(config_of(rig, *options, "data.root", repository, *pairs))
    assert cfg.federate.client_num == 3 and sorted(data) == [0, 1, 2, 3]
    for client in (1, 2, 3):
        assert tuple(data[client].rows(split) for split in SPLITS) == rows
        assert len({row["categories"] for row in data[client].train_data}) == 1
    # Every training row is used, or told.
    assert 3 * rows[0] + sum(one.rows for one in describe_left_out(cfg, data)) == 48


def test_what_no_client_uses_is_not_tokenised(rig: Any, options: Any, repository: Path) -> None:
    def held(*pairs: Any) -> list[int]:
        few = ("data.root", repository, "data.rows_per_client", 5, "eval.max_rows", 1)
        data, _ = get_data(config_of(rig, *options, *few, *pairs))
        return [data[0].rows(split) for split in SPLITS]

    assert held() == [15, 3, 3]
    assert held("federate.make_global_eval", True) == [15, 6, 6]
    pooled = ("data.splitter", "iid", "federate.client_num", 2)
    assert held(*pooled) == [48, 6, 6]


def test_a_run(rig: Any, options: Any, repository: Path) -> None:
    done = rig(*options, "data.root", repository, "federate.total_round_num", 1)
    assert done.code == 0
    assert {event["client"] for event in done.of("eval")} == {1, 2, 3}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[{", "cannot be read"),
        ("[]", "it holds no object"),
        (task(2, Instances=...), "it has no Instances"),
        (task(2, Definition=...), "it has no Definition"),
        (task(2, Instances={}), "its Instances are no list"),
        (task(2, Instances=[{"input": "a", "output": "b"}, 3]), "instance 2 is no object"),
        (task(2, Definition=None), "the Definition is empty"),
        (task(2, Instances=[{"input": "a", "output": None}]), "row 1: the output is empty"),
        (task(2, Instances=[{"input": "a"}]), "row 1 has no Definition or no output"),
    ],
)
def test_mistakes(repository: Path, content: Any, problem: str) -> None:
    file = repository / "tasks" / "task2_name.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ConfigError, match=problem) as caught:
        find(str(repository)).read("train", [0])
    assert caught.value.value == str(file)


def test_nothing_is_left(repository: Path) -> None:
    names = "\r\n".join(f"task{number}_name" for number in (2, 7, 10, 100))
    (repository / "splits" / "default" / "excluded_tasks.txt").write_text(names)
    with pytest.raises(ConfigError, match="excludes every task"):
        find(str(repository))

"""Labels of own files, as people write them."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from decimal import Decimal

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from federatedscope.core.data.utils import labels_of
from federatedscope_ext.data.labels import class_number
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.tasks import GLUE_TASKS, TextTask


def refusal(load, *args, **keys):
    with pytest.raises(ExtensionError) as caught:
        load(*args, **keys)
    assert "\n" not in str(caught.value) and caught.value.is_user_error
    return caught.value


@pytest.fixture
def own(load, tmp_path):
    """Load a CSV file with these labels, ten rows each; every row trains."""

    def run(*labels, **keys):
        rows = "".join(f"a b,{label}\n" for label in labels * 10)
        (tmp_path / "own.csv").write_text(f"text,label\n{rows}")
        return load("own.csv@text", **{"data__splits": [1, 0, 0]} | keys)

    return run


def classes(loaded):
    """Names of the labels, and rows of each class."""
    data, cfg = loaded
    return cfg.data.label_list, dict(sorted(Counter(labels_of(data[0].train_data)).items()))


@pytest.mark.parametrize("labels", [("-1", "1"), ("1.0", "-1.0"), ("+1", "-1"), (" 1", "-1 ")])
def test_minus_one_and_one_are_two_classes(own, labels, caplog):
    with caplog.at_level("INFO"):
        assert classes(own(*labels)) == (["-1", "1"], {0: 10, 1: 10})
    assert "own.csv: 2 labels: " in caplog.text


@pytest.mark.parametrize("labels", [[-1, 1] * 20, [-1.0, 1.0] * 20, [Decimal(-1), Decimal(1)] * 20])
def test_the_same_in_tables(load, tmp_path, labels):
    pq.write_table(pa.table({"text": ["a"] * 40, "label": labels}), tmp_path / "own.parquet")
    found = load("own.parquet@text", data__splits=[1, 0, 0])
    assert classes(found) == (["-1", "1"], {0: 20, 1: 20})


def test_minus_one_beside_classes_from_0_is_no_label(own, caplog):
    with caplog.at_level("INFO"):
        assert classes(own(0, 1, -1)) == (["0", "1"], {0: 10, 1: 10})
    assert "10 rows of the label -1 are left out" in caplog.text
    assert "data.label_list: ['-1', '0', '1']" in caplog.text
    named = own(0, 1, -1, data__label_list=[-1, 0, 1])
    assert classes(named) == (["-1", "0", "1"], {0: 10, 1: 10, 2: 10})


@pytest.mark.parametrize("labels", [(1, 2), (5, 4, 3, 2, 1), ("1.0", 2, 3)])
def test_numbers_from_one_to_n_are_n_classes(own, labels, caplog):
    names = [str(i + 1) for i in range(len(labels))]
    assert classes(own(*labels)) == (names, dict.fromkeys(range(len(names)), 10))
    assert not any(record.levelname == "WARNING" for record in caplog.records)


def test_numbers_that_begin_with_one(own, caplog):
    assert classes(own(1, 2, 4)) == (["0", "1", "2", "3", "4"], {1: 10, 2: 10, 4: 10})
    assert "no row has the label 0, 3; " in caplog.text
    assert "set data.label_list: ['1', '2', '4']" in caplog.text
    caplog.clear()
    named = own(1, 2, 4, data__label_list=[1, 2, 4])
    assert classes(named) == (["1", "2", "4"], {0: 10, 1: 10, 2: 10})
    assert not any(record.levelname == "WARNING" for record in caplog.records)


@pytest.mark.parametrize("labels", [(-1, 0), (-1, 1, 2), (-1, 5), (-1, 0, 2)])
def test_minus_one_that_is_not_plain(own, labels):
    error = refusal(own, *labels)
    assert "-1 (10 rows)" in error.problem and f"{labels[-1]} (10 rows)" in error.problem
    assert "data.label_list: ['-1', " in error.remedy


@pytest.mark.parametrize(
    ("task", "labels", "absent"),
    [
        ("sst2", [-1, 1], "negative"),
        ("sst2", [-1, 0], "positive"),
        ("mnli", [-1, 0, 1], "contradiction"),
    ],
)
def test_minus_one_as_a_class_of_a_named_task(load, tmp_path, task, labels, absent):
    """Half of the rows would be left out as those without a label."""
    columns = dict.fromkeys(GLUE_TASKS[task].sentence_keys, ["a"] * 10 * len(labels))
    for split in ("train", GLUE_TASKS[task].validation[0]):
        file = tmp_path / "glue" / task / f"{split}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({**columns, "label": labels * 10}), file)
    error = refusal(load, f"{task}@glue")
    assert "10 rows have the label -1" in error.problem and "train.parquet" in error.value
    assert f"none is of {absent}." in error.problem


def test_a_label_list_that_minus_one_does_not_fit(own):
    """With the names given, -1 is a row without a label; no row of the first one is a slip."""
    error = refusal(own, -1, 1, data__label_list=["bad", "good"])
    assert "10 rows have the label -1" in error.problem and "none is of bad" in error.problem


@pytest.mark.parametrize("names", [("negative", "negative ", " positive"), ("x", "\u00a0x", "y")])
def test_spaces_around_a_name(own, names):
    found, rows = classes(own(*names))
    assert found == sorted({name.strip() for name in names}) and sum(rows.values()) == 30


@pytest.mark.parametrize(
    "names",
    [("negative", "Negative"), ("a b", "a  b"), ("\uff21", "A"), ("good", "GOOD", "bad"),
     ("good", "good.", "bad"), ("no answer", "no_answer"), ("non-hate", "Non hate"), ("'a'", "a")],
)  # fmt: skip
def test_names_that_differ_in_case_only(own, names):
    error = refusal(own, *names)
    assert "differ only in case or spaces" in error.problem and "(10 rows)" in error.problem
    listed = sorted(names)
    assert f"data.label_list: [{', '.join(map(repr, listed))}]" in error.remedy
    assert classes(own(*names, data__label_list=listed))[0] == listed


@pytest.mark.parametrize(
    "names", [("+", "-"), ("A", "A+", "A-"), ("?", "."), ("_", "-"), ("c", "c#"), ("a1", "a 1")]
)
def test_marks_that_tell_classes_apart(own, names):
    assert classes(own(*names))[0] == sorted(names)


@pytest.mark.parametrize(
    ("labels", "names"),
    [((1, 2), ["1", "2"]), ((-1, 0, 1), ["-1", "0", "1"]), (("-1.0", 0), ["-1", "0"]),
     ((0, 4), ["0", "4"]), ((100, 2000), ["100", "2000"]), ((0, 1), ["0", "1"])],
)  # fmt: skip
def test_the_number_of_labels_tells_which_numbers_are_classes(own, labels, names, caplog):
    found = classes(own(*labels, data__num_labels=len(names)))
    assert found == (names, dict.fromkeys(range(len(names)), 10))
    assert not any(record.levelname == "WARNING" for record in caplog.records)


def test_one_output_is_a_regression(own):
    data, cfg = own(1, 2, 5, data__num_labels=1)
    assert cfg.data.label_list == [] and sorted({*labels_of(data[0].train_data)}) == [1, 2, 5]
    assert own(0, 1, -1, data__num_labels=2)[1].data.label_list == ["0", "1"]


def test_numbers_beside_names_are_told(own, caplog):
    assert classes(own(0, 1, "positive"))[0] == ["0", "1", "positive"]
    assert "some labels are numbers and others names" in caplog.text
    assert "0 (10 rows), 1 (10 rows), positive (10 rows)" in caplog.text


def test_columns_that_could_be_the_text_are_told(load, tmp_path, caplog):
    rows = "a,b,1\nb,a,0\n" * 10
    (tmp_path / "own.csv").write_text(f"sentence,text,label\n{rows}")
    load("own.csv@text")
    assert "text is read; these columns are not: sentence." in caplog.text


@pytest.mark.parametrize("name", ["own.parquet", "own"])
def test_names_that_a_file_gives_to_its_numbers(load, tmp_path, name):
    """Also of a class that no row has; names that are numbers would be taken for the numbers."""
    for names, found in (
        (["spam", "ham", "egg"], (["spam", "ham", "egg"], {0: 10, 2: 10})),
        (["1", "2", "3"], None),
    ):
        shutil.rmtree(tmp_path / "own", ignore_errors=True)
        rows = {"text": ["a"] * 30, "Label": [i % 3 for i in range(30)]}
        data = datasets.Dataset.from_dict(rows)
        data = data.cast_column("Label", datasets.ClassLabel(names=names))
        data = data.filter(lambda row: row["Label"] != 1)
        if name == "own":
            data.save_to_disk(tmp_path / name)
        else:
            data.to_parquet(tmp_path / name)
        loaded = classes(load(f"{name}@text", data__splits=[1, 0, 0]))
        assert loaded == (found or (["0", "1", "2"], {0: 10, 2: 10}))


def test_numbers_in_another_order_than_the_names(load, tmp_path):
    data = datasets.Dataset.from_dict({"text": ["a"] * 20, "label": [0, 1] * 10})
    data.cast_column("label", datasets.ClassLabel(names=["bad", "good"])).save_to_disk(
        tmp_path / "own"
    )
    error = refusal(load, "own@text", data__label_list=["good", "bad"])
    assert "its labels are numbered bad, good, those of own good, bad" in error.problem
    assert load("own@text", data__label_list=["bad", "good"])


@pytest.mark.parametrize("word", ["NA", "None", "null", "nan", "N/A", "n/a", "<NA>", "#N/A"])
def test_words_for_nothing(own, word):
    error = refusal(own, "x", word)
    assert f"row 2 has no label that can be used ('{word}')" in error.problem
    assert f"if {word} is a class, name it with the others in data.label_list" in error.remedy
    assert classes(own("x", word, data__label_list=["x", word])) == (["x", word], {0: 10, 1: 10})


@pytest.mark.parametrize("label", ["spam", "1", "0", "0.5", "-1", "1 "])
def test_one_label_only(own, label):
    error = refusal(own, label)
    assert f"there is only one label, {label.strip()} (10 rows)" in error.problem


@pytest.mark.parametrize("names", [["x"], ["x", "x "], ["x", ""], ["1", "1.0"]])
def test_label_lists_that_name_no_classes(own, names):
    error = refusal(own, "x", "y", data__label_list=names)
    assert error.field == "data.label_list"


def test_a_comma_for_the_point(load, tmp_path):
    (tmp_path / "own.csv").write_text("text,label\n" + 'a,"0,5"\nb,"1,5"\n' * 10)
    assert "a comma for the point: 0,5 (10 rows)" in refusal(load, "own.csv@text").problem


def test_truth_values_are_classes(load, tmp_path):
    rows = [{"text": "a", "label": i % 2 == 0} for i in range(20)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = load("own.jsonl@text", data__splits=[1, 0, 0])
    assert classes(found) == (["False", "True"], {0: 10, 1: 10})


def test_names_that_are_numbers_are_no_places() -> None:
    """In ``[1, 2, 3]`` the number 1.0 is the first label, and 0 none."""
    task = TextTask("own", "", ("text",), ("1", "2", "3"), ("accuracy",))
    assert [class_number(value, task) for value in (1.0, "1", " 3 ", 2, -1)] == [0, 0, 2, 1, -1]
    for value in (0, 4, math.nan, None, "x"):
        with pytest.raises(ValueError, match=r"is none of 1, 2, 3$"):
            class_number(value, task)

"""Own instruction files as users have them: other names and formats, system, history, chats."""

from __future__ import annotations

import csv
import gzip
import json
import shlex
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from federatedscope.core.errors import ConfigError
from federatedscope.llm.dataset import build_prompt
from federatedscope.llm.dataset.instruction_files import INSTRUCTION_DATA, read_named, read_own_file

ROOT = Path(__file__).resolve().parents[2]


def write(file, rows):
    """Rows in the format that the name says."""
    opener = gzip.open if file.suffix.lower() == ".gz" else open
    if ".parquet" in file.name:
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif file.suffix == "":
        datasets.Dataset.from_list(rows).save_to_disk(file)
    elif ".json" in file.name.lower():
        lines = [json.dumps(row) for row in rows]
        with opener(file, "wt") as stream:
            stream.write(
                "\n".join(lines) if "jsonl" in file.name.lower() else f"[{', '.join(lines)}]"
            )
    else:
        with opener(file, "wt", newline="") as stream:
            writer = csv.DictWriter(
                stream, [*rows[0]], delimiter="\t" if ".tsv" in file.name else ","
            )
            writer.writeheader()
            writer.writerows(rows)
    return file


def read(tmp_path, rows, name="own.jsonl"):
    write(tmp_path / name, rows)
    return read_own_file(str(tmp_path), name)["train"]


def refusal(tmp_path, rows, name="own.jsonl"):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, rows, name)
    assert "\n" not in str(caught.value) and str(tmp_path / name) in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    "name",
    ["a.json", "a.jsonl", "A.JSONL", "a.json.gz", "a.csv", "a.CSV", "a.tsv", "a.csv.gz",
     "a.parquet", "folder"],
)  # fmt: skip
def test_formats(tmp_path, name):
    rows = [{"instruction": f'do, "{i}"', "input": "", "output": f"b\n{i}"} for i in range(3)]
    name = name.replace("folder", "a")
    found = read(tmp_path, rows, name)
    assert found == [{**row, "category": ""} for row in rows]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"instruction": "a", "response": "b"}, ("a", "", "b")),
        ({"prompt": "a", "completion": "b"}, ("a", "", "b")),
        ({"question": "a", "context": "c", "answer": "b"}, ("a", "c", "b")),
        ({"Instruction": "a", " Output": "b", "INPUT": "c"}, ("a", "c", "b")),
        ({"instruction": "a", "output": "b", "response": "x", "prompt": "y"}, ("a", "", "b")),
    ],
)
def test_names_of_columns(tmp_path, row, expected, caplog):
    found = read(tmp_path, [row])[0]
    assert (found["instruction"], found["input"], found["output"]) == expected
    assert ("is the output" in caplog.text) == ("output" not in str(row).lower())


def test_columns_that_only_later_rows_have(tmp_path):
    first = {"prompt": "a", "response": "b"}
    found = read(tmp_path, [first, first | {"context": "c", "system_prompt": "d"}])
    assert [row["input"] for row in found] == ["", "c"]
    assert found[1]["instruction"] == "d\n\na"


def test_empty_answers_are_told(tmp_path, caplog):
    row = {"instruction": "a", "output": "b"}
    read(tmp_path, [row, row | {"output": " "}, row | {"output": ""}])
    assert "own.jsonl: 2 of 3 rows have an empty answer" in caplog.text


def test_spaces_around_a_category(tmp_path):
    row = {"instruction": " a ", "output": " b"}
    found = read(tmp_path, [row | {"category": name} for name in ("qa", "qa ", " qa", " ")])
    assert [one["category"] for one in found] == ["qa", "qa", "qa", ""]
    assert (found[0]["instruction"], found[0]["output"]) == (" a ", " b")


def test_half_a_character(tmp_path):
    error = refusal(tmp_path, [{"instruction": "a", "output": "b \ud83d"}])
    assert "row 1: the output is a text with half of a surrogate pair" in error.problem


def test_names_that_could_both_be_it(tmp_path):
    error = refusal(tmp_path, [{"instruction": "a", "response": "b", "answer": "c"}])
    assert "response and answer could both be the output" in error.problem
    assert "instruction, response, answer" in error.problem


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a"])
def test_the_columns_that_are_there(tmp_path, name):
    error = refusal(tmp_path, [{"text": "a", "output": "b"}], name)
    assert error.problem == "there is no column instruction; there are text, output"


def test_a_named_table_without_its_columns(tmp_path):
    (tmp_path / "alpaca").mkdir()
    write(tmp_path / "alpaca" / "train.parquet", [{"text": "a"}])
    with pytest.raises(ConfigError, match=r"no column instruction and no column output; .* text"):
        read_named(str(tmp_path), INSTRUCTION_DATA["alpaca"])


def test_a_later_row_without_an_answer(tmp_path):
    error = refusal(tmp_path, [{"instruction": "a", "output": "b"}, {"instruction": "a", "x": "c"}])
    assert "row 2 has no instruction or no output; it has instruction, x" in error.problem


def test_two_answers_of_one_name(tmp_path):
    (tmp_path / "a.csv").write_text("instruction,output,output,x,x\na,b,c,1,2\n")
    with pytest.raises(ConfigError, match="2 columns are called output"):
        read_own_file(str(tmp_path), "a.csv")
    (tmp_path / "a.csv").write_text("instruction,output,x,x\na,b,1,2\n")
    assert read_own_file(str(tmp_path), "a.csv")["train"][0]["output"] == "b"


def test_system_and_history_are_read(tmp_path):
    row = {"instruction": "and now?", "input": "given", "output": "ok", "system": "Be kind.",
           "history": [["one", "two"], ["three", "four"]]}  # fmt: skip
    for name in ("a.jsonl", "a.parquet", "a"):
        (found,) = read(tmp_path, [row], name)
        assert build_prompt(found).endswith(
            "### Instruction:\nBe kind.\n\none\n\n### Response:two\n\n### Instruction:\nthree\n\n"
            "### Response:four\n\n### Instruction:\nand now?\n\n### Input:\ngiven\n\n### Response:"
        )
        assert found.keys() == {"instruction", "input", "output", "category"}


@pytest.mark.parametrize("nothing", [{}, {"system": None, "history": None},
                                     {"system": "", "history": []},
                                     {"system": " ", "history": ""}])  # fmt: skip
def test_empty_system_and_history(tmp_path, nothing):
    usual = {"instruction": "a", "output": "b"}
    assert read(tmp_path, [usual, usual | nothing]) == [usual | {"input": "", "category": ""}] * 2


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("system", {"a": 1}, "the system is an object"),
        ("history", "before", "the history is the text 'before', not a list of pairs"),
        ("history", {"a": 1}, "the history is an object, not a list of pairs"),
        ("history", [["a"]], "the history is a list with an item that is no pair"),
        ("history", [{"user": "a"}], "the history is a list with an item that is no pair"),
        ("history", [["a", None]], "the history is a list with a part that is empty"),
        ("history", [["a", {}]], "the history is a list with a part that is an object"),
    ],
)
def test_system_and_history_that_are_none(tmp_path, key, value, problem):
    usual = {"instruction": "a", "output": "b"}
    assert f"row 2: {problem}" in refusal(tmp_path, [usual, usual | {key: value}]).problem


SHAREGPT = [("system", "Be kind."), ("human", "one"), ("gpt", "it's two"), ("human", "three"),
            ("gpt", "four")]  # fmt: skip


@pytest.mark.parametrize("name", ["chats.json", "chats.jsonl", "chats.parquet"])
@pytest.mark.parametrize("column", ["conversations", "messages", "conversation"])
def test_chats_are_refused_with_a_conversion_that_works(tmp_path, name, column):
    if column == "messages":
        roles = {"system": "system", "human": "user", "gpt": "assistant"}
        turns = [{"role": roles[who], "content": text} for who, text in SHAREGPT]
    elif column == "conversation":
        roles = {"system": "system", "human": "Human", "gpt": "bot"}
        turns = [{"role": roles[who], "text": text} for who, text in SHAREGPT]
    else:
        turns = [{"from": who, "value": text} for who, text in SHAREGPT]
    error = refusal(tmp_path, [{"id": "1", column: turns}, {"id": "2", column: turns[2:]}], name)
    assert f"there are id, {column}" in error.problem
    command = error.remedy[error.remedy.index("python -c") : error.remedy.rindex(" and data.type")]
    (tmp_path / "own.json").unlink(missing_ok=True)
    words = [sys.executable, *shlex.split(command)[1:]]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    subprocess.run(words, cwd=tmp_path, env=environment, check=True)
    found = read_own_file(str(tmp_path), "own.json")["train"]
    assert [(row["instruction"], row["output"]) for row in found] == [
        ("Be kind.\n\none", "it's two"),
        ("Be kind.\n\none\n\n### Response:it's two\n\n### Instruction:\nthree", "four"),
        ("three", "four"),
    ]


@pytest.mark.parametrize(
    "turns",
    [["hello", "so"], [], "hello", None, [{"human": "a", "gpt": "b"}], [{"role": "user"}, 1],
     [{"role": "user", "content": "a"}], [{"role": "it's", "content": "a"}] * 2],
)  # fmt: skip
def test_chats_of_another_kind(tmp_path, turns):
    error = refusal(tmp_path, [{"messages": turns}])
    assert "there are messages" in error.problem and '"history": [[' in error.remedy


def test_a_chat_that_the_model_begins(tmp_path):
    turns = [{"from": who, "value": "a"} for who in ("gpt", "human", "gpt")]
    error = refusal(tmp_path, [{"conversations": turns}])
    assert "== ('human', 'gpt')" in error.remedy


def test_splits_of_a_folder(tmp_path):
    parts = {
        name: datasets.Dataset.from_dict({"prompt": ["a"] * n, "completion": ["b"] * n})
        for name, n in (("train", 3), ("validation", 2), ("test", 1))
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "own")
    found = read_own_file(str(tmp_path), "own")
    assert {name: len(rows) for name, rows in found.items()} == {
        "train": 3, "validation": 2, "test": 1,
    }  # fmt: skip


def test_a_second_file_of_a_named_set_is_told(tmp_path, caplog):
    (tmp_path / "alpaca").mkdir()
    row = {"instruction": "a", "output": "b"}
    write(tmp_path / "alpaca_data.json", [row])
    write(tmp_path / "alpaca" / "train.parquet", [row, row])
    assert len(read_named(str(tmp_path), INSTRUCTION_DATA["alpaca"])["train"]) == 1
    assert "alpaca_data.json is read; there is also" in caplog.text

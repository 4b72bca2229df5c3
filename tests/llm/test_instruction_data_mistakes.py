"""Instruction data: mistakes in files, tokenizer folders, rows that are too long."""

from __future__ import annotations

import gzip
import json
import logging

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from federatedscope.core.errors import ConfigError
from federatedscope.llm.dataset import InstructionRows, build_prompt, get_tokenizer
from federatedscope.llm.dataset.instruction_files import INSTRUCTION_DATA, read_named, read_own_file


def characters():
    """A tokenizer of characters."""
    vocabulary = {"<unk>": 0, "</s>": 1, **{chr(code): code for code in range(3, 127)}}
    core = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="</s>")


def record(output):
    return {"instruction": "add", "input": "", "output": output, "category": ""}


PROMPT = len(build_prompt(record("")))


@pytest.mark.parametrize("kind", ["gpt2", "qwen2", "gemma", "bert"])
def test_folder_without_a_tokenizer(tmp_path, kind):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(ConfigError, match="special tokens") as caught:
        get_tokenizer(str(tmp_path))
    assert caught.value.field == "model.type" and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{}", "[]", '"x"', '{"added_tokens": []}'])
def test_broken_tokenizer(tmp_path, content):
    characters().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ConfigError, match="tokenizer cannot be loaded"):
        get_tokenizer(str(tmp_path))


GOOD = '{"instruction": "a", "output": "b"}\n'


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("own.json", '{"a": 1}', "holds one object, not a list"),
        ("own.json", "3", "holds one value, not a list"),
        ("own.json", '[{"instruction": "a", "output": "b"}, 3]', "item 2 of the list"),
        ("own.jsonl", f"{GOOD * 4}\n{{oops\n{GOOD}", "line 6: .*column 2"),
        ("own.jsonl", f"{GOOD * 4}[1]\n", "line 5 is no JSON object"),
    ],
)
def test_bad_files(tmp_path, name, content, problem):
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=problem) as caught:
        read_own_file(str(tmp_path), name)
    assert caught.value.value == str(tmp_path / name)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
@pytest.mark.parametrize("name", ["own.json", "own.jsonl"])
def test_another_encoding(tmp_path, name, encoding):
    text = '{"instruction": "caf\u00e9", "output": "b"}'
    file = tmp_path / name
    file.write_text(f"[{text}]" if name == "own.json" else text, encoding=encoding)
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        read_own_file(str(tmp_path), name)
    assert "Save the file as UTF-8" in caught.value.remedy
    file.write_text(file.read_text(encoding=encoding), encoding="utf-8")
    assert read_own_file(str(tmp_path), name)["train"][0]["instruction"] == "caf\u00e9"


def own(tmp_path, **changed):
    """The second record of a file whose second row differs."""
    rows = [{"instruction": "a", "input": "c", "output": "b"}, {"instruction": "a", "output": "b"}]
    rows[1] |= changed
    (tmp_path / "own.json").write_text(json.dumps(rows))
    return read_own_file(str(tmp_path), "own.json")["train"][1]


NAN = float("nan")


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("output", None, "the output is empty"),
        ("output", NAN, "the output is empty"),
        ("output", [], "the output is an empty list"),
        ("output", {"a": 1}, "the output is an object"),
        ("output", ["x", None], "the output is a list with an item that is empty"),
        ("output", [["x"]], "the output is a list with an item that is a list"),
        ("output", ["x", {}], "the output is a list with an item that is an object"),
        ("instruction", None, "the instruction is empty"),
        ("instruction", [], "the instruction is an empty list"),
        ("instruction", {"a": 1}, "the instruction is an object"),
        ("instruction", ["x", NAN], "the instruction is a list with an item that is empty"),
        ("input", {"a": 1}, "the input is an object"),
    ],
)
def test_what_is_no_text(tmp_path, key, value, problem):
    """It must not become text to learn from: 'None', '[]', 'nan'."""
    with pytest.raises(ConfigError, match=f"row 2: {problem}") as caught:
        own(tmp_path, **{key: value})
    assert caught.value.value == str(tmp_path / "own.json")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("output", 3, {"output": "3"}),
        ("output", 3.5, {"output": "3.5"}),
        ("output", "", {"output": ""}),
        ("output", ["x"], {"output": "x"}),
        ("output", ["x", "y"], {"output": "x", "references": '["x", "y"]'}),
        ("output", [1, 2], {"output": "1", "references": '["1", "2"]'}),
        ("instruction", ["Definition"], {"instruction": "Definition"}),
        ("instruction", ["One.", "Two."], {"instruction": "One.\nTwo."}),
        ("input", None, {"input": ""}),
        ("input", NAN, {"input": ""}),
        ("input", ["x"], {"input": "x"}),
        ("input", ["x", 7], {"input": "x\n7"}),
        ("category", None, {"category": ""}),
    ],
)
def test_what_becomes_text(tmp_path, key, value, expected):
    usual = {"instruction": "a", "input": "", "output": "b", "category": ""}
    assert own(tmp_path, **{key: value}) == usual | expected


@pytest.mark.parametrize("content", [b"", b"no parquet"])
def test_broken_parquet(tmp_path, content):
    file = tmp_path / "alpaca" / "train.parquet"
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read as Parquet") as caught:
        read_named(str(tmp_path), INSTRUCTION_DATA["alpaca"])
    assert caught.value.value == str(file)


def test_gzip_that_breaks_off(tmp_path):
    file = tmp_path / "go" / "final" / "jsonl" / "train" / "go_train_0.jsonl.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(gzip.compress(b'{"docstring": "a", "code": "b", "language": "go"}\n')[:-12])
    with pytest.raises(ConfigError, match="cannot be read"):
        read_named(str(tmp_path), INSTRUCTION_DATA["code_search_net"])


@pytest.mark.parametrize("cached", [False, True])
def test_cut_rows_are_counted(tmp_path, caplog, cached):
    """One answer loses its end, one row the beginning of its prompt, one fits."""
    rows = [record("x" * 200), record("x" * 20), record("x")]
    for _ in range(1 + cached):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            made = InstructionRows(rows, characters(), PROMPT + 5, tmp_path if cached else None)
    assert f"llm.tok_len {PROMPT + 5} cuts 2 of 3 rows: 1 lose the end" in caplog.text
    # The end of text is a token of the answer.
    whole = np.array([PROMPT + 201, PROMPT + 21, PROMPT + 2])
    assert (made.lengths + made.cut).tolist() == whole.tolist()
    assert made.cut.tolist() == [196, 16, 0]
    assert made.left.min() > 0


def test_rows_that_fit_are_not_mentioned(caplog):
    with caplog.at_level(logging.INFO):
        made = InstructionRows([record("x")], characters(), PROMPT + 5)
    assert "cuts" not in caplog.text
    assert made.cut.tolist() == [0]


def test_no_answer_left():
    with pytest.raises(ConfigError) as caught:
        InstructionRows([record("yes"), record("no")], characters(), 1)
    assert (caught.value.field, caught.value.value) == ("llm.tok_len", 1)
    assert "larger" in caught.value.remedy

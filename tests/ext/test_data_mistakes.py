"""Mistakes in data and tokenizer files: each is one sentence with the file and the row."""

from __future__ import annotations

import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import federatedscope_ext.data  # noqa: F401  registers the builders
from federatedscope.core.auxiliaries.data_builder import get_data
from federatedscope.core.configs.config import global_cfg
from federatedscope.core.data.utils import label_histogram
from federatedscope_ext.catalog import CATALOG
from federatedscope_ext.data.sources import FileSource
from federatedscope_ext.errors import ExtensionError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    core = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "a": 2, "b": 3}, "[UNK]"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = tmp_path_factory.mktemp("model")
    PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="[UNK]", pad_token="[PAD]"
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def load(tmp_path, model, monkeypatch):
    """Load the data of a configuration; its paragraph where it is refused."""
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")

    def run(data_type="sst2@glue", **keys):
        cfg = global_cfg.clone()
        pairs = {
            "data.root": str(tmp_path),
            "data.type": data_type,
            "data.splitter": "iid",
            "data.cache_dir": str(tmp_path / "cache"),
            "federate.client_num": 2,
            "model.type": f"{model}@huggingface_llm",
        }
        pairs |= {key.replace("__", "."): value for key, value in keys.items()}
        cfg.merge_from_list([item for pair in pairs.items() for item in pair])
        return get_data(cfg)

    return run


def refusal(load, *args, **keys):
    with pytest.raises(ExtensionError) as caught:
        load(*args, **keys)
    assert "\n" not in str(caught.value) and caught.value.is_user_error
    return caught.value


def sst2(root, split="train", labels=None, **changed):
    """An SST-2 file of 40 rows (20 of each label) with some cells changed: row -> value."""
    sentences, values = ["a b", "b"] * 20, labels or [0, 1] * 20
    for row, value in changed.get("sentences", {}).items():
        sentences[row] = value
    for row, value in changed.get("cells", {}).items():
        values[row] = value
    file = root / "glue" / "sst2" / f"{split}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"sentence": sentences, "label": values}), file)
    return file


class TestTokenizers:
    """A folder whose tokenizer is not there or broken."""

    @pytest.mark.parametrize("kind", ["bert", "gpt2", "roberta", "t5"])
    def test_no_files(self, load, tmp_path, kind):
        """Transformers makes up an empty tokenizer: every word would be the unknown one."""
        sst2(tmp_path)
        sst2(tmp_path, "validation")
        folder = tmp_path / "other"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model_type": kind}))
        error = refusal(load, model__type=f"{folder}@huggingface_llm")
        assert error.field == "model.type" and "tokenizer.json" in error.remedy
        assert "special tokens" in error.problem

    @pytest.mark.parametrize(
        "content", ["", "{}", "[]", '"x"', '{"added_tokens": []}', '{"version": "1.0"']
    )
    def test_broken_files(self, load, tmp_path, model, content):
        sst2(tmp_path)
        sst2(tmp_path, "validation")
        folder = tmp_path / "other"
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "bert"}')
        (folder / "tokenizer_config.json").write_text((model / "tokenizer_config.json").read_text())
        (folder / "tokenizer.json").write_text(content)
        error = refusal(load, model__type=f"{folder}@huggingface_llm")
        assert error.field == "model.type" and "cannot be read" in error.problem


class TestGlue:
    """``TASK@glue``."""

    @pytest.mark.parametrize("text", [None, math.nan])
    def test_missing_text(self, load, tmp_path, text):
        texts = dict.fromkeys(range(40), 0.5) if text else {}
        sst2(tmp_path, "validation")
        file = sst2(tmp_path, sentences={**texts, 4: text})
        error = refusal(load)
        assert error.value == str(file) and "row 5 has no sentence" in error.problem

    @pytest.mark.parametrize("label", [7, None, -2, 0.5, math.nan, math.inf])
    def test_labels_name_their_place(self, load, tmp_path, label):
        sst2(tmp_path)
        floats = [0.0, 1.0] * 20 if isinstance(label, float) else None
        file = sst2(tmp_path, "validation", floats, cells={5: label})
        error = refusal(load)
        assert error.value == str(file) and f"row 6: the label {label}" in error.problem

    def test_a_text_that_a_hidden_row_lacks_does_not_matter(self, load, tmp_path):
        sst2(tmp_path, sentences={4: None}, cells={4: -1})
        sst2(tmp_path, "validation")
        assert load()[0][0].rows("train") == 39

    @pytest.mark.parametrize("split", ["train", "validation"])
    @pytest.mark.parametrize("content", [b"", b"PAR1 and nothing more"])
    def test_broken_parquet(self, load, tmp_path, split, content):
        for name in ("train", "validation"):
            file = sst2(tmp_path, name)
            if name == split:
                file.write_bytes(content)
                broken = str(file)
        error = refusal(load)
        assert error.value == broken and "cannot be read as Parquet" in error.problem

    def test_damaged_pages(self, load, tmp_path):
        sst2(tmp_path, "validation")
        file = sst2(tmp_path)
        content = bytearray(file.read_bytes())
        content[4:60] = bytes(56)
        file.write_bytes(content)
        assert refusal(load).value == str(file)

    @pytest.mark.parametrize(
        ("keys", "field"),
        [
            ({"data__num_labels": 5}, "data.num_labels"),
            ({"data__label_list": ["a", "b", "c"]}, "data.label_list"),
            ({"data__label_list": ["positive", "negative"]}, "data.label_list"),
        ],
    )
    def test_labels_given_otherwise(self, load, tmp_path, keys, field):
        sst2(tmp_path)
        sst2(tmp_path, "validation")
        error = refusal(load, **keys)
        assert error.field == field and "negative, positive" in error.problem

    def test_labels_given_as_they_are(self, load, tmp_path):
        sst2(tmp_path)
        sst2(tmp_path, "validation")
        names = ["negative", "positive"]
        _, cfg = load(data__num_labels=2, data__label_list=names)
        assert (cfg.data.num_labels, cfg.data.label_list) == (2, names)

    def test_a_shard_is_named(self, tmp_path):
        files = []
        for number, count in enumerate((3, 4)):
            files.append(tmp_path / f"train-0000{number}-of-00002.parquet")
            pq.write_table(pa.table({"label": [0] * count}), files[-1])
        source = FileSource(files)
        assert source.place(2) == (str(files[0]), 3)
        assert source.place(3) == (str(files[1]), 1)


class TestOwnFiles:
    """``FILE@text``."""

    @pytest.mark.parametrize(
        ("name", "content", "problem"),
        [
            ("own.csv", "text,label\n{rows}a,\n", "row 21 has no label"),
            ("own.csv", "text,label\n{rows}, \n", "row 21 has no label"),
            ("own.csv", "text,label\n{rows}\n,x\n", "row 21 has no text"),
            ("own.csv", "text,label\n{rows}a, b,x\n", r"row 21 (line 22) has 3 fields"),
            ("own.csv", "text,label\n{rows}a\n", r"row 21 (line 22) has 1 fields"),
            ("own.jsonl", '{lines}{{"text": "a", "label": ""}}', "row 21 has no label"),
            ("own.jsonl", '{lines}{{"text": "a", "label": NaN}}', "row 21 has no label"),
            ("own.jsonl", '{lines}{{"text": "a", "label": ["x"]}}', "row 21 has no label"),
            ("own.jsonl", '{lines}{{"text": "a", "label": null}}', "row 21 has no label"),
            ("own.jsonl", '{lines}{{"text": NaN, "label": "x"}}', "row 21 has no text"),
            ("own.jsonl", "{lines}\n{{oops\n", "line 22: "),
            ("own.jsonl", "{lines}[1]\n", "line 21 is no JSON object"),
            ("own.json", '{{"text": "a", "label": "x"}}', "one object, not a list"),
            ("own.json", '["a"]', "item 1 of the list"),
        ],
    )
    def test_rows(self, load, tmp_path, name, content, problem):
        lines = "".join(json.dumps({"text": "a b", "label": k}) + "\n" for k in "xy" * 10)
        rows = "".join(f"a b,{k}\n" for k in "xy" * 10)
        (tmp_path / name).write_text(content.format(rows=rows, lines=lines))
        error = refusal(load, f"{name}@text")
        assert problem in error.problem and error.value == str(tmp_path / name)

    def test_the_mark_that_spreadsheets_put_first(self, load, tmp_path):
        (tmp_path / "own.csv").write_text(
            "\ufefftext,label\n" + "a,x\nb,y\n" * 20, encoding="utf-8"
        )
        _, cfg = load("own.csv@text")
        assert cfg.data.num_labels == 2

    def test_quoted_commas_and_blank_lines_are_fine(self, load, tmp_path):
        (tmp_path / "own.csv").write_text("text,label\n" + '"a, b",x\n\nb,y\n' * 20)
        data, cfg = load("own.csv@text")
        assert cfg.data.label_list == ["x", "y"]
        assert sum(data[0].rows(split) for split in ("train", "val", "test")) == 40

    def test_number_of_labels_given_otherwise(self, load, tmp_path):
        (tmp_path / "own.csv").write_text("text,label\n" + "a,0\nb,1\na,2\n" * 20)
        error = refusal(load, "own.csv@text", data__num_labels=2)
        assert error.field == "data.num_labels" and "has 3" in error.problem

    def test_label_that_the_list_lacks(self, load, tmp_path):
        (tmp_path / "own.csv").write_text("text,label\n" + "a,x\nb,y\n" * 20 + "a,z\n")
        error = refusal(load, "own.csv@text", data__label_list=["x", "y"])
        assert "row 41: the label 'z' is none of x, y" in error.problem

    def test_names_and_numbers_together(self, load, tmp_path):
        """The number 0 is the label named 0, not the first one."""
        rows = [{"text": "a", "label": 0}, {"text": "b", "label": "-x"}] * 20
        (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        data, cfg = load("own.jsonl@text", data__splits=[1, 0, 0])
        assert cfg.data.label_list == ["-x", "0"]
        assert label_histogram(data[0].train_data) == {"0": 20, "1": 20}

    @pytest.mark.parametrize("value", ["inf", "-inf"])
    def test_infinite_targets(self, load, tmp_path, value):
        (tmp_path / "own.csv").write_text("text,label\n" + "a,0.5\n" * 20 + f"b,{value}\n")
        assert "inf" in refusal(load, "own.csv@text").problem


def test_own_texts_are_in_the_list():
    tasks = next(section for section in CATALOG if section.name == "tasks")
    assert any("FILE.csv@text" in entry.name for entry in tasks.entries())

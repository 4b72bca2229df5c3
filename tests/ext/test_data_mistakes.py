"""Mistakes in data and tokenizer files: each is one sentence with the file and the row."""

from __future__ import annotations

import csv
import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from federatedscope.core.data.utils import label_histogram
from federatedscope_ext.data.splits import split_of_files
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.tools.catalog import CATALOG


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
    def test_broken_files(self, load, tmp_path, word_model, content):
        sst2(tmp_path)
        sst2(tmp_path, "validation")
        folder = tmp_path / "other"
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "bert"}')
        (folder / "tokenizer_config.json").write_text(
            (word_model / "tokenizer_config.json").read_text()
        )
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
        places = [place for place, _ in split_of_files(files).rows(["label"])]
        assert len(places) == 7
        assert places[2:4] == [(str(files[0]), 3), (str(files[1]), 1)]

    def test_shards_that_are_not_there(self, load, tmp_path):
        sst2(tmp_path, "validation")
        sst2(tmp_path, "train-00000-of-00003-0a1b2c3d")
        sst2(tmp_path, "train-00002-of-00003-0a1b2c3d")
        error = refusal(load)
        assert "train-00002-of-00003" in error.problem and "not those of one whole" in error.problem
        sst2(tmp_path, "train-00001-of-00003-0a1b2c3d")
        assert load()[0][0].rows("train") == 120
        sst2(tmp_path, "train-00000-of-00001")
        assert "no others" in refusal(load).remedy

    @pytest.mark.parametrize("labels", [[], [-1] * 40])
    def test_no_rows(self, load, tmp_path, labels):
        sst2(tmp_path, "validation")
        file = sst2(tmp_path)
        rows = {"sentence": ["a"] * len(labels), "label": pa.array(labels, pa.int64())}
        pq.write_table(pa.table(rows), file)
        error = refusal(load)
        wanted = "there are no rows with a label" if labels else "the file has no rows"
        assert error.problem == wanted and error.value == str(file)


NEWS = ["World", "Sports", "Business", "Sci/Tech"]


def news_files(root, content, name="ag_news", suffix=".csv"):
    """Training and test file of one content."""
    for split in ("train", "test"):
        file = root / name / f"{split}{suffix}"
        file.parent.mkdir(exist_ok=True)
        file.write_text(content)
    return root / name / f"train{suffix}"


class TestNews:
    """``ag_news@text`` and ``dbpedia_14@text`` from CSV and JSON."""

    @pytest.mark.parametrize("header", ["", "Class Index,Title,Description\n"])
    def test_the_original_files(self, load, tmp_path, caplog, header):
        """Equal to the hub's version: classes from 0, the title before the text."""
        rows = "".join(f'"{i % 4 + 1}","a b","b, {i % 3}"\n' for i in range(40))
        news_files(tmp_path, header + rows)
        with caplog.at_level("INFO"):
            found, _ = load("ag_news@text", data__splits=[1, 0, 0])
        assert "read as the original file" in caplog.text and "counted from 1" in caplog.text
        texts = [f"a b b, {i % 3}" for i in range(40)]
        lines = [json.dumps({"text": t, "label": i % 4}) for i, t in enumerate(texts)]
        for split in ("train", "test"):
            (tmp_path / "ag_news" / f"{split}.csv").unlink()
        news_files(tmp_path, "\n".join(lines), suffix=".jsonl")
        wanted, _ = load("ag_news@text", data__splits=[1, 0, 0])
        for row, other in zip(found[0].test_data, wanted[0].test_data, strict=True):
            assert row["label"] == other["label"]
            assert row["input_ids"].tolist() == other["input_ids"].tolist()
        assert found[0].rows("test") == found[0].rows("train") == 40

    def test_the_original_dbpedia(self, load, tmp_path):
        rows = "".join(f'{i % 14 + 1},"a"," b b"\n' for i in range(42)) + '14,""," b"\n'
        news_files(tmp_path, rows, "dbpedia_csv")  # as its archive is unpacked
        data, _ = load("dbpedia_14@text")
        rows = data[0].test_data
        assert [row["label"] for row in rows] == [i % 14 for i in range(42)] + [13]
        assert rows[0]["input_ids"].tolist() == [2, 3, 3]
        assert rows[42]["input_ids"].tolist() == [3]

    @pytest.mark.parametrize("number", ["0", "5", "World", "1.0"])
    def test_a_class_that_the_original_has_not(self, load, tmp_path, number):
        file = news_files(tmp_path, f'1,"a","b"\n{number},"a","b"\n')
        error = refusal(load, "ag_news@text")
        assert error.value == str(file) and f"row 2 has the class '{number}'" in error.problem
        assert "from 1 to 4" in error.problem and "text,label" in error.remedy

    @pytest.mark.parametrize("first", ["0,a title,a text", "a text,World", "a;World"])
    def test_no_header_line(self, load, tmp_path, first):
        news_files(tmp_path, f"{first} {'so long ' * 40}\n" * 20)
        error = refusal(load, "ag_news@text")
        assert "its first line names none of the columns text, label" in error.problem
        assert len(error.problem) < 250
        assert "a number from 0 (World is 0, Sci/Tech is 3)" in error.remedy

    def test_another_column(self, load, tmp_path):
        news_files(tmp_path, "text,topic\na,World\n")
        error = refusal(load, "ag_news@text")
        assert error.problem == "the columns label are missing; there are text, topic"

    @pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
    def test_an_empty_file(self, load, tmp_path, suffix):
        news_files(tmp_path, "", suffix=suffix)
        error = refusal(load, "ag_news@text")
        assert error.problem == "the file is empty" and "text, label" in error.remedy

    def test_a_header_line_only(self, load, tmp_path):
        news_files(tmp_path, "text,label\n")
        assert refusal(load, "ag_news@text").problem == "the file has no rows"

    @pytest.mark.parametrize("label", ["4", 4, 4.0, -2])
    def test_numbers_from_1(self, load, tmp_path, label):
        news_files(tmp_path, json.dumps({"text": "a", "label": label}), suffix=".jsonl")
        problem = refusal(load, "ag_news@text").problem
        assert "numbers count from 0 (World is 0, Sci/Tech is 3)" in problem

    def test_names_say_nothing_of_numbers(self, load, tmp_path):
        news_files(tmp_path, "text,label\na,Weather\n")
        problem = refusal(load, "ag_news@text").problem
        assert problem == f"row 1: the label 'Weather' is none of {', '.join(NEWS)}"

    def test_nobody_has_the_first_label(self, load, tmp_path, caplog):
        news_files(tmp_path, "text,label\n" + "a,1\nb,2\n" * 20)
        load("ag_news@text")
        assert "no row is of World. Labels that are numbers count from 0" in caplog.text

    def test_a_long_text(self, load, tmp_path):
        limit = csv.field_size_limit()
        file = news_files(tmp_path, "text,label\n" + "a,0\n" * 20 + "b" * 2 * limit + ",1\n")
        assert load("ag_news@text")[0][0].rows("test") == 21
        assert csv.field_size_limit() == limit
        # Also while a file is being read.
        rows = split_of_files([file] * 2).rows(["text"])
        assert len([next(rows) for _ in range(21)]) == 21 and csv.field_size_limit() == limit

    @pytest.mark.parametrize("end", ['"b,1\n', '1,"b\n', '1,"b\n' + "a,0\n" * 9])
    def test_a_quotation_mark_that_stays_open(self, load, tmp_path, end):
        """All that follows would be one text."""
        file = news_files(tmp_path, "text,label\n" + '"a\na",0\n' * 20 + end)
        error = refusal(load, "ag_news@text")
        assert error.value == str(file) and "in line 42 a text begins with" in error.problem

    def test_an_empty_title(self, load, tmp_path, caplog):
        rows = "".join(f"{i},b,a\n" for i in range(14)) + "13,,a\n2,b,\n"
        news_files(tmp_path, "label,title,content\n" + rows, "dbpedia_14")
        with caplog.at_level("INFO"):
            assert load("dbpedia_14@text")[0][0].rows("test") == 16
        assert "1 rows have an empty title" in caplog.text

    @pytest.mark.parametrize(
        ("row", "column"), [("13,,", "title"), ("13, , ", "title"), (",b,a", "label")]
    )
    def test_an_empty_row(self, load, tmp_path, row, column):
        rows = "".join(f"{i},b,a\n" for i in range(14))
        news_files(tmp_path, f"label,title,content\n{rows}{row}\n", "dbpedia_14")
        assert f"row 15 has no {column}" in refusal(load, "dbpedia_14@text").problem


class TestFolders:
    """Where below ``data.root`` the files may be."""

    NEWS = "text,label\n" + "a,0\nb,1\na,2\nb,3\n" * 5

    @pytest.mark.parametrize(
        ("layout", "root"),
        [
            ("ag_news/data", ""),
            ("ag_news/ag_news", ""),
            ("data/ag_news/data", ""),
            ("data", ""),
            ("", ""),
            ("ag_news", "ag_news"),
            ("ag_news/data", "ag_news"),
            ("ag_news/data", "ag_news/data"),
        ],
    )
    def test_layouts_of_the_hub(self, load, tmp_path, layout, root):
        folder = tmp_path / layout
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(3):
            table = pa.table({"text": [f"{'a' * number} b"] * 8, "label": [0, 1, 2, 3] * 2})
            pq.write_table(table, folder / f"train-0000{number}-of-00003.parquet")
        pq.write_table(table, folder / "test-00000-of-00001.parquet")
        (tmp_path / "ag_news").mkdir(exist_ok=True)
        (tmp_path / "ag_news" / "README.md").write_text("News.")
        data, _ = load("ag_news@text", data__root=str(tmp_path / root))
        assert [data[0].rows(split) for split in ("train", "val", "test")] == [21, 3, 8]

    def test_a_folder_of_the_name_comes_first(self, load, tmp_path):
        for name, count in (("", 9), ("data", 8), ("glue/sst2/data", 7), ("data/sst2", 6)):
            for split in ("train", "validation"):
                (tmp_path / name).mkdir(parents=True, exist_ok=True)
                table = pa.table({"sentence": ["a"] * count, "label": [0, *[1] * (count - 1)]})
                pq.write_table(table, tmp_path / name / f"{split}.parquet")
        for folder, count in (("data/sst2", 6), ("glue/sst2/data", 7), ("data", 8), ("", 9)):
            assert load()[0][0].rows("train") == count
            for split in ("train", "validation"):
                (tmp_path / folder / f"{split}.parquet").unlink()

    @pytest.mark.parametrize(
        ("files", "problem"),
        [
            ({"ag_news/news.csv": NEWS, "ag_news/x/a": ""}, "ag_news has no train or test split, "
             "only news.csv, x/"),
            ({"train.csv": NEWS}, " has no test split"),
            ({"train.csv": "sentence,label\n", "test.csv": NEWS}, "train.csv has the columns "
             "sentence, label, not text, label"),
            ({"train.csv": "", "test.csv": NEWS}, "train.csv has the columns none"),
            ({"train.json": "{}", "test.csv": NEWS}, "train.json: the file cannot be read"),
            ({"agnews/train.csv": NEWS}, "no {root}/ag_news; only agnews/"),
        ],
    )  # fmt: skip
    def test_what_is_there_instead(self, load, tmp_path, files, problem):
        root = tmp_path / "root"
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(content)
        error = refusal(load, "ag_news@text", data__root=str(root))
        assert error.field == "data.root" and problem.format(root=root) in error.problem

    def test_no_folder(self, load, tmp_path):
        problem = refusal(load, "ag_news@text", data__root=str(tmp_path / "no")).problem
        assert f"no {tmp_path}/no/ag_news; there is no such folder" in problem


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

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            ("", "the file is empty"),
            ("text,label\n", "the file has no rows"),
            ("a,x\n" * 20, "columns are a, x (the first line of a CSV file has to name them)"),
            ("text,topic\na,x\n", "columns are text, topic"),
        ],
    )
    def test_no_rows_or_no_header(self, load, tmp_path, content, problem):
        (tmp_path / "own.csv").write_text(content)
        assert refusal(load, "own.csv@text").problem.endswith(problem)

    def test_an_empty_half_of_a_pair(self, load, tmp_path):
        (tmp_path / "own.csv").write_text("sentence1,sentence2,label\n" + "a,,x\nb,a,y\n" * 20)
        assert load("own.csv@text", data__splits=[1, 0, 0])[0][0].rows("train") == 40

    @pytest.mark.parametrize("value", ["inf", "-inf"])
    def test_infinite_targets(self, load, tmp_path, value):
        (tmp_path / "own.csv").write_text("text,label\n" + "a,0.5\n" * 20 + f"b,{value}\n")
        assert "inf" in refusal(load, "own.csv@text").problem


def test_own_texts_are_in_the_list():
    tasks = next(section for section in CATALOG if section.name == "tasks")
    assert any("FILE@text" in entry.name for entry in tasks.entries())

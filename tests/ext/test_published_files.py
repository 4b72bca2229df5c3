"""Files as users have them: texts that are none, folders of save_to_disk, GLUE's own TSV files."""

from __future__ import annotations

import gzip
import json
import shutil

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from federatedscope.core.data.utils import labels_of
from federatedscope_ext.data.glue_tsv import FOLDERS
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.tasks import GLUE_TASKS


def refusal(load, *args, **keys):
    with pytest.raises(ExtensionError) as caught:
        load(*args, **keys)
    assert "\n" not in str(caught.value) and caught.value.is_user_error
    return caught.value


@pytest.mark.parametrize(
    ("value", "kind"),
    [(["a", "b"], "a list"), (b"a", "bytes"), ({"a": "b"}, "an object"), ([], "a list")],
)
@pytest.mark.parametrize("name", ["own.parquet", "own.jsonl", "own"])
def test_a_text_that_is_none(load, tmp_path, name, value, kind):
    texts, labels = ["a"] * 20, [0, 1] * 10
    if name == "own.jsonl":
        if isinstance(value, bytes):
            return
        rows = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
        rows[2]["text"] = value
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        place = 3
    else:
        table = pa.table({"text": [value] * 20, "label": labels})
        if name == "own":
            datasets.Dataset(table).save_to_disk(tmp_path / name)
        else:
            pq.write_table(table, tmp_path / name)
        place = 1
    error = refusal(load, f"{name}@text")
    assert error.problem == f"row {place}: the text is {kind}, not a text"
    assert error.value == str(tmp_path / name)


def test_numbers_as_texts(load, tmp_path):
    pq.write_table(
        pa.table({"text": [1.5, 2] * 20, "label": [0, 1] * 20}), tmp_path / "own.parquet"
    )
    assert load("own.parquet@text", data__splits=[1, 0, 0])[0][0].rows("train") == 40


@pytest.mark.parametrize("header", ["text,label,text", "label,text,label", "text,label,Text ,text"])
def test_a_used_column_that_is_there_twice(load, tmp_path, header):
    rows = f"{','.join('a' for _ in header.split(','))}\n" * 20
    (tmp_path / "own.csv").write_text(f"{header}\n{rows}")
    assert " columns are called " in refusal(load, "own.csv@text").problem


@pytest.mark.parametrize(
    "other", ["train.csv", "train.JSONL", "train.csv.gz", "train-00000-of-00001.parquet", "train/"]
)
def test_two_files_of_one_split(load, tmp_path, other):
    table = pa.table({"sentence": ["a", "b"] * 10, "label": [0, 1] * 10})
    for split in ("train", "validation"):
        pq.write_table(table, tmp_path / f"{split}.parquet")
    assert load()[0][0].rows("train") == 20
    folder = tmp_path / "glue" / "sst2"
    folder.mkdir(parents=True)
    for file in tmp_path.glob("*.parquet"):
        file.rename(folder / file.name)
    if other == "train/":
        datasets.Dataset(table).save_to_disk(folder / "train")
    else:
        (folder / other).write_text("")
    error = refusal(load)
    assert "the train split is there more than once: " in error.problem
    assert "train.parquet" in error.problem and other.rstrip("/") in error.problem


class TestSavedFolders:
    """What ``save_to_disk`` writes."""

    @pytest.mark.parametrize(
        ("splits", "rows"),
        [
            ({"": 40}, (32, 4, 4)),
            ({"train": 40}, (32, 4, 4)),
            ({"train": 36, "test": 10}, (32, 4, 10)),
            ({"train": 20, "validation": 6, "test": 10}, (20, 6, 10)),
            ({"train": 20, "validation": 6, "unsupervised": 9}, (20, 6, 0)),
            ({"train": 20, "dev": 6, "test": 10}, (20, 6, 10)),
            ({"train": 20, "val": 6}, (20, 6, 0)),
        ],
    )
    def test_own(self, load, tmp_path, splits, rows, caplog):
        parts = {
            name: datasets.Dataset.from_dict({"text": ["a"] * n, "label": ["x", "y"] * (n // 2)
                                              + ["x"] * (n % 2)})
            for name, n in splits.items()
        }  # fmt: skip
        saved = parts[""] if "" in parts else datasets.DatasetDict(parts)
        saved.save_to_disk(tmp_path / "own")
        data, cfg = load("own@text")
        assert tuple(data[0].rows(split) for split in ("train", "val", "test")) == rows
        assert cfg.data.label_list == ["x", "y"]
        assert ("unsupervised" in caplog.text) == ("unsupervised" in splits)

    @pytest.mark.parametrize("labels", [{"label": [-1] * 5}, {"label": [None] * 5}, {}])
    def test_labels_that_are_kept_back(self, load, tmp_path, labels, caplog):
        train = datasets.Dataset.from_dict({"text": ["a"] * 20, "label": [0, 1] * 10})
        test = datasets.Dataset.from_dict({"text": ["a"] * 5} | labels)
        parts = {"train": train, "valid": train.select(range(6)), "test": test}
        datasets.DatasetDict(parts).save_to_disk(tmp_path / "own")
        data, _ = load("own@text")
        assert [data[0].rows(split) for split in ("train", "val", "test")] == [20, 6, 0]
        assert "test: its rows have no labels; it is not used" in caplog.text
        ((where, rows, reason),) = [one for one in data[0].train_data.left_out if one[1]]
        assert (where, rows, reason) == ("test rows", 5, "no label")

    def test_validation_rows_twice(self, load, tmp_path):
        part = datasets.Dataset.from_dict({"text": ["a", "b"], "label": ["x", "y"]})
        names = ("train", "dev", "validation")
        datasets.DatasetDict(dict.fromkeys(names, part)).save_to_disk(tmp_path / "own")
        assert "more than once: validation, dev" in refusal(load, "own@text").problem

    def test_no_training_rows(self, load, tmp_path):
        part = datasets.Dataset.from_dict({"text": ["a"], "label": ["x"]})
        datasets.DatasetDict({"dev": part, "test": part}).save_to_disk(tmp_path / "own")
        assert "no train split, only dev, test" in refusal(load, "own@text").problem
        (tmp_path / "other").mkdir()
        assert "none that Dataset.save_to_disk" in refusal(load, "other@text").problem

    @pytest.mark.parametrize("folder", ["", "glue/sst2", "sst2"])
    def test_glue(self, load, tmp_path, folder):
        parts = {
            split: datasets.Dataset.from_dict(
                {"sentence": ["a"] * rows, "label": [i % 2 for i in range(rows)]}
            )
            for split, rows in (("train", 20), ("validation", 6), ("test", 9))
        }
        datasets.DatasetDict(parts).save_to_disk(tmp_path / "root" / folder)
        data, _ = load(data__root=str(tmp_path / "root"))
        assert [data[0].rows(split) for split in ("train", "val")] == [20, 6]
        pq.write_table(parts["train"].data.table, tmp_path / "root" / folder / "train.parquet")
        assert "more than once: train.parquet, train" in str(refusal(load, data__root=str(
            tmp_path / "root")))  # fmt: skip


# Header of GLUE's own files, and a line with both texts, in which {} is the label.
TSV = {
    "cola": ("", "gj04\t{}\t*\ta b"),
    "sst2": ("sentence\tlabel", "a b \t{}"),
    "mrpc": ("\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String", "{}\t7\t8\ta\tb"),
    "stsb": ("index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\t"
             "sentence1\tsentence2\tscore",
             "0\tmain\tMSR\t2012\t1\tnone\tnone\ta\tb\t{}"),
    "qqp": ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "1\t2\t3\ta\tb\t{}"),
    "mnli": ("index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t"
             "sentence1_parse\tsentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label",
             "0\t1\t1n\tfiction\t( x\t( x\t(x\t(x\ta\tb\tx\t{}"),
    "qnli": ("index\tquestion\tsentence\tlabel", "0\ta\tb\t{}"),
    "rte": ("index\tsentence1\tsentence2\tlabel", "0\ta\tb\t{}"),
    "wnli": ("index\tsentence1\tsentence2\tlabel", "0\ta\tb\t{}"),
}  # fmt: skip
NAMED = ("mnli", "qnli", "rte")


def tsv(task, rows):
    """A file of GLUE, labels in turn."""
    header, line = TSV[task]
    labels = GLUE_TASKS[task].labels if task in NAMED else ("0", "1")
    labels = ("0.0", "2.500") if task == "stsb" else labels
    lines = [line.format(labels[i % len(labels)]) for i in range(rows)]
    return "\n".join([*([header] if header else []), *lines]) + "\n"


class TestGlueTsv:
    """The files of the GLUE archive."""

    @pytest.mark.parametrize("task", GLUE_TASKS)
    @pytest.mark.parametrize("top", ["", "glue_data", "name"])
    def test_every_task(self, load, tmp_path, task, top, caplog):
        folder = tmp_path / top / (task if top == "name" else FOLDERS.get(task, task.upper()))
        folder = tmp_path / task if top == "name" else folder
        folder.mkdir(parents=True)
        (folder / "train.tsv").write_text(tsv(task, 30), encoding="utf-8")
        for name in ("dev_matched", "dev_mismatched") if task == "mnli" else ("dev",):
            (folder / f"{name}.tsv").write_text(tsv(task, 12), encoding="utf-8")
        (folder / "test.tsv").write_text("index\tsentence\n0\ta\n")
        with caplog.at_level("INFO"):
            data, cfg = load(f"{task}@glue")
        assert [data[0].rows(split) for split in ("train", "val")] == [30, 12]
        assert "read as GLUE's own file" in caplog.text
        labels = (0.0, 2.5) if task == "stsb" else range(cfg.data.num_labels)
        expected = [labels[i % len(labels)] for i in range(30)]
        assert [float(label) for label in labels_of(data[0].train_data)] == expected
        assert data[0].train_data[0]["input_ids"].tolist() == [2, 3]

    def test_marks_and_lines_that_break_off(self, load, tmp_path):
        """As the hub's version: marks are text; a row without all columns has no label."""
        folder = tmp_path / "QQP"
        folder.mkdir()
        odd = '1\t2\t3\t"a\tb"\t1\n1\t2\t3\t"a\n'
        (folder / "train.tsv").write_text(tsv("qqp", 20) + odd + '1\t2\t3\t"a"\t"b"\t0\n')
        (folder / "dev.tsv").write_text(tsv("qqp", 10))
        data, _ = load("qqp@glue")
        assert data[0].rows("train") == 22
        # '"a', 'b"' and '"a"' are words that the tokenizer does not know.
        assert data[0].train_data[20]["input_ids"].tolist() == [1, 1]
        assert data[0].train_data[21]["input_ids"].tolist() == [1, 1]

    def test_a_gold_label_that_nobody_agreed_on(self, load, tmp_path):
        folder = tmp_path / "MNLI"
        folder.mkdir()
        for name in ("train", "dev_matched"):
            (folder / f"{name}.tsv").write_text(tsv("mnli", 30) + TSV["mnli"][1].format("-") + "\n")
        data, _ = load("mnli@glue")
        assert [data[0].rows(split) for split in ("train", "val")] == [30, 30]

    @pytest.mark.parametrize("name", ["validation", "dev", "val", "valid"])
    @pytest.mark.parametrize("form", ["{}.jsonl", "{}-00000-of-00001.jsonl.gz", "{}.JSON"])
    def test_names_of_files(self, load, tmp_path, name, form):
        (tmp_path / "sst2").mkdir()
        rows = "".join(f'{{"sentence": "a", "label": {i % 2}}}\n' for i in range(6)).encode()
        for split in ("train", name):
            file = tmp_path / "sst2" / form.format(split)
            file.write_bytes(gzip.compress(rows) if file.suffix == ".gz" else rows)
        assert [load("sst2@glue")[0][0].rows(split) for split in ("train", "val")] == [6, 6]
        (tmp_path / "sst2" / "dev.csv").write_text("sentence,label\n")
        error = refusal(load, "sst2@glue")
        assert "validation split is there more than once" in error.problem

    def test_the_folder_itself(self, load, tmp_path):
        (tmp_path / "train.tsv").write_text(tsv("cola", 20))
        (tmp_path / "dev.tsv").write_text(tsv("cola", 8))
        assert load("cola@glue")[0][0].rows("val") == 8
        shutil.move(tmp_path / "dev.tsv", tmp_path / "dev.csv")
        assert "sentence" in refusal(load, "cola@glue").problem

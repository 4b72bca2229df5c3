"""Rows of files: the same whatever the format, and mistakes as the error of those who read."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedfiles.readers import (
    FileError,
    column_names,
    not_text,
    own_file,
    raised_as,
    read_rows,
    saved_splits,
)
from fedlora.errors import FieldError

ROWS = [{"text": f'so, "{i}"\nand on', "label": str(i % 3)} for i in range(2500)]


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    if file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
        return file
    opener: Any = gzip.open if file.suffix == ".gz" else open
    with opener(file, "wt", encoding="utf-8", newline="") as stream:
        if ".csv" in file.name:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        elif ".jsonl" in file.name:
            stream.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            json.dump(rows, stream)
    return file


@pytest.mark.parametrize(
    "name", ["a.parquet", "a.json", "a.jsonl", "a.csv", "a.json.gz", "a.jsonl.gz", "a.csv.gz"]
)
def test_every_format_has_the_same_rows(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / name, ROWS)
    assert list(read_rows(file)) == ROWS
    assert column_names(file) == ["text", "label"]


def test_only_the_columns_that_are_asked_for(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", ROWS)
    assert list(read_rows(file, ["label"])) == [{"label": row["label"]} for row in ROWS]
    with pytest.raises(FileError, match="has no column idx"):
        list(read_rows(file, ["label", "idx"]))


def test_a_first_line_that_is_a_row(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("1,a,b\n\n2,c,d\n")
    rows = list(read_rows(file, headerless=lambda first: first[0] == "1"))
    assert [list(row.values()) for row in rows] == [["1", "a", "b"], ["2", "c", "d"]]
    file.write_text("1,a,b\n2,c\n")
    with pytest.raises(FileError, match=r"row 2 \(line 2\) has 2 fields, the first line has 3"):
        list(read_rows(file, headerless=lambda first: True))


def test_mistakes_are_those_of_the_floor_above(tmp_path: Path) -> None:
    class Above(FieldError):
        """An error of those who read."""

    for name in ("a.json", "a.csv", "a.parquet", "a.jsonl.gz"):
        (tmp_path / name).write_bytes(b'{"a\xff')
        with pytest.raises(Above, match="cannot be read") as caught, raised_as(Above):
            list(read_rows(tmp_path / name))
        assert caught.value.value == str(tmp_path / name) and caught.value.remedy


def test_own_files(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", ROWS)
    assert own_file(str(tmp_path), "a.csv", "text") == own_file("", str(file), "text") == file
    with pytest.raises(FileError, match=r"b\.csv@text.*there is no file") as caught:
        own_file(str(tmp_path), "b.csv", "text")
    assert caught.value.field == "data.type"


PLAIN = [{"text": f"so, {i}; on", "label": str(i % 3)} for i in range(60)]


@pytest.mark.parametrize(
    ("name", "separator"),
    [("a.csv", ";"), ("a.csv", "\t"), ("a.csv", "|"), ("a.tsv", "\t"), ("a.tsv", ","),
     ("A.CSV", ","), ("A.Csv.GZ", ";"), ("a.tsv.gz", "\t")],
)  # fmt: skip
def test_separators_are_found(
    tmp_path: Path, name: str, separator: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / name
    opener: Any = gzip.open if name.lower().endswith(".gz") else open
    with opener(file, "wt", newline="") as stream:
        writer = csv.writer(stream, delimiter=separator)
        writer.writerows([["text", "label"], *(row.values() for row in PLAIN)])
    with caplog.at_level("INFO"):
        assert column_names(file) == ["text", "label"]
    words = {";": "semicolons", "\t": "tabs", "|": "vertical bars", ",": "commas"}
    expected = separator == ("\t" if ".tsv" in name else ",")
    assert expected == (not caplog.text) and (expected or words[separator] in caplog.text)
    assert list(read_rows(file)) == PLAIN


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_marks_that_are_a_part_of_the_text(tmp_path: Path, ending: str) -> None:
    """Some programs divide by tabs and quote nothing, others quote as in CSV."""
    file = tmp_path / "a.tsv"
    lines = ["text\tlabel", '"So" he said\t1', '" open\t0', "", '"whole"\t1']
    file.write_bytes(ending.join(lines).encode())
    wanted = ['"So" he said', '" open', '"whole"']
    assert [row["text"] for row in read_rows(file)] == wanted
    file.write_text('text\tlabel\n"a ""b"""\t1\n"c\td"\t0\n"e\nf"\t0\n')
    assert [row["text"] for row in read_rows(file)] == ['a "b"', "c\td", "e\nf"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "Text, label\nb, 1\n"),
        ("a.csv", '\ufeff text ,LABEL\nb,1\n'),
        ("a.csv", 'text, label\n"b", 1\n'),
        ("a.jsonl", '{" text": "b", "Label ": "1"}'),
        ("a.json", '[{"TEXT": "b", "label": "1"}]'),
    ],
)  # fmt: skip
def test_names_as_people_write_them(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert column_names(tmp_path / name) == ["text", "label"]
    assert [*read_rows(tmp_path / name)] == [{"text": "b", "label": "1"}]


def test_names_of_tables(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", [{" Text": "b", "Label": 1, "x": None}])
    assert column_names(file) == ["text", "label", "x"]
    assert [*read_rows(file, ["label", "text"])] == [{"text": "b", "label": 1}]
    file = write(tmp_path / "b.parquet", [{"Text": "a", "text": "b"}])
    assert column_names(file) == ["Text", "text"]
    with pytest.raises(FileError, match="2 columns are called text"):
        list(read_rows(file, ["text"]))


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet"])
def test_two_columns_of_one_name(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if name == "a.parquet":
        columns = [pa.array(["b"]), pa.array([1]), pa.array(["z"]), pa.array([2]), pa.array([2])]
        pq.write_table(pa.Table.from_arrays(columns, ["text", "label", "text", "x", "x"]), file)
    elif "json" in name:
        row = '{"text": "b", "label": 1, "text": "z", "x": {"a": 1, "a": 2}, "x": 2}'
        file.write_text(f"[{row}]" if name == "a.json" else row)
    else:
        lines = "text,label, text,x,x,,\nb,1,z,2,2,,\n"
        file.write_text(lines.replace(",", "\t") if name == "a.tsv" else lines)
    with pytest.raises(FileError, match=r"2 columns are called text \(columns 1, 3\)"):
        list(read_rows(file, ["text", "label"]))
    assert [str(row["label"]) for row in read_rows(file, ["label"])] == ["1"]


def test_the_message_has_the_separator(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text;label\n" + "b;1\n" * 60 + "b; c;1\n")
    with pytest.raises(FileError, match=r"61 .* has 3 fields") as caught:
        list(read_rows(tmp_path / "a.csv"))
    assert '"so; so";1' in caught.value.remedy
    (tmp_path / "a.csv").write_text("text;label\n" + "b;1\n" * 60 + "b\nc;1\n")
    with pytest.raises(FileError, match=r"61 .* has 1 fields.*a text with a line break"):
        list(read_rows(tmp_path / "a.csv"))


@pytest.mark.parametrize(
    "content",
    [
        'sep=;\ntext;label\nb, c;1\n',
        '"sep=,"\r\ntext,label\r\n"b, c",1\r\n',
        'text,label\n  \n"b, c",1\n \n',
    ],
)  # fmt: skip
def test_lines_that_are_no_rows(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.csv").write_text(content, newline="")
    assert column_names(tmp_path / "a.csv") == ["text", "label"]
    assert [*read_rows(tmp_path / "a.csv")] == [{"text": "b, c", "label": "1"}]
    (tmp_path / "a.csv").write_text(content + "d;e;f;g,h,i\n", newline="")
    with pytest.raises(FileError, match=f"line {content.count(chr(10)) + 1}"):
        list(read_rows(tmp_path / "a.csv"))


def test_marks_after_a_backslash(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "a.csv"
    file.write_text('text,label\n"he said \\"so, so\\" to me",1\n"b \\n",0\n')
    with caplog.at_level("INFO"):
        column_names(file)
    assert '\\" is a quotation mark' in caplog.text
    assert [row["text"] for row in read_rows(file)] == ['he said "so, so" to me', "b \\n"]
    # Here it ends the field, or is a part of one without marks.
    file.write_text('text,label\n"C:\\",1\n"a ""b\\""",0\nb \\"c\\" d,0\n')
    assert [row["text"] for row in read_rows(file)] == ["C:\\", 'a "b\\"', 'b \\"c\\" d']


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.JSON.gz"])
@pytest.mark.parametrize("form", ["list", "lines", "indented"])
def test_json_is_read_by_what_is_in_it(tmp_path: Path, name: str, form: str) -> None:
    """``to_json`` of pandas and of datasets write either form under either name."""
    rows: list[dict[str, Any]] = [{"text": "a\u2028b"}, {"text": "c", "Label": 1}]
    texts = [json.dumps(row, ensure_ascii=False) for row in rows]
    text = "\n" + "\n".join(texts) if form == "lines" else json.dumps(rows, indent=form != "list")
    content = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert [*read_rows(tmp_path / name)] == [{"text": "a\u2028b"}, {"text": "c", "label": 1}]
    # Keys that only later rows have are columns too.
    assert column_names(tmp_path / name) == ["text", "label"]


def test_lines_of_json_keep_their_numbers(tmp_path: Path) -> None:
    for name in ("a.json", "a.jsonl"):
        (tmp_path / name).write_text('\n{"a": 1}\n\n{"a": }\n')
        with pytest.raises(FileError, match="line 4"):
            list(read_rows(tmp_path / name))
    (tmp_path / "a.json").write_text('{"text": {"0": "a"}}')
    with pytest.raises(FileError, match=r"it holds one object.*orient='records'"):
        list(read_rows(tmp_path / "a.json"))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json.gz"])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"PAR1 and on", "it is Parquet"),
        (b"PK\x03\x04 and on", "it is a zip file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("text".encode("utf-16-le"), "Save the file as UTF-8"),
        ("text".encode("utf-16"), "Save the file as UTF-8"),
    ],
)
def test_files_of_another_kind(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=told):
        list(read_rows(tmp_path / name))


def test_gzip_is_known_by_its_content(tmp_path: Path) -> None:
    content = b"text,label\nb,1\n"
    (tmp_path / "a.csv").write_bytes(gzip.compress(content))
    (tmp_path / "a.csv.gz").write_bytes(content)
    for name in ("a.csv", "a.csv.gz"):
        assert [*read_rows(tmp_path / name)] == [{"text": "b", "label": "1"}]


def test_half_a_character_is_no_text() -> None:
    assert not_text("\ud83d") and not_text("a \udc00") and not_text([])
    assert not not_text("\U0001f600") and not not_text("") and not not_text(1.5)


def test_saved_folders(tmp_path: Path) -> None:
    import datasets

    data = datasets.Dataset.from_list([{"Text": "b", "label": i} for i in range(5)])
    parts = {"train": data.with_format("torch"), "test": data.select([3, 1])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "both")
    found = saved_splits(tmp_path / "both")
    assert [*found] == ["test", "train"] and not saved_splits(tmp_path)
    assert column_names(found["train"]) == ["text", "label"]
    assert [*read_rows(found["train"], ["label"])] == [{"label": i} for i in range(5)]
    assert [*read_rows(found["test"])] == [{"text": "b", "label": 3}, {"text": "b", "label": 1}]
    assert own_file(str(tmp_path), "both", "text") == tmp_path / "both"
    assert saved_splits(tmp_path / "both" / "test") == {"": tmp_path / "both" / "test"}
    with pytest.raises(FileError, match="is a folder, and none that"):
        own_file("", str(tmp_path), "text")
    next((tmp_path / "both" / "train").glob("*.arrow")).write_bytes(b"no arrow")
    with pytest.raises(FileError, match="cannot be read as a data set of save_to_disk"):
        list(read_rows(found["train"]))

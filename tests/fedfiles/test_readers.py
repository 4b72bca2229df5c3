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

from fedfiles.readers import FileError, column_names, own_file, raised_as, read_rows
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

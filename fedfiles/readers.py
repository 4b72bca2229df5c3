"""Rows of Parquet, JSON, JSON-lines and CSV files: one function a format, in the files' order.

Mistakes are a :class:`FileError` with the file and the row; each floor above gives it the type of
its own errors with :func:`raised_as`.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from fedlora.errors import FieldError

__all__ = [
    "PIECE", "FileError", "Row", "column_names", "file_error", "format_of", "own_file", "raised_as",
    "read_rows", "reading_parquet", "reading_text", "shown",
]  # fmt: skip

Row = dict[str, Any]

# Rows that are worked on at a time.
PIECE = 2000
# The csv module refuses longer fields than 131,072 characters. As much as fits its C long anywhere.
LONGEST_FIELD = 2**31 - 1
# A last line of our own. When it comes back as a part of a row, a quotation mark was left open.
_END = "\ufffe end of the file \ufffe"
_TEXT = "Use a list of JSON objects (.json), or one JSON object a line (.jsonl)"
_CSV = "Use CSV with a header line and commas between the fields"


class FileError(FieldError):
    """A file cannot be used; ``value`` is its path."""


@contextmanager
def raised_as(kind: type[FieldError], field: str = "") -> Iterator[None]:
    """Errors of files as errors of another type, that of the floor which reads them.

    Parameters
    ----------
    kind : type
        The type.
    field : str
        The key that says where the files are, if it is not ``data.type``.
    """
    try:
        yield
    except FileError as error:
        raise kind(field or error.field, error.value, error.problem, error.remedy) from error


def file_error(file: Path | str, problem: str, remedy: str) -> FileError:
    """What is wrong with a file, and what to do about it."""
    return FileError("data.type", str(file), problem, remedy)


def own_file(root: str, name: str, kind: str) -> Path:
    """A file that ``data.type`` names, as it is or below ``data.root``.

    Raises
    ------
    FileError
        It is in neither place; ``value`` is ``NAME@KIND``.
    """
    path = Path(name).expanduser()
    candidates = [path] if path.is_absolute() else [Path(root).expanduser() / path, path]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise file_error(
        f"{name}@{kind}",
        f"there is no file {' or '.join(map(str, candidates))}",
        "Give the path in data.type, or its folder in data.root",
    )


def format_of(file: Path) -> str:
    """The suffix that tells how to read a file, below that of a compression."""
    return Path(file.stem).suffix if file.suffix == ".gz" else file.suffix


def read_rows(
    file: Path,
    columns: Sequence[str] | None = None,
    headerless: Callable[[Sequence[str]], bool] | None = None,
) -> Iterator[Row]:
    """The rows of a file.

    Parameters
    ----------
    file : path
        ``.parquet``, ``.json`` (a list of objects) or ``.csv``; else one JSON object a line. Text
        may be compressed (``.gz``).
    columns : sequence of str, optional
        Read these only, where the format can.
    headerless : callable, optional
        Whether the first line of a CSV file is a row. Its columns are then called 1, 2, ...

    Raises
    ------
    FileError
        The file is damaged or in another format.
    """
    if format_of(file) == ".parquet":
        yield from _parquet(file, columns)
        return
    with _open_text(file) as stream:
        if format_of(file) == ".csv":
            yield from _csv(file, stream, headerless)
        elif format_of(file) == ".json":
            yield from _json(file, json.load(stream))
        else:
            yield from _json_lines(file, stream)


def column_names(file: Path) -> list[str]:
    """Names of the columns: those of the table, the first line of CSV, the first JSON object's."""
    if format_of(file) == ".parquet":
        import pyarrow.parquet

        with reading_parquet(file):
            return list(pyarrow.parquet.read_schema(file).names)
    if format_of(file) == ".csv":
        with _open_text(file) as stream:
            return next(_csv_lines(file, stream), (0, []))[1]
    return list(next(read_rows(file), {}))


@contextmanager
def reading_text(file: Path, remedy: str = "") -> Iterator[None]:
    """Say which file cannot be read as text, and why.

    Parameters
    ----------
    file : path
        What is read in the block.
    remedy : str
        What to do about it; by default, which formats there are.

    Raises
    ------
    FileError
        It is damaged, in another format, or not in UTF-8.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        raise _unreadable(file, f"{error}", "Save the file as UTF-8") from error
    # A gzip file that breaks off is an EOFError, one with damaged content a zlib.error.
    except (
        csv.Error, json.JSONDecodeError, RecursionError, gzip.BadGzipFile, EOFError, zlib.error,
    ) as error:  # fmt: skip
        raise _unreadable(file, f"{error}", remedy) from error


@contextmanager
def reading_parquet(
    file: Path, remedy: str = "Copy or download it again, or write it anew"
) -> Iterator[None]:
    """The same for Parquet."""
    import pyarrow

    try:
        yield
    # Damaged pages are an OSError, anything else that is no Parquet an ArrowException.
    except (pyarrow.lib.ArrowException, OSError) as error:
        raise file_error(file, f"the file cannot be read as Parquet ({error})", remedy) from error


def _unreadable(file: Path, problem: str, remedy: str = "") -> FileError:
    usual = _CSV if format_of(file) == ".csv" else _TEXT
    return file_error(file, f"the file cannot be read ({problem})", remedy or usual)


@contextmanager
def _open_text(file: Path) -> Iterator[TextIO]:
    opener: Any = gzip.open if file.suffix == ".gz" else open
    newline = "" if format_of(file) == ".csv" else None
    # Spreadsheets put a byte order mark first.
    with reading_text(file), opener(file, "rt", encoding="utf-8-sig", newline=newline) as stream:
        yield stream


def _parquet(file: Path, columns: Sequence[str] | None) -> Iterator[Row]:
    import pyarrow.parquet

    with reading_parquet(file), pyarrow.parquet.ParquetFile(file) as table:
        missing = [name for name in columns or () if name not in table.schema_arrow.names]
        if missing:
            raise file_error(
                file,
                f"this shard has no column {', '.join(missing)}, which another one has",
                "Give all shards of a split the same columns",
            )
        for piece in table.iter_batches(PIECE, columns=None if columns is None else [*columns]):
            yield from piece.to_pylist()


def _json(file: Path, content: Any) -> Iterator[Row]:
    """Objects of a JSON file, which has to be a list of them."""
    if not isinstance(content, list):
        kind = "one object" if isinstance(content, dict) else "one value"
        raise _unreadable(file, f"it holds {kind}, not a list")
    for number, value in enumerate(content, start=1):
        if not isinstance(value, dict):
            raise _unreadable(file, f"item {number} of the list is no JSON object")
        yield value


def _json_lines(file: Path, stream: Iterable[str]) -> Iterator[Row]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            # The parser has seen one line only; the user has to find it among all.
            raise _unreadable(file, f"line {number}: {error.msg}, column {error.colno}") from error
        if not isinstance(value, dict):
            raise _unreadable(file, f"line {number} is no JSON object")
        yield value


def _csv(
    file: Path, stream: Iterable[str], headerless: Callable[[Sequence[str]], bool] | None
) -> Iterator[Row]:
    """Rows with as many fields as the first line has."""
    lines = _csv_lines(file, stream)
    line, names = next(lines, (0, []))
    first = "header"
    if headerless is not None and headerless(names):
        lines, first = chain([(line, names)], lines), "first line"
        names = [str(i + 1) for i in range(len(names))]
    for row, (line, fields) in enumerate(lines, start=1):
        if len(fields) != len(names):
            # A comma in a text that is not quoted would make a piece of the text the label.
            raise file_error(
                file,
                f"row {row} (line {line}) has {len(fields)} fields, the {first} has {len(names)}",
                'Write a text that has a comma in it between quotation marks: "so, so",1',
            )
        yield dict(zip(names, fields, strict=True))


def _csv_lines(file: Path, stream: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """The lines of a file that are not blank: the number of each and its fields."""
    reader = csv.reader(chain(stream, [_END]))
    first = 1
    while (fields := _next(reader)) != [_END]:
        if fields and fields[-1].endswith(_END):
            # All rows up to the end of the file would pass for one text.
            raise file_error(
                file,
                f'in line {first} a text begins with a quotation mark (") and never ends',
                "Close it with another one; within a text write two of them",
            )
        if fields:
            yield reader.line_num, fields
        first = reader.line_num + 1


def _next(reader: Any) -> list[str]:
    """The next line. The limit is one of the whole process, so it is put back each time."""
    before = csv.field_size_limit(LONGEST_FIELD)
    try:
        return list(next(reader))
    finally:
        csv.field_size_limit(before)


def shown(names: Iterable[str], length: int = 40, most: int = 8) -> str:
    """Names in a list, long ones cut: they may be the text of a row."""
    every = [name if len(name) <= length else f"{name[:length]}..." for name in names]
    return ", ".join([*every[:most], *(["..."] if len(every) > most else [])])

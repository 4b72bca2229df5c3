"""Where the text comes from: files or a data set of the hub, read in pieces."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

from federatedscope_ext.data.csv_rows import OriginalLayout, csv_header, csv_rows, shown
from federatedscope_ext.errors import ExtensionError

__all__ = ["SUFFIXES", "FileSource", "HubSource", "Source", "find_split"]

logger = logging.getLogger(__name__)

PIECE = 2000
SUFFIXES = (".parquet", ".jsonl", ".json", ".csv")

Columns = dict[str, list[Any]]


class Source(Protocol):
    """Rows of one split."""

    name: str

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""

    def fingerprint(self) -> str:
        """A text that changes with the content."""

    def pieces(self, columns: Sequence[str]) -> Iterator[Columns]:
        """The rows of some columns, a few thousand at a time."""

    def place(self, row: int) -> tuple[str, int]:
        """Where row ``row`` (from 0) stands: a file, and the row's number there (from 1)."""


def find_split(folder: Path, split: str) -> list[Path]:
    """Files of a split: ``SPLIT.parquet`` (.jsonl, .csv) or the shards ``SPLIT-*.parquet``."""
    for suffix in SUFFIXES:
        file = folder / f"{split}{suffix}"
        if file.is_file():
            return [file]
    files = sorted(folder.glob(f"{split}-*-of-*.parquet"))
    _refuse_incomplete(files, split)
    return files


def _refuse_incomplete(files: Sequence[Path], split: str) -> None:
    """Refuse shards of which some are not there: a part of the rows would pass for all."""
    numbers: dict[int, list[int]] = {}
    for file in files:
        # A name may end with a hash of the content, as in older data sets of the hub.
        found = re.fullmatch(r"-(\d+)-of-(\d+)(-\w+)?", file.stem[len(split) :])
        if found:
            numbers.setdefault(int(found[2]), []).append(int(found[1]))
    whole = [sorted(there) == list(range(count)) for count, there in numbers.items()]
    if len(whole) > 1 or not all(whole):
        raise ExtensionError(
            "data.root",
            str(files[0].parent),
            f"the shards of the {split} split are not those of one whole: "
            f"{shown(file.name for file in files)}",
            f"Put all of {split}-00000-of-N.parquet to the last there, and no others",
        )


class FileSource:
    """Rows of one file or of the shards of one split.

    Parameters
    ----------
    files : list of path
        Parquet, JSON lines, JSON (a list of objects) or CSV with a header line, all alike.
    layout : OriginalLayout, optional
        What CSV files may have in place of a header line.
    """

    def __init__(self, files: Sequence[Path], layout: OriginalLayout | None = None) -> None:
        self.files = list(files)
        self.layout = layout
        self.name = str(self.files[0]) if len(self.files) == 1 else str(self.files[0].parent)

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        file = self.files[0]
        if file.suffix == ".parquet":
            with _open_parquet(file) as parquet:
                return list(parquet.schema_arrow.names)
        if file.suffix == ".csv":
            header = self._header()
            layout = self.layout
            return header if layout is None or not layout.fits(header) else layout.columns
        first = next(iter(_records(file)), {})
        return list(first)

    @property
    def is_original(self) -> bool:
        """Whether this is a CSV file in the layout of its first publication."""
        if self.layout is None or self.files[0].suffix != ".csv":
            return False
        return self.layout.fits(self._header())

    def _header(self) -> list[str]:
        with _readable(self.files[0]) as stream:
            return csv_header(self.files[0], stream)

    def fingerprint(self) -> str:
        """SHA-256 of the files' bytes."""
        digest = hashlib.sha256()
        for file in self.files:
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    def pieces(self, columns: Sequence[str]) -> Iterator[Columns]:
        """The rows of some columns, a few thousand at a time."""
        for file in self.files:
            if file.suffix == ".parquet":
                yield from _parquet(file, columns)
            else:
                yield from _text(file, columns, self.layout)

    def place(self, row: int) -> tuple[str, int]:
        """Where row ``row`` (from 0) stands: a file, and the row's number there (from 1)."""
        for file in self.files[:-1]:
            # Only Parquet comes in shards.
            with _open_parquet(file) as parquet:
                rows = parquet.metadata.num_rows
            if row < rows:
                return str(file), row + 1
            row -= rows
        return str(self.files[-1]), row + 1


class HubSource:
    """Rows of a split of a Hugging Face data set.

    Parameters
    ----------
    dataset : datasets.Dataset
        The split.
    name : str
        How to call it in messages.
    """

    def __init__(self, dataset: Any, name: str) -> None:
        self.dataset = dataset
        self.name = name

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self.dataset.column_names)

    def fingerprint(self) -> str:
        """The library's own fingerprint of the rows."""
        return str(self.dataset._fingerprint)

    def pieces(self, columns: Sequence[str]) -> Iterator[Columns]:
        """The rows of some columns, a few thousand at a time."""
        chosen = self.dataset.select_columns(list(columns))
        for start in range(0, len(chosen), PIECE):
            yield dict(chosen[start : start + PIECE])

    def place(self, row: int) -> tuple[str, int]:
        """The split's name, and the row's number (from 1)."""
        return self.name, row + 1


@contextmanager
def _open_parquet(file: Path) -> Iterator[Any]:
    """The file; what is wrong with it while it is open becomes a sentence."""
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as parquet:
            yield parquet
    # Damaged pages are an OSError, anything else that is no Parquet an ArrowException.
    except (pyarrow.lib.ArrowException, OSError) as error:
        raise ExtensionError(
            "data.type",
            str(file),
            f"the file cannot be read as Parquet ({error})",
            "Copy or download it again, or write it anew",
        ) from error


def _parquet(file: Path, columns: Sequence[str]) -> Iterator[Columns]:
    with _open_parquet(file) as parquet:
        missing = [name for name in columns if name not in parquet.schema_arrow.names]
        if missing:
            raise ExtensionError(
                "data.type",
                str(file),
                f"this shard has no column {', '.join(missing)}, which another one has",
                "Give all shards of a split the same columns",
            )
        for piece in parquet.iter_batches(batch_size=PIECE, columns=list(columns)):
            yield piece.to_pydict()


def _text(file: Path, columns: Sequence[str], layout: OriginalLayout | None) -> Iterator[Columns]:
    piece: Columns = {name: [] for name in columns}
    is_csv = file.suffix == ".csv"
    empty = dict.fromkeys(columns, 0)
    for number, record in enumerate(_records(file, layout), start=1):
        blank = [name for name in columns if _is_blank(record.get(name), is_csv)]
        # In CSV an empty text cannot be told from a missing one; beside another one it may be so.
        texts = [name for name in columns if name != "label"]
        if blank and (not is_csv or "label" in blank or len(blank) == len(texts)):
            raise ExtensionError(
                "data.type",
                str(file),
                f"row {number} has no {blank[0]}",
                f"Give every row the columns {', '.join(columns)}",
            )
        for name in columns:
            piece[name].append(record[name])
            empty[name] += name in blank
        if number % PIECE == 0:
            yield piece
            piece = {name: [] for name in columns}
    if piece[columns[0]]:
        yield piece
    for name, rows in empty.items():
        if rows:
            logger.info("%s: %d rows have an empty %s.", file, rows, name)


def _is_blank(value: Any, is_csv: bool) -> bool:
    """Whether a cell is missing; an empty field is the only way in which CSV says so."""
    return value is None or (is_csv and isinstance(value, str) and not value.strip())


def _records(file: Path, layout: OriginalLayout | None = None) -> Iterator[dict[str, Any]]:
    """Objects of a JSON or JSON-lines file, rows of a CSV file."""
    with _readable(file) as stream:
        if file.suffix == ".csv":
            yield from csv_rows(file, stream, layout)
        elif file.suffix == ".json":
            yield from _objects(file, json.load(stream))
        else:
            yield from _lines(file, stream)


@contextmanager
def _readable(file: Path) -> Iterator[TextIO]:
    """The text of a file; what is wrong with it while it is open becomes a sentence."""
    newline = "" if file.suffix == ".csv" else None
    try:
        # Spreadsheets put a byte order mark first.
        with file.open(encoding="utf-8-sig", newline=newline) as stream:
            yield stream
    except (json.JSONDecodeError, UnicodeDecodeError, csv.Error, RecursionError) as error:
        raise _unreadable(file, f"{error}") from error


def _unreadable(file: Path, problem: str) -> ExtensionError:
    return ExtensionError(
        "data.type",
        str(file),
        f"the file cannot be read ({problem})",
        "Use UTF-8 text: CSV with a header line, one JSON object a line (.jsonl), or a list of "
        "JSON objects (.json)",
    )


def _lines(file: Path, stream: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Objects of a JSON-lines file."""
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


def _objects(file: Path, content: Any) -> Iterator[dict[str, Any]]:
    """Objects of a JSON file, which has to be a list of them."""
    if not isinstance(content, list):
        kind = "one object" if isinstance(content, dict) else "one value"
        raise _unreadable(file, f"it holds {kind}, not a list")
    for number, value in enumerate(content, start=1):
        if not isinstance(value, dict):
            raise _unreadable(file, f"item {number} of the list is no JSON object")
        yield value

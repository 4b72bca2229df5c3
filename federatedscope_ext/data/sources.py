"""Where the text comes from: files or a data set of the hub, read in pieces."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from federatedscope_ext.errors import ExtensionError

__all__ = ["SUFFIXES", "FileSource", "HubSource", "Source", "find_split"]

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


def find_split(folder: Path, split: str) -> list[Path]:
    """Files of a split: ``SPLIT.parquet`` (.jsonl, .csv) or the shards ``SPLIT-*.parquet``."""
    for suffix in SUFFIXES:
        file = folder / f"{split}{suffix}"
        if file.is_file():
            return [file]
    return sorted(folder.glob(f"{split}-*-of-*.parquet"))


class FileSource:
    """Rows of one file or of the shards of one split.

    Parameters
    ----------
    files : list of path
        Parquet, JSON lines, JSON (a list of objects) or CSV with a header line, all alike.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)
        self.name = str(self.files[0]) if len(self.files) == 1 else str(self.files[0].parent)

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        file = self.files[0]
        if file.suffix == ".parquet":
            import pyarrow.parquet

            return list(pyarrow.parquet.read_schema(file).names)
        first = next(iter(_records(file)), {})
        return list(first)

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
            yield from (
                _parquet(file, columns) if file.suffix == ".parquet" else _text(file, columns)
            )


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


def _parquet(file: Path, columns: Sequence[str]) -> Iterator[Columns]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(file) as parquet:
        for piece in parquet.iter_batches(batch_size=PIECE, columns=list(columns)):
            yield piece.to_pydict()


def _text(file: Path, columns: Sequence[str]) -> Iterator[Columns]:
    piece: Columns = {name: [] for name in columns}
    for number, record in enumerate(_records(file), start=1):
        for name in columns:
            value = record.get(name)
            if value is None:
                raise ExtensionError(
                    "data.type",
                    str(file),
                    f"row {number} has no {name}",
                    f"Give every row the columns {', '.join(columns)}",
                )
            piece[name].append(value)
        if number % PIECE == 0:
            yield piece
            piece = {name: [] for name in columns}
    if piece[columns[0]]:
        yield piece


def _records(file: Path) -> Iterator[dict[str, Any]]:
    """Objects of a JSON or JSON-lines file, rows of a CSV file."""
    try:
        with file.open(encoding="utf-8", newline="" if file.suffix == ".csv" else None) as stream:
            if file.suffix == ".csv":
                yield from csv.DictReader(stream)
            elif file.suffix == ".json":
                yield from json.load(stream)
            else:
                for line in stream:
                    if line.strip():
                        yield json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError, csv.Error) as error:
        raise ExtensionError(
            "data.type",
            str(file),
            f"the file cannot be read ({error})",
            "Use UTF-8 text: CSV with a header line, or one JSON object a line",
        ) from error

"""The rows of one split: of files, or of a data set of the hub."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from federatedscope_ext.data.original_csv import OriginalCsv
from fedfiles.readers import PIECE, Row, column_names, file_error, read_rows

__all__ = ["FileSplit", "HubSplit", "Place", "Split"]

logger = logging.getLogger(__name__)

# Where a row stands: a file, and the row's number there (from 1).
Place = tuple[str, int]


class Split(Protocol):
    """Rows of one split."""

    name: str

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""

    def fingerprint(self) -> str:
        """A text that changes with the content."""

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[Place, Row]]:
        """The rows with some columns at least, in order, each with its place."""


class FileSplit:
    """Rows of one file or of the shards of one split.

    Parameters
    ----------
    files : list of path
        What :func:`fedfiles.readers.read_rows` reads, all alike.
    original : OriginalCsv, optional
        What CSV files may have in place of a header line.
    """

    def __init__(self, files: Sequence[Path], original: OriginalCsv | None = None) -> None:
        self.files = list(files)
        self.original = original if self.files[0].suffix == ".csv" else None
        self.name = str(self.files[0]) if len(self.files) == 1 else str(self.files[0].parent)

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        names = column_names(self.files[0])
        return self.original.columns if self.original and self.original.fits(names) else names

    @property
    def is_original(self) -> bool:
        """Whether this is a CSV file as it was first published."""
        return self.original is not None and self.original.fits(column_names(self.files[0]))

    def fingerprint(self) -> str:
        """SHA-256 of the files' bytes."""
        digest = hashlib.sha256()
        for file in self.files:
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[Place, Row]]:
        """The rows with some columns at least, in order, each with its place."""
        for file in self.files:
            for number, row in enumerate(self._read(file, columns), start=1):
                yield (str(file), number), row

    def _read(self, file: Path, columns: Sequence[str]) -> Iterator[Row]:
        if file.suffix == ".parquet":
            return read_rows(file, columns)
        if self.original is None or not self.is_original:
            return _complete(file, read_rows(file), columns)
        lines = read_rows(file, headerless=self.original.is_row)
        return _complete(file, self.original.rows(file, lines), columns)


class HubSplit:
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

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[Place, Row]]:
        """The rows with some columns at least, in order, each with its place."""
        number = 0
        for piece in self.dataset.select_columns(list(columns)).iter(PIECE):
            for values in zip(*piece.values(), strict=True):
                number += 1
                yield (self.name, number), dict(zip(piece, values, strict=True))


def _complete(file: Path, rows: Iterable[Row], columns: Sequence[str]) -> Iterator[Row]:
    """Rows of text files, refusing those that lack what they need."""
    is_csv = file.suffix == ".csv"
    texts = [name for name in columns if name != "label"]
    empty: Counter[str] = Counter()
    for number, row in enumerate(rows, start=1):
        blank = [name for name in columns if _is_blank(row.get(name), is_csv)]
        # In CSV an empty text cannot be told from a missing one; beside another one it may be so.
        if blank and (not is_csv or "label" in blank or len(blank) == len(texts)):
            raise file_error(
                file,
                f"row {number} has no {blank[0]}",
                f"Give every row the columns {', '.join(columns)}",
            )
        empty.update(blank)
        yield row
    for name, count in empty.items():
        logger.info("%s: %d rows have an empty %s.", file, count, name)


def _is_blank(value: Any, is_csv: bool) -> bool:
    """Whether a cell is missing; an empty field is the only way in which CSV says so."""
    return value is None or (is_csv and not str(value).strip())

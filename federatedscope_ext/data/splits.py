"""The rows of one split: of files, or of a data set of the hub."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from federatedscope_ext.data.original_csv import OriginalCsv
from fedfiles.readers import PIECE, Row, column_names, file_error, format_of, read_rows

__all__ = ["Place", "Split", "split_of_files", "split_of_hub"]

logger = logging.getLogger(__name__)

# Where a row stands: a file, and the row's number there (from 1).
Place = tuple[str, int]


@dataclass(frozen=True)
class Split:
    """Rows that are read when they are asked for.

    Attributes
    ----------
    name : str
        How to call it in messages.
    columns : list of str
        Names of the columns.
    fingerprint : callable
        A text that changes with the content.
    rows : callable
        The rows with the named columns at least, in order, each with its place.
    note : str
        How the file is read, where that needs a word.
    """

    name: str
    columns: list[str]
    fingerprint: Callable[[], str]
    rows: Callable[[Sequence[str]], Iterator[tuple[Place, Row]]]
    note: str = ""


def split_of_files(files: Sequence[Path], original: OriginalCsv | None = None) -> Split:
    """One file or the shards of one split, all alike.

    Parameters
    ----------
    files : list of path
        What :func:`fedfiles.readers.read_rows` reads.
    original : OriginalCsv, optional
        What CSV files may have in place of a header line.
    """
    first = files[0]
    columns = column_names(first)
    if original is None or format_of(first) != ".csv" or not original.fits(columns):
        original = None
    else:
        columns = original.columns

    def fingerprint() -> str:
        digest = hashlib.sha256()
        for file in files:
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    def rows(columns: Sequence[str]) -> Iterator[tuple[Place, Row]]:
        for file in files:
            found = read_rows(file, columns, original.is_row if original else None)
            if original is not None:
                found = original.rows(file, found)
            if format_of(file) != ".parquet":
                found = _complete(file, found, columns)
            for number, row in enumerate(found, start=1):
                yield (str(file), number), row

    name = str(first if len(files) == 1 else first.parent)
    return Split(name, columns, fingerprint, rows, original.note if original else "")


def split_of_hub(dataset: Any, name: str) -> Split:
    """A split of a Hugging Face data set (``datasets.Dataset``)."""

    def rows(columns: Sequence[str]) -> Iterator[tuple[Place, Row]]:
        number = 0
        for piece in dataset.select_columns(list(columns)).iter(PIECE):
            for values in zip(*piece.values(), strict=True):
                number += 1
                yield (name, number), dict(zip(piece, values, strict=True))

    return Split(name, list(dataset.column_names), lambda: str(dataset._fingerprint), rows)


def _complete(file: Path, rows: Iterable[Row], columns: Sequence[str]) -> Iterator[Row]:
    """Rows of text files, refusing those that lack what they need."""
    is_csv = format_of(file) == ".csv"
    texts = [name for name in columns if name != "label"]
    empty: Counter[str] = Counter()
    for number, row in enumerate(rows, start=1):
        blank = [name for name in columns if _is_blank(row.get(name), is_csv)]
        # In CSV an empty text cannot be told from a missing one; beside another one it may be so.
        if blank and (not is_csv or "label" in blank or len(blank) == len(texts)):
            problem = f"row {number} has no {blank[0]}"
            raise file_error(file, problem, f"Give every row the columns {', '.join(columns)}")
        empty.update(blank)
        yield row
    for name, count in empty.items():
        logger.info("%s: %d rows have an empty %s.", file, count, name)


def _is_blank(value: Any, is_csv: bool) -> bool:
    """Whether a cell is missing; an empty field is the only way in which CSV says so."""
    return value is None or (is_csv and not str(value).strip())

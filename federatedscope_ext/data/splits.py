"""The rows of one split: of files, or of a data set of the hub."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from federatedscope_ext.data.original_csv import OriginalFiles
from fedfiles.readers import (
    PIECE,
    SAVED,
    Row,
    class_names,
    column_names,
    file_error,
    format_of,
    not_text,
    read_rows,
)

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
    label_names : tuple of str
        Names of the classes where the file has numbers and says what they are called.
    """

    name: str
    columns: list[str]
    fingerprint: Callable[[], str]
    rows: Callable[[Sequence[str]], Iterator[tuple[Place, Row]]]
    note: str = ""
    label_names: tuple[str, ...] = ()


def split_of_files(files: Sequence[Path], original: OriginalFiles | None = None) -> Split:
    """One file or the shards of one split, all alike.

    Parameters
    ----------
    files : list of path
        What :func:`fedfiles.readers.read_rows` reads.
    original : OriginalFiles, optional
        What the task's files, as its authors published them, have in place of its columns.
    """
    first = files[0]
    columns = column_names(first)
    if original is None or format_of(first) != original.suffix or not original.fits(columns):
        original = None
    else:
        columns = list(original.columns)

    def fingerprint() -> str:
        # The number is one of how rows are read.
        digest = hashlib.sha256(b"2")
        for part in (part for file in files for part in sorted(file.glob("*")) or [file]):
            with part.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    def rows(columns: Sequence[str]) -> Iterator[tuple[Place, Row]]:
        for file in files:
            if original is None:
                found = read_rows(file, columns)
            else:
                found = original.rows(
                    file, read_rows(file, None, original.is_row, quoted=original.quoted)
                )
            yield from _checked(file, format_of(file), found, columns)

    name = str(first if len(files) == 1 else first.parent)
    note = original.note if original else ""
    return Split(name, columns, fingerprint, rows, note, class_names(first, "label"))


def split_of_hub(dataset: Any, name: str) -> Split:
    """A split of a Hugging Face data set (``datasets.Dataset``)."""

    def rows(columns: Sequence[str]) -> Iterator[tuple[Place, Row]]:
        pieces = dataset.select_columns(list(columns)).iter(PIECE)
        found = (
            dict(zip(piece, values, strict=True))
            for piece in pieces
            for values in zip(*piece.values(), strict=True)
        )
        return _checked(name, SAVED, found, columns)

    return Split(name, list(dataset.column_names), lambda: str(dataset._fingerprint), rows)


def _checked(
    file: Path | str, form: str, rows: Iterable[Row], columns: Sequence[str]
) -> Iterator[tuple[Place, Row]]:
    """Rows whose texts are texts, each with its place; those of text files have to have what they
    need.
    """
    is_csv, is_text = form in (".csv", ".tsv"), form not in (".parquet", SAVED)
    texts = [name for name in columns if name != "label"]
    empty: Counter[str] = Counter()
    for number, row in enumerate(rows, start=1):
        blank = [name for name in columns if is_text and _is_blank(row.get(name), is_csv)]
        # A row without a label is left out. In CSV an empty text cannot be told from a missing
        # one; beside another one it may be so.
        if (
            blank
            and row.get("label") != -1
            and (not is_csv or "label" in blank or len(blank) == len(texts))
        ):
            problem = f"row {number} has no {blank[0]}"
            raise file_error(file, problem, f"Give every row the columns {', '.join(columns)}")
        for name in texts:
            if row.get(name) is not None and (kind := not_text(row[name])):
                remedy = "Write a text there, or leave the row out"
                raise file_error(file, f"row {number}: the {name} is {kind}", remedy)
        empty.update(blank)
        yield (str(file), number), row
    for name, count in empty.items():
        logger.info("%s: %d rows have an empty %s.", file, count, name)


def _is_blank(value: Any, is_csv: bool) -> bool:
    """Whether a cell is missing; an empty field is the only way in which CSV says so."""
    return value is None or (is_csv and not str(value).strip())

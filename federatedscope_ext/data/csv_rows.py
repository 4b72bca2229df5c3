"""Rows of CSV files: below a header line, or as AG News and DBpedia were first published."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.tasks import TextTask

__all__ = ["OriginalLayout", "csv_header", "csv_rows", "original_layout", "shown"]

# The csv module refuses longer fields than 131,072 characters. As much as fits its C long anywhere.
LONGEST_FIELD = 2**31 - 1
# A last line of our own. When it comes back as a part of a row, a quotation mark was left open.
_END = "\ufffe end of the file \ufffe"
# Zhang, Zhao & LeCun 2015 (arXiv 1509.01626) published these as CSV without a header line.
_WITHOUT_HEADER = ("ag_news", "dbpedia_14")
# What copies of these files have as header.
_HEADERS = (("class index", "title", "description"), ("class index", "title", "content"))


@dataclass(frozen=True)
class OriginalLayout:
    """A class number from 1, a title and a text in each line, without a header line.

    Attributes
    ----------
    texts : tuple of str
        What the columns of text are called here: two names, or one for the title and the text
        with a space between, which is how the hub's version joins them.
    classes : int
        Number of classes.
    """

    texts: tuple[str, ...]
    classes: int

    @property
    def columns(self) -> list[str]:
        """Names of the columns as they are handed out."""
        return [*self.texts, "label"]

    def has_header(self, first: Sequence[str]) -> bool:
        """Whether the first line is the header that some copies have."""
        return tuple(name.strip().casefold() for name in first) in _HEADERS

    def fits(self, first: Sequence[str]) -> bool:
        """Whether a file with this first line has this layout."""
        number = first[0].strip() if len(first) == 3 else ""
        is_class = number.isdecimal() and 1 <= int(number) <= self.classes
        return is_class or self.has_header(first)

    def record(self, file: Path, row: int, fields: Sequence[str]) -> dict[str, Any]:
        """A line as a row whose classes count from 0.

        Raises
        ------
        ExtensionError
            The class is no number from 1 to ``classes``.
        """
        number = fields[0].strip()
        if not number.isdecimal() or not 1 <= int(number) <= self.classes:
            raise ExtensionError(
                "data.type",
                str(file),
                f"row {row} has the class {number!r}; this file is read as the original one, "
                f"whose classes are the numbers from 1 to {self.classes}",
                f"Number the classes from 1, or name the columns {','.join(self.columns)} in a "
                "first line and number them from 0",
            )
        texts = list(fields[1:]) if len(self.texts) == 2 else [" ".join(fields[1:])]
        return {**dict(zip(self.texts, texts, strict=True)), "label": int(number) - 1}


def original_layout(task: TextTask) -> OriginalLayout | None:
    """The layout in which a task's CSV files were published, ``None`` where they have headers."""
    if task.name not in _WITHOUT_HEADER:
        return None
    return OriginalLayout(task.sentence_keys, task.num_labels)


def csv_rows(
    file: Path, stream: Iterable[str], layout: OriginalLayout | None
) -> Iterator[dict[str, Any]]:
    """Rows of a CSV file, each with as many fields as the first line has.

    Raises
    ------
    ExtensionError
        A row has another number of fields, a wrong class, or a quotation mark that stays open.
    """
    lines = _fields(file, stream)
    _, header = next(lines, (0, []))
    original = layout if layout is not None and layout.fits(header) else None
    if original is not None and not original.has_header(header):
        lines = chain([(1, header)], lines)
    for row, (line, fields) in enumerate(lines, start=1):
        if len(fields) != len(header):
            # A comma in a text that is not quoted would make a piece of the text the label.
            raise ExtensionError(
                "data.type",
                str(file),
                f"row {row} (line {line}) has {len(fields)} fields, the "
                f"{'header' if original is None else 'first line'} has {len(header)}",
                'Write a text that has a comma in it between quotation marks: "so, so",1',
            )
        if original is None:
            yield dict(zip(header, fields, strict=True))
        else:
            yield original.record(file, row, fields)


def csv_header(file: Path, stream: Iterable[str]) -> list[str]:
    """The fields of the first line that is not blank, none in an empty file."""
    return next(_fields(file, stream), (0, []))[1]


def _fields(file: Path, stream: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """The lines of a file that are not blank: the number of each and its fields."""
    reader = csv.reader(chain(stream, [_END]))
    first = 1
    while (fields := _next(reader)) != [_END]:
        if fields and fields[-1].endswith(_END):
            # All rows up to the end of the file would pass for one text.
            raise ExtensionError(
                "data.type",
                str(file),
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

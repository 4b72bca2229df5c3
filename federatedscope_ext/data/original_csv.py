"""AG News and DBpedia as CSV without a header line.

Zhang, Zhao & LeCun 2015 (arXiv 1509.01626) published them so: a class number from 1, a title and a
text in each line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from federatedscope_ext.tasks import TextTask
from fedfiles.readers import Row, file_error

__all__ = ["OriginalCsv", "OriginalFiles"]

# What copies of these files have as header.
_HEADERS = (("class index", "title", "description"), ("class index", "title", "content"))


class OriginalFiles(Protocol):
    """How a task's files, as its authors published them, become rows with the task's columns.

    Attributes
    ----------
    columns : sequence of str
        The task's columns, which the rows get.
    suffix : str
        Format of the files.
    quoted : bool or None
        False where quotation marks are a part of the text.
    note : str
        How they are read, in a sentence.
    """

    columns: Sequence[str]
    suffix: str
    quoted: bool | None
    note: str

    def fits(self, first: Sequence[str]) -> bool:
        """Whether a file with this first line is one."""

    def is_row(self, first: Sequence[str]) -> bool:
        """Whether the first line is a row, and no header."""

    def rows(self, file: Path, lines: Iterable[Row]) -> Iterator[Row]:
        """Lines as rows of the task."""


class OriginalCsv(OriginalFiles):
    """How lines of these files become rows.

    Parameters
    ----------
    task : TextTask
        Its text is two columns, or one for the title and the text with a space between, which is
        how the hub's version joins them.
    """

    suffix, quoted = ".csv", None

    def __init__(self, task: TextTask) -> None:
        self.texts = task.sentence_keys
        self.classes = task.num_labels
        self.columns = [*self.texts, "label"]
        self.note = (
            "read as the original file: the first column is the class, counted from 1 "
            f"({task.labels[0]}); the other two are the title and the text."
        )

    def is_row(self, first: Sequence[str]) -> bool:
        """Whether the first line of a file is a row of this kind."""
        return len(first) == 3 and self._has_class(first[0])

    def fits(self, first: Sequence[str]) -> bool:
        """Whether a file with this first line is one, with or without a header line."""
        return tuple(n.strip().casefold() for n in first) in _HEADERS or self.is_row(first)

    def _has_class(self, number: str) -> bool:
        number = number.strip()
        return number.isdecimal() and 1 <= int(number) <= self.classes

    def rows(self, file: Path, lines: Iterable[Row]) -> Iterator[Row]:
        """Lines as rows whose classes count from 0; a wrong class is a ``FileError``."""
        for number, line in enumerate(lines, start=1):
            first, *texts = line.values()
            if not self._has_class(first):
                raise file_error(
                    file,
                    f"row {number} has the class {first.strip()!r}; this file is read as the "
                    f"original one, whose classes are the numbers from 1 to {self.classes}",
                    f"Number the classes from 1, or name the columns {','.join(self.columns)} in a "
                    "first line and number them from 0",
                )
            texts = texts if len(self.texts) == 2 else [" ".join(texts)]
            yield {**dict(zip(self.texts, texts, strict=True)), "label": int(first) - 1}

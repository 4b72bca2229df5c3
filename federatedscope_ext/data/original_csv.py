"""AG News and DBpedia as CSV without a header line.

Zhang, Zhao & LeCun 2015 (arXiv 1509.01626) published them so: a class number from 1, a title and a
text in each line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from federatedscope_ext.tasks import TextTask
from fedfiles.readers import Row, file_error

__all__ = ["OriginalCsv", "original_csv"]

# What copies of these files have as header.
_HEADERS = (("class index", "title", "description"), ("class index", "title", "content"))


class OriginalCsv:
    """How lines of these files become rows.

    Parameters
    ----------
    task : TextTask
        Its text is two columns, or one for the title and the text with a space between, which is
        how the hub's version joins them.
    """

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


def original_csv(task: TextTask) -> OriginalCsv | None:
    """How a task's CSV files were published, ``None`` where they have a header line."""
    return OriginalCsv(task) if task.name in ("ag_news", "dbpedia_14") else None

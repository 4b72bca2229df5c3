"""GLUE as its authors published it: a folder a task with ``train.tsv`` and ``dev.tsv``.

Wang et al. 2019 (arXiv 1804.07461), https://gluebenchmark.com/tasks. Fields are divided by tabs,
and quotation marks are a part of the text. A line that breaks off before its last column has no
label, as in the hub's version of the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from federatedscope_ext.data.original_csv import OriginalCsv, OriginalFiles
from federatedscope_ext.tasks import GLUE_TASKS, TextTask
from fedfiles.readers import Row

__all__ = ["FOLDERS", "GlueTsv", "original_files"]

FOLDERS = {
    "cola": "CoLA", "sst2": "SST-2", "stsb": "STS-B", "ag_news": "ag_news_csv",
    "dbpedia_14": "dbpedia_csv",
}  # fmt: skip
"""Task -> its folder, where that is not the name in capital letters."""

# The files' columns of the texts and of the label, in small letters. CoLA has no header line: a
# source, the label, the authors' mark and the sentence.
_COLUMNS = {
    "cola": ("4", "2"),
    "mrpc": ("#1 string", "#2 string", "quality"),
    "stsb": ("sentence1", "sentence2", "score"),
    "qqp": ("question1", "question2", "is_duplicate"),
    "mnli": ("sentence1", "sentence2", "gold_label"),
}


class GlueTsv(OriginalFiles):
    """How lines of these files become rows.

    Parameters
    ----------
    task : TextTask
        A task of GLUE.
    """

    suffix, quoted = ".tsv", False

    def __init__(self, task: TextTask) -> None:
        self.columns = [*task.sentence_keys, "label"]
        self.theirs = _COLUMNS.get(task.name, tuple(self.columns))
        self.has_header = task.name != "cola"
        named = zip(self.columns, self.theirs, strict=True)
        as_theirs = [f"{name} is column {their}" for name, their in named if name != their]
        self.note = "read as GLUE's own file" + "".join(f", {part}" for part in as_theirs) + "."

    def is_row(self, first: Sequence[str]) -> bool:
        """Whether the first line is a row: CoLA's are."""
        return not self.has_header and len(first) == 4 and first[1].strip() in ("0", "1")

    def fits(self, first: Sequence[str]) -> bool:
        """Whether a file with this first line is one."""
        return self.is_row(first) or (self.has_header and {*self.theirs} <= {*first})

    def rows(self, file: Path, lines: Iterable[Row]) -> Iterator[Row]:
        """Lines as rows; the label is -1 where the annotators agreed on none (``-``), or the line
        breaks off.
        """
        for line in lines:
            values = [line[name] for name in self.theirs]
            if None in values or values[-1] == "-":
                values[-1] = -1
            yield dict(zip(self.columns, values, strict=True))


def original_files(task: TextTask) -> OriginalFiles | None:
    """How a task's files were published, ``None`` where they have the task's columns."""
    if task.name in GLUE_TASKS:
        return GlueTsv(task)
    return OriginalCsv(task) if task.name in ("ag_news", "dbpedia_14") else None

"""One table, shown in the terminal, as markdown, as CSV and on pages (``macros.html.j2``)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from federatedscope_ext.tools.report.numbers import metric_text

__all__ = ["Cell", "Table", "Value"]


@dataclass(frozen=True)
class Cell:
    """A cell of a page with more than text.

    ``tone`` is a CSS class; ``bar`` are ``(percent, color)`` of a stacked bar that the text
    describes.
    """

    text: str
    tone: str = ""
    bar: Sequence[tuple[str, str]] = ()

    def __str__(self) -> str:
        return self.text


Value = str | int | float | None | Cell


@dataclass
class Table:
    """Titles and lines of values.

    Attributes
    ----------
    titles : list of str
        A name per column.
    rows : list of list
        Text, or numbers, which are shown as metrics are; ``None`` and NaN are nothing.
    left : collection of int
        Columns of text; the others are numbers and stand to the right.
    caption : str
        On pages only.
    means : list of list
        Last lines that stand out.
    """

    titles: list[str]
    rows: list[list[Value]] = field(default_factory=list)
    left: Collection[int] = (0,)
    caption: str = ""
    means: list[list[Value]] = field(default_factory=list)

    @property
    def lines(self) -> list[list[str]]:
        """All lines as text."""
        return [[_text(value) for value in row] for row in (*self.rows, *self.means)]

    def markdown(self) -> list[str]:
        """The lines of a markdown table."""
        rows = [self.titles, ["---"] * len(self.titles), *self.lines]
        return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]

    def csv(self, end: str = "\n") -> str:
        """As CSV with plain numbers; a number that is not finite is an empty cell."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator=end)
        writer.writerow(self.titles)
        writer.writerows([_plain(value) for value in row] for row in (*self.rows, *self.means))
        return out.getvalue()

    def print(self, console: Console) -> None:
        """Print it; where it is too wide, as many numbered parts of it as fit the width."""
        widths = [width + 3 for width in self._widths()]
        if sum(widths) <= console.width:
            console.print(self._rich())
            return
        parts: list[list[int]] = [[]]
        for at, width in enumerate(widths):
            used = 4 + sum(widths[other] for other in parts[-1])
            if parts[-1] and used + width > console.width:
                parts.append([])
            parts[-1].append(at)
        for part in parts:
            rows: list[list[Value]] = [
                [str(at), *(line[i] for i in part)] for at, line in enumerate(self.lines, start=1)
            ]
            left = [0, *(1 + place for place, at in enumerate(part) if at in self.left)]
            console.print(Table(["#", *(self.titles[i] for i in part)], rows, left)._rich())
            console.print()

    def _widths(self) -> list[int]:
        """The least width of every column: no cell is broken, titles only between words."""
        return [
            max(map(len, [*title.split(), *(line[at] for line in self.lines)]))
            for at, title in enumerate(self.titles)
        ]

    def _rich(self) -> RichTable:
        table = RichTable(show_edge=False, pad_edge=False, box=box.HEAVY_HEAD)
        for at, (title, width) in enumerate(zip(self.titles, self._widths(), strict=True)):
            justify: Literal["left", "right"] = "left" if at in self.left else "right"
            table.add_column(escape(title), justify=justify, width=width)
        for line in self.lines:
            table.add_row(*map(escape, line))
        return table


def _text(value: Value) -> str:
    return metric_text(value) if isinstance(value, float | None) else str(value)


def _plain(value: Value) -> str | int | float:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return str(value) if isinstance(value, Cell) else value

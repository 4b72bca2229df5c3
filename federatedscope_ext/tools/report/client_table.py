"""The tables per client of a run's page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from federatedscope.core.monitors.means import mean, weighted_mean
from federatedscope_ext.tools.report.numbers import NOTHING, metric_text, rank_text, signed_text
from federatedscope_ext.tools.report.summary import ClientRow, RunSummary
from federatedscope_ext.tools.report.tables import Cell, Table, Value

__all__ = ["SHOWN_CLIENTS", "client_tables"]

SHOWN_CLIENTS = 25
"""Up to this many clients are listed; of more, these and quantiles over all."""

_QUANTILES = (("minimum", 0.0), ("10 %", 0.1), ("25 %", 0.25), ("median", 0.5), ("75 %", 0.75),
              ("90 %", 0.9), ("maximum", 1.0))  # fmt: skip


@dataclass
class Column:
    """A column of the client table: what is shown for each client, and the numbers behind it.

    Without ``numbers`` it is text and has no mean; ``weigh`` is off for what has no mean by rows.
    """

    title: str
    cells: Sequence[Value]
    numbers: Sequence[float] = ()
    show: Callable[[float], str] = metric_text
    weigh: bool = True

    @classmethod
    def of(cls, title: str, numbers: Sequence[float]) -> Column:
        """Of a metric."""
        return cls(title, [metric_text(number) for number in numbers], numbers)

    def gathered(self, level: float | None) -> str:
        """Mean of the finite numbers (``level`` None), or a quantile of them."""
        if not self.numbers:
            return ""
        finite = [number for number in self.numbers if math.isfinite(number)]
        if not finite:
            return NOTHING
        return self.show(mean(finite) if level is None else float(np.quantile(finite, level)))

    def weighted(self, weights: Sequence[float]) -> str:
        """Mean of the finite numbers, every client counted by the rows it was evaluated on."""
        if not self.numbers or not self.weigh:
            return ""
        pairs = zip(self.numbers, weights, strict=True)
        return self.show(weighted_mean(pair for pair in pairs if math.isfinite(pair[0])))


def client_tables(summary: RunSummary) -> list[Table]:
    """Participating clients, then unseen ones; each only where there are some."""
    caption = "Nothing was evaluated yet."
    if (series := summary.headline) is not None:
        caption = (
            f"{summary.metric}, {series.phase} aggregation, {series.scope} evaluation. Lift is "
            "over always answering the client's own most frequent label."
        )
    rows = summary.client_rows
    groups = (
        ([row for row in rows if not row.unseen], caption),
        ([row for row in rows if row.unseen], "Unseen clients: they never train."),
    )
    return [_table(summary, group, text) for group, text in groups if group]


def _columns(summary: RunSummary, rows: Sequence[ClientRow]) -> list[Column]:
    """The columns that the run has something to say in."""
    split = "test" if summary.metric.startswith("test_") else "val"
    baselines = [row.baseline for row in rows]
    has_baseline = any(map(math.isfinite, baselines))
    both = summary.best_round == summary.last_round
    columns = [
        Column("client", [str(row.id) for row in rows]),
        Column(f"rows train / {split}", [_rows_text(row, split) for row in rows]),
    ]
    if len({row.rank for row in rows}) > 1:
        columns.append(Column("rank", [rank_text(row.rank) for row in rows]))
    if has_baseline:
        columns.append(Column("most frequent label", [row.majority_label for row in rows]))
        columns.append(Column.of("baseline", baselines))
    best = [row.best for row in rows]
    name = "best and last" if both else "best"
    columns.append(Column.of(f"{name}, round {summary.best_round}", best))
    columns += [_lift(summary, best, baselines)] if has_baseline else []
    if any(math.isfinite(row.before) for row in rows):
        columns.append(Column.of("before agg.", [row.before for row in rows]))
    if not both:
        last = [row.last for row in rows]
        columns.append(Column.of(f"last, round {summary.last_round}", last))
        columns += [_lift(summary, last, baselines)] if has_baseline else []
    for extra in summary.extra_metrics[:3]:
        columns.append(Column.of(extra, [row.extra[extra] for row in rows]))
    trained = [row.rounds_trained for row in rows]
    return [*columns, Column("rounds trained", trained, trained, _whole_text, weigh=False)]


def _lift(summary: RunSummary, values: Sequence[float], baselines: Sequence[float]) -> Column:
    """Over the baseline, in the colour of good or bad."""
    lifts = [value - baseline for value, baseline in zip(values, baselines, strict=True)]
    good, bad = ("up", "down") if summary.larger_is_better else ("down", "up")
    tones = [good if lift > 0 else bad if lift < 0 else "" for lift in lifts]
    cells = [Cell(signed_text(lift), tone) for lift, tone in zip(lifts, tones, strict=True)]
    return Column("lift", cells, lifts, signed_text)


def _table(summary: RunSummary, rows: Sequence[ClientRow], caption: str) -> Table:
    columns = _columns(summary, rows)
    levels: list[tuple[str, float | None]] = [("plain mean", None)]
    if len(rows) > SHOWN_CLIENTS:
        levels += _QUANTILES
        caption += (
            f" The first {SHOWN_CLIENTS} of {len(rows)} clients, and quantiles over all of them, "
            "column by column; metrics.csv has every client."
        )
    means: list[list[Value]] = [
        [name, *(column.gathered(level) for column in columns[1:])] for name, level in levels
    ]
    weights = [row.evaluated for row in rows]
    means.insert(1, ["weighted mean", *(column.weighted(weights) for column in columns[1:])])
    return Table(
        [column.title for column in columns],
        [
            list(cells)
            for cells in zip(*(one.cells[:SHOWN_CLIENTS] for one in columns), strict=True)
        ],
        [0, *(at for at, column in enumerate(columns) if column.title == "most frequent label")],
        caption,
        means,
    )


def _rows_text(row: ClientRow, split: str) -> str:
    return f"{row.rows.get('train', 0):,} / {row.rows.get(split, 0):,}" if row.rows else NOTHING


def _whole_text(value: float) -> str:
    return f"{value:.0f}" if value == round(value) else f"{value:.1f}"

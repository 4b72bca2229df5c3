"""The tables per client of a run's page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
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


@dataclass(frozen=True)
class Column:
    """A column of the client table; without ``value`` it is text and has no mean.

    ``weigh`` is off for what has no mean by rows evaluated.
    """

    title: str
    value: Callable[[ClientRow], float] | None = None
    text: Callable[[ClientRow], Value] | None = None
    show: Callable[[float], str] = metric_text
    weigh: bool = True

    def cell(self, row: ClientRow) -> Value:
        """What stands in the line of one client."""
        if self.text is not None:
            return self.text(row)
        return self.show(self.value(row)) if self.value is not None else ""

    def gathered(self, rows: Iterable[ClientRow], level: float | None) -> str:
        """Mean of the finite values (``level`` None), or a quantile of them."""
        if self.value is None:
            return ""
        finite = [value for value in map(self.value, rows) if math.isfinite(value)]
        if not finite:
            return NOTHING
        return self.show(mean(finite) if level is None else float(np.quantile(finite, level)))

    def weighted(self, rows: Iterable[ClientRow]) -> str:
        """Mean of the finite values, every client counted by the rows it was evaluated on."""
        if self.value is None or not self.weigh:
            return ""
        pairs = [(self.value(row), row.evaluated) for row in rows]
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
    has_baseline = any(math.isfinite(row.baseline) for row in rows)
    both = summary.best_round == summary.last_round
    name = "best and last" if both else "best"
    columns = [
        Column("client", text=lambda row: str(row.id)),
        Column(f"rows train / {split}", text=lambda row: _rows_text(row, split)),
    ]
    if len({row.rank for row in rows}) > 1:
        columns.append(Column("rank", text=lambda row: rank_text(row.rank)))
    if has_baseline:
        columns.append(Column("most frequent label", text=lambda row: row.majority_label))
        columns.append(Column("baseline", lambda row: row.baseline))
    columns.append(Column(f"{name}, round {summary.best_round}", lambda row: row.best))
    columns += [_lift(summary, lambda row: row.best)] if has_baseline else []
    if any(math.isfinite(row.before) for row in rows):
        columns.append(Column("before agg.", lambda row: row.before))
    if not both:
        columns.append(Column(f"last, round {summary.last_round}", lambda row: row.last))
        columns += [_lift(summary, lambda row: row.last)] if has_baseline else []
    columns += [_extra(name) for name in summary.extra_metrics[:3]]
    trained = Column("rounds trained", lambda r: r.rounds_trained, show=_whole_text, weigh=False)
    return [*columns, trained]


def _lift(summary: RunSummary, value: Callable[[ClientRow], float]) -> Column:
    """Over the baseline, in the colour of good or bad."""
    sign = 1 if summary.larger_is_better else -1

    def difference(row: ClientRow) -> float:
        return value(row) - row.baseline

    def text(row: ClientRow) -> Cell:
        amount = difference(row)
        tone = "up" if sign * amount > 0 else "down" if sign * amount < 0 else ""
        return Cell(signed_text(amount), tone)

    return Column("lift", difference, text, signed_text)


def _extra(name: str) -> Column:
    return Column(name, lambda row: row.extra.get(name, math.nan))


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
        [name, *(column.gathered(rows, level) for column in columns[1:])] for name, level in levels
    ]
    means.insert(1, ["weighted mean", *(column.weighted(rows) for column in columns[1:])])
    return Table(
        [column.title for column in columns],
        [[column.cell(row) for column in columns] for row in rows[:SHOWN_CLIENTS]],
        [0, *(at for at, column in enumerate(columns) if column.title == "most frequent label")],
        caption,
        means,
    )


def _rows_text(row: ClientRow, split: str) -> str:
    return f"{row.rows.get('train', 0):,} / {row.rows.get(split, 0):,}" if row.rows else NOTHING


def _whole_text(value: float) -> str:
    return f"{value:.0f}" if value == round(value) else f"{value:.1f}"

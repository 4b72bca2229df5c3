"""The tables per client of a run's page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from federatedscope.core.monitors.means import mean, weighted_mean
from federatedscope_ext.tools.report.evaluations import Series
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

    A number is None where there is no measurement; one that is not finite makes the means none.
    Without ``numbers`` the column is text and has no means, without ``weights`` no weighted one.
    ``weights`` are the rows, of the split that the column is about.
    """

    title: str
    cells: Sequence[Value]
    numbers: Sequence[float | None] = ()
    weights: Sequence[float] = ()
    show: Callable[[float], str] = metric_text

    def gathered(self, level: float | None) -> str:
        """Plain mean (``level`` None), or a quantile of the finite numbers."""
        known = [number for number in self.numbers if number is not None]
        if level is None:
            return self.show(mean(known)) if self.numbers else ""
        finite = [number for number in known if math.isfinite(number)]
        if not finite:
            return NOTHING if self.numbers else ""
        return self.show(float(np.quantile(finite, level)))

    def weighted(self) -> str:
        """Mean in which every client counts by the rows behind its number."""
        if not self.weights:
            return ""
        pairs = zip(self.numbers, self.weights, strict=True)
        return self.show(weighted_mean((n, weight) for n, weight in pairs if n is not None))


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
        ([row for row in rows if row.unseen], _unseen_caption(summary)),
    )
    return [_table(summary, group, text) for group, text in groups if group]


def _unseen_caption(summary: RunSummary) -> str:
    text = "Unseen clients: they never train."
    if summary.info.local_param and not summary.info.shared_module:
        text += f" What stays on a client ({', '.join(summary.info.local_param)}) is untrained."
    return text


def _columns(summary: RunSummary, rows: Sequence[ClientRow]) -> list[Column]:
    """The columns that the run has something to say in."""
    split = "test" if summary.metric.startswith("test_") else "val"
    series = summary.population("unseen") if rows[0].unseen else summary.headline
    best_at, last_at = summary.best_round, summary.last_round
    best = _metric(summary, rows, "best", series, best_at)
    last = _metric(summary, rows, f"last, round {last_at}", series, last_at)
    best.title = f"{'best and last' if best_at == last_at else 'best'}, round {best_at}"
    # A client that only the last round evaluated has its rows from there.
    weights = [w if math.isfinite(w) else last.weights[i] for i, w in enumerate(best.weights)]
    shares = [row.baseline if math.isfinite(row.baseline) else None for row in rows]
    baseline = Column("baseline", [metric_text(share) for share in shares], shares, weights)
    has_baseline = any(share is not None for share in shares)
    columns = [
        Column("client", [str(row.id) for row in rows]),
        Column(f"rows train / {split}", [_rows_text(row, split) for row in rows]),
    ]
    if len({row.rank for row in rows}) > 1:
        columns.append(Column("rank", [rank_text(row.rank) for row in rows]))
    if has_baseline:
        labels = Column("most frequent label", [row.majority_label for row in rows])
        columns += [labels, baseline]
    columns += [best, _lift(summary, best, baseline)] if has_baseline else [best]
    before = _metric(summary, rows, "before agg.", summary.other_phase("before"), best_at)
    if any(number is not None for number in before.numbers):
        columns.append(before)
    if best_at != last_at:
        columns += [last, _lift(summary, last, baseline)] if has_baseline else [last]
    for name in summary.extra_metrics[:3]:
        columns.append(_metric(summary, rows, name, series, best_at, name))
    trained = [row.rounds_trained for row in rows]
    return [*columns, Column("rounds trained", trained, trained, show=_whole_text)]


def _metric(
    summary: RunSummary,
    rows: Sequence[ClientRow],
    title: str,
    series: Series | None,
    at: int | None,
    metric: str | None = None,
) -> Column:
    """A metric (default: the run's main one) of one evaluation."""
    found = summary.values(series, at, metric)
    numbers = [found.get(row.id) for row in rows]
    weights = [summary.rows(series, at, row.id, metric or summary.metric) for row in rows]
    return Column(title, [metric_text(number) for number in numbers], numbers, weights)


def _lift(summary: RunSummary, column: Column, baseline: Column) -> Column:
    """Over the baseline, in the colour of good or bad."""
    lifts = [
        None if value is None or share is None else value - share
        for value, share in zip(column.numbers, baseline.numbers, strict=True)
    ]
    good, bad = ("up", "down") if summary.larger_is_better else ("down", "up")
    cells = [
        Cell(signed_text(lift), good if lift and lift > 0 else bad if lift and lift < 0 else "")
        for lift in lifts
    ]
    return Column("lift", cells, lifts, column.weights, signed_text)


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
    means.insert(1, ["weighted mean", *(column.weighted() for column in columns[1:])])
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

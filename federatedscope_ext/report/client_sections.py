"""The table per client of a run's page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from federatedscope_ext.report.page import Cell, Value, section, table
from federatedscope_ext.report.records import weighted_mean
from federatedscope_ext.report.run_info import rank_text
from federatedscope_ext.report.summary import ClientRow, RunSummary
from federatedscope_ext.report.wording import NOTHING, metric_text, signed_text

__all__ = ["SHOWN_CLIENTS", "client_columns", "clients_section"]

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
        return self.show(float(np.mean(finite) if level is None else np.quantile(finite, level)))

    def weighted(self, rows: Iterable[ClientRow]) -> str:
        """Mean of the finite values, every client counted by the rows it was evaluated on."""
        if self.value is None or not self.weigh:
            return ""
        pairs = [(self.value(row), row.evaluated) for row in rows]
        return self.show(weighted_mean(pair for pair in pairs if math.isfinite(pair[0])))


def client_columns(summary: RunSummary, rows: Sequence[ClientRow]) -> list[Column]:
    """The columns that the run has something to say in."""
    split = "test" if summary.metric.startswith("test_") else "val"
    sign = 1 if summary.larger_is_better else -1

    def lift(value: Callable[[ClientRow], float]) -> Column:
        def difference(row: ClientRow) -> float:
            return value(row) - row.baseline

        def text(row: ClientRow) -> Cell:
            amount = difference(row)
            tone = "up" if sign * amount > 0 else "down" if sign * amount < 0 else ""
            return Cell(signed_text(amount), tone=tone)

        return Column("lift", difference, text, signed_text)

    def extra(name: str) -> Column:
        return Column(name, lambda row: row.extra.get(name, math.nan))

    columns = [Column("client", text=lambda row: str(row.id))]
    columns.append(
        Column(f"rows train / {split}", text=lambda row: _rows_text(row.rows, split)),
    )
    if len({row.rank for row in rows}) > 1:
        columns.append(Column("rank", text=lambda row: rank_text(row.rank)))
    has_baseline = any(math.isfinite(row.baseline) for row in rows)
    if has_baseline:
        columns.append(Column("most frequent label", text=lambda row: row.majority_label))
        columns.append(Column("baseline", lambda row: row.baseline))
    both = summary.best_round == summary.last_round
    name = "best and last" if both else "best"
    columns.append(Column(f"{name}, round {summary.best_round}", lambda row: row.best))
    columns += [lift(lambda row: row.best)] if has_baseline else []
    if any(math.isfinite(row.before) for row in rows):
        columns.append(Column("before agg.", lambda row: row.before))
    if not both:
        columns.append(Column(f"last, round {summary.last_round}", lambda row: row.last))
        columns += [lift(lambda row: row.last)] if has_baseline else []
    columns += [extra(name) for name in summary.extra_metrics[:3]]
    trained = Column(
        "rounds trained", lambda row: row.rounds_trained, show=_whole_text, weigh=False
    )
    return [*columns, trained]


def clients_section(summary: RunSummary, chart: str = "") -> str:
    """The table per client, or its first lines and quantiles where there are many."""
    rows = [row for row in summary.client_rows if not row.unseen]
    unseen = [row for row in summary.client_rows if row.unseen]
    series = summary.headline
    caption = "Nothing was evaluated yet."
    if series is not None:
        caption = (
            f"{summary.metric}, {series.phase} aggregation, {series.scope} evaluation. Lift is "
            "over always answering the client's own most frequent label."
        )
    parts = [chart]
    parts += [_client_table(summary, rows, caption)] if rows else []
    parts += [_client_table(summary, unseen, "Unseen clients: they never train.")] if unseen else []
    return section("Clients", *parts)


def _client_table(summary: RunSummary, rows: Sequence[ClientRow], caption: str) -> str:
    columns = client_columns(summary, rows)
    levels: list[tuple[str, float | None]] = [("plain mean", None)]
    if len(rows) > SHOWN_CLIENTS:
        levels += _QUANTILES
        caption += (
            f" The first {SHOWN_CLIENTS} of {len(rows)} clients, and quantiles over all of them, "
            "column by column; metrics.csv has every client."
        )
    means = [
        [name, *(column.gathered(rows, level) for column in columns[1:])] for name, level in levels
    ]
    means.insert(1, ["weighted mean", *(column.weighted(rows) for column in columns[1:])])
    texts = [at for at, column in enumerate(columns) if column.title == "most frequent label"]
    return table(
        [column.title for column in columns],
        [[column.cell(row) for column in columns] for row in rows[:SHOWN_CLIENTS]],
        caption,
        [0, *texts],
        means,
    )


def _rows_text(rows: object, split: str) -> str:
    if not isinstance(rows, dict) or not rows:
        return NOTHING
    return f"{rows.get('train', 0):,} / {rows.get(split, 0):,}"


def _whole_text(value: float) -> str:
    return f"{value:.0f}" if value == round(value) else f"{value:.1f}"

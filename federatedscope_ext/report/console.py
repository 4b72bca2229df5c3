"""The end-of-run table in the terminal."""

from __future__ import annotations

import math

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from federatedscope_ext.report.records import RunRecord
from federatedscope_ext.report.summary import ClientRow, RunSummary
from federatedscope_ext.report.wording import (
    bytes_text,
    duration_text,
    metric_text,
    options_text,
    signed_text,
    status_text,
    title_text,
    warning_texts,
)

__all__ = ["print_summary"]

SHOWN_CLIENTS = 12


def print_summary(record: RunRecord | RunSummary, console: Console | None = None) -> None:
    """Print a run's result: a line per client, both means, phase and head rule, bytes, time.

    Parameters
    ----------
    record : RunRecord or RunSummary
        The run.
    console : rich.console.Console, optional
        Where to print; default standard output.
    """
    out = console or Console()
    summary = record if isinstance(record, RunSummary) else RunSummary(record)
    info, series = summary.info, summary.headline
    out.print(f"[bold]{escape(title_text(info))}[/bold]: {escape(status_text(summary))}")
    if summary.options:
        out.print(f"With {escape(options_text(summary))}.")
    if series is None:
        out.print("Nothing was evaluated.")
    else:
        out.print(_table(summary))
        out.print(
            escape(
                f"{summary.metric}, {series.phase} aggregation, {series.scope} evaluation, head: "
                f"{info.head_rule}. Plain mean: every client counts the same; weighted: by rows "
                "evaluated."
            )
        )
        if summary.keeps_factor_local:
            out.print("There is no global model: a part of every adapter stays at its client.")
    wire = summary.communication
    out.print(
        f"Sent per client and round: {bytes_text(wire.per_client_up)} (received "
        f"{bytes_text(wire.per_client_down)}), in all {bytes_text(wire.up)} up, "
        f"{bytes_text(wire.down)} down. Time: {duration_text(info.seconds)}, "
        f"{duration_text(summary.seconds_per_round)} per round."
    )
    for text in warning_texts(summary):
        out.print(f"[yellow]Note:[/yellow] {escape(text)}")


def _table(summary: RunSummary) -> Table:
    """Clients, then the means, at the best and the last round."""
    best = summary.spread(summary.headline, summary.best_round)
    last = summary.spread(summary.headline, summary.last_round)
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("client", no_wrap=True)
    for title in ("baseline", f"best, round {summary.best_round}", "lift",
                  f"last, round {summary.last_round}", "rounds"):  # fmt: skip
        table.add_column(title, justify="right", no_wrap=True)
    rows = [row for row in summary.client_rows if _has_value(row)]
    for row in rows[:SHOWN_CLIENTS]:
        table.add_row(
            f"{row.id} (unseen)" if row.unseen else str(row.id), metric_text(row.baseline),
            metric_text(row.best), signed_text(row.best - row.baseline), metric_text(row.last),
            str(row.rounds_trained),
        )  # fmt: skip
    if len(rows) > SHOWN_CLIENTS:
        table.add_row(f"... {len(rows) - SHOWN_CLIENTS} more")
    table.add_section()
    if best is None or last is None:
        return table
    for name, at_best, at_last, base, style in (
        ("plain mean", best.plain, last.plain, summary.mean_baseline(), "bold"),
        ("weighted mean", best.weighted, last.weighted, summary.mean_baseline(weighted=True), ""),
    ):
        table.add_row(
            name, metric_text(base), metric_text(at_best), signed_text(at_best - base),
            metric_text(at_last), style=style or None,
        )  # fmt: skip
    table.add_row("std over clients", "", metric_text(best.std), "", metric_text(last.std))
    for name, series in (
        ("before aggregation", summary.other_phase("before")),
        ("unseen clients", summary.population("unseen")),
        ("server", summary.population("server") if summary.has_global_model else None),
    ):
        found_best = summary.spread(series, summary.best_round)
        found_last = summary.spread(series, summary.last_round)
        if series != summary.headline and (found_best or found_last):
            table.add_row(
                name, "", metric_text(found_best.plain if found_best else None), "",
                metric_text(found_last.plain if found_last else None),
            )  # fmt: skip
    return table


def _has_value(row: ClientRow) -> bool:
    return math.isfinite(row.best) or math.isfinite(row.last)

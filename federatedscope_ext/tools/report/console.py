"""The end-of-run table in the terminal."""

from __future__ import annotations

import math

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from federatedscope_ext.tools.report.numbers import (
    bytes_text,
    duration_text,
    metric_text,
    signed_text,
)
from federatedscope_ext.tools.report.records import RunRecord
from federatedscope_ext.tools.report.summary import Communication, RunSummary
from federatedscope_ext.tools.report.wording import (
    options_text,
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
        f"{bytes_text(wire.down)} down{_beside(wire)}. Time: {duration_text(info.seconds)}, "
        f"{duration_text(summary.seconds_per_round)} per round."
    )
    for text in warning_texts(summary):
        out.print(f"[yellow]Note:[/yellow] {escape(text)}")


def _beside(wire: Communication) -> str:
    """What was sent and belongs to no completed round's training."""
    parts = ((wire.evaluation, "for evaluation"), (wire.finish, "at the end"),
             (wire.unfinished, "in an unfinished round"))  # fmt: skip
    texts = [f"{bytes_text(size)} {purpose}" for size, purpose in parts if size]
    return f"; {', '.join(texts)}" if texts else ""


def _table(summary: RunSummary) -> Table:
    """Clients, then the means, at the best and the last round."""
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("client", no_wrap=True)
    for title in ("baseline", f"best, round {summary.best_round}", "lift",
                  f"last, round {summary.last_round}", "rounds"):  # fmt: skip
        table.add_column(title, justify="right", no_wrap=True)
    rows = [r for r in summary.client_rows if math.isfinite(r.best) or math.isfinite(r.last)]
    for row in rows[:SHOWN_CLIENTS]:
        name = f"{row.id} (unseen)" if row.unseen else str(row.id)
        table.add_row(*_cells(name, row.baseline, row.best, row.last), str(row.rounds_trained))
    if len(rows) > SHOWN_CLIENTS:
        table.add_row(f"... {len(rows) - SHOWN_CLIENTS} more")
    table.add_section()
    best, last = summary.best, summary.last
    if best is None or last is None:
        return table
    plain, weighted = summary.mean_baseline(), summary.mean_baseline(weighted=True)
    table.add_row(*_cells("plain mean", plain, best.plain, last.plain), style="bold")
    table.add_row(*_cells("weighted mean", weighted, best.weighted, last.weighted))
    table.add_row("std over clients", "", metric_text(best.std), "", metric_text(last.std))
    for name, series in (
        ("before aggregation", summary.other_phase("before")),
        ("unseen clients", summary.population("unseen")),
        ("server", summary.population("server") if summary.has_global_model else None),
    ):
        found = [summary.spread(series, at) for at in (summary.best_round, summary.last_round)]
        if series != summary.headline and any(found):
            at_best, at_last = (metric_text(spread.plain if spread else None) for spread in found)
            table.add_row(name, "", at_best, "", at_last)
    return table


def _cells(name: str, baseline: float, best: float, last: float) -> list[str]:
    shown = metric_text
    return [name, shown(baseline), shown(best), signed_text(best - baseline), shown(last)]

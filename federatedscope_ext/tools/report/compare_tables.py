"""A comparison as tables: for the terminal, markdown, CSV and the page."""

from __future__ import annotations

import math
from collections.abc import Callable

from rich.console import Console
from rich.markup import escape

from federatedscope_ext.tools.report.compare import Comparison
from federatedscope_ext.tools.report.compare_groups import FIGURES, Figure, Group, short_name
from federatedscope_ext.tools.report.numbers import (
    NOTHING,
    bytes_text,
    duration_text,
    metric_text,
)
from federatedscope_ext.tools.report.tables import Table, Value

_PRINTED_CLIENTS = 25


def figure_text(figure: Figure | None, show: Callable[[float], str] = metric_text) -> str:
    """``0.8310 ± 0.0120``; without a spread for a single run, a dash for nothing."""
    if figure is None:
        return NOTHING
    mean = "nan" if math.isnan(figure.mean) else show(figure.mean)
    return mean if math.isnan(figure.std) else f"{mean} ± {show(figure.std)}"


def _spread(name: str) -> Callable[[Group], str]:
    return lambda group: figure_text(group.figure(name))


def _mean(name: str, show: Callable[[float], str] = metric_text) -> Callable[[Group], str]:
    def text(group: Group) -> str:
        figure = group.figure(name)
        return NOTHING if figure is None else show(figure.mean)

    return text


def _traffic(group: Group) -> str:
    """Bytes that all clients send in a round, and what they receive where that is different."""
    up, down = group.figure("bytes_up_per_round"), group.figure("bytes_down_per_round")
    if up is None or down is None or abs(down.mean - up.mean) <= 0.01 * max(up.mean, down.mean):
        return _mean("bytes_up_per_round", bytes_text)(group)
    return f"{bytes_text(up.mean)} up, {bytes_text(down.mean)} down"


_RESULTS: dict[str, Callable[[Group], str]] = {
    "majority baseline": _mean("baseline"),
    "best plain mean": _spread("best"),
    "at round": _mean("best_round", lambda value: f"{value:.3g}"),
    "last plain mean": _spread("last"),
    "weighted baseline": _mean("weighted_baseline"),
    "best weighted mean": _spread("weighted_best"),
    "before aggregation": _spread("before"),
}
_COSTS: dict[str, Callable[[Group], str]] = {
    "rounds done": _mean("rounds_done", lambda value: f"{value:g}"),
    "sent per round": _traffic,
    "time per round": _mean("seconds_per_round", duration_text),
}


def comparison_table(comparison: Comparison, results: bool = True, costs: bool = True) -> Table:
    """The comparison, one line per group; columns without a value are left out.

    The fields that differ come first, under their own name without its section unless that is
    ambiguous, then the runs, then results and costs as asked for.
    """
    titles = [*_names(comparison), "runs"]
    lines: list[list[Value]] = [[*g.columns.values(), g.runs_text] for g in comparison.groups]
    left = range(len(titles))
    for title, text in {**(_RESULTS if results else {}), **(_COSTS if costs else {})}.items():
        cells = [text(group) for group in comparison.groups]
        if any(cell != NOTHING for cell in cells):
            titles.append(title)
            for line, cell in zip(lines, cells, strict=True):
                line.append(cell)
    return Table(titles, lines, left)


def _names(comparison: Comparison) -> list[str]:
    return [short_name(name, comparison.columns) for name in comparison.columns]


def client_table(comparison: Comparison, limit: int | None = None, caption: str = "") -> Table:
    """A line per client: its baseline, and its metric in every group at the best round."""
    found = [group.clients() for group in comparison.groups]
    lines: list[list[Value]] = []
    for client in sorted(set().union(*found))[:limit]:
        figures = [clients.get(client) for clients in found]
        baselines = dict.fromkeys(metric_text(f.baseline) for f in figures if f)
        bests = (figure_text(f.best if f else None) for f in figures)
        lines.append([str(client), " / ".join(baselines), *bests])
    titles = ["client", "majority baseline", *(group.label for group in comparison.groups)]
    return Table(titles, lines, caption=caption)


def rounds_table(comparison: Comparison, client: int) -> Table:
    """A line per group and evaluated round of one client."""
    lines: list[list[Value]] = [
        [*group.columns.values(), str(found.round), figure_text(found.before),
         figure_text(found.after)]
        for group in comparison.groups
        for found in group.rounds_of(client)
    ]  # fmt: skip
    titles = [*_names(comparison), "round", "before aggregation", "after aggregation"]
    return Table(titles, lines, range(len(comparison.columns)))


def print_comparison(
    comparison: Comparison, console: Console, clients: bool = False, client: int | None = None
) -> None:
    """Print the comparison as tables for a terminal."""
    direction = comparison.direction
    console.print(f"[bold]{escape(comparison.metric)}[/bold] ({direction} is better)")
    comparison_table(comparison).print(console)
    if clients:
        everyone = client_table(comparison)
        shown, total = _PRINTED_CLIENTS, len(everyone.rows)
        everyone.rows = everyone.rows[:shown]
        everyone.print(console)
        if total > shown:
            console.print(f"The first {shown} of {total} clients; --format csv has all of them.")
    if client is not None:
        console.print(f"[bold]Client {client}[/bold]")
        rounds_table(comparison, client).print(console)
    for text in comparison.notes:
        console.print(f"[yellow]Note:[/yellow] {escape(text)}")


def compare_markdown(
    comparison: Comparison, clients: bool = False, client: int | None = None
) -> str:
    """The comparison as markdown tables, notes as a list."""
    parts = [f"Metric: `{comparison.metric}`", "", *comparison_table(comparison).markdown()]
    if clients:
        parts += ["", *client_table(comparison).markdown()]
    if client is not None:
        parts += ["", f"Client {client}:", "", *rounds_table(comparison, client).markdown()]
    if comparison.notes:
        parts += ["", *(f"- {note}" for note in comparison.notes)]
    return "\n".join(parts) + "\n"


def compare_csv(comparison: Comparison, clients: bool = False, client: int | None = None) -> str:
    """The comparison as CSV with plain numbers: mean, std and n of every figure.

    With ``clients`` one line per group and client instead, with ``client`` one per group and round
    of that client.
    """
    titles = list(comparison.columns)
    rows: list[list[Value]]
    if client is not None:
        titles += ["client", "round", *_heads("before", "after")]
        rows = [
            [*group.columns.values(), client, found.round, *_numbers(found.before, found.after)]
            for group in comparison.groups
            for found in group.rounds_of(client)
        ]
    elif clients:
        titles += ["client", "baseline", *_heads("best"), "n"]
        rows = [
            [*group.columns.values(), one, found.baseline, *_numbers(found.best), found.best.n]
            for group in comparison.groups
            for one, found in group.clients().items()
        ]
    else:
        titles += ["metric", "runs", "seeds", "unfinished", *_heads(*FIGURES)]
        rows = [
            [*group.columns.values(), group.runs[0].summary.metric, len(group.runs),
             "/".join(str(run.seed) for run in group.runs), group.unfinished,
             *_numbers(*map(group.figure, FIGURES))]
            for group in comparison.groups
        ]  # fmt: skip
    return Table(titles, rows).csv()


def _heads(*names: str) -> list[str]:
    return [f"{name}_{part}" for name in names for part in ("mean", "std")]


def _numbers(*figures: Figure | None) -> list[Value]:
    return [number for one in figures for number in ((one.mean, one.std) if one else (None, None))]

"""A comparison as text: a table for the terminal, markdown, CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from federatedscope_ext.report.compare import Comparison
from federatedscope_ext.report.compare_client import client_rounds
from federatedscope_ext.report.compare_groups import FIGURES, Figure, Group, short_name
from federatedscope_ext.report.wording import NOTHING, bytes_text, duration_text, metric_text

__all__ = [
    "client_rounds_rows",
    "client_rows",
    "compare_csv",
    "compare_markdown",
    "comparison_rows",
    "figure_text",
    "print_comparison",
]

Rows = tuple[list[str], list[list[str]]]
Line = list[Any]


def figure_text(figure: Figure | None, show: Callable[[float], str] = metric_text) -> str:
    """``0.8310 ± 0.0120``; without a spread for a single run, a dash for nothing."""
    if figure is None:
        return NOTHING
    mean = "nan" if math.isnan(figure.mean) else show(figure.mean)
    return mean if math.isnan(figure.std) else f"{mean} ± {show(figure.std)}"


def _plain(figure: Figure | None, show: Callable[[float], str]) -> str:
    return NOTHING if figure is None else show(figure.mean)


def _traffic_text(group: Group) -> str:
    """Bytes that all clients send in a round, and what they receive where that is different."""
    up, down = group.figure("bytes_up_per_round"), group.figure("bytes_down_per_round")
    if up is None or down is None or abs(down.mean - up.mean) <= 0.01 * max(up.mean, down.mean):
        return _plain(up, bytes_text)
    return f"{bytes_text(up.mean)} up, {bytes_text(down.mean)} down"


_RESULTS: dict[str, Callable[[Group], str]] = {
    "majority baseline": lambda group: _plain(group.figure("baseline"), metric_text),
    "best plain mean": lambda group: figure_text(group.figure("best")),
    "at round": lambda group: _plain(group.figure("best_round"), lambda value: f"{value:.3g}"),
    "last plain mean": lambda group: figure_text(group.figure("last")),
    "weighted baseline": lambda group: _plain(group.figure("weighted_baseline"), metric_text),
    "best weighted mean": lambda group: figure_text(group.figure("weighted_best")),
    "before aggregation": lambda group: figure_text(group.figure("before")),
}
_COSTS: dict[str, Callable[[Group], str]] = {
    "rounds done": lambda group: _plain(group.figure("rounds_done"), lambda value: f"{value:g}"),
    "sent per round": _traffic_text,
    "time per round": lambda group: _plain(group.figure("seconds_per_round"), duration_text),
}


def comparison_rows(comparison: Comparison, results: bool = True, costs: bool = True) -> Rows:
    """Titles and lines of the comparison, one line per group; columns without a value are left out.

    The fields that differ come first, under their own name without its section unless that is
    ambiguous, then the runs, then results and costs as asked for.
    """
    titles = [short_name(name, comparison.columns) for name in comparison.columns] + ["runs"]
    lines = [[*group.columns.values(), group.runs_text] for group in comparison.groups]
    columns = {**(_RESULTS if results else {}), **(_COSTS if costs else {})}
    for title, text in columns.items():
        cells = [text(group) for group in comparison.groups]
        if any(cell != NOTHING for cell in cells):
            titles.append(title)
            for line, cell in zip(lines, cells, strict=True):
                line.append(cell)
    return titles, lines


def client_rows(comparison: Comparison, limit: int | None = None) -> Rows:
    """A line per client: its baseline, and its metric in every group at the best round."""
    tables = [group.clients() for group in comparison.groups]
    clients = sorted(set().union(*tables))
    titles = ["client", "majority baseline", *(group.label for group in comparison.groups)]
    lines = []
    for client in clients[:limit]:
        figures = [table.get(client) for table in tables]
        baselines = list(dict.fromkeys(metric_text(f.baseline) for f in figures if f))
        lines.append(
            [str(client), " / ".join(baselines), *(figure_text(f.best if f else None)
             for f in figures)]
        )  # fmt: skip
    return titles, lines


def client_rounds_rows(comparison: Comparison, client: int) -> Rows:
    """A line per group and evaluated round of one client."""
    names = [short_name(name, comparison.columns) for name in comparison.columns]
    titles = [*names, "round", "before aggregation", "after aggregation"]
    lines = [
        [*group.columns.values(), str(found.round), figure_text(found.before),
         figure_text(found.after)]
        for group in comparison.groups
        for found in client_rounds(group, client)
    ]  # fmt: skip
    return titles, lines


def print_comparison(
    comparison: Comparison, console: Console, clients: bool = False, client: int | None = None
) -> None:
    """Print the comparison as tables for a terminal."""
    direction = "larger" if comparison.larger_is_better else "smaller"
    console.print(f"[bold]{escape(comparison.metric)}[/bold] ({direction} is better)")
    _print_wide(comparison_rows(comparison), len(comparison.columns) + 1, console)
    if clients:
        limit = 25
        _print_wide(client_rows(comparison, limit), 1, console)
        total = len(set().union(*(group.clients() for group in comparison.groups)))
        if total > limit:
            console.print(f"The first {limit} of {total} clients; --format csv has all of them.")
    if client is not None:
        console.print(f"[bold]Client {client}[/bold]")
        _print_wide(client_rounds_rows(comparison, client), len(comparison.columns), console)
    for text in comparison.notes:
        console.print(f"[yellow]Note:[/yellow] {escape(text)}")


def _print_wide(content: Rows, left: int, console: Console) -> None:
    """A table; where it is too wide, as many numbered parts of it as fit the width."""
    titles, lines = content
    widths = [width + 3 for width in _widths(content)]
    if sum(widths) <= console.width:
        console.print(_table(content, left))
        return
    parts: list[list[int]] = [[]]
    for at, width in enumerate(widths):
        used = 4 + sum(widths[other] for other in parts[-1])
        if parts[-1] and used + width > console.width:
            parts.append([])
        parts[-1].append(at)
    for part in parts:
        rows = [[str(at), *(line[i] for i in part)] for at, line in enumerate(lines, start=1)]
        console.print(
            _table((["#", *(titles[i] for i in part)], rows), sum(i < left for i in part) + 1)
        )
        console.print()


def _widths(content: Rows) -> list[int]:
    """The least width of every column: no cell is broken, titles only between words."""
    titles, lines = content
    return [
        max(map(len, [*title.split(), *(line[at] for line in lines)]))
        for at, title in enumerate(titles)
    ]


def _table(content: Rows, left: int) -> Table:
    titles, lines = content
    table = Table(show_edge=False, pad_edge=False)
    for at, (title, width) in enumerate(zip(titles, _widths(content), strict=True)):
        justify: Literal["left", "right"] = "left" if at < left else "right"
        table.add_column(escape(title), justify=justify, width=width)
    for line in lines:
        table.add_row(*map(escape, line))
    return table


def compare_markdown(
    comparison: Comparison, clients: bool = False, client: int | None = None
) -> str:
    """The comparison as markdown tables, notes as a list."""
    parts = [f"Metric: `{comparison.metric}`", "", *_markdown(comparison_rows(comparison))]
    if clients:
        parts += ["", *_markdown(client_rows(comparison))]
    if client is not None:
        parts += ["", f"Client {client}:", "", *_markdown(client_rounds_rows(comparison, client))]
    if comparison.notes:
        parts += ["", *(f"- {note}" for note in comparison.notes)]
    return "\n".join(parts) + "\n"


def _markdown(content: Rows) -> list[str]:
    titles, lines = content
    rows = [titles, ["---"] * len(titles), *lines]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]


def compare_csv(comparison: Comparison, clients: bool = False, client: int | None = None) -> str:
    """The comparison as CSV with plain numbers: mean, std and n of every figure.

    With ``clients`` one line per group and client instead, with ``client`` one per group and round
    of that client.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    lines = _groups_csv(comparison)
    if client is not None:
        lines = _client_csv(comparison, client)
    elif clients:
        lines = _clients_csv(comparison)
    writer.writerows(lines)
    return out.getvalue()


def _groups_csv(comparison: Comparison) -> Iterator[Line]:
    heads = [f"{name}_{part}" for name in FIGURES for part in ("mean", "std")]
    yield [*comparison.columns, "metric", "runs", "seeds", "unfinished", *heads]
    for group in comparison.groups:
        figures = [group.figure(name) for name in FIGURES]
        yield [
            *group.columns.values(), group.runs[0].summary.metric, len(group.runs),
            "/".join(str(run.seed) for run in group.runs), group.unfinished,
            *(cell for figure in figures for cell in _figure_cells(figure)),
        ]  # fmt: skip


def _clients_csv(comparison: Comparison) -> Iterator[Line]:
    yield [*comparison.columns, "client", "baseline", "best_mean", "best_std", "n"]
    for group in comparison.groups:
        for client, found in group.clients().items():
            cells = [_number(found.baseline), *_figure_cells(found.best), found.best.n]
            yield [*group.columns.values(), client, *cells]


def _client_csv(comparison: Comparison, client: int) -> Iterator[Line]:
    heads = [f"{phase}_{part}" for phase in ("before", "after") for part in ("mean", "std")]
    yield [*comparison.columns, "client", "round", *heads]
    for group in comparison.groups:
        for found in client_rounds(group, client):
            cells = [*_figure_cells(found.before), *_figure_cells(found.after)]
            yield [*group.columns.values(), client, found.round, *cells]


def _figure_cells(figure: Figure | None) -> list[float | str]:
    return ["", ""] if figure is None else [_number(figure.mean), _number(figure.std)]


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else ""

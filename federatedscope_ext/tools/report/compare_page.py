"""A comparison as files: ``compare.html``, ``compare.csv``, ``compare.png``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from federatedscope_ext.tools.report.compare import Comparison
from federatedscope_ext.tools.report.compare_groups import Group
from federatedscope_ext.tools.report.compare_tables import (
    client_table,
    compare_csv,
    comparison_table,
)
from federatedscope_ext.tools.report.curves import MUTED, legend_below, new_figure, save_figure
from federatedscope_ext.tools.report.files import write_text
from federatedscope_ext.tools.report.page import inlined, render
from federatedscope_ext.tools.report.tables import Table, Value

__all__ = ["write_comparison"]

_COLORS = ("#1b5e9b", "#c2571a", "#3c7d4b", "#8a3f86", "#b58a1b", "#4a9ba5", "#a32a2a", "#6b7480",
           "#7a8f2b", "#5a4fa0")  # fmt: skip
_STYLES = ("-", "--", "-.", ":")
_SHOWN_CLIENTS = 25


def write_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write the comparison's files; returns their paths, the page last.

    ``compare.png`` is left out when no run has an evaluated round.
    """
    written = [write_text(folder / "compare.csv", compare_csv(comparison))]
    chart = _chart(comparison)
    if chart is not None:
        written.append(save_figure(chart, folder / "compare.png"))
    page = _page(comparison, folder / "compare.png" if chart is not None else None)
    return [*written, write_text(folder / "compare.html", page)]


def _chart(comparison: Comparison) -> Canvas | None:
    """The mean curve of every group, with a band of one standard deviation over its runs."""
    curves = [(group, points) for group in comparison.groups if (points := group.curve())]
    if not curves:
        return None
    canvas, axes = new_figure(f"{comparison.metric}, plain mean", height=4.0)
    for at, (group, points) in enumerate(curves):
        color, style = _look(at)
        rounds = [round_ for round_, _ in points]
        means = [f.mean for _, f in points]
        stds = [0.0 if math.isnan(f.std) else f.std for _, f in points]
        label = group.label + (f" (n={len(group.runs)})" if len(group.runs) > 1 else "")
        axes.plot(
            rounds, means, color=color, linewidth=2, label=label,
            linestyle=style,
            marker="o" if len(rounds) < 2 else None,
        )  # fmt: skip
        if any(stds):
            low = [m - s for m, s in zip(means, stds, strict=True)]
            high = [m + s for m, s in zip(means, stds, strict=True)]
            axes.fill_between(rounds, low, high, color=color, alpha=0.15, linewidth=0)
    _draw_baselines(axes, [group for group, _ in curves])
    legend_below(canvas, axes, columns=1, width=120)
    return canvas


def _draw_baselines(axes: Axes, groups: Sequence[Group]) -> None:
    """A line per majority baseline: grey where several groups have it, else in the group's color.

    ``groups`` are those with a curve; colors follow :func:`_look`.
    """
    owners: dict[float, list[int]] = {}
    for at, group in enumerate(groups):
        found = group.figure("baseline")
        if found is not None:
            owners.setdefault(round(found.mean, 6), []).append(at)
    for value, positions in owners.items():
        color = _look(positions[0])[0] if len(positions) == 1 < len(groups) else MUTED
        axes.axhline(value, color=color, linewidth=1.2, linestyle=":")
    if owners:
        label = "mean majority baseline"
        if len(owners) > 1:
            label += ", in the color of its curve (grey: of several)"
        axes.plot([], [], color=MUTED, linewidth=1.2, linestyle=":", label=label)


def _look(at: int) -> tuple[str, str]:
    """Color and line style of the curve at a position."""
    return _COLORS[at % len(_COLORS)], _STYLES[at // len(_COLORS) % len(_STYLES)]


def _page(comparison: Comparison, chart: Path | None) -> str:
    runs: list[list[Value]] = [
        [group.label, str(run.record.outdir), str(run.seed), run.record.info.status,
         run.summary.rounds_done]
        for group in comparison.groups
        for run in group.runs
    ]  # fmt: skip
    caption = (
        f"{comparison.metric} at each run's best round; the first {_SHOWN_CLIENTS} clients at most."
    )
    return render(
        "compare.html.j2",
        title=f"Comparison of {len(comparison.runs)} runs",
        c=comparison,
        results=comparison_table(comparison, costs=False),
        costs=comparison_table(comparison, results=False),
        clients=client_table(comparison, _SHOWN_CLIENTS, caption),
        runs=Table(["group", "folder", "seed", "status", "rounds"], runs, (0, 1, 3)),
        chart=inlined(chart) if chart else "",
    )

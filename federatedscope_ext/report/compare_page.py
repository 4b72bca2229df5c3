"""A comparison as files: ``compare.html``, ``compare.csv``, ``compare.png``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from federatedscope_ext.report.compare import Comparison
from federatedscope_ext.report.compare_groups import Group
from federatedscope_ext.report.compare_tables import client_rows, compare_csv, comparison_rows
from federatedscope_ext.report.curves import INK, MUTED, legend_below, new_figure, save_figure
from federatedscope_ext.report.files import write_text
from federatedscope_ext.report.page import (
    bullets,
    document,
    figure,
    note,
    paragraph,
    section,
    table,
)

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
    canvas, axes = new_figure(height=4.0)
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
    axes.set_ylabel(f"{comparison.metric}, plain mean", color=INK, fontsize=9)
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
    fields = len(comparison.columns) + 1
    direction = "larger" if comparison.larger_is_better else "smaller"
    count = len(comparison.runs)
    image = "Plain mean over clients by round; the band is one standard deviation over seeds"
    client_titles, client_lines = client_rows(comparison, _SHOWN_CLIENTS)
    return document(
        f"Comparison of {count} runs",
        [
            f"<header><h1>Comparison of {count} runs</h1></header>",
            paragraph(
                f"{comparison.metric}, {direction} is better. Runs that differ only in their seed "
                "are one line: mean ± sample standard deviation over seeds."
            ),
            table(*comparison_rows(comparison, costs=False), text_columns=range(fields)),
            note("Notes", bullets(comparison.notes), "warn") if comparison.notes else "",
            section("Curves", figure(chart, image) if chart else ""),
            section(
                "Costs",
                table(*comparison_rows(comparison, results=False), text_columns=range(fields)),
            ),
            section(
                "Clients",
                table(
                    client_titles, client_lines,
                    f"{comparison.metric} at each run's best round; the first {_SHOWN_CLIENTS} "
                    "clients at most.",
                ) if client_lines else "",
            ),
            section("Runs", _runs_table(comparison)),
        ],
    )  # fmt: skip


def _runs_table(comparison: Comparison) -> str:
    rows = [
        [group.label, str(run.record.outdir), str(run.seed), run.record.info.status,
         str(run.summary.rounds_done)]
        for group in comparison.groups
        for run in group.runs
    ]  # fmt: skip
    return table(["group", "folder", "seed", "status", "rounds"], rows, text_columns=(0, 1, 3))

"""A comparison as files: ``compare.html``, ``compare.csv``, ``compare.png``."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.figure import Figure as Canvas

from federatedscope_ext.report.compare import Comparison
from federatedscope_ext.report.compare_tables import client_rows, compare_csv, comparison_rows
from federatedscope_ext.report.curves import INK, new_figure, save_figure
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
    curves = [(group, group.curve()) for group in comparison.groups]
    if not any(points for _, points in curves):
        return None
    canvas, axes = new_figure(height=4.2)
    for at, (group, points) in enumerate(curves):
        if not points:
            continue
        color = _COLORS[at % len(_COLORS)]
        rounds = [round_ for round_, _ in points]
        means = [f.mean for _, f in points]
        stds = [0.0 if math.isnan(f.std) else f.std for _, f in points]
        label = group.label + (f" (n={len(group.runs)})" if len(group.runs) > 1 else "")
        axes.plot(
            rounds, means, color=color, linewidth=2, label=label,
            linestyle=_STYLES[at // len(_COLORS) % len(_STYLES)],
            marker="o" if len(rounds) < 2 else None,
        )  # fmt: skip
        if any(stds):
            low = [m - s for m, s in zip(means, stds, strict=True)]
            high = [m + s for m, s in zip(means, stds, strict=True)]
            axes.fill_between(rounds, low, high, color=color, alpha=0.15, linewidth=0)
    baselines = {round(f.mean, 6) for g in comparison.groups if (f := g.figure("baseline"))}
    for baseline in sorted(baselines)[:3]:
        axes.axhline(baseline, color=INK, linewidth=1.1, linestyle=":")
    if baselines:
        axes.plot([], [], color=INK, linewidth=1.1, linestyle=":", label="mean majority baseline")
    axes.set_ylabel(f"{comparison.metric}, plain mean", color=INK, fontsize=9)
    axes.legend(fontsize=8, frameon=False, loc="best")
    return canvas


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

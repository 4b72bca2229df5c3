"""The curves of a run as PNG files: metric, loss, bytes.

Figures are made without pyplot, so drawing leaves no state in a process that goes on training.
"""

from __future__ import annotations

import math
import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from federatedscope_ext.report.evaluations import Series
from federatedscope_ext.report.files import atomic_path
from federatedscope_ext.report.records import split_metric
from federatedscope_ext.report.summary import RunSummary

__all__ = ["draw_curves", "legend_below", "new_figure", "save_figure"]

INK = "#1f2933"
MUTED = "#8a94a0"
ACCENT = "#1b5e9b"
SECOND = "#c2571a"
THIRD = "#3c7d4b"
MAX_LINES = 20
"""Up to this many clients have a line each; more are drawn as quantile bands."""

_LEGEND_LINE = 0.18
"""Inches per line of a legend."""

Points = Mapping[int, Sequence[tuple[int, float]]]


def new_figure(height: float = 3.6) -> tuple[Figure, Axes]:
    """An empty figure of the report's size and look, and its only axes."""
    figure = Figure(figsize=(8.0, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(axis="y", color="#e6e9ed", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("round", color=INK, fontsize=9)
    return figure, axes


def legend_below(figure: Figure, axes: Axes, columns: int = 3, width: int = 0) -> None:
    """Put the legend under the axes, where it covers no curve, and make room for it.

    Parameters
    ----------
    figure, axes
        What :func:`new_figure` returned.
    columns : int
        Entries in a line.
    width : int
        Characters after which a label is broken; 0 never breaks one.
    """
    handles, labels = axes.get_legend_handles_labels()
    if width:
        labels = ["\n".join(textwrap.wrap(label, width)) for label in labels]
    lines = max(math.ceil(len(labels) / columns), sum(label.count("\n") + 1 for label in labels)
                if columns == 1 else 0)  # fmt: skip
    figure.set_figheight(figure.get_figheight() + _LEGEND_LINE * lines)
    figure.legend(
        handles, labels, loc="outside lower left", ncols=columns, fontsize=8, frameon=False
    )


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, atomically; returns the path."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=140, metadata={"Software": None})
    return path


def draw_curves(summary: RunSummary, folder: Path | None = None) -> list[Path]:
    """Draw what the run has data for; returns the files written.

    Parameters
    ----------
    summary : RunSummary
        The run.
    folder : Path, optional
        Where to write ``metric.png``, ``loss.png`` and ``bytes.png``; default
        ``OUTDIR/curves``. A curve without data is not written.
    """
    target = folder or summary.record.outdir / "curves"
    figures = {
        "metric.png": _metric_figure(summary),
        "loss.png": _loss_figure(summary),
        "bytes.png": _bytes_figure(summary),
    }
    return [save_figure(figure, target / name) for name, figure in figures.items() if figure]


def _metric_figure(summary: RunSummary) -> Figure | None:
    """Headline metric by round: clients thin, plain mean thick, majority baseline dashed."""
    points = summary.curve(summary.headline)
    if not points or summary.headline is None:
        return None
    figure, axes = new_figure()
    clients = _client_points(summary, summary.headline, summary.metric)
    if summary.headline.population != "server":
        _draw_clients(axes, clients, ACCENT)
    marker = "o" if len(points) < 40 else None
    axes.plot(
        [r for r, _ in points], [s.plain for _, s in points], color=ACCENT, linewidth=2.4,
        marker=marker, markersize=4, label=f"plain mean, {summary.headline.phase} aggregation",
    )  # fmt: skip
    before = summary.curve(summary.other_phase("before"))
    if before:
        axes.plot(
            [r for r, _ in before], [s.plain for _, s in before], color=SECOND, linewidth=1.6,
            linestyle="--", label="plain mean, before aggregation",
        )  # fmt: skip
    unseen = summary.curve(summary.population("unseen"))
    if unseen and summary.headline.population != "unseen":
        axes.plot(
            [r for r, _ in unseen], [s.plain for _, s in unseen], color=THIRD, linewidth=1.6,
            label="plain mean, unseen clients",
        )  # fmt: skip
    _draw_marks(axes, summary)
    axes.set_ylabel(summary.metric, color=INK, fontsize=9)
    legend_below(figure, axes)
    return figure


def _draw_marks(axes: Axes, summary: RunSummary) -> None:
    """The majority baseline and the best round."""
    baseline = summary.mean_baseline()
    if np.isfinite(baseline):
        axes.axhline(
            baseline, color=INK, linewidth=1.2, linestyle=":", label="mean majority baseline"
        )
    best = summary.spread(summary.headline, summary.best_round)
    if best is not None and summary.best_round is not None:
        axes.plot(
            [summary.best_round], [best.plain], marker="o", markersize=9, color=ACCENT,
            markerfacecolor="white", markeredgewidth=2, linestyle="none",
            label=f"best round ({summary.best_round})",
        )  # fmt: skip


def _loss_figure(summary: RunSummary) -> Figure | None:
    """Training and evaluation loss by round, per row."""
    training: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for event in summary.record.train:
        if "train_avg_loss" in event.metrics:
            training[event.client].append((event.round, event.metrics["train_avg_loss"]))
    split = split_metric(summary.metric)[0] or "val"
    evaluated = summary.curve(summary.headline, f"{split}_avg_loss")
    if not training and not evaluated:
        return None
    figure, axes = new_figure()
    _draw_clients(axes, training, SECOND, name="clients, training")
    losses = summary.train_loss_by_round
    if losses:
        axes.plot(
            list(losses), list(losses.values()), color=SECOND, linewidth=2.2,
            marker="o" if len(losses) < 2 else None, label="training loss, mean of the clients",
        )  # fmt: skip
    if evaluated:
        axes.plot(
            [r for r, _ in evaluated], [s.plain for _, s in evaluated], color=ACCENT,
            linewidth=2.2, marker="o" if len(evaluated) < 2 else None,
            label=f"{split} loss, plain mean",
        )  # fmt: skip
    axes.set_ylabel("loss per row", color=INK, fontsize=9)
    legend_below(figure, axes)
    return figure


def _bytes_figure(summary: RunSummary) -> Figure | None:
    """Cumulative bytes of all clients by round."""
    cumulative = summary.communication.cumulative
    if not cumulative:
        return None
    rounds = [0] + [round_ for round_, _, _ in cumulative]
    top = max(cumulative[-1][1], cumulative[-1][2])
    unit, factor = next(
        (pair for pair in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)) if top >= pair[1]), ("B", 1.0)
    )
    figure, axes = new_figure(height=2.8)
    for label, column, color in (("sent to the server", 1, ACCENT), ("received", 2, SECOND)):
        sizes = [0.0] + [row[column] / factor for row in cumulative]
        style = "-" if column == 1 else "--"
        axes.plot(rounds, sizes, color=color, linewidth=2, linestyle=style, label=label)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"{unit}, all clients, cumulative", color=INK, fontsize=9)
    legend_below(figure, axes)
    return figure


def _client_points(
    summary: RunSummary, series: Series, metric: str
) -> dict[int, list[tuple[int, float]]]:
    """``(round, value)`` by client."""
    points: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for round_ in sorted(summary.tables.get(series, {})):
        for client, value in summary.evaluations.values(series, round_, metric).items():
            points[client].append((round_, value))
    return points


def _draw_clients(axes: Axes, points: Points, color: str, name: str = "clients") -> None:
    """A thin line per client, or bands (10-90 %, 25-75 %) where there are many."""
    if len(points) <= MAX_LINES:
        for position, line in enumerate(points.values()):
            axes.plot(
                [r for r, _ in line], [v for _, v in line], color=color, linewidth=0.8, alpha=0.4,
                label=f"{name} (one line each)" if position == 0 and len(points) > 1 else None,
            )  # fmt: skip
        return
    by_round: dict[int, list[float]] = defaultdict(list)
    for line in points.values():
        for round_, value in line:
            if np.isfinite(value):
                by_round[round_].append(value)
    rounds = sorted(by_round)
    if not rounds:
        return
    levels = np.array([np.quantile(by_round[r], [0.1, 0.25, 0.75, 0.9]) for r in rounds])
    axes.fill_between(
        rounds, levels[:, 0], levels[:, 3], color=color, alpha=0.12, linewidth=0,
        label=f"{name}, 10-90 %",
    )  # fmt: skip
    axes.fill_between(
        rounds, levels[:, 1], levels[:, 2], color=color, alpha=0.22, linewidth=0,
        label=f"{name}, 25-75 %",
    )  # fmt: skip

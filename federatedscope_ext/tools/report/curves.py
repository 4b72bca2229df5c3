"""The curves of a run as PNG files: metric, loss, bytes, and what the aggregator found out.

Figures are made without pyplot, so drawing leaves no state in a process that goes on training.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from federatedscope.core.records import RoundEvent, as_number
from federatedscope_ext.tools.report.evaluations import Series
from federatedscope_ext.tools.report.files import write_bytes
from federatedscope_ext.tools.report.summary import RunSummary

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
_SHADES = ("#1b5e9b", "#5fa7a3", "#e0a339", "#a8456b", "#6f7fb8", "#3c7d4b", "#8a6d3b", "#c2571a")

Point = tuple[int, float]


def new_figure(label: str, height: float = 3.6) -> tuple[Figure, Axes]:
    """An empty figure of the report's size and look, and its only axes; ``label`` is of y."""
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
    axes.set_ylabel(label, color=INK, fontsize=9)
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
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=140, metadata={"Software": None})
    write_bytes(path, drawn.getvalue())
    return path


def draw_curves(summary: RunSummary, folder: Path | None = None) -> list[Path]:
    """Draw what the run has data for; returns the files written.

    Parameters
    ----------
    summary : RunSummary
        The run.
    folder : Path, optional
        Where to write ``metric.png``, ``loss.png`` and ``bytes.png``, and ``effective_rank.png``
        and ``energy.png`` of a run with diagnostics; default ``OUTDIR/curves``. A curve without
        data is not written.
    """
    target = folder or summary.record.outdir / "curves"
    events = [event for event in summary.record.rounds if event.diagnostics]
    figures = {
        "metric.png": _metric_figure(summary),
        "loss.png": _loss_figure(summary),
        "bytes.png": _bytes_figure(summary),
        "effective_rank.png": _rank_figure(events) if events else None,
        "energy.png": _energy_figure(events) if events else None,
    }
    return [save_figure(figure, target / name) for name, figure in figures.items() if figure]


def _line(axes: Axes, points: Iterable[Point], color: str, width: float, **style: Any) -> None:
    pairs = list(points)
    axes.plot([r for r, _ in pairs], [v for _, v in pairs], color=color, linewidth=width, **style)


def _metric_figure(summary: RunSummary) -> Figure | None:
    """Headline metric by round: clients thin, plain mean thick, majority baseline dashed."""
    points, series = _means(summary, summary.headline), summary.headline
    if not points or series is None:
        return None
    figure, axes = new_figure(summary.metric)
    if series.population != "server":
        _draw_clients(axes, _client_points(summary, series, summary.metric), ACCENT)
    _line(axes, points, ACCENT, 2.4, marker="o" if len(points) < 40 else None, markersize=4,
          label=f"plain mean, {series.phase} aggregation")  # fmt: skip
    if before := _means(summary, summary.other_phase("before")):
        _line(axes, before, SECOND, 1.6, linestyle="--", label="plain mean, before aggregation")
    unseen = _means(summary, summary.population("unseen"))
    if unseen and series.population != "unseen":
        _line(axes, unseen, THIRD, 1.6, label="plain mean, unseen clients")
    _draw_marks(axes, summary)
    legend_below(figure, axes)
    return figure


def _means(
    summary: RunSummary, series: Series | None, metric: str | None = None
) -> list[tuple[int, float]]:
    return [(round_, spread.plain) for round_, spread in summary.curve(series, metric)]


def _draw_marks(axes: Axes, summary: RunSummary) -> None:
    """The majority baseline and the best round."""
    baseline = summary.mean_baseline()
    if np.isfinite(baseline):
        axes.axhline(
            baseline, color=INK, linewidth=1.2, linestyle=":", label="mean majority baseline"
        )
    if summary.best is not None and summary.best_round is not None:
        axes.plot(
            [summary.best_round], [summary.best.plain], marker="o", markersize=9, color=ACCENT,
            markerfacecolor="white", markeredgewidth=2, linestyle="none",
            label=f"best round ({summary.best_round})",
        )  # fmt: skip


def _loss_figure(summary: RunSummary) -> Figure | None:
    """Training and evaluation loss by round, per row."""
    training: dict[int, list[Point]] = defaultdict(list)
    for event in summary.record.train:
        if "train_avg_loss" in event.metrics:
            training[event.client].append((event.round, event.metrics["train_avg_loss"]))
    split = summary.split or "val"
    evaluated = _means(summary, summary.headline, f"{split}_avg_loss")
    if not training and not evaluated:
        return None
    figure, axes = new_figure("loss per row")
    _draw_clients(axes, training, SECOND, name="clients, training")
    for points, color, label in (
        (list(summary.train_loss_by_round.items()), SECOND, "training loss, mean of the clients"),
        (evaluated, ACCENT, f"{split} loss, plain mean"),
    ):
        if points:
            _line(axes, points, color, 2.2, marker="o" if len(points) < 2 else None, label=label)
    legend_below(figure, axes)
    return figure


def _bytes_figure(summary: RunSummary) -> Figure | None:
    """Cumulative bytes of all clients by round."""
    cumulative = summary.communication.cumulative
    if not cumulative:
        return None
    top = max(cumulative[-1][1], cumulative[-1][2])
    unit, factor = next(
        (pair for pair in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)) if top >= pair[1]), ("B", 1.0)
    )
    figure, axes = new_figure(f"{unit}, all clients, cumulative", height=2.8)
    for label, column, color, style in (
        ("sent to the server", 1, ACCENT, "-"), ("received", 2, SECOND, "--"),
    ):  # fmt: skip
        sizes = [(0, 0.0), *((row[0], row[column] / factor) for row in cumulative)]
        _line(axes, sizes, color, 2, linestyle=style, label=label)
    axes.set_ylim(bottom=0)
    legend_below(figure, axes)
    return figure


def _found(events: Sequence[RoundEvent], key: str) -> list[Point]:
    return [(event.round, as_number(event.diagnostics.get(key))) for event in events]


def _rank_figure(events: Sequence[RoundEvent]) -> Figure:
    figure, axes = new_figure("effective rank", height=2.6)
    _line(axes, _found(events, "effective_rank"), ACCENT, 2,
          marker="o" if len(events) < 40 else None, markersize=4)  # fmt: skip
    axes.set_ylim(bottom=0)
    return figure


def _energy_figure(events: Sequence[RoundEvent]) -> Figure:
    """Energy that each rank keeps, and the errors of the aggregation."""
    figure, axes = new_figure("share of the exact mean", height=2.8)
    for position, rank in enumerate(sorted({rank for event in events for rank in event.energy})):
        points = [(event.round, event.energy.get(rank, math.nan)) for event in events]
        _line(axes, points, _SHADES[position % len(_SHADES)], 1.8, label=f"energy in rank {rank}")
    for key, label, color, style in (
        ("factor_mean_error", "error of the factor means", SECOND, "--"),
        ("method_error", "error of this method", INK, ":"),
    ):
        _line(axes, _found(events, key), color, 1.4, linestyle=style, label=label)
    axes.set_ylim(bottom=0)
    legend_below(figure, axes)
    return figure


def _client_points(summary: RunSummary, series: Series, metric: str) -> dict[int, list[Point]]:
    """``(round, value)`` by client."""
    points: dict[int, list[Point]] = defaultdict(list)
    for round_ in sorted(summary.tables.get(series, {})):
        for client, value in summary.values(series, round_, metric).items():
            points[client].append((round_, value))
    return points


def _draw_clients(
    axes: Axes, points: Mapping[int, Sequence[Point]], color: str, name: str = "clients"
) -> None:
    """A thin line per client, or bands (10-90 %, 25-75 %) where there are many."""
    if len(points) <= MAX_LINES:
        for position, line in enumerate(points.values()):
            label = f"{name} (one line each)" if position == 0 and len(points) > 1 else None
            _line(axes, line, color, 0.8, alpha=0.4, label=label)
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
    for low, high, alpha, text in ((0, 3, 0.12, "10-90 %"), (1, 2, 0.22, "25-75 %")):
        axes.fill_between(
            rounds, levels[:, low], levels[:, high], color=color, alpha=alpha, linewidth=0,
            label=f"{name}, {text}",
        )  # fmt: skip

"""What the rounds' diagnostics say: effective rank, energy of each rank, aggregation errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from federatedscope_ext.report.curves import (
    ACCENT,
    INK,
    SECOND,
    legend_below,
    new_figure,
    save_figure,
)
from federatedscope_ext.report.page import definitions, figure, paragraph, section
from federatedscope_ext.report.records import RoundEvent
from federatedscope_ext.report.run_info import rank_text
from federatedscope_ext.report.summary import RunSummary
from federatedscope_ext.report.wording import metric_text

__all__ = ["aggregation_section", "draw_aggregation"]

_SHADES = ("#1b5e9b", "#5fa7a3", "#e0a339", "#a8456b", "#6f7fb8", "#3c7d4b", "#8a6d3b", "#c2571a")
MAX_CHANGES = 30
"""So many changes of rank are listed."""
_ERRORS = (
    ("factor_mean_error", "error of the factor means", SECOND, "--"),
    ("method_error", "error of this method", INK, ":"),
)


def _diagnosed(summary: RunSummary) -> list[RoundEvent]:
    return [event for event in summary.record.rounds if event.diagnostics]


def draw_aggregation(summary: RunSummary, folder: Path | None = None) -> list[Path]:
    """Draw ``effective_rank.png`` and ``energy.png``; nothing for a run without diagnostics.

    Parameters
    ----------
    summary : RunSummary
        The run.
    folder : Path, optional
        Where to; default ``OUTDIR/curves``.
    """
    events = _diagnosed(summary)
    if not events:
        return []
    target = folder or summary.record.outdir / "curves"
    return [
        save_figure(_rank_figure(events), target / "effective_rank.png"),
        save_figure(_energy_figure(events), target / "energy.png"),
    ]


def _rank_figure(events: Sequence[RoundEvent]) -> Figure:
    drawn, axes = new_figure(height=2.6)
    axes.plot(
        [event.round for event in events],
        [event.diagnostics.get("effective_rank", float("nan")) for event in events],
        color=ACCENT, linewidth=2, marker="o" if len(events) < 40 else None, markersize=4,
    )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.set_ylabel("effective rank", color=INK, fontsize=9)
    return drawn


def _energy_figure(events: Sequence[RoundEvent]) -> Figure:
    drawn, axes = new_figure(height=2.8)
    rounds = [event.round for event in events]
    ranks = sorted({rank for event in events for rank in event.energy})
    for position, rank in enumerate(ranks):
        axes.plot(
            rounds, [event.energy.get(rank, float("nan")) for event in events],
            color=_SHADES[position % len(_SHADES)], linewidth=1.8, label=f"energy in rank {rank}",
        )  # fmt: skip
    for key, label, color, style in _ERRORS:
        values = [event.diagnostics.get(key, float("nan")) for event in events]
        axes.plot(rounds, values, color=color, linewidth=1.4, linestyle=style, label=label)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("share of the exact mean", color=INK, fontsize=9)
    legend_below(drawn, axes)
    return drawn


def _changes(summary: RunSummary) -> str:
    """Which clients were promoted or pruned, and when."""
    lines = [
        f"round {event.round}: client {client} rank {rank_text(ranks)}"
        for event in summary.record.rounds
        for client, ranks in sorted(event.rank_changes.items())
    ]
    if not lines:
        return ""
    more = f", and {len(lines) - MAX_CHANGES} more" if len(lines) > MAX_CHANGES else ""
    text = "Ranks that changed: " + ", ".join(lines[:MAX_CHANGES])
    return paragraph(f"{text}{more} (metrics.jsonl has all).")


def aggregation_section(summary: RunSummary, curves: Path) -> str:
    """Figures of the last diagnosed round, and both curves."""
    events = _diagnosed(summary)
    changes = _changes(summary)
    if not events:
        return section("Aggregation", changes) if changes else ""
    last = events[-1]
    energy = ", ".join(f"{share:.1%} in rank {rank}" for rank, share in last.energy.items())
    facts = definitions(
        [
            ("Effective rank of the update", metric_text(last.diagnostics.get("effective_rank"))),
            ("Energy of the update", energy),
            *(
                (label.capitalize(), f"{last.diagnostics[key]:.2e} of its norm")
                for key, label, _, _ in _ERRORS
                if key in last.diagnostics
            ),
        ]
    )
    hint = paragraph(
        f"Round {last.round}; means over {last.diagnostics.get('modules', 0):.0f} adapted modules. "
        "The update is the exact mean of what clients apply, sum p s B A. Effective rank: "
        "exponential of the entropy of its singular values. Energy: share of its squared singular "
        "values that the best approximation of a rank keeps. Errors are distances to it: of the "
        "zero-padded means of A and B, and of what this method made of the round.",
        hint=True,
    )
    return section(
        "Aggregation",
        facts,
        changes,
        figure(curves / "effective_rank.png", "Effective rank of the aggregated update by round"),
        figure(curves / "energy.png", "Energy kept by each rank, and errors, by round"),
        hint,
    )

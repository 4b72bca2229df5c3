"""Findings in words: the same in the terminal and on the page."""

from __future__ import annotations

import math

from federatedscope.core.records import RunInfo
from federatedscope_ext.tools.report.numbers import metric_text, signed_text
from federatedscope_ext.tools.report.summary import RunSummary

__all__ = ["options_text", "status_text", "title_text", "warning_texts"]


def title_text(info: RunInfo) -> str:
    """Method and task, the shortest name of a run."""
    return f"{info.variant or info.method} on {info.task}"


def options_text(summary: RunSummary) -> str:
    """What is on beside the method: ``fedprox (mu 0.1), finetune``; may be empty."""
    return ", ".join(
        name if value == "on" else f"{name} ({value})" for name, value in summary.options.items()
    )


def status_text(summary: RunSummary) -> str:
    """How the run ended, with the reason and how far it came."""
    info = summary.info
    done = summary.rounds_done
    of = f"{done} of {info.rounds} rounds" if info.rounds else f"{done} rounds"
    if info.status == "finished":
        early = info.stopped_by == "early_stop"
        return f"stopped early after {of}: no further improvement" if early else f"finished, {of}"
    if info.status == "interrupted":
        cause = "by Ctrl-C" if info.stopped_by == "ctrl_c" else ""
        return f"interrupted {cause} after {of}".replace("  ", " ")
    if info.status == "failed":
        return f"failed after {of}: {info.error or 'no reason was recorded'}"
    return f"running, or ended without a word: {of} so far"


def warning_texts(summary: RunSummary) -> list[str]:
    """What a reader should know before believing the figures, most serious first."""
    info = summary.info
    warnings: list[str] = []
    if summary.nonfinite_steps:
        warnings.append(
            f"{summary.nonfinite_steps} training step(s) had a loss or gradient that was not "
            "finite; see the round table."
        )
    bad = [r for r, spread in summary.curve(summary.headline) if not math.isfinite(spread.plain)]
    if bad:
        warnings.append(
            f"{summary.metric} has no finite mean in round {bad[0]}"
            + (f" and {len(bad) - 1} more: " if len(bad) > 1 else ": ")
            + "at least one client's value is not a number."
        )
    partial = summary.partial_round
    if partial is not None:
        warnings.append(
            f"Round {partial} was only partly evaluated when the run stopped, so its figures "
            "are left out of the means."
        )
    warnings += _result_warnings(summary)
    return [*warnings, *summary.record.problems, *info.notes]


def _result_warnings(summary: RunSummary) -> list[str]:
    """What the figures themselves say about the run."""
    best = summary.spread(summary.headline, summary.best_round)
    if best is None:
        return []
    found = []
    sign = 1 if summary.larger_is_better else -1
    start = summary.spread(summary.headline, 0)
    if summary.best_round and start is not None and sign * (start.plain - best.plain) > 0:
        found.append(
            f"The untrained model was better than any trained round: {summary.metric} "
            f"{metric_text(start.plain)} at round 0."
        )
    baseline = summary.mean_baseline()
    if best.plain <= baseline:
        found.append(
            f"The best plain mean, {metric_text(best.plain)}, is not above the mean majority "
            f"baseline, {metric_text(baseline)}: always answering a client's most frequent label "
            "would do as well."
        )
    elif best.plain - baseline < 2 * best.error:
        found.append(
            f"The lift over the majority baseline ({signed_text(best.plain - baseline)}) is within "
            f"two sampling errors of the mean ({metric_text(best.error)} each)."
        )
    return found

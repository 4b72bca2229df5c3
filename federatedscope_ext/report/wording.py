"""Figures and findings in words: the same in the terminal and on the page."""

from __future__ import annotations

import math

from federatedscope_ext.report.records import RunInfo, split_metric
from federatedscope_ext.report.summary import RunSummary

__all__ = [
    "bytes_text",
    "count_text",
    "duration_text",
    "evaluated_sentences",
    "metric_text",
    "options_text",
    "signed_text",
    "status_text",
    "title_text",
    "warning_texts",
]

NOTHING = "-"
_HEAD_RULES = {
    "shared": "The classification head is sent and averaged like the adapter.",
    "local": "Every client trains and keeps its own classification head; it is never sent.",
    "frozen": "The classification head stays at its common random start; nobody trains it.",
    "none": "The model has no separate classification head that is trained.",
}


def metric_text(value: float | None, digits: int = 4) -> str:
    """A metric for a table; a dash where there is none."""
    if value is None or math.isnan(value):
        return NOTHING
    return f"{value:.{digits}f}" if abs(value) < 100 else f"{value:,.1f}"


def signed_text(value: float) -> str:
    """A difference of metrics, always with its sign."""
    return NOTHING if math.isnan(value) else f"{value:+.4f}"


def count_text(value: float | None) -> str:
    """A number of things: exact below ten million, then in M and B."""
    if value is None or math.isnan(value):
        return NOTHING
    if abs(value) < 1e7:
        return f"{value:,.0f}"
    return f"{value / 1e9:.2f} B" if abs(value) >= 1e9 else f"{value / 1e6:.1f} M"


def bytes_text(value: float | None) -> str:
    """Bytes in decimal units (1 MB = 1,000,000 bytes)."""
    if value is None or math.isnan(value):
        return NOTHING
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= factor:
            return f"{value / factor:.2f} {unit}"
    return f"{value:.0f} B"


def duration_text(seconds: float | None) -> str:
    """A time span, to about three digits."""
    if seconds is None or math.isnan(seconds):
        return NOTHING
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    if minutes < 120:
        return f"{minutes:.1f} min"
    return f"{minutes / 60:.1f} h"


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


def evaluated_sentences(summary: RunSummary) -> list[tuple[str, str]]:
    """What the headline figure is, one ``(term, sentence)`` per choice that it rests on."""
    info, series = summary.info, summary.headline
    if series is None:
        return [("Nothing yet", "No evaluation has been written to this folder.")]
    split = {"val": "validation", "test": "test"}.get(split_metric(summary.metric)[0], "evaluation")
    sentences = []
    if series.population == "server":
        sentences.append(
            ("Who", f"The server evaluates its own model on the {split} rows it holds.")
        )
    elif series.phase == "before":
        sentences.append(
            (
                "When: before aggregation",
                "Every client is evaluated right after its own local training, before the server "
                + "has combined anything.",
            )
        )
    else:
        sentences.append(
            (
                "When: after aggregation",
                "Every client is evaluated on what it holds once the server's aggregate of that "
                + "round has reached it.",
            )
        )
    sentences.append(_scope_sentence(summary, series.scope, split))
    if info.task_type == "SEQ_CLS" or info.head_rule != "none":
        sentences.append(
            (f"Head: {info.head_rule}", _HEAD_RULES.get(info.head_rule, _HEAD_RULES["none"]))
        )
    if series.population != "server":
        sentences.append(
            ("Plain mean", "The headline: every client counts the same, whatever its rows.")
        )
        sentences.append(
            (
                "Weighted mean",
                f"Every client counts by the {split} rows it was evaluated on "
                + "(Results_weighted_avg in the log).",
            )
        )
    if summary.keeps_factor_local:
        sentences.append(
            (
                "No global model",
                "A part of every adapter stays with its client (the B factor of LoRA, or vector b "
                + "of VeRA), so the server never holds a complete model and there is no "
                + "meaningful global model: a server-side figure of this method is not a result.",
            )
        )
    elif info.method == "local":
        sentences.append(("No global model", "Nothing is sent; every client trains on its own."))
    note = str(info.evaluation.get("note", "")).strip()
    if note:
        sentences.append(("Note", note))
    return sentences


def _scope_sentence(summary: RunSummary, scope: str, split: str) -> tuple[str, str]:
    if scope == "personal":
        own = "what it keeps to itself" if summary.info.local_param else "its own state"
        return (
            "Scope: personal",
            f"Client k is evaluated on its own {split} rows with {own} combined with the parts "
            + "that are shared.",
        )
    where = f"the {split} rows that the server holds"
    if summary.headline is not None and summary.headline.population != "server":
        where = f"every client's own {split} rows"
    return ("Scope: global", f"One model, the same for all, is evaluated on {where}.")


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
    partial = summary.evaluations.partial_round
    if partial is not None:
        warnings.append(
            f"Round {partial} was only partly evaluated when the run stopped, so its figures "
            "are left out of the means."
        )
    warnings += _result_warnings(summary)
    if info.best_round is not None and summary.metric == info.main_metric:
        ours = summary.best_round
        if ours is not None and ours != info.best_round:
            warnings.append(
                f"run.json names round {info.best_round} as the best; the figures here are of "
                f"round {ours}, the best by the plain mean of {summary.metric} "
                f"({summary.headline})."
            )
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

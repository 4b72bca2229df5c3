"""The first half of a run's page: header, headline, notices, means, rounds."""

from __future__ import annotations

import math

from federatedscope_ext.report.evaluations import Series, Spread, is_bookkeeping
from federatedscope_ext.report.page import (
    Cell,
    bullets,
    definitions,
    note,
    paragraph,
    section,
    stat,
    table,
)
from federatedscope_ext.report.summary import RunSummary
from federatedscope_ext.report.wording import (
    bytes_text,
    count_text,
    duration_text,
    evaluated_sentences,
    metric_text,
    options_text,
    signed_text,
    status_text,
    title_text,
    warning_texts,
)

__all__ = [
    "evaluated_section",
    "header",
    "headline",
    "means_section",
    "notices",
    "rounds_section",
]

SHOWN_ROUNDS = 200


def header(summary: RunSummary) -> str:
    """Method, task, model and how the run ended."""
    info = summary.info
    tone = info.status if info.status in ("finished", "interrupted", "failed") else "running"
    facts = [info.model, f"{len(info.clients) or '?'} clients"]
    if info.seed is not None:
        facts.append(f"seed {info.seed}")
    if info.data_seed is not None:
        facts.append(f"data seed {info.data_seed}")
    if info.started:
        facts.append(f"started {info.started.replace('T', ' ')[:19]}")
    if summary.options:
        facts.append(f"with {options_text(summary)}")
    line = paragraph(" · ".join(facts)).replace("<p>", '<p class="sub">', 1)
    status = Cell(status_text(summary)).render(False).removeprefix("<td>").removesuffix("</td>")
    title = Cell(title_text(info)).render(False).removeprefix("<td>").removesuffix("</td>")
    return f'<header><h1>{title}</h1><div class="status {tone}">{status}</div>{line}</header>'


def headline(summary: RunSummary) -> str:
    """The few figures a reader came for."""
    best_round, last_round = summary.best_round, summary.last_round
    series = summary.headline
    best = summary.spread(series, best_round)
    last = summary.spread(series, last_round)
    if series is None or best is None or last is None:
        return note("No results yet", paragraph("Nothing was evaluated before this was written."))
    who = "server model" if series.population == "server" else "plain mean"
    detail = f"{summary.metric}, {series.phase} aggregation"
    if math.isfinite(best.error):
        detail += f"; sampling error ±{best.error:.2g}"
    stats = [
        stat(metric_text(best.plain), f"{who}, best round ({best_round})", detail, lead=True),
        stat(metric_text(last.plain), f"{who}, last round ({last_round})",
             f"{signed_text(last.plain - best.plain)} from the best"),
    ]  # fmt: skip
    if series.population != "server":
        detail = f"last round {metric_text(last.weighted)}"
        if math.isfinite(base := summary.mean_baseline(weighted=True)):
            detail += f"; baseline {metric_text(base)}, lift {signed_text(best.weighted - base)}"
        stats.append(stat(metric_text(best.weighted), "weighted mean, best round", detail))
    baseline = summary.mean_baseline()
    if math.isfinite(baseline):
        stats.append(
            stat(metric_text(baseline), "majority baseline",
                 f"lift of the best round {signed_text(best.plain - baseline)}")
        )  # fmt: skip
    stats += _other_stats(summary)
    wire = summary.communication
    stats.append(
        stat(bytes_text(wire.per_client_up), "sent per client and round",
             f"{count_text(summary.info.parameters.get('sent'))} of "
             f"{count_text(summary.info.parameters.get('trainable'))} trainable parameters")
    )  # fmt: skip
    speed = summary.tokens_per_second
    detail = f"{duration_text(summary.seconds_per_round)} per round without evaluation"
    if math.isfinite(speed):
        detail += f"; {count_text(speed)} tokens/s"
    stats.append(stat(duration_text(summary.info.seconds), "wall time", detail))
    return f'<div class="stats">{"".join(stats)}</div>'


def _other_stats(summary: RunSummary) -> list[str]:
    """Evaluations beside the headline at its best round: before, unseen clients, server."""
    stats = []
    found = [
        ("before aggregation", summary.other_phase("before"), "plain mean, best round"),
        ("unseen clients", summary.population("unseen"), "plain mean, best round"),
        ("server model", summary.population("server"), "global, best round"),
    ]
    for label, series, detail in found:
        if series is None or series == summary.headline:
            continue
        if series.population == "server" and not summary.has_global_model:
            continue
        spread = summary.spread(series, summary.best_round)
        if spread is not None:
            stats.append(stat(metric_text(spread.plain), label, detail))
    return stats


def notices(summary: RunSummary) -> str:
    """What was swapped for the miniature, a failure, and warnings."""
    info = summary.info
    parts = []
    if info.embedded or info.swaps:
        rows = [[str(s.get(k, "")) for k in ("field", "was", "now", "why")] for s in info.swaps]
        swaps = table(["field", "was", "now", "why"], rows, text_columns=range(4)) if rows else ""
        text = (
            "This run used small models and generated data that need no download (--embedded). "
            "Its figures show that the method works here; they say nothing about the real task."
        )
        parts.append(note("Miniature run", paragraph(text) + swaps, "warn"))
    if info.status == "failed":
        parts.append(
            note("This run failed", paragraph(info.error or "No reason was recorded."), "bad")
        )
    warnings = warning_texts(summary)
    if warnings:
        parts.append(note("Notes", bullets(warnings), "warn"))
    return "\n".join(parts)


def evaluated_section(summary: RunSummary) -> str:
    """What the headline rests on, one sentence per choice."""
    return section("What was evaluated", definitions(evaluated_sentences(summary), "said"))


def means_section(summary: RunSummary) -> str:
    """Every evaluation and metric: means and spread at the best and the last round."""
    rows: list[list[str]] = []
    for series in sorted(summary.tables, key=_series_order):
        for metric in [summary.metric, *summary.extra_metrics, *_losses(summary)]:
            best = summary.spread(series, summary.best_round, metric)
            last = summary.spread(series, summary.last_round, metric)
            if best is None and last is None:
                continue
            some = best or last
            rows.append(
                [str(series) + (f" ({series.scope})"), metric, str(some.n if some else 0),
                 *_spread_cells(best), metric_text(last.plain if last else None),
                 metric_text(last.weighted if last else None)]
            )  # fmt: skip
    if not rows:
        return ""
    best_at, last_at = f"round {summary.best_round}", f"round {summary.last_round}"
    columns = ["evaluation", "metric", "n", f"plain, {best_at}", "weighted", "std", "min", "max",
               f"plain, {last_at}", "weighted"]  # fmt: skip
    chosen = (
        f"The best round ({summary.best_round}) is chosen by the plain mean of {summary.metric} "
        f"({summary.headline}) and so flatters the run a little; the last round "
        f"({summary.last_round}) is not chosen. std, min and max are over clients."
    )
    hints = [chosen]
    if summary.best_round_weighted not in (None, summary.best_round):
        hints.append(
            f"By the weighted mean, FederatedScope's own choice, the best round is "
            f"{summary.best_round_weighted}; the Final line of eval_results.log has both."
        )
    if summary.population("server") and not summary.has_global_model:
        hints.append(
            "The server's rows are kept for completeness: under this method the server holds no "
            "complete model, so they are not results."
        )
    body = [table(columns, rows, text_columns=(0, 1))]
    return section("Means", *body, *(paragraph(hint, hint=True) for hint in hints))


def _series_order(series: Series) -> tuple[int, str, str]:
    return (["clients", "unseen", "server"].index(series.population), series.phase, series.scope)


def _losses(summary: RunSummary) -> list[str]:
    names = [n for n in summary.metrics if is_bookkeeping(n) and n.endswith("_avg_loss")]
    return [name for name in names if name != summary.metric]


def _spread_cells(spread: Spread | None) -> list[str]:
    if spread is None:
        return [metric_text(None)] * 5
    return [
        metric_text(value)
        for value in (spread.plain, spread.weighted, spread.std, spread.low, spread.high)
    ]


def rounds_section(summary: RunSummary) -> str:
    """The round table, folded away; evaluated rounds only where there are very many."""
    rows = summary.round_rows
    if not rows:
        return ""
    hint = ""
    if len(rows) > SHOWN_ROUNDS:
        evaluated = [row for row in rows if math.isfinite(row.plain)]
        rows = evaluated[:: max(1, math.ceil(len(evaluated) / SHOWN_ROUNDS))]
        hint = f"{len(rows)} of {len(summary.round_rows)} rounds; metrics.csv has them all."
    with_server = any(math.isfinite(row.server) for row in rows) and summary.has_global_model
    columns = ["round", "clients", "train loss", f"{summary.metric}, plain", "weighted"]
    columns += ["server"] if with_server else []
    columns += ["sent", "received", "time", "non-finite steps"]
    lines = [
        [str(row.round), str(row.trained), metric_text(row.train_loss), metric_text(row.plain),
         metric_text(row.weighted), *([metric_text(row.server)] if with_server else []),
         bytes_text(row.bytes_up), bytes_text(row.bytes_down), duration_text(row.seconds),
         str(row.nonfinite)]
        for row in rows
    ]  # fmt: skip
    body = table(columns, lines, text_columns=())
    return section(
        "Rounds", paragraph(hint, hint=True), f"<details><summary>Show {len(rows)} rounds"
        f"</summary>{body}</details>",
    )  # fmt: skip

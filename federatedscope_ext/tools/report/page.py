"""``report.html``: one self-contained page about one run; its words are in ``templates/``."""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from federatedscope.core.monitors.progress import cut_texts, left_out_text, truncation_text
from federatedscope.core.records import ClientInfo, as_number
from federatedscope_ext.tools.report.client_table import SHOWN_CLIENTS, client_tables
from federatedscope_ext.tools.report.evaluations import Series, Spread, is_bookkeeping
from federatedscope_ext.tools.report.files import write_text
from federatedscope_ext.tools.report.numbers import (
    NOTHING,
    bytes_text,
    count_text,
    duration_text,
    metric_text,
    rank_text,
    signed_text,
)
from federatedscope_ext.tools.report.summary import RunSummary
from federatedscope_ext.tools.report.tables import Cell, Table, Value
from federatedscope_ext.tools.report.wording import (
    options_text,
    status_text,
    title_text,
    warning_texts,
)

__all__ = ["inlined", "render", "render_html", "write_html"]

SHOWN_ROUNDS = 200
MAX_LABELS = 20
"""More labels than this are not drawn: a bar of slivers says nothing."""
FOLDED_FROM = 8
"""The byte counts of more clients than this are folded away: they rarely differ."""
MAX_CHANGES = 30
"""So many changes of rank are listed."""
_COLORS = ("#1b5e9b", "#e0a339", "#3c7d4b", "#a8456b", "#6f7fb8", "#c2571a", "#5fa7a3", "#8a6d3b",
           "#9aa5b1", "#7c4d9e")  # fmt: skip


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bytes": bytes_text,
        "count": count_text,
        "duration": duration_text,
        "metric": metric_text,
        "number": as_number,
        "pairs": _pairs,
        "shown": lambda value: metric_text(value) if isinstance(value, float | None) else value,
        "signed": signed_text,
    }
    return environment


def render(template: str, **content: Any) -> str:
    """A page as text; everything that is put in is escaped."""
    return _environment().get_template(template).render(**content)


def inlined(path: Path) -> str:
    """A PNG file as base64; empty where it is not there."""
    return base64.b64encode(path.read_bytes()).decode("ascii") if path.is_file() else ""


def render_html(summary: RunSummary, curves: Path | None = None) -> str:
    """The page as text.

    Parameters
    ----------
    summary : RunSummary
        The run.
    curves : Path, optional
        Folder with the PNG curves to inline (default ``OUTDIR/curves``); a missing one is left
        out.
    """
    folder = curves or summary.record.outdir / "curves"
    info, parameters = summary.info, summary.info.parameters
    diagnosed = [event for event in summary.record.rounds if event.diagnostics]
    energy = diagnosed[-1].energy if diagnosed else {}
    names = ("metric", "loss", "bytes", "effective_rank", "energy")
    return render(
        "report.html.j2",
        s=summary,
        info=info,
        title=title_text(info),
        status=status_text(summary),
        facts=_facts(summary),
        others=_other_figures(summary),
        wire=summary.communication,
        sent=parameters.sent if parameters else None,
        trainable=parameters.trainable if parameters else None,
        swaps=Table(["field", "was", "now", "why"],
                    [[str(s.field), str(s.was), str(s.now), str(s.why)] for s in info.swaps],
                    range(4)),
        warnings=warning_texts(summary),
        curves={name: inlined(folder / f"{name}.png") for name in names},
        clients=client_tables(summary),
        means=_means_table(summary),
        traffic=_traffic(summary),
        diagnosed=diagnosed,
        energy=", ".join(f"{share:.1%} in rank {rank}" for rank, share in energy.items()),
        changes=_changes(summary),
        options=options_text(summary),
        parameters={k: count_text(v) for k, v in parameters.to_json().items()}
        if parameters
        else {},
        memory=_memory(info.memory_estimate_bytes or {}),
        data=_data(summary),
        rounds=_rounds(summary),
        own_clients=(summary.record.outdir / "client_config.yaml").is_file(),
    )  # fmt: skip


def write_html(summary: RunSummary, path: Path | None = None) -> Path:
    """Write the page (default ``OUTDIR/report.html``); returns its path."""
    return write_text(path or summary.record.outdir / "report.html", render_html(summary))


def _facts(summary: RunSummary) -> list[str]:
    """Model, clients, seeds: the line under the title."""
    info = summary.info
    facts = [info.model, f"{len(info.clients) or '?'} clients"]
    facts += [f"seed {info.seed}"] if info.seed is not None else []
    facts += [f"data seed {info.data_seed}"] if info.data_seed is not None else []
    facts += [f"started {info.started.replace('T', ' ')[:19]}"] if info.started else []
    return facts + ([f"with {options_text(summary)}"] if summary.options else [])


def _other_figures(summary: RunSummary) -> list[tuple[str, Spread, str]]:
    """Evaluations beside the headline at its best round: before, unseen clients, server."""
    server = summary.population("server") if summary.has_global_model else None
    found = [
        ("before aggregation", summary.other_phase("before"), "plain mean, best round"),
        ("unseen clients", summary.population("unseen"), "plain mean, best round"),
        ("server model", server, "global, best round"),
    ]
    return [
        (label, spread, detail)
        for label, series, detail in found
        if series != summary.headline and (spread := summary.spread(series, summary.best_round))
    ]


def _means_table(summary: RunSummary) -> Table:
    """Every evaluation and metric: means and spread at the best and the last round."""
    losses = [n for n in summary.metrics if is_bookkeeping(n) and n.endswith("_avg_loss")]
    losses = [name for name in losses if name != summary.metric]
    rows: list[list[Value]] = []
    for series in sorted(summary.tables, key=_series_order):
        for metric in [summary.metric, *summary.extra_metrics, *losses]:
            best = summary.spread(series, summary.best_round, metric)
            last = summary.spread(series, summary.last_round, metric)
            if some := best or last:
                at_best = (best.plain, best.weighted, best.std, best.low, best.high) if best else ()
                at_last = (last.plain, last.weighted) if last else (None, None)
                rows.append([f"{series} ({series.scope})", metric, some.n,
                             *(at_best or [None] * 5), *at_last])  # fmt: skip
    best_at, last_at = f"round {summary.best_round}", f"round {summary.last_round}"
    titles = ["evaluation", "metric", "n", f"plain, {best_at}", "weighted", "std", "min", "max",
              f"plain, {last_at}", "weighted"]  # fmt: skip
    return Table(titles, rows, (0, 1))


def _series_order(series: Series) -> tuple[int, str, str]:
    return (["clients", "unseen", "server"].index(series.population), series.phase, series.scope)


def _traffic(summary: RunSummary) -> dict[str, Any]:
    """Bytes per client; of many clients the first, folded away."""
    rows = [row for row in summary.client_rows if row.bytes_up or row.bytes_down]
    lines: list[list[Value]] = [
        [str(row.id), row.rounds_trained, bytes_text(row.bytes_up), bytes_text(row.bytes_down),
         bytes_text(row.bytes_up / row.rounds_trained if row.rounds_trained else math.nan)]
        for row in rows[:SHOWN_CLIENTS]
    ]  # fmt: skip
    more = f"The first {SHOWN_CLIENTS} of {len(rows)} clients; metrics.csv has them all."
    titles = ["client", "rounds trained", "sent", "received", "sent per round trained"]
    return {
        "table": Table(titles, lines),
        "hint": more if len(rows) > SHOWN_CLIENTS else "",
        "folded": len(rows) > FOLDED_FROM,
    }


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
    return f"Ranks that changed: {', '.join(lines[:MAX_CHANGES])}{more} (metrics.jsonl has all)."


def _memory(estimate: Mapping[str, int]) -> str:
    parts = ", ".join(
        f"{name.replace('_', ' ')} {bytes_text(size)}"
        for name, size in estimate.items()
        if name != "total"
    )
    return f"{bytes_text(estimate['total'])} ({parts})" if "total" in estimate else parts


def _data(summary: RunSummary) -> dict[str, Any]:
    """Rows, weight and label histogram of every client, and which colour is which label."""
    clients = summary.info.clients
    counts = Counter[str]()
    for client in clients:
        counts.update(_training_labels(client))
    labels = sorted(counts, key=_label_order)
    if len(labels) > MAX_LABELS:
        labels = []
    colors = {label: _COLORS[at % len(_COLORS)] for at, label in enumerate(labels)}
    names = {label: summary.info.label_name(label) for label in labels}
    is_cut = bool(summary.info.cut.rows)
    lines: list[list[Value]] = [
        [
            f"{client.id} (unseen)" if client.unseen else str(client.id),
            *([_histogram(_training_labels(client), colors, names)] if colors else []),
            *(f"{client.rows.get(split, 0):,}" for split in ("train", "val", "test")),
            client.weight,
            *(cut_texts(client) if is_cut else []),
        ]
        for client in clients[:SHOWN_CLIENTS]
    ]
    titles = ["client", *(["training labels"] if colors else []), "train", "val", "test", "weight"]
    caption = "Rows by split, and the weight in the aggregation over all clients."
    if is_cut:
        titles += [f"{split} cut" for split in ("train", "val", "test")]
        caption += " Cut: rows that llm.tok_len shortens, and the tokens that they lose."
    if len(clients) > SHOWN_CLIENTS:
        caption += f" The first {SHOWN_CLIENTS} of {len(clients)} clients; run.json has them all."
    return {
        "table": Table(titles, lines, (0, 1) if colors else (0,), caption),
        "rows": [
            ("Truncation", truncation_text(summary.info)),
            ("Left out", left_out_text(summary.info)),
        ],
        "colors": [(names[label], color) for label, color in colors.items()],
    }


def _training_labels(client: ClientInfo) -> Mapping[str, int]:
    return (client.labels or {}).get("train", {})


def _histogram(
    counts: Mapping[str, int], colors: Mapping[str, str], names: Mapping[str, str]
) -> Cell:
    total = sum(counts.values())
    if not total:
        return Cell(NOTHING)
    shares = {label: counts.get(label, 0) / total for label in colors}
    return Cell(
        ", ".join(f"{names[label]}: {counts.get(label, 0):,}" for label in colors),
        bar=[(f"{100 * share:.2f}", colors[label]) for label, share in shares.items() if share > 0],
    )


def _label_order(label: str) -> tuple[int, float, str]:
    """Numbers by value, then words."""
    try:
        return (0, float(label), label)
    except ValueError:
        return (1, 0.0, label)


def _rounds(summary: RunSummary) -> dict[str, Any]:
    """The round table; evaluated rounds only where there are very many."""
    rows, hint = summary.round_rows, ""
    if len(rows) > SHOWN_ROUNDS:
        evaluated = [row for row in rows if math.isfinite(row.plain)]
        rows = evaluated[:: max(1, math.ceil(len(evaluated) / SHOWN_ROUNDS))]
        hint = f"{len(rows)} of {len(summary.round_rows)} rounds; metrics.csv has them all."
    with_server = any(math.isfinite(row.server) for row in rows) and summary.has_global_model
    titles = ["round", "clients", "train loss", f"{summary.metric}, plain", "weighted",
              *(["server"] if with_server else []),
              "sent", "received", "time", "non-finite steps"]  # fmt: skip
    lines: list[list[Value]] = [
        [row.round, row.trained, row.train_loss, row.plain, row.weighted,
         *([row.server] if with_server else []), bytes_text(row.bytes_up),
         bytes_text(row.bytes_down), duration_text(row.seconds), row.nonfinite]
        for row in rows
    ]  # fmt: skip
    return {"table": Table(titles, lines, ()), "hint": hint}


def _pairs(values: Mapping[str, object]) -> str:
    """``{'r': 8}`` as ``r 8``; lists joined, nested objects and what is not set left out."""
    texts = []
    for key, value in values.items():
        if value is not None and not isinstance(value, Mapping):
            shown = "/".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            texts.append(f"{key} {shown}")
    return ", ".join(texts)

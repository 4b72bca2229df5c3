"""The second half of a run's page: communication, setup, client data, how to run it again."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from html import escape

from federatedscope_ext.report.client_sections import SHOWN_CLIENTS
from federatedscope_ext.report.page import (
    Cell,
    bar,
    color_key,
    definitions,
    paragraph,
    section,
    table,
)
from federatedscope_ext.report.summary import RunSummary
from federatedscope_ext.report.wording import (
    NOTHING,
    bytes_text,
    count_text,
    metric_text,
    options_text,
)

__all__ = ["again_section", "communication_section", "data_section", "setup_section"]

MAX_LABELS = 20
"""More labels than this are not drawn: a bar of slivers says nothing."""
FOLDED_FROM = 8
"""The byte counts of more clients than this are folded away: they rarely differ."""
_COLORS = ("#1b5e9b", "#e0a339", "#3c7d4b", "#a8456b", "#6f7fb8", "#c2571a", "#5fa7a3", "#8a6d3b",
           "#9aa5b1", "#7c4d9e")  # fmt: skip
_WEIGHTS = {
    "rows": "training rows the client owns",
    "processed": "rows processed in the round (steps times batch)",
    "uniform": "every client the same",
}


def communication_section(summary: RunSummary, chart: str = "") -> str:
    """Bytes per client and in total, as measured."""
    info, wire = summary.info, summary.communication
    sent, trainable = info.parameters.get("sent"), info.parameters.get("trainable")
    share = f" ({sent / trainable:.1%})" if sent is not None and trainable else ""
    facts = definitions(
        [
            ("Parameters sent", f"{count_text(sent)} of {count_text(trainable)} trainable{share}"),
            ("Sent by a client", f"{bytes_text(wire.per_client_up)} per round it takes part in"),
            ("Received by a client", f"{bytes_text(wire.per_client_down)} per message"),
            ("All clients, per round",
             f"{bytes_text(wire.per_round_up)} sent, {bytes_text(wire.per_round_down)} received"),
            ("Whole run",
             f"{bytes_text(wire.up)} sent, {bytes_text(wire.down)} received"
             + f" in {wire.rounds} rounds"),
            ("For evaluation", f"{bytes_text(wire.evaluation)} more, in none of these figures"
             if wire.evaluation else ""),
        ]
    )  # fmt: skip
    if not wire.rounds:
        return section("Communication", facts)
    rows = [row for row in summary.client_rows if row.bytes_up or row.bytes_down]
    lines = [
        [str(row.id), str(row.rounds_trained), bytes_text(row.bytes_up), bytes_text(row.bytes_down),
         bytes_text(row.bytes_up / row.rounds_trained if row.rounds_trained else math.nan)]
        for row in rows[:SHOWN_CLIENTS]
    ]  # fmt: skip
    more = ""
    if len(rows) > SHOWN_CLIENTS:
        more = f"The first {SHOWN_CLIENTS} of {len(rows)} clients; metrics.csv has them all."
    columns = ["client", "rounds trained", "sent", "received", "sent per round trained"]
    body = table(columns, lines) + paragraph(more, hint=True)
    if len(rows) > FOLDED_FROM:
        body = f"<details><summary>Bytes per client</summary>{body}</details>"
    return section("Communication", facts, chart, body)


def setup_section(summary: RunSummary) -> str:
    """What ran, with what, on what."""
    info = summary.info
    memory = info.memory_estimate_bytes
    parts = ", ".join(
        f"{name.replace('_', ' ')} {bytes_text(size)}"
        for name, size in memory.items()
        if name != "total"
    )
    estimate = f"{bytes_text(memory['total'])} ({parts})" if "total" in memory else parts
    peak = bytes_text(info.peak_memory_bytes) if info.peak_memory_bytes else ""
    precision = info.precision + (f": {info.precision_reason}" if info.precision_reason else "")
    threads = f", {info.threads} threads" if info.threads else ""
    unit = {"batch": "batches", "epoch": "epochs"}.get(info.batch_or_epoch, info.batch_or_epoch)
    if info.local_update_steps == 1:
        unit = info.batch_or_epoch
    steps = f"{info.local_update_steps} {unit}" if info.local_update_steps else ""
    return section(
        "Setup",
        definitions(
            [
                ("Method", f"{info.variant} (federate.method {info.method})".lstrip()),
                ("With", options_text(summary)),
                ("Model", info.model),
                ("Adapter", _pairs(info.adapter or {})),
                ("Stays at the client", ", ".join(info.local_param)),
                ("Parameters", _pairs({k: count_text(v) for k, v in info.parameters.items()})),
                ("Rounds", str(info.rounds or "")),
                ("Local training", f"{steps} of {info.batch_size} rows" if steps else ""),
                ("Optimizer", _pairs(info.optimizer)),
                ("Clients per round", f"{info.sample_client_num or '?'} of {len(info.clients)}"),
                ("Aggregation weights", _WEIGHTS.get(info.weights, info.weights)),
                ("Head", info.head_rule),
                ("Precision", precision),
                ("Device", info.device + threads),
                ("Memory, estimated", estimate),
                ("Memory, peak", peak),
            ]
        ),
    )


def data_section(summary: RunSummary) -> str:
    """Rows, weight and label histogram of every client."""
    info = summary.info
    clients = info.clients
    if not clients:
        return ""
    counts = Counter[str]()
    for client in clients:
        counts.update(client.labels.get("train", {}))
    labels = sorted(counts, key=_label_order)
    colors: dict[str, str] = {}
    if 0 < len(labels) <= MAX_LABELS:
        colors = {label: _COLORS[at % len(_COLORS)] for at, label in enumerate(labels)}
    names = {label: summary.label_name(label) for label in labels}
    lines: list[list[str | Cell]] = []
    for client in clients[:SHOWN_CLIENTS]:
        line: list[str | Cell] = [str(client.id) + (" (unseen)" if client.unseen else "")]
        if colors:
            line.append(_histogram(client.labels.get("train", {}), colors, names))
        line += [f"{client.rows.get(split, 0):,}" for split in ("train", "val", "test")]
        line.append(metric_text(client.weight))
        lines.append(line)
    columns = ["client", *(["training labels"] if colors else []), "train", "val", "test", "weight"]
    caption = "Rows by split, and the weight in the aggregation over all clients."
    if len(clients) > SHOWN_CLIENTS:
        caption += f" The first {SHOWN_CLIENTS} of {len(clients)} clients; run.json has them all."
    key = color_key(colors, names) if colors else ""
    return section(
        "Client data", key, table(columns, lines, caption, text_columns=(0, 1) if colors else (0,))
    )


def again_section(summary: RunSummary) -> str:
    """The command and the versions."""
    info = summary.info
    command = f"<pre>{escape(info.command)}</pre>" if info.command else ""
    clients = "client_config.yaml"
    single = (summary.record.outdir / clients).is_file()
    folder = paragraph(
        "The merged configuration is in config.yaml of the run folder"
        + (f", single clients' settings in {clients}; they run" if single else " and runs")
        + " the same again: python federatedscope/main.py --cfg config.yaml"
        + (f" --client_cfg {clients}" if single else "")
    )
    versions = paragraph(
        "Versions: " + ", ".join(f"{k} {v}" for k, v in info.versions.items()), hint=True
    )
    return section("Run it again", command, folder, versions if info.versions else "")


def _histogram(
    counts: Mapping[str, int], colors: Mapping[str, str], names: Mapping[str, str]
) -> Cell:
    total = sum(counts.values())
    if not total:
        return Cell(NOTHING)
    shares = {label: counts.get(label, 0) / total for label in colors}
    text = ", ".join(f"{names[label]}: {counts.get(label, 0):,}" for label in colors)
    return bar(shares, colors, text)


def _label_order(label: str) -> tuple[int, float, str]:
    """Numbers by value, then words."""
    try:
        return (0, float(label), label)
    except ValueError:
        return (1, 0.0, label)


def _pairs(values: Mapping[str, object]) -> str:
    """``{'r': 8}`` as ``r 8``; lists joined, nested objects left out."""
    texts = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            continue
        shown = "/".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        texts.append(f"{key} {shown}")
    return ", ".join(texts)

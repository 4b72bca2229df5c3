"""``metrics.csv``: every measurement of a run, one value a line, for spreadsheets and pandas."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from federatedscope_ext.tools.report.files import write_text
from federatedscope_ext.tools.report.records import RunRecord, split_metric
from federatedscope_ext.tools.report.tables import Table, Value

__all__ = ["COLUMNS", "csv_rows", "write_csv"]

COLUMNS = ("round", "client", "event", "phase", "scope", "split", "metric", "value")


def csv_rows(record: RunRecord) -> Iterator[list[Value]]:
    """The rows of ``metrics.csv`` in the order of :data:`COLUMNS`.

    ``client`` 0 is the server, and empty for what concerns a round as a whole. ``phase`` and
    ``scope`` are empty where they say nothing (training, rounds). Losses are per row
    (``avg_loss``) or summed over rows (``loss``), bytes are bytes, times are seconds.
    """
    for train in record.train:
        head: list[Value] = [train.round, train.client, "train", "", ""]
        for name, value in train.metrics.items():
            split, metric = split_metric(name)
            yield [*head, split or "train", metric, value]
        for name in ("steps", "samples", "tokens", "seconds", "sample_size", "nonfinite"):
            yield [*head, "train", name, getattr(train, name)]
    for found in record.evals:
        event = "eval_unseen" if found.unseen else "eval"
        head = [found.round, found.client, event, found.phase, found.scope]
        for name, value in found.metrics.items():
            yield [*head, *split_metric(name), value]
    for end in record.rounds:
        yield [end.round, "", "round", "", "", "", "seconds", end.seconds]
        if end.bytes_encoding:
            yield [end.round, "", "round", "", "", "", "bytes_encoding", end.bytes_encoding]
        for name in ("bytes_up", "bytes_down", "bytes_evaluation"):
            for client, size in getattr(end, name).items():
                yield [end.round, client, "round", "", "", "", name, size]
        for client, weight in end.weights.items():
            yield [end.round, client, "round", "", "", "", "weight", weight]
    for sent in record.traffic:
        # What belongs to no training has a name of its own: no sum takes it for a round's.
        down = "bytes_down" if sent.kind == "training" else f"bytes_{sent.kind}"
        for name, sizes in (("bytes_up", sent.bytes_up), (down, sent.bytes_down)):
            for client, size in sizes.items():
                yield [sent.round, client, "traffic", "", "", "", name, size]


def write_csv(record: RunRecord, path: Path | None = None) -> Path:
    """Write ``metrics.csv`` (default: into the run folder); returns its path."""
    table = Table(list(COLUMNS), list(csv_rows(record)))
    return write_text(path or record.outdir / "metrics.csv", table.csv(end="\r\n"))

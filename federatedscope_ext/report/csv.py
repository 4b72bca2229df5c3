"""``metrics.csv``: every measurement of a run, one value a line, for spreadsheets and pandas."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from federatedscope_ext.report.files import atomic_path
from federatedscope_ext.report.records import RunRecord, split_metric

__all__ = ["COLUMNS", "csv_rows", "write_csv"]

COLUMNS = ("round", "client", "event", "phase", "scope", "split", "metric", "value")

Row = tuple[object, ...]


def csv_rows(record: RunRecord) -> Iterator[Row]:
    """The rows of ``metrics.csv`` in the order of :data:`COLUMNS`.

    ``client`` 0 is the server, and empty for what concerns a round as a whole. ``phase`` and
    ``scope`` are empty where they say nothing (training, rounds). Losses are per row
    (``avg_loss``) or summed over rows (``loss``), bytes are bytes, times are seconds.
    """
    for train in record.train:
        head: Row = (train.round, train.client, "train", "", "")
        for name, value in train.metrics.items():
            split, metric = split_metric(name)
            yield (*head, split or "train", metric, _value(value))
        for name in ("steps", "samples", "tokens", "seconds", "weight", "nonfinite"):
            yield (*head, "train", name, _value(getattr(train, name)))
    for found in record.evals:
        event = "eval_unseen" if found.unseen else "eval"
        head = (found.round, found.client, event, found.phase, found.scope)
        for name, value in found.metrics.items():
            yield (*head, *split_metric(name), _value(value))
    for end in record.rounds:
        yield (end.round, "", "round", "", "", "", "seconds", _value(end.seconds))
        for name in ("bytes_up", "bytes_down", "bytes_evaluation"):
            for client, size in getattr(end, name).items():
                yield (end.round, client, "round", "", "", "", name, size)
        for client, weight in end.weights.items():
            yield (end.round, client, "round", "", "", "", "weight", _value(weight))


def write_csv(record: RunRecord, path: Path | None = None) -> Path:
    """Write ``metrics.csv`` (default: into the run folder); returns its path."""
    target = path or record.outdir / "metrics.csv"
    with atomic_path(target) as temporary, temporary.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(COLUMNS)
        writer.writerows(csv_rows(record))
    return target


def _value(value: float) -> float | str:
    """Empty where there is no finite value, which pandas reads as missing."""
    return value if math.isfinite(value) else ""

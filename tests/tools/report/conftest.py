"""Synthetic run folders: the files the runtime leaves, with figures one can check by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

MakeRun = Callable[..., Path]


def run_info(clients: int, /, **changes: Any) -> dict[str, Any]:
    """A complete ``run.json``; ``changes`` replace fields."""
    info: dict[str, Any] = {
        "format": 1,
        "name": "run",
        "status": "finished",
        "stopped_by": "rounds",
        "error": None,
        "started": "2026-01-02T03:04:05",
        "finished": "2026-01-02T03:14:05",
        "seconds": 600.0,
        "method": "fedsa",
        "variant": "FedSA-LoRA",
        "task": "mnli@glue",
        "task_type": "SEQ_CLS",
        "model": "some/encoder",
        "adapter": {"method": "lora", "r": 8, "alpha": 16, "scale": 2.0,
                    "target_modules": ["query", "value"]},
        "head_rule": "local",
        "local_param": ["lora_B", "classifier"],
        "seed": 0,
        "data_seed": 12345,
        "parameters": {"total": 22_713_216, "trainable": 296_835, "sent": 73_728},
        "device": "cpu",
        "precision": "fp32",
        "precision_reason": "train.is_enable_half is off",
        "threads": 2,
        "rounds": 3,
        "local_update_steps": 10,
        "batch_or_epoch": "batch",
        "batch_size": 16,
        "optimizer": {"type": "AdamW", "lr": 0.002},
        "weights": "rows",
        "sample_client_num": clients,
        "label_names": ["entailment", "neutral", "contradiction"],
        "clients": [
            {
                "id": k,
                "rows": {"train": 900 + 100 * k, "val": 100 * k, "test": 0},
                "labels": {"train": {"0": 500, "1": 300, "2": 100 + 100 * k}, "val": {"0": 60}},
                "rank": 8,
                "weight": 1 / clients,
                "majority": {"label": "0", "val": 0.5, "test": None},
                "unseen": False,
            }
            for k in range(1, clients + 1)
        ],
        "memory_estimate_bytes": {"backbone": 90_000_000, "client_state": 3_000_000,
                                  "activations": 50_000_000, "total": 143_000_000},
        "bytes_per_round": {"up": 884_736, "down": 884_736},
        "main_metric": "val_acc",
        "larger_is_better": True,
        "embedded": False,
        "swaps": [],
        "evaluation": {"scope": "personal", "phases": ["after"], "note": ""},
        "notes": [],
        "versions": {"torch": "2.13.0", "python": "3.11.7"},
        "command": "python federatedscope/main.py --cfg yamls/fedsa_mnli.yaml",
        "best_round": None,
        "last_round": 3,
        "peak_memory_bytes": 800_000_000,
    }  # fmt: skip
    info.update(changes)
    return info


def eval_event(
    round_: int, client: int, value: float, rows: int, metric: str = "val_acc", **changes: Any
) -> dict[str, Any]:
    """One evaluation line."""
    event = {
        "event": "eval", "round": round_, "client": client, "phase": "after",
        "scope": "global" if client == 0 else "personal", "unseen": False,
        "metrics": {metric: value, "val_avg_loss": 1.5 - value, "val_loss": rows * (1.5 - value),
                    "val_total": rows},
    }  # fmt: skip
    event.update(changes)
    return event


def train_event(round_: int, client: int, **changes: Any) -> dict[str, Any]:
    """One line of local training: 10 steps of 16 rows, 3,200 tokens in 4 s."""
    event = {
        "event": "train", "round": round_, "client": client, "steps": 10, "samples": 160,
        "tokens": 3200, "seconds": 4.0, "sample_size": 900, "nonfinite": 0,
        "metrics": {"train_avg_loss": 1.0 / round_, "train_loss": 160.0 / round_,
                    "train_acc": 0.5, "train_total": 160},
    }  # fmt: skip
    event.update(changes)
    return event


def round_event(round_: int, clients: Sequence[int]) -> dict[str, Any]:
    """One round's end: every client sends 1,000 bytes and receives 2,000."""
    return {
        "event": "round", "round": round_, "seconds": 20.0, "sampled": list(clients),
        "bytes_up": {str(k): 1000 for k in clients},
        "bytes_down": {str(k): 2000 for k in clients},
        "weights": {str(k): 1 / len(clients) for k in clients},
    }  # fmt: skip


def write_run(folder: Path, info: dict[str, Any], events: Sequence[dict[str, Any]]) -> Path:
    """Write a run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(info))
    lines = "".join(json.dumps(event) + "\n" for event in events)
    (folder / "metrics.jsonl").write_text(lines)
    return folder


def standard_events(table: Sequence[Sequence[float]], metric: str) -> list[dict[str, Any]]:
    """All events of a run; ``table[t][k]`` is client ``k + 1``'s metric after round ``t + 1``."""
    events: list[dict[str, Any]] = []
    for round_, values in enumerate(table, start=1):
        clients = range(1, len(values) + 1)
        events += [train_event(round_, k) for k in clients]
        events += [
            eval_event(round_, k, value, 100 * k, metric)
            for k, value in zip(clients, values, strict=True)
        ]
        events.append(round_event(round_, clients))
    return events


DEFAULT_TABLE = ((0.60, 0.50), (0.90, 0.70), (0.80, 0.74))
"""Two clients, three rounds: best by plain mean is round 2 (0.80), the last is 0.77."""


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """``make_run(folder, table, events=..., **run.json fields)`` writes a run."""

    def make(
        folder: str = "run",
        /,
        table: Sequence[Sequence[float]] = DEFAULT_TABLE,
        events: Sequence[dict[str, Any]] | None = None,
        more: Sequence[dict[str, Any]] = (),
        **changes: Any,
    ) -> Path:
        info = run_info(len(table[0]) if table else 2, **changes)
        if events is None:
            events = standard_events(table, info["main_metric"])
        return write_run(tmp_path / folder, info, [*events, *more])

    return make

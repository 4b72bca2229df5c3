"""``run.json`` as a typed, tolerant record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from federatedscope_ext.errors import ExtensionError

__all__ = ["ClientInfo", "RunInfo", "as_number"]

KNOWN_FORMAT = 1


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """What a client owns: rows per split, label counts per split, rank (or ranks of
    modules that differ), majority baseline.
    """

    id: int
    rows: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    rank: int | tuple[int, ...] | None = None
    weight: float = math.nan
    majority_label: str | None = None
    majority: Mapping[str, float] = field(default_factory=dict)
    unseen: bool = False


@dataclass(frozen=True)
class RunInfo:
    """``run.json``: what was set up, and how the run ended.

    Every field has a neutral default, so that a folder written by an older or an interrupted run
    still loads. ``raw`` is the file's own dictionary.
    """

    name: str = ""
    status: str = "running"
    stopped_by: str | None = None
    error: str | None = None
    started: str = ""
    finished: str | None = None
    seconds: float | None = None
    method: str = "?"
    variant: str = ""
    task: str = "?"
    task_type: str = "OTHER"
    model: str = "?"
    adapter: Mapping[str, Any] | None = None
    head_rule: str = "none"
    local_param: tuple[str, ...] = ()
    seed: int | None = None
    data_seed: int | None = None
    parameters: Mapping[str, int] = field(default_factory=dict)
    device: str = "?"
    precision: str = "?"
    precision_reason: str = ""
    threads: int | None = None
    rounds: int | None = None
    local_update_steps: int | None = None
    batch_or_epoch: str = "batch"
    batch_size: int | None = None
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    weights: str = "rows"
    sample_client_num: int | None = None
    label_names: tuple[str, ...] | None = None
    clients: tuple[ClientInfo, ...] = ()
    memory_estimate_bytes: Mapping[str, int] = field(default_factory=dict)
    bytes_per_round: Mapping[str, int] = field(default_factory=dict)
    main_metric: str = ""
    larger_is_better: bool = True
    embedded: bool = False
    swaps: tuple[Mapping[str, Any], ...] = ()
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    best_round: int | None = None
    last_round: int | None = None
    peak_memory_bytes: int | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> RunInfo:
        """Build from ``run.json``'s dictionary; a field that is missing or null keeps its default.

        Raises
        ------
        ExtensionError
            If the dictionary has no format or a newer one, or a field has the wrong type.
        """
        if "format" not in raw:
            raise ExtensionError(
                "run.json format", None, "it is missing, so this file describes no run",
                "Give a folder that this runtime wrote, or leave this one out",
            )  # fmt: skip
        version = raw["format"]
        if version != KNOWN_FORMAT:
            raise ExtensionError(
                "run.json format", version, f"this version reads format {KNOWN_FORMAT}",
                "Make the report with the version of this project that wrote the run",
            )  # fmt: skip
        values: dict[str, Any] = {"raw": dict(raw)}
        for key, kind in _FIELD_KINDS.items():
            if raw.get(key) is not None:
                values[key] = _coerce(f"run.json {key}", raw[key], kind)
        values["clients"] = tuple(_client(item) for item in values.get("clients", ()))
        return cls(**values)

    @cached_property
    def client_table(self) -> dict[int, ClientInfo]:
        """The clients by id."""
        return {client.id: client for client in self.clients}


_FIELD_KINDS: dict[str, str] = {
    **dict.fromkeys(
        ["name", "status", "stopped_by", "error", "started", "finished", "method", "variant",
         "task", "task_type", "model", "head_rule", "device", "precision", "precision_reason",
         "batch_or_epoch", "weights", "main_metric", "command"],
        "text",
    ),
    **dict.fromkeys(
        ["seed", "data_seed", "threads", "rounds", "local_update_steps", "batch_size",
         "sample_client_num", "best_round", "last_round", "peak_memory_bytes"],
        "whole",
    ),
    **dict.fromkeys(["larger_is_better", "embedded"], "flag"),
    **dict.fromkeys(
        ["adapter", "parameters", "optimizer", "memory_estimate_bytes", "bytes_per_round",
         "evaluation", "versions"],
        "table",
    ),
    **dict.fromkeys(["local_param", "label_names", "notes"], "texts"),
    **dict.fromkeys(["clients", "swaps"], "tables"),
    "seconds": "number",
}  # fmt: skip


def _coerce(name: str, value: object, kind: str) -> Any:
    """``value`` as one of the few kinds ``run.json`` uses; a wrong type is the folder's fault."""
    try:
        if kind == "text":
            return str(value)
        if kind == "whole":
            return int(value)  # type: ignore[call-overload]
        if kind == "number":
            return float(value)  # type: ignore[arg-type]
        if kind == "flag":
            return bool(value)
    except (TypeError, ValueError):
        raise wrong_type(name, value, "a number") from None
    if kind == "table":
        if not isinstance(value, Mapping):
            raise wrong_type(name, value, "an object")
        return {str(key): item for key, item in value.items() if item is not None}
    if not isinstance(value, list | tuple):
        raise wrong_type(name, value, "a list")
    if kind == "texts":
        return tuple(str(item) for item in value)
    if not all(isinstance(item, Mapping) for item in value):
        raise wrong_type(name, value, "a list of objects")
    return tuple(value)


def rank_text(rank: int | tuple[int, ...] | None) -> str:
    """A rank; those of different modules with slashes between; a dash where there is none."""
    if rank is None:
        return "-"
    return "/".join(map(str, rank)) if isinstance(rank, tuple) else str(rank)


def wrong_type(name: str, value: object, wanted: str) -> ExtensionError:
    return ExtensionError(
        name, value, f"is not {wanted}", "The folder was not written by this runtime, or was edited"
    )


def _client(raw: Mapping[str, Any]) -> ClientInfo:
    """One entry of ``run.json``'s client list."""
    majority = raw.get("majority") or {}
    labels = raw.get("labels") or {}
    rank = raw.get("rank")
    return ClientInfo(
        id=_coerce("run.json clients.id", raw.get("id"), "whole"),
        rows={str(k): int(v) for k, v in (raw.get("rows") or {}).items() if v is not None},
        labels={
            str(split): {str(k): int(v) for k, v in counts.items()}
            for split, counts in labels.items()
            if counts
        },
        rank=tuple(rank) if isinstance(rank, list) else rank if isinstance(rank, int) else None,
        weight=as_number(raw.get("weight")),
        majority_label=None if majority.get("label") is None else str(majority["label"]),
        majority={
            split: float(majority[split])
            for split in ("train", "val", "test")
            if majority.get(split) is not None
        },
        unseen=bool(raw.get("unseen", False)),
    )


def as_number(value: object) -> float:
    """A float; null and anything that is no number is NaN (JSON has no NaN of its own)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value)

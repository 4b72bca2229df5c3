"""What a run writes down: the events of ``metrics.jsonl`` and the content of ``run.json``.

Each line and each part is a dataclass here, used by those who write it and by those who read it, so
that names, types and defaults are said once. Callbacks get events and runs as ``to_json`` makes
them; :mod:`federatedscope.core.json_record` says how they are read.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from federatedscope.core.json_record import (
    ASIDE,
    BRIEF,
    Record,
    RecordError,
    as_number,
    wrong_type,
)

__all__ = [
    "FORMAT",
    "METRICS_FILE",
    "RUN_FILE",
    "AdapterInfo",
    "ClientInfo",
    "EvalEvent",
    "EvaluationInfo",
    "Event",
    "LeftOut",
    "Majority",
    "Parameters",
    "RecordError",
    "RoundEvent",
    "RunInfo",
    "Swap",
    "TrafficEvent",
    "TrainEvent",
    "Truncation",
    "as_number",
    "event_of",
    "wrong_type",
]

RUN_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"
FORMAT = 1

# -- metrics.jsonl --------------------------------------------------------------------------


class Event(Record):
    """A line of ``metrics.jsonl``; ``event`` names its kind."""

    event: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        """The line, its kind first."""
        return {"event": self.event, **super().to_json()}


@dataclass(frozen=True)
class TrainEvent(Event):
    """One client's local training in one round.

    ``sample_size`` is the weight that the client sends along; ``seconds`` are of the routine.
    """

    event: ClassVar[str] = "train"

    round: int = 0
    client: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    samples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    sample_size: float = math.nan
    nonfinite: int = 0


@dataclass(frozen=True)
class EvalEvent(Event):
    """One evaluation of one client (``client`` 0 is the server's own, global evaluation).

    ``phase`` is ``"before"`` or ``"after"`` the aggregation, ``scope`` ``"personal"`` or
    ``"global"``; an ``unseen`` client never trains.
    """

    event: ClassVar[str] = "eval"

    round: int = 0
    client: int = 0
    phase: str = "after"
    scope: str = "personal"
    unseen: bool = False
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RoundEvent(Event):
    """The end of one round: who took part and what travelled for training (bytes by client).

    All bytes are of tensors; ``bytes_encoding`` is what names, shapes and everything else add to
    the messages that have some. ``seconds``, which the recorder adds, leave evaluations out.
    ``diagnostics`` are the aggregator's findings, ``rank_changes`` the ranks that clients have from
    this round on. ``bytes_evaluation`` is read of older records, which have no traffic events.
    """

    event: ClassVar[str] = "round"

    round: int = 0
    sampled: tuple[int, ...] = ()
    bytes_up: dict[int, int] = field(default_factory=dict)
    bytes_down: dict[int, int] = field(default_factory=dict)
    bytes_evaluation: dict[int, int] = field(default_factory=dict, metadata=BRIEF)
    bytes_encoding: int = 0
    weights: dict[int, float] = field(default_factory=dict)
    diagnostics: dict[str, Any] = field(default_factory=dict, metadata=BRIEF)
    rank_changes: dict[int, tuple[int, ...]] = field(default_factory=dict, metadata=BRIEF)
    seconds: float = field(default=0.0, metadata=BRIEF)

    @property
    def energy(self) -> dict[int, float]:
        """Of the diagnostics: each rank's share of the energy."""
        shares = self.diagnostics.get("energy")
        if not isinstance(shares, Mapping):
            return {}
        return {int(rank): as_number(shares[rank]) for rank in sorted(shares, key=int)}


@dataclass(frozen=True)
class TrafficEvent(Event):
    """What travelled beside a round's training (bytes by client), told when it is over.

    ``kind`` is ``"evaluation"`` of the state after ``round``, ``"finish"`` (the final state, to
    all), or ``"training"`` of a round that was never completed. Together with the round events
    these are all bytes of a run.
    """

    event: ClassVar[str] = "traffic"

    round: int = 0
    kind: str = "evaluation"
    bytes_up: dict[int, int] = field(default_factory=dict, metadata=BRIEF)
    bytes_down: dict[int, int] = field(default_factory=dict)
    bytes_encoding: int = 0


_EVENTS: dict[str, type[Event]] = {
    one.event: one for one in (TrainEvent, EvalEvent, RoundEvent, TrafficEvent)
}


def event_of(raw: Mapping[str, Any]) -> Event | None:
    """A line of ``metrics.jsonl`` as its event; ``None`` for a kind that this version lacks.

    Raises
    ------
    ValueError
        The line has a value of a wrong type.
    """
    kind = _EVENTS.get(str(raw.get("event")))
    return None if kind is None else kind.from_json(raw)


# -- run.json -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Majority(Record):
    """The most frequent training label of a client, and its share of other splits' rows."""

    label: str | None = None
    train: float | None = field(default=None, metadata=BRIEF)
    val: float | None = None
    test: float | None = None


@dataclass(frozen=True)
class Truncation(Record):
    """What ``llm.tok_len`` cuts of the rows of a split: ``rows`` of ``all_rows`` lose ``tokens`` of
    ``all_tokens``; ``empty`` ones lose all that they had to say.
    """

    rows: int = 0
    tokens: int = 0
    empty: int = 0
    all_rows: int = 0
    all_tokens: int = 0

    def __add__(self, other: Truncation) -> Truncation:
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Truncation(*(mine + its for mine, its in pairs))


@dataclass(frozen=True)
class LeftOut(Record):
    """Rows of the data that the run does not use: which, how many and why."""

    where: str = ""
    rows: int = 0
    reason: str = ""


@dataclass(frozen=True)
class ClientInfo(Record):
    """What a client owns: rows per split, label counts per split, rank and scale (or those of
    modules that differ), share of the weight, majority baseline, what ``llm.tok_len`` cuts
    (``truncated``, by split; ``None`` where the data do not say).
    """

    id: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    labels: dict[str, dict[str, int]] | None = None
    rank: int | tuple[int, ...] | None = None
    scale: float | tuple[float, ...] | None = None
    weight: float = math.nan
    majority: Majority | None = None
    unseen: bool = False
    group: str | None = None
    truncated: dict[str, Truncation] | None = None

    @property
    def cut(self) -> Truncation:
        """What is cut in all splits together."""
        return sum((self.truncated or {}).values(), Truncation())


@dataclass(frozen=True)
class Parameters(Record):
    """Numbers of parameters: of the model, trainable, and sent by a client at the server's rank."""

    total: int = 0
    trainable: int = 0
    sent: int = 0


@dataclass(frozen=True)
class AdapterInfo(Record):
    """The adapter; ``scale`` is ``None`` where modules or clients differ."""

    method: str | None = None
    r: int | None = None
    alpha: int | float | None = None
    rslora: bool | None = None
    scale: float | None = None
    scale_rule: str | None = None
    target_modules: tuple[str, ...] | str | None = None
    arguments: dict[str, Any] | None = None


@dataclass(frozen=True)
class EvaluationInfo(Record):
    """What is evaluated and when, and a sentence about it."""

    scope: str = "personal"
    phases: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Swap(Record):
    """A setting that the miniature replaced."""

    field: str = ""
    was: Any = None
    now: Any = None
    why: str = ""


@dataclass(frozen=True)
class RunInfo(Record):
    """``run.json``: what was set up, and how the run ended.

    Every field has a neutral default, so that a folder written by an older or an interrupted run
    still loads. ``raw`` is the file's own object, with what this version does not know.
    """

    format: int = FORMAT
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
    head_rule: str = "none"
    local_param: tuple[str, ...] = ()
    shared_module: bool = False
    seed: int | None = None
    data_seed: int | None = None
    splitter: str | None = None
    splitter_args: tuple[dict[str, Any], ...] = ()
    weights: str = "rows"
    robust_rule: str = "fedavg"
    options: dict[str, Any] | None = None
    sample_client_num: int | None = None
    model: str = "?"
    adapter: AdapterInfo | None = None
    device: str = "?"
    precision: str = "?"
    precision_reason: str = ""
    threads: int | None = None
    parameters: Parameters | None = None
    new_tensors: tuple[str, ...] = ()
    memory_estimate_bytes: dict[str, int] | None = None
    bytes_per_round: dict[str, int] | None = None
    rounds: int | None = None
    local_update_steps: int | None = None
    batch_or_epoch: str = "batch"
    batch_size: int | None = None
    tok_len: int | None = None
    optimizer: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    main_metric: str = ""
    larger_is_better: bool = True
    clients: tuple[ClientInfo, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    label_names: tuple[str, ...] | None = None
    embedded: bool = False
    swaps: tuple[Swap, ...] = ()
    evaluation: EvaluationInfo = field(default_factory=EvaluationInfo)
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    command: str = ""
    best_round: int | None = None
    last_round: int | None = None
    peak_memory_bytes: int | None = None
    best_round_weighted: int | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False, metadata=ASIDE)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], name: str = f"{RUN_FILE} ") -> RunInfo:
        """Read ``run.json``'s object.

        Raises
        ------
        RecordError
            The object has no format or a newer one, or a field has the wrong type.
        """
        if "format" not in raw:
            raise RecordError(
                f"{name}format", None, "it is missing, so this file describes no run",
                "Give a folder that this runtime wrote, or leave this one out",
            )  # fmt: skip
        if raw["format"] != FORMAT:
            raise RecordError(
                f"{name}format", raw["format"], f"this version reads format {FORMAT}",
                "Make the report with the version of this project that wrote the run",
            )  # fmt: skip
        return dataclasses.replace(super().from_json(raw, name), raw=dict(raw))

    def label_name(self, label: str) -> str:
        """A label as the task calls it (``"entailment"`` for ``"0"``) where names are known."""
        names = self.label_names
        return names[int(label)] if names and label.isdigit() and int(label) < len(names) else label

    @property
    def cut(self) -> Truncation:
        """What ``llm.tok_len`` cuts, of all clients."""
        return sum((client.cut for client in self.clients), Truncation())

    @cached_property
    def client_table(self) -> dict[int, ClientInfo]:
        """The clients by id."""
        return {client.id: client for client in self.clients}

"""Reading a run folder back: ``run.json`` and ``metrics.jsonl`` as typed records.

Everything the report shows is a function of these two files, so a page can be made again at any
time, also for a run that is still going, was interrupted, or lost the end of its last line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.report.run_info import ClientInfo, RunInfo, as_number, wrong_type

__all__ = [
    "ClientInfo",
    "EvalEvent",
    "RoundEvent",
    "RunInfo",
    "RunRecord",
    "TrainEvent",
    "find_runs",
]

RUN_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"


@dataclass(frozen=True, slots=True)
class TrainEvent:
    """One client's local training in one round."""

    round: int
    client: int
    metrics: Mapping[str, float]
    steps: int = 0
    samples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    weight: float = math.nan
    nonfinite: int = 0


@dataclass(frozen=True, slots=True)
class EvalEvent:
    """One evaluation of one client (``client`` 0 is the server's own, global evaluation)."""

    round: int
    client: int
    phase: str
    scope: str
    unseen: bool
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class RoundEvent:
    """The end of one round: who took part and what travelled (bytes by client id).

    ``bytes_evaluation`` is what was sent for evaluations only; ``seconds`` leaves them out.
    ``diagnostics`` are the aggregator's findings, ``energy`` those by rank; ``rank_changes`` the
    ranks that clients have from this round on.
    """

    round: int
    seconds: float
    sampled: tuple[int, ...]
    bytes_up: Mapping[int, int]
    bytes_down: Mapping[int, int]
    weights: Mapping[int, float]
    bytes_evaluation: Mapping[int, int] = field(default_factory=dict)
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    energy: Mapping[int, float] = field(default_factory=dict)
    rank_changes: Mapping[int, tuple[int, ...]] = field(default_factory=dict)


@dataclass
class RunRecord:
    """One run folder, read.

    Attributes
    ----------
    outdir : Path
        The folder.
    info : RunInfo
        ``run.json``.
    train, evals, rounds : list
        The events of ``metrics.jsonl``, in the order they were written.
    problems : list of str
        What was wrong with the files but did not prevent reading them.
    """

    outdir: Path
    info: RunInfo
    train: list[TrainEvent] = field(default_factory=list)
    evals: list[EvalEvent] = field(default_factory=list)
    rounds: list[RoundEvent] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, outdir: str | Path, run: Mapping[str, Any] | None = None) -> RunRecord:
        """Read a run folder.

        Parameters
        ----------
        outdir : str or Path
            A folder with a ``run.json``; ``metrics.jsonl`` may be missing or end in the middle
            of a line.
        run : mapping, optional
            Used in place of ``run.json`` (by the callback, which has the newest version).

        Raises
        ------
        ExtensionError
            If the folder does not exist or is no run folder (the message lists the run folders
            below it), or ``run.json`` cannot be read.
        """
        folder = Path(outdir)
        if run is None:
            run = _read_run_file(folder)
        record = cls(outdir=folder, info=RunInfo.from_dict(run))
        if not (folder / METRICS_FILE).is_file():
            record.problems.append(f"{METRICS_FILE} is missing: there are no measurements yet.")
            return record
        odd = 0
        for event in _read_lines(folder / METRICS_FILE, record.problems):
            try:
                record._add(event)
            except (TypeError, ValueError, AttributeError):
                odd += 1
        if odd:
            record.problems.append(f"{METRICS_FILE}: {odd} event(s) of unexpected form left out.")
        return record

    def _add(self, raw: Mapping[str, Any]) -> None:
        """Sort one line of ``metrics.jsonl`` into the lists; unknown events are left alone."""
        kind = raw.get("event")
        if kind == "train":
            self.train.append(
                TrainEvent(
                    round=int(raw.get("round", 0)),
                    client=int(raw.get("client", 0)),
                    metrics=_numbers(raw.get("metrics")),
                    steps=int(raw.get("steps") or 0),
                    samples=int(raw.get("samples") or 0),
                    tokens=int(raw.get("tokens") or 0),
                    seconds=float(raw.get("seconds") or 0.0),
                    weight=as_number(raw.get("weight")),
                    nonfinite=int(raw.get("nonfinite") or 0),
                )
            )
        elif kind == "eval":
            self.evals.append(
                EvalEvent(
                    round=int(raw.get("round", 0)),
                    client=int(raw.get("client", 0)),
                    phase=str(raw.get("phase", "after")),
                    scope=str(raw.get("scope", "personal")),
                    unseen=bool(raw.get("unseen", False)),
                    metrics=_numbers(raw.get("metrics")),
                )
            )
        elif kind == "round":
            self.rounds.append(
                RoundEvent(
                    round=int(raw.get("round", 0)),
                    seconds=float(raw.get("seconds") or 0.0),
                    sampled=tuple(int(client) for client in raw.get("sampled") or ()),
                    bytes_up=_by_client(raw.get("bytes_up")),
                    bytes_down=_by_client(raw.get("bytes_down")),
                    weights={int(k): float(v) for k, v in (raw.get("weights") or {}).items()},
                    bytes_evaluation=_by_client(raw.get("bytes_evaluation")),
                    diagnostics=_numbers(raw.get("diagnostics")),
                    energy=_energy(raw.get("diagnostics")),
                    rank_changes={
                        int(client): tuple(map(int, ranks))
                        for client, ranks in (raw.get("rank_changes") or {}).items()
                    },
                )
            )


def find_runs(folder: str | Path, limit: int | None = None) -> list[Path]:
    """The run folders at and below ``folder``, sorted by path; ``limit`` stops the search early.

    A run has runs below it where its outdir was used again (``sub_exp_TIME``).
    """
    root = Path(folder)
    found: list[Path] = []
    for path in sorted(root.rglob(RUN_FILE)):
        found.append(path.parent)
        if limit is not None and len(found) >= limit:
            break
    return found


def _read_run_file(folder: Path) -> Mapping[str, Any]:
    path = folder / RUN_FILE
    if not path.is_file():
        raise _no_run(folder)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExtensionError(
            "run folder", str(folder), f"its {RUN_FILE} cannot be read ({error})",
            "Run again with the same command, or leave this folder out",
        ) from error  # fmt: skip
    if not isinstance(raw, dict):
        raise wrong_type(RUN_FILE, raw, "an object")
    return raw


def _no_run(folder: Path) -> ExtensionError:
    """The error for a folder without ``run.json``, naming the runs a user may have meant."""
    if not folder.is_dir():
        return ExtensionError(
            "run folder", str(folder), "there is no such folder",
            "Give the outdir of a run, the folder that holds its run.json",
        )  # fmt: skip
    below = find_runs(folder, limit=21)
    if not below:
        return ExtensionError(
            "run folder", str(folder), f"there is no {RUN_FILE} in it or below it",
            "Give the outdir of a run that this runtime wrote",
        )  # fmt: skip
    names = ", ".join(str(path) for path in below[:20]) + (", ..." if len(below) > 20 else "")
    return ExtensionError(
        "run folder", str(folder), f"there is no {RUN_FILE} in it, only in folders below it",
        f"Give one of {names}",
    )  # fmt: skip


def _read_lines(path: Path, problems: list[str]) -> Iterator[Mapping[str, Any]]:
    """The objects of a JSON-lines file; broken lines are skipped and told."""
    broken: list[int] = []
    other: list[int] = []
    number = 0
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                event = json.loads(line)
            except ValueError:
                broken.append(number)
                continue
            if isinstance(event, dict):
                yield event
            else:
                other.append(number)
    if broken == [number]:
        problems.append(f"The last line of {path.name} is cut off and was left out.")
    elif broken:
        problems.append(f"{path.name}: {len(broken)} unreadable line(s) left out ({_at(broken)}).")
    if other:
        problems.append(
            f"{path.name}: {len(other)} line(s) that are no JSON object left out ({_at(other)})."
        )


def _at(lines: Sequence[int]) -> str:
    return "line " + ", ".join(map(str, lines[:5])) + (", ..." if len(lines) > 5 else "")


def _numbers(raw: object) -> dict[str, float]:
    """The numeric entries of a metrics object."""
    if not isinstance(raw, Mapping):
        return {}
    return {
        str(key): as_number(value)
        for key, value in raw.items()
        if value is None or isinstance(value, int | float)
    }


def _energy(raw: object) -> dict[int, float]:
    """Share of the energy by rank, from a round's diagnostics."""
    energy = raw.get("energy") if isinstance(raw, Mapping) else None
    return {
        int(rank): share
        for rank, share in sorted(_numbers(energy).items(), key=lambda item: int(item[0]))
    }


def _by_client(raw: Mapping[str, Any] | None) -> dict[int, int]:
    return {int(client): int(size) for client, size in (raw or {}).items()}


def split_metric(name: str) -> tuple[str, str]:
    """Split ``'val_acc'`` into ``('val', 'acc')``; without a known split the first part is ''."""
    split, separator, rest = name.partition("_")
    return (split, rest) if separator and split in ("train", "val", "test") else ("", name)


def weighted_mean(pairs: Iterable[tuple[float, float]]) -> float:
    """Mean of ``(value, weight)`` pairs; NaN where the weights add up to nothing."""
    items = list(pairs)
    total = math.fsum(weight for _, weight in items)
    return math.fsum(value * weight for value, weight in items) / total if total > 0 else math.nan


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean; NaN for no values."""
    items = list(values)
    return math.fsum(items) / len(items) if items else math.nan

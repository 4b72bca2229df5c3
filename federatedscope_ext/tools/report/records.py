"""Reading a run folder back: ``run.json`` and ``metrics.jsonl`` as the runtime's records.

Everything the report shows is a function of these two files, so a page can be made again at any
time, also for a run that is still going, was interrupted, or lost the end of its last line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from federatedscope.core.records import (
    METRICS_FILE,
    RUN_FILE,
    EvalEvent,
    RecordError,
    RoundEvent,
    RunInfo,
    TrafficEvent,
    TrainEvent,
    event_of,
    wrong_type,
)
from federatedscope_ext.errors import ExtensionError

__all__ = ["RunRecord", "find_runs", "split_metric"]


@dataclass
class RunRecord:
    """One run folder, read.

    Attributes
    ----------
    outdir : Path
        The folder.
    info : RunInfo
        ``run.json``.
    train, evals, rounds, traffic : list
        The events of ``metrics.jsonl``, in the order they were written.
    problems : list of str
        What was wrong with the files but did not prevent reading them.
    """

    outdir: Path
    info: RunInfo
    train: list[TrainEvent] = field(default_factory=list)
    evals: list[EvalEvent] = field(default_factory=list)
    rounds: list[RoundEvent] = field(default_factory=list)
    traffic: list[TrafficEvent] = field(default_factory=list)
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
        try:
            record = cls(folder, RunInfo.from_json(_read_run_file(folder) if run is None else run))
        except RecordError as error:
            raise ExtensionError(error.field, error.value, error.problem, error.remedy) from error
        if (folder / METRICS_FILE).is_file():
            record._read_events(folder / METRICS_FILE)
        else:
            record.problems.append(f"{METRICS_FILE} is missing: there are no measurements yet.")
        return record

    def _read_events(self, path: Path) -> None:
        """Sort the lines into the lists; unknown events are left alone, odd ones told."""
        odd = 0
        for line in _read_lines(path, self.problems):
            try:
                event = event_of(line)
            except (TypeError, ValueError):
                odd += 1
                continue
            if isinstance(event, TrainEvent):
                self.train.append(event)
            elif isinstance(event, EvalEvent):
                self.evals.append(event)
            elif isinstance(event, RoundEvent):
                self.rounds.append(event)
            elif isinstance(event, TrafficEvent):
                self.traffic.append(event)
        if odd:
            self.problems.append(f"{path.name}: {odd} event(s) of unexpected form left out.")


def find_runs(folder: str | Path, limit: int | None = None) -> list[Path]:
    """The run folders at and below ``folder``, sorted by path; ``limit`` cuts the list.

    A run has runs below it where its outdir was used again (``sub_exp_TIME``).
    """
    return [path.parent for path in sorted(Path(folder).rglob(RUN_FILE))][:limit]


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
    below = find_runs(folder, limit=21)
    problem = f"there is no {RUN_FILE} in it or below it"
    remedy = "Give the outdir of a run that this runtime wrote"
    if not folder.is_dir():
        problem = "there is no such folder"
        remedy = f"Give the outdir of a run, the folder that holds its {RUN_FILE}"
    elif below:
        problem = f"there is no {RUN_FILE} in it, only in folders below it"
        more = ", ..." if len(below) > 20 else ""
        remedy = f"Give one of {', '.join(map(str, below[:20]))}{more}"
    return ExtensionError("run folder", str(folder), problem, remedy)


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


def split_metric(name: str) -> tuple[str, str]:
    """Split ``'val_acc'`` into ``('val', 'acc')``; without a known split the first part is ''."""
    split, separator, rest = name.partition("_")
    return (split, rest) if separator and split in ("train", "val", "test") else ("", name)

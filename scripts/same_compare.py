"""Read what recorded runs left, and find what differs between two of them."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file

# What a clock, a machine, a version or a folder decides.
UNSTEADY = {"seconds", "started", "finished", "name", "versions", "command", "peak_memory_bytes"}
# The order in which things happen in a round, so that the first difference is the cause.
ORDER = ("done", "train", "round", "server", "evaluated", "eval", "log", "checkpoint", "run")
MINIATURE = re.compile(r"[^\s'\"]*/embedded/([0-9a-f]{8,})")


class Place(NamedTuple):
    """Where a value was found."""

    run: int
    round: int
    kind: str
    who: str
    field: str

    def __str__(self) -> str:
        when = f"round {self.round} " if self.round else ""
        again = f"run {self.run} " if self.run > 1 else ""
        return f"{again}{when}{self.kind} {self.who}: {self.field}"


@dataclass
class Record:
    """What a case left: the values of every place, in no order; digests of the miniature's own
    code; and of each run, the server's tensors after round one.
    """

    values: dict[Place, Any] = field(default_factory=dict)
    miniatures: set[str] = field(default_factory=set)
    server: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict)


class Difference(NamedTuple):
    """A place with its two values; ``None`` where there is nothing."""

    place: Place
    before: Any
    now: Any


@dataclass
class Comparison:
    """What two records of a case differ in, in the order in which it comes about.

    Attributes
    ----------
    figures, tensors : int
        How many were compared.
    server_error : float
        Largest difference of a tensor of the server after round one, relative to the tensor's
        largest entry; NaN where they cannot be compared.
    """

    differences: list[Difference]
    figures: int
    tensors: int
    server_error: float

    def beyond(self, tolerance: float) -> list[Difference]:
        """The differences that a server's state within ``tolerance`` after round one leaves.

        What is trained before the first aggregation, who takes part, bytes, and which lines there
        are must still be equal; figures and tensors that follow may move with the last bits.
        """
        if not self.server_error <= tolerance:
            return self.differences
        return [d for d in self.differences if not _moves(d)]


def _moves(difference: Difference) -> bool:
    place, before, now = difference
    if before is None or now is None or isinstance(before, str | bool):
        return False
    if place.kind == "train" and place.run == 1 and place.round == 1:
        return False
    return isinstance(before, float) or _is_tensor(before) or "metrics" in place.field


def _is_tensor(value: Any) -> bool:
    """Whether a value is the :func:`fingerprint` of a tensor."""
    return isinstance(value, list) and len(value) == 2


def described(differences: Sequence[Difference]) -> Iterator[str]:
    """A line for each difference, and one for all tensors that somebody holds at one time."""
    for place, group in groupby(differences, key=lambda d: d.place._replace(field="")):
        changed = list(group)
        tensors = [d for d in changed if _is_tensor(d.before or d.now)]
        if tensors:
            name, old, new = tensors[0].place.field, *map(_norm, tensors[0][1:])
            yield f"{place}{len(tensors)} tensors, of {name} the norm {old} -> {new}"
        for difference in (d for d in changed if d not in tensors):
            yield f"{difference.place}: {_short(difference.before)} -> {_short(difference.now)}"


def _norm(value: Any) -> str:
    return "no such tensor" if value is None else f"{value[1]:.10g} ({value[0]})"


def _short(value: object) -> str:
    text = "no such line" if value is None else str(value)
    return text if len(text) < 90 else f"{text[:87]}..."


def read_case(folder: Path) -> Record:
    """Read ``folder/1``, ``folder/2``, ... and ``folder/done.json`` of ``record_runs.py``."""
    record = Record()
    ended = json.loads((folder / "done.json").read_text(encoding="utf-8"))
    record.values[Place(0, 0, "done", "", "codes")] = ended["codes"]
    for number, _ in enumerate(ended["codes"], 1):
        outdir = folder / str(number)
        for rnd, kind, who, name, value in _read_run(outdir):
            value = _steady(value, str(folder), record.miniatures)
            record.values[Place(number, rnd, kind, who, name)] = value
        first = _tensors(next((outdir / "checkpoints").glob("1_*"), None))
        if first:
            record.server[number] = first
    return record


def _steady(value: Any, folder: str, miniatures: set[str]) -> Any:
    """A text without the folders in it."""
    if not isinstance(value, str):
        return value
    miniatures.update(MINIATURE.findall(value))
    return MINIATURE.sub("MINIATURE", value).replace(folder, "FOLDER")


Found = Iterator[tuple[int, str, str, str, Any]]


def _read_run(outdir: Path) -> Found:
    yield from _read_events(outdir / "metrics.jsonl")
    yield from _read_results(outdir / "eval_results.log")
    yield from _read_holdings(outdir / "tensors.jsonl")
    run = outdir / "run.json"
    for name, value in _leaves(json.loads(run.read_text("utf-8")) if run.exists() else {}):
        yield 0, "run", "run.json", name, value
    for file in sorted((outdir / "checkpoints").glob("*")):
        saved = re.match(r"(\d+)_", file.name)
        for name, tensor in _tensors(file).items():
            rnd = int(saved[1]) if saved else 0
            yield rnd, "server" if saved else "checkpoint", file.name, name, fingerprint(tensor)


def _read_events(file: Path) -> Found:
    seen: Counter[tuple[Any, ...]] = Counter()
    for line in _lines(file):
        event = json.loads(line)
        labels = {key: event.pop(key, "") for key in ("round", "event", "client", "phase", "scope")}
        rnd, kind = labels.pop("round"), labels.pop("event")
        who = f"client {labels['client']} {labels['phase']} {labels['scope']}".strip()
        seen[rnd, kind, who] += 1
        again = f" (line {seen[rnd, kind, who]})" if seen[rnd, kind, who] > 1 else ""
        for name, value in _leaves(event):
            yield int(rnd), kind, (who if kind != "round" else "server") + again, name, value


def _read_results(file: Path) -> Found:
    seen: Counter[str] = Counter()
    for line in _lines(file):
        result = ast.literal_eval(re.sub(r"-?\b(nan|inf)\b", r"'\g<0>'", line))
        who = f"{result.get('Role')} {result.get('Round')}"
        seen[who] += 1
        rnd = result.get("Round")
        for name, value in _leaves(result):
            yield rnd + 1 if isinstance(rnd, int) else 0, "log", f"{who} {seen[who]}", name, value


def _read_holdings(file: Path) -> Found:
    for line in _lines(file):
        held = json.loads(line)
        kind = "train" if held["mode"] == "train" else "evaluated"
        who = f"client {held['client']} {held['mode']} {held['split']} {held['time']}"
        yield held["round"], kind, who, "frozen", held["frozen"]
        for name, value in held["tensors"].items():
            yield held["round"], kind, who, name, value


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values of what is neither a mapping nor a list, steady ones only."""
    if isinstance(value, Mapping | list) and value:
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, inner in pairs:
            if key not in UNSTEADY:
                yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    else:
        # An empty mapping is something; nothing (None) is said to be so, apart from no line.
        yield name, "nothing" if value is None else value if not isinstance(value, Mapping) else {}


def _tensors(file: Path | None) -> dict[str, torch.Tensor]:
    if file is None:
        return {}
    if file.suffix == ".safetensors":
        return dict(load_file(file))
    content = torch.load(file, map_location="cpu", weights_only=True)
    return dict(content.get("model", content))


def fingerprint(tensor: torch.Tensor) -> list[Any]:
    """Hash of type, shape and bits of a tensor; its norm, for the eye."""
    whole = tensor.detach().to("cpu").contiguous()
    state = hashlib.sha256(f"{whole.dtype}{tuple(whole.shape)}".encode())
    state.update(whole.reshape(-1).view(torch.uint8).numpy().tobytes())
    return [state.hexdigest()[:16], float(whole.double().norm())]


def compare(before: Record, now: Record) -> Comparison:
    """All differences between two records of a case."""
    places = before.values.keys() | now.values.keys()
    found = [
        Difference(place, before.values.get(place), now.values.get(place))
        for place in places
        if before.values.get(place) != now.values.get(place)
    ]
    found.sort(key=lambda d: (d.place.run, d.place.round or 10**9, _rank(d.place.kind), d.place))
    tensors = sum(_is_tensor(value) for value in now.values.values())
    error = max((_server_error(before, now, run) for run in before.server), default=float("nan"))
    return Comparison(found, len(places) - tensors, tensors, error)


def _rank(kind: str) -> int:
    return ORDER.index(kind) if kind in ORDER else len(ORDER)


def _server_error(before: Record, now: Record, run: int) -> float:
    old, new = before.server[run], now.server.get(run, {})
    if {name: t.shape for name, t in old.items()} != {name: t.shape for name, t in new.items()}:
        return float("inf")
    errors = [_relative(old[name].double(), new[name].double()) for name in old]
    return max(errors, default=0.0)


def _relative(old: torch.Tensor, new: torch.Tensor) -> float:
    if torch.equal(old, new) or old.numel() == 0:
        return 0.0
    largest = float(old.abs().max())
    difference = float((old - new).abs().max())
    return difference / largest if largest else float("inf")

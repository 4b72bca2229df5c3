"""An extension that writes down what every client holds: ``tensors.jsonl`` in the run's folder.

``same_figures.py`` loads it into both revisions, so it uses nothing but documented names: the
registry, the callbacks and the entries of a trainer's context. It hashes the tensors after each
batch of training, and at the first batch of each evaluation, when they are those that the client
evaluates.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from same_compare import fingerprint

from federatedscope import register

__all__ = ["Recorder"]


class Recorder:
    """The callback, for the run's folder."""

    def __init__(self, outdir: str | Path) -> None:
        self.file = Path(outdir) / "tensors.jsonl"
        self.round = 0
        self.seen: Counter[tuple[Any, ...]] = Counter()

    def on_round_start(self, rnd: int, clients: list[int]) -> None:
        """Remember the round: an evaluation belongs to the one begun last."""
        self.round = rnd

    def on_batch(self, client: int, ctx: Any, monitor: Any) -> None:
        """Write a line."""
        if ctx.cur_mode == "test" and ctx.cur_batch_i > 0:
            return
        key = (self.round, client, str(ctx.cur_mode), str(ctx.cur_split))
        self.seen[key] += 1
        trained, frozen = {}, []
        for name, parameter in ctx.model.named_parameters():
            if parameter.requires_grad:
                trained[name] = fingerprint(parameter)
            else:
                frozen.append(fingerprint(parameter)[0])
        line = {
            **dict(zip(("round", "client", "mode", "split"), key, strict=True)),
            "time": self.seen[key],
            "frozen": hashlib.sha256("".join(sorted(frozen)).encode()).hexdigest()[:16],
            "tensors": trained,
        }
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def build(cfg: Any) -> Recorder:
    """Answer to the runtime, which asks for callbacks."""
    return Recorder(cfg.outdir)


register.register_callback("record_tensors", build)

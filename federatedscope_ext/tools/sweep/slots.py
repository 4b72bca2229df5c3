"""How many runs at a time, on which devices, with how many threads each."""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = ["Slots", "choose_slots", "visible_gpus", "wished_threads"]

_CORES_PER_JOB = 2


@dataclass(frozen=True)
class Slots:
    """Places for runs."""

    jobs: int  # at a time
    threads: int  # of PyTorch for each of them
    gpus: tuple[str, ...] = ()  # names for CUDA_VISIBLE_DEVICES, given in turn

    def gpu(self, slot: int) -> str:
        """The GPU of a place, counted from 0; empty without GPUs."""
        return self.gpus[slot % len(self.gpus)] if self.gpus else ""

    def environment(self, slot: int) -> dict[str, str]:
        """What a run's environment gets."""
        gpu = {"CUDA_VISIBLE_DEVICES": self.gpu(slot)} if self.gpus else {}
        return {"OMP_NUM_THREADS": str(self.threads), **gpu}

    def __str__(self) -> str:
        jobs = "1 run" if self.jobs == 1 else f"{self.jobs} runs"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        where = "on the CPU"
        if self.gpus:
            used = self.gpus[: self.jobs]
            where = f"on GPU {', '.join(used)}"
            if self.jobs > len(used):
                where += f", up to {-(-self.jobs // len(used))} on one"
        return f"{jobs} at a time {where}, {threads} each"


def choose_slots(
    points: int, cores: int, gpus: tuple[str, ...], jobs: int | None, threads: int | None
) -> Slots:
    """Places for so many ``points`` on so many ``cores``, where the user does not say.

    Runs at a time are ``jobs``, by default one per GPU, without GPUs one per two cores. Each has
    ``threads``, which are those of the user's environment, by default its share of the cores.
    """
    if jobs is None:
        jobs = len(gpus) or cores // (threads or _CORES_PER_JOB)
    jobs = max(1, min(jobs, points))
    return Slots(jobs, threads or max(1, cores // jobs), gpus)


def wished_threads() -> int | None:
    """``OMP_NUM_THREADS``, where it is a number."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdigit() and int(text) > 0 else None


def visible_gpus(count: int) -> tuple[str, ...]:
    """Names of ``count`` devices as ``CUDA_VISIBLE_DEVICES`` takes them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = [name.strip() for name in given if name.strip()]
    return tuple(names[:count]) if len(names) >= count else tuple(map(str, range(count)))

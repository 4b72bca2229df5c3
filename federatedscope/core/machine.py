"""The machine at hand: devices, cores, memory."""

from __future__ import annotations

import logging
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from federatedscope.core.errors import ConfigError

logger = logging.getLogger(__name__)


def choose_device(cfg: Any) -> str:
    """The device of ``use_gpu`` and ``device``: ``cpu`` or ``cuda:k``; a :class:`ConfigError` where
    a GPU is asked for that is not there.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not cfg.use_gpu:
        return "cpu"
    if count == 0:
        _without_gpu(cfg)
        return "cpu"
    for field, index in (("device", cfg.device), ("eval_device", cfg.eval_device)):
        if index >= count:
            problem = f"this machine has {count} CUDA device(s), numbered from 0"
            raise ConfigError(field, index, problem, f"use 0..{count - 1}, or -1 for the first one")
    return f"cuda:{max(cfg.device, 0)}"


def _without_gpu(cfg: Any) -> None:
    """Refuse ``use_gpu: True``; ``auto`` takes the CPU, and says so where a GPU was named."""
    if cfg.use_gpu != "auto":
        problem = "PyTorch sees no CUDA device on this machine"
        remedy = "write use_gpu: False (CPU) or use_gpu: auto"
        raise ConfigError("use_gpu", cfg.use_gpu, problem, remedy)
    if cfg.device >= 0:
        told = "device %d is not there: PyTorch sees no CUDA device on this machine. "
        logger.warning(told + "The run uses the CPU.", cfg.device)


def use_all_cores() -> int:
    """Let PyTorch use every core that this process has; returns their number.

    ``OMP_NUM_THREADS`` in the environment is respected.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(wanted) if wanted.isdigit() and int(wanted) > 0 else available_cores()
    torch.set_num_threads(threads)
    return threads


def available_cores(root: Path = Path("/")) -> int:
    """Cores that this process has: those that it may run on, fewer where a quota gives it less (two
    and a half cores count as 2), at least 1. ``root`` is the folder of ``proc`` and ``sys``.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min([cores, *_quotas(root)]))


def _quotas(root: Path) -> Iterator[int]:
    """Whole cores that each control group above this process may use, where it has a quota.

    A container sees its own group as the mounted folder itself, whatever path the kernel names;
    groups on that path which are not there are passed over.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Version 2 is one tree and names no controllers, version 1 has a tree for each.
        mount = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        group = PurePosixPath(path.lstrip("/"))
        for folder in (mount / part for part in (group, *group.parents)):
            files = ("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us")
            match " ".join(_text(folder / name) for name in files).split():
                case [quota, period] if quota.isdigit() and period.isdigit() and int(period):
                    yield int(quota) // int(period)


def _text(path: Path) -> str:
    """A file of the system; empty where it is not there or may not be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

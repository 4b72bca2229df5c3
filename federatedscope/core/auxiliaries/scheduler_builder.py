"""Learning-rate schedules by name.

A client builds a new optimizer every round. The schedules with a warm-up (below) are functions of
the *run's* step, ``done_steps`` plus the steps of this round, so they go on where the last round
ended. ``torch.optim.lr_scheduler`` classes start anew every round, as in FederatedScope.

With ``s`` the step, ``T`` all steps of the run and ``w`` the warm-up steps, the factor of the rate
is ``s / w`` while ``s < w`` and then

=====================  ===============================================
constant_with_warmup   1
linear_warmup          ``max(0, (T - s) / (T - w))``
cosine                 ``(1 + cos(pi (s - w) / (T - w))) / 2``
=====================  ===============================================

``linear_warmup`` is Hugging Face's ``get_linear_schedule_with_warmup``. FederatedScope's names
``warmup_step`` (the same one) and ``warmup_noam`` are known too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import lr_scheduler

from federatedscope import register
from federatedscope.core.auxiliaries.resolve import (
    build,
    check_arguments,
    classes_of,
    own_arguments,
    resolve,
)
from federatedscope.core.errors import ConfigError, within

_SPAN = ("warmup_ratio", "warmup_steps", "total_steps", "done_steps")


def _linear(s: int, warmup: int, total: int) -> float:
    return max(0.0, (total - s) / max(1, total - warmup))


def _cosine(s: int, warmup: int, total: int) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (s - warmup) / max(1, total - warmup))))


SCHEDULES: dict[str, Callable[[int, int, int], float]] = {
    "linear_warmup": _linear,
    "warmup_step": _linear,
    "constant_with_warmup": lambda s, warmup, total: 1.0,
    "cosine": _cosine,
    "warmup_noam": lambda s, warmup, total: min(max(s, 1) ** -0.5, max(s, 1) * warmup**-1.5),
}
"""Name -> factor of the rate at step ``s`` after the warm-up; of ``warmup_noam`` (Vaswani et al.
2017) at every step.
"""


def get_scheduler(optimizer: torch.optim.Optimizer, type: str, **kwargs: Any) -> Any:
    """Build a schedule for an optimizer, whose groups keep their own base rates.

    Parameters
    ----------
    type : str
        ``""`` for none, a registered name, one of ``SCHEDULES``, or a class of
        ``torch.optim.lr_scheduler``.
    kwargs
        ``warmup_ratio`` (part of all steps, default 0) or ``warmup_steps``; ``total_steps`` of the
        run; ``done_steps`` before this round (default 0); for torch's classes their own
        arguments.

    Returns
    -------
    object with ``step()``, called after each optimizer step, or None

    Raises
    ------
    ConfigError
        An unknown type or argument, or a value out of range.
    """
    own = own_arguments(kwargs)
    span = {k: own.pop(k) for k in _SPAN if k in own}

    def built_in() -> Any:
        if not type:
            return None
        if type in SCHEDULES:
            check_arguments("scheduler", type, own, _SPAN)
            return _spanning(optimizer, type, **span)
        # ReduceLROnPlateau needs a metric at each step, which training here does not give it.
        torchs = classes_of(lr_scheduler, lr_scheduler.LRScheduler, "ReduceLROnPlateau")
        return build("scheduler", "scheduler", type, SCHEDULES | torchs, optimizer, own)

    return resolve("scheduler", built_in, optimizer, type, **own)


def warmup_steps_of(total_steps: int, warmup_ratio: float) -> int:
    """``warmup_ratio`` of all local steps of the run, rounded up."""
    if not 0 <= warmup_ratio <= 1:
        problem = "the part of all local steps in which the rate rises"
        remedy = "write a number from 0 to 1, for example 0.06"
        raise ConfigError("scheduler.warmup_ratio", warmup_ratio, problem, remedy)
    # Without the margin 0.07 * 100 = 7.000000000000001 would give 8.
    return math.ceil(total_steps * warmup_ratio - 1e-9)


def _spanning(
    optimizer: torch.optim.Optimizer,
    type: str,
    total_steps: int | None = None,
    warmup_ratio: float = 0.0,
    warmup_steps: int | None = None,
    done_steps: int = 0,
) -> lr_scheduler.LambdaLR:
    if total_steps is None or total_steps < 1:
        problem = f"{type} needs the number of local steps of the whole run"
        remedy = "pass total_steps (the built-in trainers do)"
        raise ConfigError("scheduler.total_steps", total_steps, problem, remedy)
    warmup = warmup_steps_of(total_steps, warmup_ratio) if warmup_steps is None else warmup_steps
    noam = type == "warmup_noam"
    if noam and warmup < 1:
        problem = f"{type} needs a warm-up"
        raise ConfigError("scheduler.warmup_ratio", warmup, problem, "write for example 0.06")

    def factor(step: int) -> float:
        s = step + done_steps
        return s / warmup if s < warmup and not noam else SCHEDULES[type](s, warmup, total_steps)

    return lr_scheduler.LambdaLR(optimizer, factor)


def check_scheduler(field: str, type: str, **kwargs: Any) -> None:
    """Refuse a scheduler section before a model is loaded; error messages name it as ``field``
    (for example ``train.scheduler``). The other arguments are those of :func:`get_scheduler`;
    ``total_steps`` may be missing.
    """
    probe = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    own = {key: own for key, own in own_arguments(kwargs).items() if key not in _SPAN}
    if not register.answers_itself(register.scheduler_dict, probe, type, **own):
        with within(field.rpartition(".")[0]):
            get_scheduler(probe, type, **{"total_steps": 1000, **kwargs})

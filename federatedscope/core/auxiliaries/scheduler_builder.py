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

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import lr_scheduler

from federatedscope import register
from federatedscope.core.auxiliaries.optimizer_builder import (
    CONFIG_INTERNALS,
    check_arguments,
    suggest,
)
from federatedscope.core.errors import ConfigError

Factor = Callable[[int], float]
_SPAN = ("warmup_ratio", "warmup_steps", "total_steps", "done_steps")


def _linear(warmup: int, total: int) -> Factor:
    return lambda s: max(0.0, (total - s) / max(1, total - warmup))


def _cosine(warmup: int, total: int) -> Factor:
    def factor(s: int) -> float:
        progress = min(1.0, (s - warmup) / max(1, total - warmup))
        return 0.5 * (1.0 + math.cos(math.pi * progress))

    return factor


def _constant(warmup: int, total: int) -> Factor:
    return lambda s: 1.0


SCHEDULES: dict[str, Callable[[int, int], Factor]] = {
    "linear_warmup": _linear,
    "warmup_step": _linear,
    "constant_with_warmup": _constant,
    "cosine": _cosine,
}
NOAM = "warmup_noam"


def get_scheduler(optimizer: torch.optim.Optimizer, type: str, **kwargs: Any) -> Any:
    """Build a schedule.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Its groups keep their own base rates.
    type : str
        ``""`` for none, a registered name, one of ``SCHEDULES``, ``warmup_noam``, or a class of
        ``torch.optim.lr_scheduler``.
    kwargs
        ``warmup_ratio`` (part of all steps, default 0) or ``warmup_steps``; ``total_steps`` of the
        run; ``done_steps`` before this round (default 0); for torch's classes their own
        arguments.

    Returns
    -------
    object or None
        With ``step()``, called after each optimizer step.

    Raises
    ------
    ConfigError
        An unknown type or argument, or a value out of range.
    """
    arguments = {k: v for k, v in kwargs.items() if k not in CONFIG_INTERNALS}
    span = {k: arguments.pop(k) for k in _SPAN if k in arguments}
    registered = register.first_answer(register.scheduler_dict, optimizer, type, **arguments)
    if registered is not None:
        return registered
    if not type:
        return None
    if type in SCHEDULES or type == NOAM:
        check_arguments("scheduler", type, arguments, _SPAN)
        return _spanning(optimizer, type, **span)
    return _from_torch(optimizer, type, arguments)


def warmup_steps_of(total_steps: int, warmup_ratio: float) -> int:
    """``warmup_ratio`` of all local steps of the run, rounded up."""
    if not 0 <= warmup_ratio <= 1:
        raise ConfigError(
            "scheduler.warmup_ratio",
            warmup_ratio,
            "the part of all local steps in which the rate rises",
            "write a number from 0 to 1, for example 0.06",
        )
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
        raise ConfigError(
            "scheduler.total_steps",
            total_steps,
            f"{type} needs the number of local steps of the whole run",
            "pass total_steps (the built-in trainers do)",
        )
    warmup = warmup_steps_of(total_steps, warmup_ratio) if warmup_steps is None else warmup_steps
    if type == NOAM:
        return lr_scheduler.LambdaLR(optimizer, _noam(warmup, done_steps))
    after = SCHEDULES[type](warmup, total_steps)

    def factor(step: int) -> float:
        s = step + done_steps
        return s / warmup if s < warmup else after(s)

    return lr_scheduler.LambdaLR(optimizer, factor)


def _noam(warmup: int, done_steps: int) -> Factor:
    """``min(s^-1/2, s w^-3/2)``, Vaswani et al. 2017."""
    if warmup < 1:
        raise ConfigError(
            "scheduler.warmup_ratio", warmup, f"{NOAM} needs a warm-up", "write for example 0.06"
        )

    def factor(step: int) -> float:
        s = max(1, step + done_steps)
        return float(min(s**-0.5, s * warmup**-1.5))

    return factor


def _from_torch(optimizer: torch.optim.Optimizer, type: str, arguments: dict[str, Any]) -> Any:
    known = {
        name
        for name, value in vars(lr_scheduler).items()
        if inspect.isclass(value)
        and issubclass(value, lr_scheduler.LRScheduler)
        and value is not lr_scheduler.LRScheduler
        # It needs a metric at each step, which training here does not give it.
        and name != "ReduceLROnPlateau"
        and not name.startswith("_")
    }
    if type not in known:
        raise ConfigError(
            "scheduler.type",
            type,
            "no schedule of torch.optim.lr_scheduler or of an extension has this name",
            suggest(type, known | SCHEDULES.keys() | {NOAM}),
        )
    scheduler_class = getattr(lr_scheduler, type)
    accepted = inspect.signature(scheduler_class).parameters.keys() - {"optimizer"}
    check_arguments("scheduler", type, arguments, accepted)
    try:
        return scheduler_class(optimizer, **arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            "scheduler",
            {"type": type, **arguments},
            f"{type} refuses it: {error}",
            f"change what it names; these are the arguments of torch.optim.lr_scheduler.{type}",
        ) from error


def check_scheduler(field: str, type: str, **kwargs: Any) -> None:
    """Refuse a scheduler section before a model is loaded.

    Parameters
    ----------
    field : str
        The section, e.g. ``train.scheduler``; error messages name it.
    type, kwargs
        See :func:`get_scheduler`; ``total_steps`` may be missing.
    """
    probe = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    own = {k: v for k, v in kwargs.items() if k not in (*CONFIG_INTERNALS, *_SPAN)}
    if register.answers_itself(register.scheduler_dict, probe, type, **own):
        return
    try:
        get_scheduler(probe, type, **{"total_steps": 1000, **kwargs})
    except ConfigError as error:
        inner = error.field.removeprefix("scheduler")
        raise ConfigError(f"{field}{inner}", error.value, error.problem, error.remedy) from error

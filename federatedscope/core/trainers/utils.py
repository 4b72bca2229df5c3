"""Small pure functions that trainers share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

Value = TypeVar("Value")


def filter_by_specified_keywords(param_name: str, filter_keywords: Iterable[str]) -> bool:
    """Whether a parameter stays shared: no keyword is a substring of its name."""
    return not any(keyword in param_name for keyword in filter_keywords)


def shared_part(state: Mapping[str, Value], local_keywords: Iterable[str]) -> dict[str, Value]:
    """The entries of a state dict that may leave the client: those whose names contain none of the
    keywords (``personalization.local_param``).
    """
    keywords = list(local_keywords)
    return {name: v for name, v in state.items() if filter_by_specified_keywords(name, keywords)}


def batches_or_epochs(cfg: Any) -> int:
    """How many batches or epochs (``train.batch_or_epoch``) a routine has.

    A step is ``grad.grad_accum_count`` batches; an epoch is one pass over the rows, however many
    batches a step takes.
    """
    steps = int(cfg.train.local_update_steps)
    return steps * cfg.grad.grad_accum_count if cfg.train.batch_or_epoch == "batch" else steps


def training_length(cfg: Any, rows: int) -> tuple[int, int, int, int]:
    """:func:`calculate_batch_epoch_num` of a client's training."""
    loader, unit = cfg.dataloader, cfg.train.batch_or_epoch
    steps = batches_or_epochs(cfg)
    return calculate_batch_epoch_num(steps, unit, rows, loader.batch_size, loader.drop_last)


def calculate_batch_epoch_num(
    steps: int, batch_or_epoch: str, num_data: int, batch_size: int, drop_last: bool
) -> tuple[int, int, int, int]:
    """How a routine of ``steps`` batches or epochs runs over ``num_data`` rows: batches per epoch,
    batches of the last epoch, epochs, batches in total. Where there is no batch at all (no rows, or
    fewer than a batch with ``drop_last``), a :class:`ValueError`.
    """
    per_epoch = num_data // batch_size if drop_last else math.ceil(num_data / batch_size)
    if per_epoch == 0:
        raise ValueError(
            f"{num_data} rows make no batch of {batch_size}"
            + (" with dataloader.drop_last" if drop_last else "")
        )
    if batch_or_epoch == "epoch":
        return per_epoch, per_epoch, steps, steps * per_epoch
    per_epoch = min(per_epoch, steps)
    return per_epoch, steps % per_epoch or per_epoch, math.ceil(steps / per_epoch), steps

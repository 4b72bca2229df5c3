"""Losses by name."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules import loss as losses

from federatedscope import register
from federatedscope.core.auxiliaries.optimizer_builder import suggest
from federatedscope.core.errors import ConfigError


def get_criterion(criterion_type: str, device: Any) -> Any:
    """Build a loss.

    Parameters
    ----------
    criterion_type : str
        A registered name, or a loss of ``torch.nn`` such as ``CrossEntropyLoss``.
    device : str
        Where it computes.

    Returns
    -------
    callable
        ``(prediction, target) -> loss``.

    Raises
    ------
    ConfigError
        Nobody knows the name.
    """
    registered = register.first_answer(register.criterion_dict, criterion_type, device)
    if registered is not None:
        return registered
    known = {name for name in losses.__all__ if isinstance(getattr(nn, name, None), type)}
    if criterion_type not in known:
        raise ConfigError(
            "criterion.type",
            criterion_type,
            "no loss of torch.nn or of an extension has this name",
            suggest(criterion_type, known),
        )
    return getattr(nn, criterion_type)().to(device)

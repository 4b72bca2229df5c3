"""Losses by name."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules import loss as losses

from federatedscope.core.auxiliaries.resolve import classes_of, look_up, resolve


def get_criterion(criterion_type: str, device: Any) -> Any:
    """The loss ``(prediction, target) -> loss`` of a registered name, or of ``torch.nn``, for
    example ``CrossEntropyLoss``; a :class:`ConfigError` where nobody knows the name.
    """

    def of_torch() -> nn.Module:
        classes = classes_of(losses, nn.Module)
        known = {name: classes[name] for name in losses.__all__ if name in classes}
        built: nn.Module = look_up("criterion", "criterion.type", criterion_type, known)()
        return built.to(device)

    return resolve("criterion", of_torch, criterion_type, device)

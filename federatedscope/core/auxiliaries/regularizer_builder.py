"""Regularizers by name."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from federatedscope.core.auxiliaries.resolve import look_up, resolve
from federatedscope.core.regularizer import PROXIMAL, ProximalRegularizer

BUILT_IN: dict[str, type[nn.Module]] = {PROXIMAL: ProximalRegularizer}


class DummyRegularizer(nn.Module):
    """No regularization: always 0."""

    def forward(self, ctx: Any) -> float:
        """0, whatever the context."""
        return 0.0


def get_regularizer(reg_type: str | None) -> Any:
    """A regularizer ``ctx -> penalty``; the trainer adds ``regularizer.mu`` times its value.

    ``reg_type`` is empty for none, a registered name, or ``proximal_regularizer`` (FedProx); a
    :class:`ConfigError` where nobody knows it.
    """
    if not reg_type:
        return DummyRegularizer()
    built_in = partial(look_up, "regularizer", "regularizer.type", reg_type, BUILT_IN)
    found = resolve("regularizer", built_in, reg_type)
    # The contract's builders return the class.
    return found() if isinstance(found, type) else found

"""Regularizers by name."""

from __future__ import annotations

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

    Parameters
    ----------
    reg_type : str or None
        Empty for none, a registered name, or ``proximal_regularizer`` (FedProx).

    Raises
    ------
    ConfigError
        Nobody knows the name.
    """
    if not reg_type:
        return DummyRegularizer()

    def built_in() -> type[nn.Module]:
        return look_up("regularizer", "regularizer.type", reg_type, BUILT_IN)

    found = resolve("regularizer", built_in, reg_type)
    # The contract's builders return the class.
    return found() if isinstance(found, type) else found

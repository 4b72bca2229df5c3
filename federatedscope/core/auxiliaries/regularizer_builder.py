"""Regularizers by name."""

from __future__ import annotations

from typing import Any

from torch import nn

from federatedscope import register
from federatedscope.core.auxiliaries.optimizer_builder import suggest
from federatedscope.core.errors import ConfigError
from federatedscope.core.regularizer import PROXIMAL, ProximalRegularizer


class DummyRegularizer(nn.Module):
    """No regularization: always 0."""

    def forward(self, ctx: Any) -> float:
        """0, whatever the context."""
        return 0.0


def get_regularizer(reg_type: str | None) -> Any:
    """Build a regularizer; the trainer adds ``regularizer.mu`` times its value to the loss.

    Parameters
    ----------
    reg_type : str or None
        Empty for none, a registered name, or ``proximal_regularizer`` (FedProx).

    Returns
    -------
    callable
        ``ctx -> penalty``, a scalar tensor.

    Raises
    ------
    ConfigError
        Nobody knows the name.
    """
    if not reg_type:
        return DummyRegularizer()
    registered = register.first_answer(register.regularizer_dict, reg_type)
    if registered is not None:
        # The contract's builders return the class.
        return registered() if isinstance(registered, type) else registered
    if reg_type == PROXIMAL:
        return ProximalRegularizer()
    raise ConfigError(
        "regularizer.type",
        reg_type,
        "no regularizer of this name is built in or registered",
        suggest(reg_type, {PROXIMAL, *register.regularizer_dict}),
    )

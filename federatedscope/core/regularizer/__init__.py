"""Penalties that are added to a client's loss."""

from federatedscope.core.regularizer.proximal_regularizer import PROXIMAL, ProximalRegularizer

__all__ = ["PROXIMAL", "ProximalRegularizer"]

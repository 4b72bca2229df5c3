"""The client samplers, under the name that extension modules import."""

from __future__ import annotations

from federatedscope.core.sampler import get_sampler

__all__ = ["get_sampler"]

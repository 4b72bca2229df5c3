"""Norm bounding: no single update is longer than ``M``.

``d_k = x_k - x_t``, ``x_(t+1) = x_t + sum_k p_k d_k min(1, M / ||d_k||)``, the norm taken over all
tensors of the upload together.

Sun et al., Can You Really Backdoor Federated Learning?, 2019, arXiv 1911.07963.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from federatedscope.core.aggregators.clients_avg_aggregator import ClientsAvgAggregator
from federatedscope.core.aggregators.robust import bft_argument
from federatedscope.core.errors import ConfigError
from fedlora.means import narrow, widen
from fedlora.uploads import Upload


class NormboundingAggregator(ClientsAvgAggregator):
    """The weighted mean of clipped updates (``aggregator.robust_rule: normbounding``).

    Parameters
    ----------
    model, device
        See :class:`Aggregator`.
    config : CN
        Reads ``aggregator.BFT_args.normbounding_norm_bound`` (M, greater than 0).
    """

    def __init__(
        self, model: nn.Module | None = None, device: Any = "cpu", config: Any = None
    ) -> None:
        super().__init__(model, device, config)
        self.norm_bound = bft_argument(config, "normbounding_norm_bound")
        if not self.norm_bound > 0:
            raise ConfigError(
                "aggregator.BFT_args.normbounding_norm_bound",
                self.norm_bound,
                "the largest length of an update",
                "write a number greater than 0",
            )

    def _begin(self) -> None:
        super()._begin()
        self._dtypes: dict[str, torch.dtype] = {}

    def _add(self, upload: Upload) -> None:
        self._dtypes = self._dtypes or {k: t.dtype for k, t in upload.state.items()}
        floating = [k for k, t in upload.state.items() if t.is_floating_point()]
        current = {k: widen(t, self.device) for k, t in self._current(floating).items()}
        self._mean.add(self._size(upload), self._bounded(upload.state, current))

    def _combine(self) -> dict[str, Tensor]:
        self._check_sizes()
        return {k: narrow(t, self._dtypes[k], k) for k, t in self._mean.wide().items()}

    def _bounded(
        self, state: Mapping[str, Tensor], current: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """``state`` with its distance from ``current`` cut to the bound."""
        updates = {k: widen(state[k], self.device) - now for k, now in current.items()}
        norm = float(sum(float(d.square().sum()) for d in updates.values())) ** 0.5
        if norm <= self.norm_bound:
            return state
        scale = self.norm_bound / norm
        return {**state, **{k: current[k] + scale * d for k, d in updates.items()}}

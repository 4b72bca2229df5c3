"""Coordinate-wise median: ``x_(t+1)[i] = median_k x_k[i]``.

For an even number of clients the midpoint of the two middle values. Sample sizes play no part.
Needs ``n >= 2 f + 1``.

Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates, ICML 2018,
arXiv 1803.01498.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from federatedscope.core.aggregators.robust import (
    RobustAggregator,
    check_reported,
    faulty_clients,
    middle,
    per_coordinate,
)
from fedlora.uploads import Upload


class MedianAggregator(RobustAggregator):
    """The median (``aggregator.robust_rule: median``).

    Parameters
    ----------
    model, device
        See :class:`Aggregator`.
    config : CN
        Reads ``aggregator.byzantine_node_num`` (f).
    """

    def __init__(
        self, model: nn.Module | None = None, device: Any = "cpu", config: Any = None
    ) -> None:
        super().__init__(model, device, config)
        self.byzantine_node_num = faulty_clients(config)

    @property
    def _needed(self) -> int:
        return 2 * self.byzantine_node_num + 1

    def _combined(self, uploads: list[Upload]) -> dict[str, Tensor]:
        check_reported(uploads, "median", self._needed)
        return per_coordinate(uploads, lambda x: middle(x.sort(dim=0).values), self.device)

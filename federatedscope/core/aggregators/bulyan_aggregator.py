"""Bulyan: Krum's choice first, then per coordinate the mean of the values nearest the median.

1. ``theta = n - 2 f`` times: take the upload with the best Krum score out of the remaining ones.
2. Per coordinate, average the ``beta = theta - 2 f`` chosen values closest to their median.

Needs ``n >= 4 f + 3``. Sample sizes play no part.

El Mhamdi et al., The Hidden Vulnerability of Distributed Learning in Byzantium, ICML 2018, arXiv
1802.07927.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from federatedscope.core.aggregators.robust import (
    RobustAggregator,
    check_reported,
    faulty_clients,
    krum_order,
    middle,
    per_coordinate,
    squared_distances,
    uniform_weights,
)
from fedlora.uploads import Upload


class BulyanAggregator(RobustAggregator):
    """Bulyan (``aggregator.robust_rule: bulyan``).

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
        return 4 * self.byzantine_node_num + 3

    def _chosen(self, uploads: Sequence[Upload]) -> list[Upload]:
        check_reported(uploads, "bulyan", self._needed)
        distances = squared_distances(uploads, self.device)
        remaining = list(range(len(uploads)))
        chosen: list[int] = []
        while len(chosen) < len(uploads) - 2 * self.byzantine_node_num:
            here = torch.tensor(remaining, device=distances.device)
            order = krum_order(distances[here][:, here], self.byzantine_node_num)
            chosen.append(remaining.pop(order[0]))
        return [uploads[i] for i in sorted(chosen)]

    def _combined(self, uploads: list[Upload]) -> dict[str, Tensor]:
        chosen = self._chosen(uploads)
        kept = len(chosen) - 2 * self.byzantine_node_num

        def mean_around_median(values: Tensor) -> Tensor:
            ordered = values.sort(dim=0).values
            order = (ordered - middle(ordered)).abs().sort(dim=0, stable=True).indices[:kept]
            return ordered.gather(0, order).mean(dim=0)

        return per_coordinate(chosen, mean_around_median, self.device)

    def _shares(self, sizes: Mapping[int, float], uploads: Sequence[Upload]) -> dict[int, float]:
        """The chosen clients count alike; 0 for the others."""
        return uniform_weights(uploads, self._chosen(uploads))

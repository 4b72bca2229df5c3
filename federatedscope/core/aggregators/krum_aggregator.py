"""Krum and Multi-Krum: average the ``m`` updates that lie closest to their neighbours.

``score(k) = sum over the n - f - 2 nearest j of ||x_k - x_j||^2``; ``m = 1`` is Krum. Needs
``n >= 2 f + 3``.

Blanchard et al., Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent, NeurIPS
2017, arXiv 1703.02757.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from federatedscope.core.aggregators.robust import (
    RobustAggregator,
    bft_argument,
    check_reported,
    faulty_clients,
    krum_order,
    squared_distances,
)
from federatedscope.core.errors import ConfigError
from fedlora.means import RunningMean
from fedlora.uploads import Upload, normalised_weights


class KrumAggregator(RobustAggregator):
    """Krum (``aggregator.robust_rule: krum``).

    Parameters
    ----------
    model, device
        See :class:`Aggregator`.
    config : CN
        Reads ``aggregator.byzantine_node_num`` (f) and ``aggregator.BFT_args.krum_agg_num`` (m,
        default 1).

    Notes
    -----
    The chosen updates are averaged with the run's weights. Sample sizes are what clients claim;
    ``aggregator.weights: uniform`` does not trust them, as in the paper.
    """

    def __init__(
        self, model: nn.Module | None = None, device: Any = "cpu", config: Any = None
    ) -> None:
        super().__init__(model, device, config)
        self.byzantine_node_num = faulty_clients(config)
        number = bft_argument(config, "krum_agg_num", 1)
        if number != int(number) or number < 1:
            raise ConfigError(
                "aggregator.BFT_args.krum_agg_num",
                number,
                "the number of updates to average",
                "write a whole number from 1 on",
            )
        self.krum_agg_num = int(number)

    @property
    def _needed(self) -> int:
        return max(2 * self.byzantine_node_num + 3, self.krum_agg_num)

    def _chosen(self, uploads: Sequence[Upload]) -> list[Upload]:
        check_reported(uploads, "krum", self._needed)
        order = krum_order(squared_distances(uploads, self.device), self.byzantine_node_num)
        return [uploads[i] for i in sorted(order[: self.krum_agg_num])]

    def _combined(self, uploads: list[Upload]) -> dict[str, Tensor]:
        chosen = self._chosen(uploads)
        normalised_weights({u.client_id: self._size(u) for u in chosen})  # not all may be zero
        mean = RunningMean(self.device)
        for upload in chosen:
            mean.add(self._size(upload), upload.state)
        return mean.result()

    def _shares(self, sizes: Mapping[int, float], uploads: Sequence[Upload]) -> dict[int, float]:
        """The weights of the chosen clients; 0 for the others."""
        chosen = {u.client_id: u.sample_size for u in self._chosen(uploads)}
        return {**dict.fromkeys(sizes, 0.0), **normalised_weights(chosen, self.uniform)}

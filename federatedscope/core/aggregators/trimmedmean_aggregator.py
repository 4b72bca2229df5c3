"""Coordinate-wise trimmed mean: the mean without the ``b`` smallest and ``b`` largest values.

``b = floor(beta n)``, ``beta`` in [0, 0.5). Sample sizes play no part. Tolerates ``f <= b`` faulty
clients.

Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates, ICML 2018,
arXiv 1803.01498.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from federatedscope.core.aggregators.robust import (
    RobustAggregator,
    bft_argument,
    check_reported,
    faulty_clients,
    per_coordinate,
)
from federatedscope.core.errors import ConfigError
from fedlora.errors import AggregationError
from fedlora.uploads import Upload

_RATIO = "trimmedmean_excluded_ratio"


class TrimmedmeanAggregator(RobustAggregator):
    """The trimmed mean (``aggregator.robust_rule: trimmedmean``).

    Parameters
    ----------
    model, device
        See :class:`Aggregator`.
    config : CN
        Reads ``aggregator.byzantine_node_num`` (f) and
        ``aggregator.BFT_args.trimmedmean_excluded_ratio`` (beta, the part cut off at each end;
        without it ``f`` values are cut off).

    Raises
    ------
    ConfigError
        The ratio is outside [0, 0.5).
    """

    def __init__(
        self, model: nn.Module | None = None, device: Any = "cpu", config: Any = None
    ) -> None:
        super().__init__(model, device, config)
        self.byzantine_node_num = faulty_clients(config)
        self.excluded_ratio: float | None = None
        if _RATIO in config.aggregator.BFT_args:
            self.excluded_ratio = bft_argument(config, _RATIO)
            if not 0 <= self.excluded_ratio < 0.5:
                raise ConfigError(
                    f"aggregator.BFT_args.{_RATIO}",
                    self.excluded_ratio,
                    "the part of the values cut off at each end",
                    "write 0 <= ratio < 0.5",
                )

    def _excluded(self, clients: int) -> int:
        if self.excluded_ratio is None:
            return self.byzantine_node_num
        # Without the margin 100 * 0.29 would give 28.
        return math.floor(clients * self.excluded_ratio + 1e-9)

    def _combined(self, uploads: list[Upload]) -> dict[str, Tensor]:
        cut = self._cut(uploads)

        def trimmed_mean(values: Tensor) -> Tensor:
            return values.sort(dim=0).values[cut : len(values) - cut].mean(dim=0)

        return per_coordinate(uploads, trimmed_mean, self.device)

    def _cut(self, uploads: list[Upload]) -> int:
        cut = self._excluded(len(uploads))
        check_reported(uploads, "trimmedmean", 2 * cut + 1)
        if cut < self.byzantine_node_num:
            raise AggregationError(
                f"trimmedmean cuts off {cut} of {len(uploads)} values at each end, fewer than the "
                f"{self.byzantine_node_num} faulty clients of aggregator.byzantine_node_num. Raise "
                f"aggregator.BFT_args.{_RATIO}, or leave it out."
            )
        return cut

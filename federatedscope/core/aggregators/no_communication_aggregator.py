"""``local`` and ``global``: nothing is exchanged, so nothing is aggregated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from federatedscope.core.aggregators.aggregator import Aggregator


class NoCommunicationAggregator(Aggregator):
    """Every client keeps what it has."""

    def inc(self, content: Any, client_id: int | None = None, scales: Any = None) -> None:
        """An answer without tensors ends a round."""

    def aggregate(self, agg_info: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """An empty state: nothing changes at the server."""
        return {}

    def weights(self, agg_info: Mapping[str, Any] | None = None) -> dict[int, float]:
        """No client has a weight."""
        return {}

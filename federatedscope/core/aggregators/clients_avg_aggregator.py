"""FedAvg: the weighted mean of the clients' states.

``x_(t+1) = sum_(k in S_t) p_k x_k``, ``p_k = n_k / sum_(j in S_t) n_j``.

McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, AISTATS
2017, arXiv 1602.05629.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from federatedscope.core.aggregators.aggregator import Aggregator
from federatedscope.core.aggregators.mean import running_mean
from federatedscope.core.aggregators.uploads import normalised_weights, read_uploads


class ClientsAvgAggregator(Aggregator):
    """The mean, weighted by the sample sizes in the uploads or uniform.

    Notes
    -----
    Only what the clients upload is averaged, so the same rule serves FedAvg, FedSA-LoRA (A) and
    FFA-LoRA (B). A client without rows is left out. Integer buffers take the rounded mean.
    """

    def aggregate(self, agg_info: Mapping[str, Any]) -> dict[str, Tensor]:
        """See :meth:`Aggregator.aggregate`."""
        uploads = read_uploads(agg_info)
        weights = normalised_weights(uploads, self.uniform)
        return running_mean(uploads, weights, self.device).result()

    def _para_weighted_avg(
        self, models: list[tuple[float, Mapping[str, Tensor]]], recover_fun: None = None
    ) -> dict[str, Tensor]:
        """The mean of ``[(sample_size, state)]``: the name that subclasses from outside call."""
        return ClientsAvgAggregator.aggregate(self, {"client_feedback": models})

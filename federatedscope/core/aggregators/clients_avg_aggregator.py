"""FedAvg: the weighted mean of the clients' states.

``x_(t+1) = sum_(k in S_t) p_k x_k``, ``p_k = n_k / sum_(j in S_t) n_j``.

McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, AISTATS
2017, arXiv 1602.05629.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from federatedscope.core.aggregators.aggregator import Aggregator
from fedlora.means import RunningMean
from fedlora.uploads import Upload


class ClientsAvgAggregator(Aggregator):
    """The mean, weighted by the sample sizes in the uploads or uniform.

    Notes
    -----
    Only what the clients upload is averaged, so the same rule serves FedAvg, FedSA-LoRA (A) and
    FFA-LoRA (B). A client without rows is left out. Integer buffers take the rounded mean. Nothing
    of an upload is kept.
    """

    def _begin(self) -> None:
        self._mean = RunningMean(self.device)

    def _add(self, upload: Upload) -> None:
        self._mean.add(self._size(upload), upload.state)

    def _combine(self) -> dict[str, Tensor]:
        self._check_sizes()
        return self._mean.result()

    def _para_weighted_avg(
        self, models: list[tuple[float, Mapping[str, Tensor]]], recover_fun: None = None
    ) -> dict[str, Tensor]:
        """The mean of ``[(sample_size, state)]``: the name that subclasses from outside call."""
        return ClientsAvgAggregator.aggregate(self, {"client_feedback": models})


class OnlineClientsAvgAggregator(ClientsAvgAggregator):
    """FederatedScope's name for the mean that takes one upload at a time, as every mean does here.

    Parameters
    ----------
    model, device, config
        See :class:`Aggregator`.
    src_device : str, optional
        Kept for extensions; the mean is on ``device``.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        device: Any = "cpu",
        src_device: Any = None,
        config: Any = None,
    ) -> None:
        super().__init__(model, device, config)

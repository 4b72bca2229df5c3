"""FedAvg, one upload at a time (``federate.online_aggr``): the server keeps one state, not K."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from federatedscope.core.aggregators.clients_avg_aggregator import ClientsAvgAggregator
from federatedscope.core.aggregators.mean import RunningMean
from federatedscope.core.aggregators.uploads import (
    AggregationError,
    Upload,
    check_same_layout,
    normalised_weights,
    read_upload,
)


class OnlineClientsAvgAggregator(ClientsAvgAggregator):
    """:class:`ClientsAvgAggregator` as a stream: :meth:`reset`, :meth:`inc` per upload,
    :meth:`aggregate`.

    Parameters
    ----------
    model, device, config
        See :class:`Aggregator`.
    src_device : str, optional
        Where the running mean is kept; ``device`` when not given.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        device: Any = "cpu",
        src_device: Any = None,
        config: Any = None,
    ) -> None:
        super().__init__(model, device, config)
        self.src_device = device if src_device is None else src_device
        self.reset()

    def reset(self) -> None:
        """Forget the uploads; call it when a round starts."""
        self._mean = RunningMean(self.src_device)
        self._seen: list[Upload] = []

    def inc(
        self, content: tuple[float, Mapping[str, Tensor]], client_id: int | None = None
    ) -> None:
        """Take in ``(sample_size, state_dict)``; nothing of the state is kept.

        Parameters
        ----------
        content : tuple
            What a client sends.
        client_id : int, optional
            Its ID, for messages and :meth:`weights`; counted from 1 when not given.
        """
        upload = read_upload(len(self._seen) + 1 if client_id is None else client_id, content)
        if self._seen:
            check_same_layout(self._seen[0], upload)
        self._mean.add(1.0 if self.uniform else upload.sample_size, upload.state)
        # Names and shapes are all that is needed of it later.
        layout = {k: t.to("meta") for k, t in upload.state.items()} if not self._seen else {}
        self._seen.append(Upload(upload.client_id, upload.sample_size, layout))

    def aggregate(self, agg_info: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """The mean of the uploads since :meth:`reset`; ``agg_info`` is not used.

        Raises
        ------
        AggregationError
            There were none, or all were of clients without rows.
        """
        self.weights(agg_info)
        return self._mean.result()

    def weights(self, agg_info: Mapping[str, Any] | None = None) -> dict[int, float]:
        """The weight of each upload since :meth:`reset`."""
        if not self._seen:
            raise AggregationError("There is nothing to aggregate: no client sent an update.")
        return normalised_weights(self._seen, self.uniform)

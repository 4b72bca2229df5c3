"""An own aggregator: the mean of the clients' updates, each clipped to a norm of 1."""

import torch

from federatedscope.core.aggregators import ClientsAvgAggregator
from federatedscope.register import register_aggregator


class ClippedMean(ClientsAvgAggregator):
    """mean_k of ``current + delta_k * min(1, 1 / ||delta_k||)``."""

    def aggregate(self, agg_info):
        current = agg_info["current"]
        clipped = []
        for sample_size, state in agg_info["client_feedback"]:
            delta = {name: state[name] - current[name] for name in state}
            norm = torch.sqrt(sum(d.square().sum() for d in delta.values()))
            factor = (1 / norm).clamp(max=1.0)
            clipped.append((sample_size, {n: current[n] + factor * delta[n] for n in delta}))
        return super().aggregate({**agg_info, "client_feedback": clipped})


def build(method, model=None, device="cpu", config=None):
    return ClippedMean(model, device, config) if method == "clipped_mean" else None


register_aggregator("clipped_mean", build)

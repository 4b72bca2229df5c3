"""FedProx's proximal term: ``1/2 sum_i ||w_i - w_i^t||^2``.

``w^t`` is the state that local training starts from. The client minimises
``F_k(w) + mu/2 ||w - w^t||^2``; the trainer supplies the factor ``mu`` (``fedprox.mu``), so the
term's gradient is ``mu (w - w^t)``.

Li et al., Federated Optimization in Heterogeneous Networks, MLSys 2020, arXiv 1812.06127.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

PROXIMAL = "proximal_regularizer"


class ProximalRegularizer(nn.Module):
    """Half the squared distance from the state at the start of local training.

    The contract with the trainer: at the start of a fit ``ctx.weight_init`` is a mapping from
    parameter names to copies of the global values. The term runs over the trainable parameters of
    ``ctx.model`` that are in it; parameters that stay at the client are not, and are not pulled.
    """

    def forward(self, ctx: Any) -> Tensor:
        """The term, a scalar in float32.

        Raises
        ------
        ValueError
            ``ctx.weight_init`` holds none of the model's trainable parameters.
        """
        anchors = ctx.weight_init
        terms = [
            (weight.float() - anchors[name].detach().to(weight.device).float()).square().sum()
            for name, weight in ctx.model.named_parameters()
            if weight.requires_grad and name in anchors
        ]
        if not terms:
            raise ValueError(
                "ctx.weight_init holds none of the trainable parameters; the trainer must set it "
                "to {name: value of the global model} at the start of a fit."
            )
        return torch.stack(terms).sum() / 2

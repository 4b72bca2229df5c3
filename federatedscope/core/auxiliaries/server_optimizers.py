"""Adaptive optimizers of a server, as Reddi et al. define them.

With the clients' mean change ``D_t`` (here the negative gradient)::

    m_t = beta1 m_(t-1) + (1 - beta1) D_t
    v_t = v_(t-1) + D_t^2                                          FedAdagrad
    v_t = v_(t-1) - (1 - beta2) D_t^2 sign(v_(t-1) - D_t^2)        FedYogi
    v_t = beta2 v_(t-1) + (1 - beta2) D_t^2                        FedAdam
    x_(t+1) = x_t + lr m_t / (sqrt(v_t) + tau)

from ``m = 0`` and ``v = tau^2``. Unlike ``torch.optim.Adam``, none of them corrects for a bias.

Reddi et al., Adaptive Federated Optimization, ICLR 2021, arXiv 2003.00295, Algorithm 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["SERVER_OPTIMIZERS", "FedAdagrad", "FedAdam", "FedYogi"]


class FedAdam(torch.optim.Optimizer):
    """FedAdam.

    Parameters
    ----------
    params : iterable
        Parameters, or groups of them.
    lr : float
        Step size.
    betas : tuple of two floats
        Shares of the old m and v that are kept.
    tau : float
        Adaptivity: the smaller, the more.

    Raises
    ------
    ValueError
        A beta outside of 0 to 1, or a ``tau`` that is not above 0.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.01,
        betas: Sequence[float] = (0.9, 0.99),
        tau: float = 1e-3,
    ) -> None:
        beta1, beta2 = betas
        if not (0 <= beta1 < 1 and 0 <= beta2 < 1 and tau > 0):
            raise ValueError(f"betas {betas} have to be from 0 to below 1, and tau {tau} above 0")
        super().__init__(params, {"lr": lr, "betas": (beta1, beta2), "tau": tau})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            (beta1, beta2), tau = group["betas"], group["tau"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["m"] = torch.zeros_like(parameter)
                    state["v"] = torch.full_like(parameter, tau**2)
                state["m"].lerp_(parameter.grad, 1 - beta1)
                self._second_moment(state["v"], parameter.grad.square(), beta2)
                parameter.addcdiv_(state["m"], state["v"].sqrt() + tau, value=-group["lr"])

    def _second_moment(self, v: Tensor, squares: Tensor, beta: float) -> None:
        v.lerp_(squares, 1 - beta)


class FedYogi(FedAdam):
    """FedYogi: v moves towards ``D^2`` by a part of ``D^2``, so it forgets slowly; see
    :class:`FedAdam`.
    """

    def _second_moment(self, v: Tensor, squares: Tensor, beta: float) -> None:
        v.addcmul_(squares, (v - squares).sign(), value=beta - 1)


class FedAdagrad(FedAdam):
    """FedAdagrad: v is the sum of all ``D^2``, and the second beta is not used; see
    :class:`FedAdam`.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.01,
        betas: Sequence[float] = (0.0, 0.0),
        tau: float = 1e-3,
    ) -> None:
        super().__init__(params, lr, betas, tau)

    def _second_moment(self, v: Tensor, squares: Tensor, beta: float) -> None:
        v.add_(squares)


#: by the name in ``fedopt.optimizer.type``
SERVER_OPTIMIZERS = {
    "FedAdagrad": FedAdagrad,
    "FedYogi": FedYogi,
    "Yogi": FedYogi,
    "FedAdam": FedAdam,
}

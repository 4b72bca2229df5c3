"""FedOpt: the mean update as a gradient for an optimizer at the server.

``g_t = x_t - sum_k p_k x_k``, ``x_(t+1) = ServerOpt(x_t, g_t)``. SGD with learning rate 1 is
FedAvg. ``FedAdam``, ``FedYogi`` and ``FedAdagrad`` are the paper's
(:mod:`federatedscope.core.auxiliaries.server_optimizers`); ``Adam`` and ``Adagrad`` are PyTorch's,
which correct for a bias, or start from zero.

Reddi et al., Adaptive Federated Optimization, ICLR 2021, arXiv 2003.00295.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from federatedscope.core.aggregators.clients_avg_aggregator import ClientsAvgAggregator
from federatedscope.core.auxiliaries.optimizer_builder import (
    SERVER,
    check_optimizer,
    get_server_optimizer,
)
from fedlora.errors import AggregationError
from fedlora.means import narrow


class FedOptAggregator(ClientsAvgAggregator):
    """A server optimizer over the clients' mean.

    Parameters
    ----------
    model, device
        See :class:`Aggregator`.
    config : CN
        Reads ``fedopt.optimizer`` (``type``, ``lr`` and the class's own arguments) and
        ``fedopt.annealing``, ``annealing_step_size`` (rounds), ``annealing_gamma``.

    Notes
    -----
    The optimizer works in float32 and its moments stay from round to round;
    :meth:`state_dict` and :meth:`load_state_dict` carry them over a restart. Integer buffers take
    the rounded mean.
    """

    def __init__(
        self, model: nn.Module | None = None, device: Any = "cpu", config: Any = None
    ) -> None:
        super().__init__(model, device, config)
        self._parameters: dict[str, nn.Parameter] = {}
        self.optimizer: torch.optim.Optimizer | None = None
        self.scheduler: torch.optim.lr_scheduler.StepLR | None = None
        check_optimizer(SERVER, **config.fedopt.optimizer)

    def _combine(self) -> dict[str, Tensor]:
        """One step of the server optimizer."""
        result, target = super()._combine(), self._mean.wide()
        names = [name for name, tensor in result.items() if tensor.is_floating_point()]
        current = self._current(names)
        if not self._parameters:
            self._build({name: tuple(current[name].shape) for name in names})
        changed = sorted(set(names) ^ set(self._parameters))
        if changed:
            raise AggregationError(
                f"The server optimizer follows {len(self._parameters)} tensors and this round "
                f"brought other ones ({', '.join(changed[:3])}); it needs the same every round."
            )
        self._step(current, target)
        for name, parameter in self._parameters.items():
            result[name] = narrow(parameter.detach(), result[name].dtype, name)
        return result

    def _step(self, current: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            now = current[name].to(target[name])
            parameter.data.copy_(now)
            parameter.grad = (now - target[name]).to(parameter.dtype)
        if self.optimizer is not None:
            self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()

    def _build(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        device = torch.device("cpu" if self.device is None else self.device)
        self._parameters = {
            name: nn.Parameter(torch.zeros(shape, device=device)) for name, shape in shapes.items()
        }
        settings = self.cfg.fedopt
        # A module, because registered optimizer builders ask it for its parameters().
        module = nn.ParameterList(self._parameters.values())
        self.optimizer = get_server_optimizer(module, **settings.optimizer)
        if settings.annealing:
            self.scheduler = torch.optim.lr_scheduler.StepLR(
                self.optimizer, settings.annealing_step_size, settings.annealing_gamma
            )

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next round depends on: tensors, numbers and names only."""
        return {
            "shapes": {name: tuple(p.shape) for name, p in self._parameters.items()},
            "optimizer": self.optimizer.state_dict() if self.optimizer else None,
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`state_dict` of a run with the same ``fedopt`` section."""
        if not state["shapes"]:
            self._parameters, self.optimizer, self.scheduler = {}, None, None
            return
        self._build({name: tuple(shape) for name, shape in state["shapes"].items()})
        if self.optimizer is not None:
            self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None and state["scheduler"] is not None:
            self.scheduler.load_state_dict(state["scheduler"])

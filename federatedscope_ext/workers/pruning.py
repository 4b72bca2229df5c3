"""HetLoRA's self-pruning of ranks (Cho et al., EMNLP 2024, arXiv 2401.06432, section 4.2).

With ``r' = floor(gamma r)`` a client adds

    ``lambda sum_modules ||B[:, r':]||_F ||A[r':, :]||_F``

to its loss, and goes over to rank r' when that product has become smaller by its training than it
was before: then the last rows carry little. No client goes below the smallest rank of the run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from federatedscope.core.trainers.context import CtxVar
from federatedscope.core.trainers.enums import LIFECYCLE
from federatedscope.core.workers import Client
from federatedscope_ext.methods import HETLORA
from federatedscope_ext.workers.base import MethodServer
from fedlora.names import pair_names

__all__ = ["HetLoRAClient", "HetLoRAServer", "tail_norm"]


def tail_norm(parameters: Mapping[str, Tensor], kept: Mapping[str, int]) -> Tensor:
    """``sum_modules ||B[:, r':]||_F ||A[r':, :]||_F``, differentiable.

    Parameters
    ----------
    parameters : mapping of str to Tensor
        By parameter name.
    kept : mapping of str to int
        ``r'`` of each module; modules that are not named are left out.
    """
    total = torch.zeros(())
    for module, (a, b) in pair_names(parameters).items():
        rank = kept.get(module)
        if rank is None or rank >= parameters[a].shape[0]:
            continue
        # A norm has no gradient at zero, where B starts.
        norms = [
            (tail.float().square().sum() + 1e-12).sqrt()
            for tail in (parameters[a][rank:], parameters[b][:, rank:])
        ]
        total = total.to(norms[0].device) + norms[0] * norms[1]
    return total


class HetLoRAServer(MethodServer):
    """Norm-weighted zero padding."""

    method = HETLORA


class HetLoRAClient(Client):
    """Prunes its own rank."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        layouts = getattr(self, "layouts", None)
        config = kwargs.get("config")
        self._least: dict[str, int] = {}
        # A run of one rank has nothing to prune down to; FederatedScope itself has one rank.
        if layouts is None or config is None or config.hetlora.gamma >= 1.0:
            return
        self._least = {m: ranks[0] for m, ranks in layouts.ranks_of_modules().items()}
        register = getattr(self.trainer, "register_hook_in_train", None)
        if register is not None and config.hetlora.regularization > 0.0:
            register(self._add_penalty, "on_batch_forward")

    def _kept(self) -> dict[str, int]:
        """``r'`` of the modules that can still shrink."""
        if self.layouts is None:
            return {}
        gamma = self._cfg.hetlora.gamma
        ranks = self.layouts.of(self.ID).ranks
        kept = {m: max(math.floor(gamma * ranks[m]), least) for m, least in self._least.items()}
        return {module: rank for module, rank in kept.items() if rank < ranks[module]}

    def _add_penalty(self, ctx: Any) -> None:
        penalty = tail_norm(dict(ctx.model.named_parameters()), self._kept())
        penalty = self._cfg.hetlora.regularization * penalty
        ctx.loss_task = CtxVar(ctx.loss_task + penalty, LIFECYCLE.BATCH)

    def _train(self) -> tuple[float, Any]:
        kept = self._kept()
        before = self._tail(kept)
        weight, state = super()._train()
        layouts = self.layouts
        if kept and layouts is not None and layouts.make and self._tail(kept) < before:
            self.change_ranks(layouts.make({**layouts.of(self.ID).ranks, **kept}, self.ID))
            state = self.trainer.get_model_para()
        return weight, state

    def _tail(self, kept: Mapping[str, int]) -> float:
        with torch.no_grad():
            return float(tail_norm(dict(self.model.named_parameters()), kept))

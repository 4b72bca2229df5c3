"""HetLoRA: zero padding, weighted by the size of the clients' applied updates.

Per module, with the clients that reported::

    q_k = ||s_k B_k A_k||_F / sum_j ||s_j B_j A_j||_F,
    A = sum_k q_k pad(A_k),    s B = sum_k q_k pad(s_k B_k).

Norms come from Gram matrices of side r_k; no product is formed. Where all are zero the sample
sizes weigh. Tensors that are no LoRA factors are weighted by sample size.

Self-pruning (section 4.2): with ``r' = floor(gamma r)`` a client adds

    ``lambda sum_modules ||B[:, r':]||_F ||A[r':, :]||_F``

to its loss, and goes over to rank r' when that product has become smaller by its training than it
was before: then the last rows carry little. No client goes below the smallest rank of the run.

Cho et al., Heterogeneous LoRA for Federated Fine-tuning of On-Device Foundation Models, EMNLP
2024, arXiv 2401.06432.
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
from federatedscope_ext.aggregators.module import ModuleRule, Target
from federatedscope_ext.aggregators.rule import LoraRule, Taken
from federatedscope_ext.methods.method import Method, Option, lora
from federatedscope_ext.methods.registry import register_method
from fedlora.means import RowMeans
from fedlora.names import pair_names
from fedlora.ops import frobenius
from fedlora.pairs import Factors, LoraPair


class HetLoraModule(ModuleRule):
    """The zero-padded mean with norms as weights."""

    needs_means = True
    needs_pairs = True

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.by_norm = RowMeans(target.options.device)

    def add(self, weight: float, pair: LoraPair) -> None:
        """Count a pair by its norm."""
        norm = frobenius(pair)
        if norm > 0:
            self.by_norm.add(norm, Factors(pair.A, pair.B, pair.scale))

    def result(self) -> Factors:
        """See the module's formula."""
        rows = self.by_norm if self.by_norm.total > 0 else self.means
        return rows.over_all()


class HetLora(LoraRule):
    """HetLoRA's sparsity-weighted aggregation."""

    module_rule = HetLoraModule
    # What it adds to `reset` and `weights` goes with uploads that come one at a time.
    takes_singly = True

    def reset(self, agg_info: Mapping[str, Any] | None = None) -> None:
        """Start a round, see :meth:`LoraRule.reset`."""
        super().reset(agg_info)
        self._norms: dict[int, dict[str, float]] = {}

    def weights(self, agg_info: Mapping[str, Any] | None = None) -> dict[int, float]:
        """The mean over modules of each client's ``q_k``; they add up to 1.

        Row shares, as :meth:`LoraRule.weights` has them, for uploads that were not taken in, or
        where all norms are zero. The clients without rows weigh nothing.
        """
        rows = super().weights(agg_info)
        if not all(client in self._norms for client in rows):
            return rows
        shares = [
            _shares({k: self._norms[k][module] if rows[k] else 0.0 for k in rows})
            for module in next(iter(self._norms.values()))
        ]
        known = [share for share in shares if share]
        if not known:
            return rows
        return {k: math.fsum(share[k] for share in known) / len(known) for k in rows}

    def _take(
        self, content: Any, client_id: int | None, scales: Mapping[str, float] | None
    ) -> Taken:
        taken = super()._take(content, client_id, scales)
        norms = self._norms.setdefault(taken.client_id, {})
        for module, factors in taken.factors.items():
            pair = factors.completed(Target(module, self._round, self._options).current())
            norms[module] = 0.0 if pair is None else frobenius(pair)
        return taken


def _shares(norms: Mapping[int, float]) -> dict[int, float]:
    total = math.fsum(norms.values())
    return {k: norm / total for k, norm in norms.items()} if total > 0 else {}


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


class HetLoraClient(Client):
    """Prunes its own rank: a penalty on the last rows, and fewer of them where that pays.

    A trainer without hooks trains without both.
    """

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
        if register is None:
            return
        register(self._measure, "on_fit_start")
        if config.hetlora.regularization > 0.0:
            register(self._add_penalty, "on_batch_forward")
        register(self._prune, "on_fit_end")

    def _kept(self) -> dict[str, int]:
        """``r'`` of the modules that can still shrink."""
        if self.layouts is None:
            return {}
        gamma = self._cfg.hetlora.gamma
        ranks = self.layouts.of(self.ID).ranks
        kept = {m: max(math.floor(gamma * ranks[m]), least) for m, least in self._least.items()}
        return {module: rank for module, rank in kept.items() if rank < ranks[module]}

    def _measure(self, ctx: Any) -> None:
        ctx.tail_before = CtxVar(self._tail(ctx.model), LIFECYCLE.ROUTINE)

    def _add_penalty(self, ctx: Any) -> None:
        penalty = tail_norm(dict(ctx.model.named_parameters()), self._kept())
        penalty = self._cfg.hetlora.regularization * penalty
        ctx.loss_task = CtxVar(ctx.loss_task + penalty, LIFECYCLE.BATCH)

    def _prune(self, ctx: Any) -> None:
        kept, layouts = self._kept(), self.layouts
        if (
            kept
            and layouts is not None
            and layouts.make
            and self._tail(ctx.model) < ctx.tail_before
        ):
            self.change_ranks(layouts.make({**layouts.of(self.ID).ranks, **kept}, self.ID))

    def _tail(self, model: Any) -> float:
        with torch.no_grad():
            return float(tail_norm(dict(model.named_parameters()), self._kept()))


HETLORA = register_method(
    Method(
        key="hetlora",
        name="HetLoRA",
        paper="Cho et al., Heterogeneous LoRA for Federated Fine-tuning of On-Device Foundation "
        "Models, EMNLP 2024, arXiv 2401.06432",
        note="Zero padding, weighted by the norm of each client's update; clients prune their own "
        "rank.",
        variants=lora("HetLoRA"),
        rule=HetLora,
        client=HetLoraClient,
        combines_products=True,
        options=(
            Option(
                "hetlora",
                "gamma",
                0.99,
                "HetLoRA's self-pruning: the share of its rank that a client keeps when it pays; 1"
                " prunes nothing.",
                low=0.0,
                high=1.0,
                of_client=True,
            ),
            Option(
                "hetlora",
                "regularization",
                0.005,
                "HetLoRA's penalty on the norm of the last ranks.",
                low=0.0,
                of_client=True,
            ),
        ),
    )
)

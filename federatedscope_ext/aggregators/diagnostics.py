"""How much a round's aggregation kept of the exact mean of the applied updates.

For a module with ``W = sum_k p_k s_k B_k A_k`` and singular values ``sigma``:

``effective_rank``
    ``exp(H(sigma / sum sigma))`` with the entropy H (Roy and Vetterli, EUSIPCO 2007).
``energy``
    Rank r -> share of ``sum sigma^2`` in the first r singular values.
``factor_mean_error``
    ``||Bbar Abar - W||_F / ||W||_F`` of the zero-padded means of the factors.
``method_error``
    The same for what the method made: the server's new state and what goes into the frozen weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from federatedscope_ext.aggregators.module import ModuleRule
from fedlora.pairs import LoraPair
from fedlora.svd import UpdateSum

__all__ = ["effective_rank", "energy", "module_findings", "summarise"]


def effective_rank(sigma: Tensor) -> float:
    """``exp`` of the entropy of the normalised singular values; 0 where all are zero."""
    share = sigma.double() / sigma.double().sum().clamp_min(1e-300)
    share = share[share > 0]
    return math.exp(float(-(share * share.log()).sum())) if len(share) else 0.0


def energy(sigma: Tensor, rank: int) -> float:
    """Share of ``sum sigma^2`` in the first ``rank`` singular values (1 where all are zero)."""
    squared = sigma.double().square()
    total = float(squared.sum())
    return float(squared[:rank].sum()) / total if total > 0 else 1.0


def module_findings(
    rule: ModuleRule, written: LoraPair | None, base: LoraPair | None
) -> dict[str, Any] | None:
    """The figures of one module; ``None`` where W is not known or zero.

    Parameters
    ----------
    rule : ModuleRule
        After :meth:`ModuleRule.finish`.
    written : LoraPair or None
        The server's new pair.
    base : LoraPair or None
        What goes into the frozen weight.
    """
    exact: UpdateSum | None = rule.exact
    if exact is None or written is None:
        return None
    sigma = exact.singular_values()
    norm = float(sigma.double().norm())
    if norm == 0:
        return None
    current = rule.target.current()
    mean = rule.means.over_all().completed(current)
    made = [written] if base is None else [written, base]
    ranks = rule.target.round.ranks.get(rule.target.module) or sorted(rule.ranks)
    return {
        "effective_rank": effective_rank(sigma),
        "energy": {str(rank): energy(sigma, rank) for rank in ranks},
        "factor_mean_error": None if mean is None else exact.distance(mean) / norm,
        "method_error": exact.distance(*made) / norm,
    }


def summarise(findings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over modules; a rank's energy over the modules in which it occurs."""
    if not findings:
        return {}
    ranks = sorted({rank for found in findings for rank in found["energy"]}, key=int)
    return {
        "modules": len(findings),
        "effective_rank": _mean(found["effective_rank"] for found in findings),
        "energy": {
            rank: _mean(found["energy"][rank] for found in findings if rank in found["energy"])
            for rank in ranks
        },
        "factor_mean_error": _mean(
            f["factor_mean_error"] for f in findings if f["factor_mean_error"] is not None
        ),
        "method_error": _mean(found["method_error"] for found in findings),
    }


def _mean(values: Iterable[float]) -> float:
    given = list(values)
    return math.fsum(given) / len(given) if given else math.nan

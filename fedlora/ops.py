"""What changes a rank or a scale and, unless said otherwise, not the applied update.

Pure functions from :class:`LoraPair` to :class:`LoraPair`; nothing is written into.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from fedlora.pairs import LoraPair, rank_of

__all__ = ["cut", "frobenius", "inner", "padded", "rescaled", "rotated", "stacked"]


def padded(pair: LoraPair, rank: int) -> LoraPair:
    """Rows of A and columns of B added as zeros up to ``rank``.

    Raises
    ------
    ValueError
        The pair has more rows than that.
    """
    missing = rank - rank_of(pair)
    if missing < 0:
        raise ValueError(f"a pair of rank {rank_of(pair)} cannot be padded to rank {rank}")
    return LoraPair(pad(pair.A, (0, 0, 0, missing)), pad(pair.B, (0, missing)), pair.scale)


def cut(pair: LoraPair, rank: int) -> LoraPair:
    """The first ``rank`` rows of A and columns of B (all of them where there are fewer).

    This changes the applied update, unless what is cut off is zero. The tensors are views.
    """
    return LoraPair(pair.A[:rank], pair.B[:, :rank], pair.scale)


def rescaled(pair: LoraPair, scale: float) -> LoraPair:
    """The same applied update at another scale: ``B`` times ``pair.scale / scale``.

    Raises
    ------
    ValueError
        The new scale is zero.
    """
    if scale == 0:
        raise ValueError("a pair cannot be brought to the scale 0")
    if scale == pair.scale:
        return pair
    return LoraPair(pair.A, pair.B * (pair.scale / scale), scale)


def rotated(pair: LoraPair, rotation: Tensor) -> LoraPair:
    """``R^T A`` and ``B R`` for an orthogonal ``R`` of shape ``(r, r)``."""
    return LoraPair(rotation.T @ pair.A, pair.B @ rotation, pair.scale)


def stacked(
    pairs: Sequence[LoraPair], weights: Sequence[float], dtype: torch.dtype = torch.float64
) -> LoraPair:
    """``sum_k w_k s_k B_k A_k`` as one pair: ``[w_k s_k B_k ...]`` and ``[A_k ...]``, scale 1.

    Parameters
    ----------
    pairs : sequence of LoraPair
        At least one, of any ranks, of the same ``d_in`` and ``d_out``.
    weights : sequence of float
        One each.
    dtype : torch.dtype
        Of the result.

    Returns
    -------
    LoraPair
        Its rank is the sum of the ranks.
    """
    left = [p.B.to(dtype) * (w * p.scale) for p, w in zip(pairs, weights, strict=True)]
    return LoraPair(torch.cat([p.A.to(dtype) for p in pairs]), torch.cat(left, dim=1), 1.0)


def inner(one: LoraPair, other: LoraPair) -> float:
    """``<s B A, s' B' A'>`` from Gram matrices, ``tr((B'^T B)(A A'^T)) s s'``, in float64."""
    gram_b = other.B.double().T @ one.B.double()
    gram_a = other.A.double() @ one.A.double().T
    return float((gram_b * gram_a).sum()) * one.scale * other.scale


def frobenius(pair: LoraPair) -> float:
    """``||s B A||_F``, without forming the product."""
    return max(inner(pair, pair), 0.0) ** 0.5

"""Weighted means, one upload at a time, in float64: of whole tensors and of rank rows."""

from __future__ import annotations

import torch
from torch import Tensor

from federatedscope_ext.aggregators.uploads import AggregationError, Factors

__all__ = ["WIDE", "RowMeans", "TensorMean", "narrowed"]


# Precision of all means, whatever the uploads have.
WIDE = torch.float64


def narrowed(tensor: Tensor, dtype: torch.dtype, key: str = "") -> Tensor:
    """A copy of ``tensor`` in ``dtype``; integers are rounded, booleans must be 0 or 1.

    Raises
    ------
    AggregationError
        Clients disagree about a boolean.
    """
    if dtype.is_floating_point:
        return tensor.to(dtype, copy=True)
    if dtype == torch.bool and not bool(((tensor == 0) | (tensor == 1)).all()):
        raise AggregationError(
            f"Clients disagree about the boolean tensor {key}, which has no mean. Keep it at the "
            "clients with personalization.local_param.",
            key=key,
        )
    return tensor.round().to(dtype)


class TensorMean:
    """``sum_k w_k x_k / sum_k w_k`` as ``m <- m + w_k / W_k (x_k - m)`` (West, 1979).

    Equal inputs give exactly themselves.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.total = 0.0
        self._mean: Tensor | None = None
        self._dtype: torch.dtype | None = None

    def add(self, weight: float, tensor: Tensor) -> None:
        """Take one tensor in; a weight of zero leaves it out."""
        if weight == 0:
            return
        self.total += weight
        wide = tensor.to(self.device, WIDE)
        if self._mean is None or self._dtype is None:
            self._mean, self._dtype = wide.clone(), tensor.dtype
            return
        self._mean.lerp_(wide, weight / self.total)
        self._dtype = torch.promote_types(self._dtype, tensor.dtype)

    def result(self, key: str) -> Tensor:
        """The mean in the dtype of what was added (the widest one)."""
        if self._mean is None or self._dtype is None:
            raise AggregationError(f"No client with a weight above zero sent {key}.", key=key)
        return narrowed(self._mean, self._dtype, key)


class RowMeans:
    """Sums over clients of the rows of A and the columns of ``s B``, with the weight of each row.

    A client of rank r owns rows ``0 .. r - 1``, so the rows that somebody owns are the first ones,
    and the means have just these. Two means come out of the same sums:
    :meth:`over_all` counts missing rows as zeros, :meth:`over_owners` leaves them out.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.total = 0.0
        self._row_weights = torch.zeros(0, dtype=WIDE, device=device)
        self._a: Tensor | None = None
        self._b: Tensor | None = None

    def add(self, weight: float, factors: Factors) -> None:
        """Take one client's factors in, with a weight above zero.

        A factor that nobody sends stays without a mean.
        """
        rank = factors.rank
        self.total += weight
        self._row_weights = _grown(self._row_weights, 0, rank)
        self._row_weights[:rank] += weight
        if factors.A is not None:
            wide = factors.A.to(self.device, WIDE)
            start = wide.new_zeros(0, wide.shape[1]) if self._a is None else self._a
            self._a = _grown(start, 0, rank)
            self._a[:rank].add_(wide, alpha=weight)
        if factors.B is not None:
            wide = factors.B.to(self.device, WIDE)
            start = wide.new_zeros(wide.shape[0], 0) if self._b is None else self._b
            self._b = _grown(start, 1, rank)
            self._b[:, :rank].add_(wide, alpha=weight * factors.scale)

    def over_all(self) -> Factors:
        """``sum_k w_k pad(A_k) / sum_k w_k``; B likewise. Scale 1."""
        return self._divided(torch.full_like(self._row_weights, self.total))

    def over_owners(self) -> Factors:
        """Row i: the mean over the clients whose rank exceeds i. Scale 1."""
        return self._divided(self._row_weights)

    def _divided(self, weights: Tensor) -> Factors:
        a = None if self._a is None else self._a / weights[:, None]
        b = None if self._b is None else self._b / weights
        return Factors(a, b, 1.0)


def _grown(tensor: Tensor, dim: int, size: int) -> Tensor:
    """``tensor`` with zeros added along ``dim`` up to ``size``."""
    missing = size - tensor.shape[dim]
    if missing <= 0:
        return tensor
    shape = list(tensor.shape)
    shape[dim] = missing
    return torch.cat([tensor, tensor.new_zeros(shape)], dim=dim)

"""Weighted means, one upload at a time: of whole tensors, of states, of rank rows.

With weights ``w_1, w_2, ...`` and ``W_k = w_1 + ... + w_k``::

    m_1 = x_1,    m_k = m_(k-1) + w_k / W_k (x_k - m_(k-1)),

so that ``m_K = sum_k w_k x_k / W_K`` without the total weight being known in advance. Equal inputs
give exactly themselves, and memory does not grow with the number of clients (West, 1979).
Accumulated in float64, whatever precision the uploads have.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fedlora.errors import AggregationError
from fedlora.pairs import Factors

__all__ = ["RowMeans", "RunningMean", "TensorMean", "narrow", "widen"]

Device = str | int | torch.device | None


def widen(tensor: Tensor, device: Device = "cpu", copy: bool = False) -> Tensor:
    """``tensor`` in float64 on ``device`` (float32 where the device has no float64)."""
    target = torch.device("cpu" if device is None else device)
    dtype = torch.float32 if target.type == "mps" else torch.float64
    return tensor.to(device=target, dtype=dtype, copy=copy)


def narrow(tensor: Tensor, dtype: torch.dtype, key: str = "") -> Tensor:
    """A copy of ``tensor`` in ``dtype``.

    Integers (counters in buffers) are rounded to the nearest. Booleans must be 0 or 1.

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
    """The weighted mean of the tensors added so far.

    Parameters
    ----------
    device : str or torch.device
        Where to compute.
    """

    def __init__(self, device: Device = "cpu") -> None:
        self.device = device
        self.total = 0.0
        self._mean: Tensor | None = None
        self._dtype: torch.dtype | None = None

    def add(self, weight: float, tensor: Tensor) -> None:
        """Take one tensor in, with a weight of zero or more; zero leaves it out."""
        if weight == 0:
            return
        self.total += weight
        if self._mean is None or self._dtype is None:
            self._mean, self._dtype = widen(tensor, self.device, copy=True), tensor.dtype
            return
        self._mean.lerp_(widen(tensor, self.device), weight / self.total)
        self._dtype = torch.promote_types(self._dtype, tensor.dtype)

    def wide(self, key: str = "") -> Tensor:
        """The mean in the precision of the accumulation, as a copy.

        Raises
        ------
        AggregationError
            Nothing was added with a weight above zero.
        """
        if self._mean is None:
            raise AggregationError(f"No client with a weight above zero sent {key}.", key=key)
        return self._mean.clone()

    def result(self, key: str = "") -> Tensor:
        """The mean in the dtype of what was added (the widest one), as a copy."""
        return narrow(self.wide(key), self._dtype or torch.float32, key)


class RunningMean:
    """The weighted mean of the states added so far, which all have the same names.

    Parameters
    ----------
    device : str or torch.device
        Where to compute.
    """

    def __init__(self, device: Device = "cpu") -> None:
        self.device = device
        self._means: dict[str, TensorMean] = {}

    def add(self, weight: float, state: Mapping[str, Tensor]) -> None:
        """Take one state in; the weight is zero or more, and need not be normalised."""
        for key, tensor in state.items():
            self._means.setdefault(key, TensorMean(self.device)).add(weight, tensor)

    def wide(self) -> dict[str, Tensor]:
        """The mean in the precision of the accumulation, as copies."""
        return {key: mean.wide(key) for key, mean in self._means.items()}

    def result(self) -> dict[str, Tensor]:
        """The mean in the dtype of the states (the wider one where they differ), as copies."""
        return {key: mean.result(key) for key, mean in self._means.items()}


class RowMeans:
    """Sums over clients of the rows of A and the columns of ``s B``, with the weight of each row.

    A client of rank r owns rows ``0 .. r - 1``, so the rows that somebody owns are the first ones,
    and the means have just these. Two means come out of the same sums:
    :meth:`over_all` counts missing rows as zeros, :meth:`over_owners` leaves them out.
    """

    def __init__(self, device: Device = "cpu") -> None:
        self.device = device
        self.total = 0.0
        self._row_weights = widen(torch.zeros(0), device)
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
            wide = widen(factors.A, self.device)
            start = wide.new_zeros(0, wide.shape[1]) if self._a is None else self._a
            self._a = _grown(start, 0, rank)
            self._a[:rank].add_(wide, alpha=weight)
        if factors.B is not None:
            wide = widen(factors.B, self.device)
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

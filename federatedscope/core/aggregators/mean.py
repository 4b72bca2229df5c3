"""The weighted mean, one upload at a time.

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

from federatedscope.core.aggregators.uploads import AggregationError, Upload

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


class RunningMean:
    """The weighted mean of the states added so far.

    Parameters
    ----------
    device : str or torch.device
        Where to compute.

    Attributes
    ----------
    total : float
        Sum of the weights added.
    """

    def __init__(self, device: Device = "cpu") -> None:
        self.device = device
        self.total = 0.0
        self._mean: dict[str, Tensor] = {}
        self._dtypes: dict[str, torch.dtype] = {}

    def add(self, weight: float, state: Mapping[str, Tensor]) -> None:
        """Take one state in; the weight is zero or more, and need not be normalised."""
        if weight == 0:
            return
        self.total += weight
        share = weight / self.total
        for key, tensor in state.items():
            if key not in self._mean:
                self._mean[key] = widen(tensor, self.device, copy=True)
                self._dtypes[key] = tensor.dtype
            else:
                self._mean[key].lerp_(widen(tensor, self.device), share)
                self._dtypes[key] = torch.promote_types(self._dtypes[key], tensor.dtype)

    def wide(self) -> dict[str, Tensor]:
        """The mean in the precision of the accumulation, as copies."""
        return {key: mean.clone() for key, mean in self._mean.items()}

    def result(self) -> dict[str, Tensor]:
        """The mean in the dtype of the states (the wider one where they differ), as copies."""
        return {key: narrow(mean, self._dtypes[key], key) for key, mean in self._mean.items()}


def running_mean(
    uploads: list[Upload], weights: Mapping[int, float], device: Device = "cpu"
) -> RunningMean:
    """The mean of ``uploads`` with the weight of each client ID."""
    mean = RunningMean(device)
    for upload in uploads:
        mean.add(weights[upload.client_id], upload.state)
    return mean

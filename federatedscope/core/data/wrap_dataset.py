"""Arrays as a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

__all__ = ["WrapDataset"]


class WrapDataset(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Rows ``(x[i], y[i])`` of ``{'x': array of shape (n, ...), 'y': array of shape (n, ...)}``, as
    float tensors where they are not tensors already; lists of rows will do.
    """

    def __init__(self, dataset: Mapping[str, Any]) -> None:
        super().__init__()
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset["y"])

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return _tensor(self.dataset["x"][index]), _tensor(self.dataset["y"][index])


def _tensor(value: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    return torch.from_numpy(np.asarray(value, dtype=np.float32))

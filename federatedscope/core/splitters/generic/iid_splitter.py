"""Rows spread evenly at random."""

from __future__ import annotations

from typing import Any

import numpy as np

from federatedscope.core.data.utils import take
from federatedscope.core.splitters.base_splitter import BaseSplitter

__all__ = ["IIDSplitter"]


class IIDSplitter(BaseSplitter):
    """Shuffle the rows and cut them into ``client_num`` parts of equal size (to one row)."""

    def __call__(self, dataset: Any, prior: Any = None, **kwargs: Any) -> list[Any]:
        """Split a dataset; ``prior`` is not needed for parts that are alike."""
        index = np.arange(len(dataset))
        np.random.shuffle(index)
        return [take(dataset, part) for part in np.array_split(index, self.client_num)]

"""One category (or several) per client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from federatedscope.core.data.utils import take
from federatedscope.core.errors import ConfigError
from federatedscope.core.splitters.base_splitter import BaseSplitter
from federatedscope.core.splitters.utils import class_codes, required_labels, split_by_prior

__all__ = ["MetaSplitter"]


class MetaSplitter(BaseSplitter):
    """Give every client whole categories: a client per task, language or topic.

    The categories are shuffled; with more categories than clients they are dealt out in turn.
    """

    def __call__(
        self, dataset: Any, prior: Sequence[Any] | None = None, **kwargs: Any
    ) -> list[Any]:
        """Split a dataset; with ``prior`` each category goes to the client that trains on it. Fewer
        categories than clients are a :class:`ConfigError`.
        """
        labels = required_labels(dataset, "meta")
        if prior is not None:
            parts = split_by_prior(labels, self.client_num, prior)
            return [take(dataset, part) for part in parts]
        codes, _, classes = class_codes(labels)
        if classes < self.client_num:
            problem = "data.splitter: meta gives each client its own category, and the data have "
            remedy = f"Write federate.client_num: {classes} or fewer, or data.splitter: lda"
            raise ConfigError("federate.client_num", self.client_num, f"{problem}{classes}", remedy)
        owner = np.empty(classes, dtype=np.int64)
        owner[np.random.permutation(classes)] = np.arange(classes) % self.client_num
        return [take(dataset, np.flatnonzero(owner[codes] == k)) for k in range(self.client_num)]

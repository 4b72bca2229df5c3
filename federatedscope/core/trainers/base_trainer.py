"""The interface between a worker and whatever trains its model."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any


class BaseTrainer(abc.ABC):
    """What a client needs from a trainer. Extensions may implement it from scratch."""

    def __init__(self, model: Any, data: Any, device: Any, **kwargs: Any) -> None:
        self.model = model
        self.data = data
        self.device = device
        self.kwargs = kwargs

    @abc.abstractmethod
    def train(self) -> tuple[int, Mapping[str, Any], Mapping[str, Any]]:
        """Train locally; returns samples processed, the state dict to share, metrics."""

    @abc.abstractmethod
    def evaluate(self, target_data_split_name: str = "test") -> Mapping[str, Any]:
        """Evaluate on a split and return its metrics, ``{split}_{metric}`` each."""

    @abc.abstractmethod
    def update(self, model_parameters: Mapping[str, Any], strict: bool = False) -> None:
        """Take over received parameters."""

    @abc.abstractmethod
    def get_model_para(self) -> Mapping[str, Any]:
        """The state dict to share."""

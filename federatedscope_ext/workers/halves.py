"""Clients that train one factor at a time."""

from __future__ import annotations

from typing import Any

from federatedscope.core.message import Message
from federatedscope.core.workers import Client
from federatedscope_ext.workers.base import factors_frozen

__all__ = ["HalfClient"]


class HalfClient(Client):
    """Trains and uploads one factor."""

    def frozen_factor(self, completed: int) -> str:
        """``A`` or ``B``: what stays as it is in the round after ``completed`` rounds."""
        raise NotImplementedError

    def callback_funcs_for_model_para(self, message: Message) -> Any:
        """Take over both factors, train one."""
        if message.content:
            self.trainer.update(message.content)
        with factors_frozen(self.model, self.frozen_factor(message.state)):
            return super().callback_funcs_for_model_para(message)

    def callback_funcs_for_evaluate(self, message: Message) -> Any:
        """Take over both factors; fine-tuning before it trains the round's factor too."""
        if message.content:
            self.trainer.update(message.content)
        with factors_frozen(self.model, self.frozen_factor(message.state)):
            return super().callback_funcs_for_evaluate(message)

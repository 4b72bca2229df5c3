"""Doubles for tests of the course: exchanges that hold, reorder and repeat; bitwise equality."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

from federatedscope.core.exchange import Exchange, InProcessExchange
from federatedscope.core.message import Message


class Held(Exchange):
    """Keeps what is sent and delivers nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.posted: list[Message] = []

    def post(self, message: Message) -> None:
        self.posted.append(message)

    def drain(self) -> None:
        pass

    def of(self, kind: str) -> list[Message]:
        """What was sent of a kind."""
        return [message for message in self.posted if message.msg_type == kind]


class AnyOrder(InProcessExchange):
    """All clients work first; what they send arrives in an order of choice."""

    def __init__(self, order: Callable[[list[Message]], Any]) -> None:
        super().__init__()
        self.order = order
        self.sent: list[Message] = []

    def post(self, message: Message) -> None:
        if message.sender and message.msg_type in ("model_para", "metrics"):
            self.sent.append(message)
        else:
            super().post(message)

    def drain(self) -> None:
        while True:
            while self._to_clients:
                self.deliver(*self._to_clients.popleft())
            arrived, self.sent = list(self.order(self.sent)), []
            for message in arrived:
                super().post(message)
            super().drain()
            if not self.sent:
                return


class Repeating(InProcessExchange):
    """Everything that a client sends arrives twice, as after a lost acknowledgement."""

    def post(self, message: Message) -> None:
        super().post(message)
        if message.sender:
            super().post(copy.copy(message))


def hand_over(runner: Any, message: Message) -> None:
    """Let the receivers of a message handle it, whatever the exchange holds."""
    for receiver in message.receivers:
        runner.exchange.deliver(message, receiver)


def same(one: Any, other: Any) -> bool:
    """Equal in types, order and bits."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) or (one != one and other != other)

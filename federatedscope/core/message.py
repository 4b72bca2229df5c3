"""The message, the only thing that travels between workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

SERVER_ID = 0


class Message:
    """One message between two workers.

    Parameters
    ----------
    msg_type : str
        Chooses the handler: ``join_in``, ``assign_client_id``, ``model_para``, ``evaluate``,
        ``metrics``, ``converged``, ``finish`` or one that an extension registered.
    sender, receiver : int, int or list of int
        IDs of workers; the server is 0, clients count from 1.
    state : int
        Index of the training round, from 0.
    content : object
        The payload. A client's ``model_para`` is ``(sample_size, state_dict)``, the server's is a
        state dict.
    timestamp : float
        Virtual time, carried through unchanged by synchronous runs.
    strategy, serial_num
        Kept for extensions written against FederatedScope; unused here.
    """

    def __init__(
        self,
        msg_type: str | None = None,
        sender: int = 0,
        receiver: int | list[int] = 0,
        state: int = 0,
        content: Any = "None",
        timestamp: float = 0,
        strategy: str | None = None,
        serial_num: int = 0,
    ) -> None:
        self.msg_type = msg_type
        self.sender = sender
        self.receiver = receiver
        self.state = state
        self.content = content
        self.timestamp = timestamp
        self.strategy = strategy
        self.serial_num = serial_num

    @property
    def receivers(self) -> list[int]:
        """The receiving workers as a list."""
        return list(self.receiver) if isinstance(self.receiver, list | tuple) else [self.receiver]

    def __lt__(self, other: Message) -> bool:
        """Order by virtual time, then by round."""
        return (self.timestamp, self.state) < (other.timestamp, other.state)

    def __repr__(self) -> str:
        return (
            f"Message({self.msg_type!r}, {self.sender} -> {self.receiver}, round index "
            f"{self.state}, {payload_bytes(self.content)} bytes)"
        )


def payload_bytes(content: Any) -> int:
    """Bytes of all tensors in a payload, the part of a message that costs bandwidth: in any nesting
    of mappings, lists and tuples the sum of ``numel * element_size``.
    """
    if isinstance(content, torch.Tensor):
        return content.nbytes
    if isinstance(content, Mapping):
        content = list(content.values())
    return sum(map(payload_bytes, content)) if isinstance(content, list | tuple) else 0

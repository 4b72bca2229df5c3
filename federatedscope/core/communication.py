"""What a worker sends through, and what sending costs.

Workers know only ``comm_manager.send`` and the list of neighbours; how messages get to the others
is the exchange's business (:mod:`federatedscope.core.exchange`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from federatedscope.core.codec import overhead
from federatedscope.core.exchange import Exchange
from federatedscope.core.message import SERVER_ID, Message, payload_bytes

logger = logging.getLogger(__name__)

# Messages that carry states of models.
STATE_MESSAGES = ("model_para", "evaluate")


@dataclass
class Traffic:
    """Bytes of tensors per client, and ``encoding``, what the codec adds for every receiver."""

    up: dict[int, int] = field(default_factory=dict)
    down: dict[int, int] = field(default_factory=dict)
    encoding: int = 0

    def take(self) -> Traffic:
        """Return what was counted and start again from zero."""
        taken = Traffic(self.up, self.down, self.encoding)
        self.up, self.down, self.encoding = {}, {}, 0
        return taken

    def add(self, other: Traffic) -> None:
        """Count what another book has, too."""
        for mine, its in ((self.up, other.up), (self.down, other.down)):
            mine.update({client: mine.get(client, 0) + size for client, size in its.items()})
        self.encoding += other.encoding


@dataclass
class TrafficLedger:
    """What was sent since it was last taken, in a book for each purpose.

    ``evaluation`` is what was sent down only so that clients could evaluate the new state (a
    deployment sends it once, at the next round's start), ``finish`` the final state that all get
    at the end; everything else belongs to ``training``.
    """

    training: Traffic = field(default_factory=Traffic)
    evaluation: Traffic = field(default_factory=Traffic)
    finish: Traffic = field(default_factory=Traffic)

    def record(self, message: Message) -> None:
        """Count one message."""
        size = payload_bytes(message.content)
        if not size:
            return
        books = {"evaluate": self.evaluation, "finish": self.finish}
        book = books.get(str(message.msg_type), self.training)
        # What a worker from outside sends need not be encodable while it stays in this process.
        with contextlib.suppress(TypeError):
            book.encoding += overhead(message) * len(message.receivers)
        if message.sender != SERVER_ID:
            book.up[message.sender] = book.up.get(message.sender, 0) + size
            return
        for receiver in message.receivers:
            book.down[receiver] = book.down.get(receiver, 0) + size

    def state_dict(self) -> dict[str, Any]:
        """What was counted and is not taken yet."""
        return dataclasses.asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`state_dict`."""
        for name, book in state.items():
            up, down = ({int(k): int(v) for k, v in book[way].items()} for way in ("up", "down"))
            setattr(self, name, Traffic(up, down, int(book["encoding"])))


class StandaloneCommManager:
    """A worker's way to the others: leaves out what must not travel, and keeps the books.

    Parameters
    ----------
    exchange : Exchange
        Carries the messages.
    monitor : Monitor, optional
        The owner's monitor, told the bytes that it sends.
    ledger : TrafficLedger, optional
        The run's books.
    withheld : set of str, optional
        Names of tensors that no state may carry: the frozen base and what stays with the client.
        A worker or trainer from outside that sends ``model.state_dict()`` as it is would ship both.
    """

    def __init__(
        self,
        exchange: Exchange,
        monitor: Any = None,
        ledger: TrafficLedger | None = None,
        withheld: Set[str] = frozenset(),
    ) -> None:
        self.exchange = exchange
        self.monitor = monitor
        self.ledger = ledger
        self.withheld = withheld
        self._told = False
        self.neighbors: dict[int, Any] = {}

    def receive(self) -> None:
        """Nothing to wait for: the runner hands messages out."""

    def add_neighbors(self, neighbor_id: int, address: Any = None) -> None:
        """Remember a worker and, across machines, where it is reached."""
        self.neighbors[neighbor_id] = address

    def get_neighbors(self, neighbor_id: int | list[int] | None = None) -> Any:
        """All neighbours, one neighbour's address, or the addresses of several."""
        if not neighbor_id:
            return self.neighbors
        if isinstance(neighbor_id, list):
            return {each: self.neighbors[each] for each in neighbor_id}
        return self.neighbors[neighbor_id]

    def send(self, message: Message) -> None:
        """Count a message and hand it to the exchange."""
        if self.withheld and message.msg_type in STATE_MESSAGES:
            self._withhold(message)
        if self.ledger is not None:
            self.ledger.record(message)
        if self.monitor is not None:
            self.monitor.track_upload_bytes(payload_bytes(message.content))
        self.exchange.post(message)

    def _withhold(self, message: Message) -> None:
        content, left_out = _without(message.content, self.withheld)
        if not left_out:
            return
        message.content = content
        if not self._told:
            self._told = True
            logger.warning(
                "Worker %s sent %d tensors that do not travel (the frozen base, or what "
                "personalization.local_param keeps at the client); they were left out.",
                message.sender,
                left_out,
            )


def _without(content: Any, withheld: Set[str]) -> tuple[Any, int]:
    """``content`` without the named tensors, and how many they were."""
    if isinstance(content, Mapping):
        kept = {name: value for name, value in content.items() if name not in withheld}
        return kept, len(content) - len(kept)
    if isinstance(content, tuple | list):
        parts = [_without(part, withheld) for part in content]
        return type(content)(part for part, _ in parts), sum(count for _, count in parts)
    return content, 0

"""How messages get from one worker to another.

The runner hands an exchange to the workers' managers; workers only send. Today all workers are in
one process. Process groups and machines get exchanges of their own with the same methods,
:meth:`Exchange.post`, :meth:`Exchange.drain` and :meth:`Exchange.close`; ``register_exchange`` adds
one.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter, defaultdict, deque
from collections.abc import Callable

from federatedscope.core.message import SERVER_ID, Message

logger = logging.getLogger(__name__)

#: message from the server -> the answer that each of its receivers owes
ANSWERS = {"model_para": "model_para", "evaluate": "metrics"}
#: messages to the server that count once for each round and client
ONCE = ("join_in", "join_in_info", "local_metrics", "metrics", "model_para", "training_report")

Deliver = Callable[[Message, int], None]


class Inbox:
    """What has arrived for the server, given out in the order in which it asked.

    Sums of floating-point numbers depend on their order, and a run must not depend on who answers
    first: what a client sends waits until everybody who was asked before it has answered. An answer
    that arrives twice in one drain is given out once.
    """

    def __init__(self) -> None:
        self._turns: deque[tuple[int, str]] = deque()
        self._owing: Counter[int] = Counter()
        self._arrived: list[Message] = []
        self._seen: defaultdict[int, set[tuple[str | None, int]]] = defaultdict(set)

    def expect(self, message: Message) -> None:
        """The server has sent a message; its receivers answer in this order."""
        answer = ANSWERS.get(str(message.msg_type))
        if answer is not None:
            self._turns.extend((receiver, answer) for receiver in message.receivers)
            self._owing.update(message.receivers)
            for receiver in message.receivers:
                # Asked again, also within a round, it may answer again.
                self._seen.pop(receiver, None)

    def put(self, message: Message) -> None:
        """A message has arrived."""
        identity, seen = (message.msg_type, message.state), self._seen[message.sender]
        if message.msg_type in ONCE and identity in seen:
            logger.warning("%s came a second time; it is taken once.", message)
            return
        seen.add(identity)
        self._arrived.append(message)

    def take(self) -> Message | None:
        """The next message, ``None`` while the client whose turn it is has sent nothing."""
        client, answer = self._turns[0] if self._turns else (None, None)
        for index, message in enumerate(self._arrived):
            if message.sender == client:
                if message.msg_type == answer:
                    self._next_turn()
            elif self._owing[message.sender] > 0:
                continue
            return self._arrived.pop(index)
        return None

    def _next_turn(self) -> None:
        client, _ = self._turns.popleft()
        self._owing[client] -= 1

    def give_up(self) -> bool:
        """Wait no longer for the client whose turn it is; whether anything has come of others."""
        if self._arrived:
            self._next_turn()
            return True
        self._turns.clear()
        self._owing.clear()
        self._seen.clear()
        return False


class Exchange(ABC):
    """Carries messages between the workers of a course.

    Attributes
    ----------
    deliver : callable
        ``f(message, receiver)``, set by the runner: lets a worker handle a message. One at a time,
        from any thread: the workers share a model, and a second call meanwhile is refused.
        :meth:`post` must not call it, since a worker sends while it handles a message.
    """

    def __init__(self) -> None:
        self.deliver: Deliver = _nowhere

    @abstractmethod
    def post(self, message: Message) -> None:
        """Take a message over; it is delivered by :meth:`drain`."""

    @abstractmethod
    def drain(self) -> None:
        """Deliver until nothing is under way, also not what is sent meanwhile.

        The server gets messages in the order of :class:`Inbox`. What fails in a worker is raised
        here, also where it worked in another thread.
        """

    def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """The run has ended, however it did: let go of threads, files and connections."""


class InProcessExchange(Exchange):
    """All workers in this process, one after the other.

    Clients work in the order in which they were sent something, and what a client sends reaches the
    server before the next one begins: the uploads of a round are never all in memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self._inbox = Inbox()
        self._to_clients: deque[tuple[Message, int]] = deque()

    def post(self, message: Message) -> None:
        """See :meth:`Exchange.post`."""
        if message.sender == SERVER_ID:
            self._inbox.expect(message)
        for receiver in message.receivers:
            if receiver == SERVER_ID:
                self._inbox.put(message)
            else:
                self._to_clients.append((message, receiver))

    def drain(self) -> None:
        """See :meth:`Exchange.drain`."""
        while True:
            message = self._inbox.take()
            if message is not None:
                self.deliver(message, SERVER_ID)
            elif self._to_clients:
                self.deliver(*self._to_clients.popleft())
            elif not self._inbox.give_up():
                return


def _nowhere(message: Message, receiver: int) -> None:
    raise RuntimeError(f"{message} was sent before anybody could receive it")

"""What server and clients have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from federatedscope.core.message import Message
from federatedscope.core.monitors.monitor import Monitor

Handler = Callable[[Message], Any]


class Worker:
    """A participant of the course: an ID, a model, a monitor and handlers of messages.

    Parameters
    ----------
    ID : int
        0 for the server, 1..N for clients.
    state : int
        Index of the round.
    config : CN, optional
        Without it the worker is only asked for its handlers.
    model : torch.nn.Module
        The model; in one process all workers share the module (see ``core.client_store``).
    strategy : object, optional
        Kept for extensions.
    callbacks : Callbacks, optional
        The run's callbacks.
    """

    def __init__(
        self,
        ID: int = -1,
        state: int = 0,
        config: Any = None,
        model: Any = None,
        strategy: Any = None,
        callbacks: Any = None,
    ) -> None:
        self.ID = ID
        self.state = state
        self.model = model
        self.strategy = strategy
        self.callbacks = callbacks
        self._cfg = config
        self.mode = "standalone"
        self.msg_handlers: dict[str, Handler] = {}
        self.msg_handlers_str: dict[str, tuple[str, list[str | None]]] = {}
        self._monitor: Any = None
        if config is not None:
            self.mode = config.federate.mode.lower()
            self._monitor = Monitor(config, monitored_object=self, callbacks=callbacks)

    def register_handlers(
        self,
        msg_type: str,
        callback_func: Handler,
        send_msg: Sequence[str | None] = (None,),
    ) -> None:
        """Bind a message type to the function that handles it.

        Parameters
        ----------
        msg_type : str
            The type of the received message.
        callback_func : callable
            Called with the message.
        send_msg : sequence of str
            Types of the messages that the handler may send, for checks of completeness.
        """
        self.msg_handlers[msg_type] = callback_func
        name = getattr(callback_func, "__name__", repr(callback_func))
        self.msg_handlers_str[msg_type] = (name, list(send_msg))

    def _register_default_handlers(self) -> None:
        """Bind the message types that every worker of the role understands."""

    @classmethod
    def get_msg_handler_dict(cls) -> dict[str, tuple[str, list[str | None]]]:
        """Message types, their handlers' names and what these send."""
        return cls().msg_handlers_str

"""What server and clients have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from federatedscope.core.callbacks import Callbacks
from federatedscope.core.engine import TorchEngine
from federatedscope.core.message import Message
from federatedscope.core.monitors.monitor import Monitor
from federatedscope.core.state import restore, states_of

Handler = Callable[[Message], Any]

# Who overrides one of these may send, or take over, less than the whole shared state.
_EXCHANGE = (
    "_register_default_handlers",
    "_send_state",
    "callback_funcs_for_evaluate",
    "callback_funcs_for_model_para",
    "content_for",
    "shared_state",
)


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

    Attributes
    ----------
    starts_from_download : bool
        Whether what a client is sent to train on, or to evaluate, replaces all that it has of the
        shared tensors. Where it does, and nothing is personal, clients need not be kept on disk
        between rounds. A subclass that changes what travels is not taken to do so unless it says
        ``starts_from_download = True`` itself.
    """

    starts_from_download: ClassVar[bool] = True
    comm_manager: Any
    cur_timestamp: float = 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "starts_from_download" not in vars(cls) and any(name in vars(cls) for name in _EXCHANGE):
            cls.starts_from_download = False

    @classmethod
    def prepare_config(cls, cfg: Any) -> None:
        """A hook of a method's server: write what the method decides into ``cfg``.

        Called before anything is built; doing it twice changes nothing.
        """

    @classmethod
    def prepare_model(cls, model: Any, cfg: Any) -> None:
        """A hook of a method's server: change a new model, with or without storage."""

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
        self.callbacks = Callbacks() if callbacks is None else callbacks
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

    @staticmethod
    def _hand_engine(trainer: Any, engine: Any) -> None:
        """Let a trainer compute with the run's engine; its own is PyTorch on one device."""
        if engine is not None and isinstance(getattr(trainer, "_engine", None), TorchEngine):
            trainer._engine = engine

    def _take_manager(self, manager: Any) -> None:
        self.comm_manager = manager
        manager.monitor = self._monitor

    def _send(
        self,
        msg_type: str,
        receivers: list[int],
        content: Any = None,
        state: int | None = None,
        timestamp: float | None = None,
    ) -> None:
        """Send a message of the present round, or of another one."""
        self.comm_manager.send(
            Message(
                msg_type=msg_type,
                sender=self.ID,
                receiver=receivers,
                state=self.state if state is None else state,
                timestamp=self.cur_timestamp if timestamp is None else timestamp,
                content=content,
            )
        )

    def _stateful_parts(self) -> dict[str, Any]:
        """What the worker owns that lives over rounds, by name."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What the next rounds depend on, see :mod:`federatedscope.core.state`.

        A subclass that keeps something over rounds adds it, and takes it back in
        :meth:`load_state_dict`; the participant's own tensors are the client store's.
        """
        return {"state": self.state, **states_of(self._stateful_parts())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`state_dict` of the same worker, between two rounds."""
        self.state = int(state["state"])
        restore(self._stateful_parts(), state)

    def _register_default_handlers(self) -> None:
        """Bind the message types that every worker of the role understands."""

    @classmethod
    def get_msg_handler_dict(cls) -> dict[str, tuple[str, list[str | None]]]:
        """Message types, their handlers' names and what these send."""
        return cls().msg_handlers_str

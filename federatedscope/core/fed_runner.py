"""Where work runs. Today: all workers in this process.

A runner builds the workers and what is handed to them (exchange, client store, engine), and lets
each handle its messages with its own tensors and random numbers.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from federatedscope.core.callbacks import Callbacks
from federatedscope.core.client_store import ClientStore, method_state
from federatedscope.core.communication import StandaloneCommManager, TrafficLedger
from federatedscope.core.configs.config import CN
from federatedscope.core.configs.loading import client_config
from federatedscope.core.course import Course
from federatedscope.core.engine import TorchEngine
from federatedscope.core.exchange import Exchange, InProcessExchange
from federatedscope.core.message import SERVER_ID, Message
from federatedscope.core.participants import unseen_clients
from federatedscope.core.seeding import seeded
from federatedscope.core.sharing import withheld_names
from federatedscope.core.state import RandomState, restore, states_of
from federatedscope.core.task import is_isolated
from federatedscope.core.trainers.torch_trainer import GeneralTorchTrainer
from fedlora.layers import apply_layout, lora_modules
from fedlora.layouts import Layouts

logger = logging.getLogger(__name__)


class StandaloneRunner:
    """Simulates the whole course in one process.

    Parameters
    ----------
    data : mapping of int to ClientData
        0 is the server's, 1..N the clients'.
    server_class, client_class : type
        Workers of the chosen method.
    config : CN
        The run's configuration.
    client_configs : CN, optional
        ``client_k`` to what differs for client k.
    model : torch.nn.Module
        The one module that all workers share, on its device.
    device : str
        Where to compute.
    callbacks : Callbacks, optional
        Told what happens.
    layouts : Layouts, optional
        Ranks and scales of the LoRA modules for each participant; the model has the server's.
    exchange : Exchange, optional
        Carries the messages; in this process when not given.
    engine : TorchEngine, optional
        Computes; PyTorch on one device when not given.
    """

    def __init__(
        self,
        data: Mapping[int, Any],
        server_class: type[Any],
        client_class: type[Any],
        config: Any,
        model: torch.nn.Module,
        client_configs: CN | None = None,
        device: str = "cpu",
        callbacks: Callbacks | None = None,
        layouts: Layouts | None = None,
        exchange: Exchange | None = None,
        engine: TorchEngine | None = None,
    ) -> None:
        self.cfg = config
        self.data = data
        self.model = model
        self.device = device
        self.callbacks = callbacks or Callbacks()
        self.exchange = InProcessExchange() if exchange is None else exchange
        self.exchange.deliver = self._deliver
        self._idle = threading.Lock()
        self.engine = TorchEngine() if engine is None else engine
        self.ledger = TrafficLedger()
        self.layouts = layouts
        if layouts is not None:
            apply_layout(lora_modules(model), layouts.server)
        self.store = self._build_store()
        self.withheld = withheld_names(model, config)
        self.unseen_clients = unseen_clients(config)
        self.server = self._build_server(server_class)
        self.clients = {
            client_id: self._build_client(client_class, client_id, client_configs)
            for client_id in range(1, config.federate.client_num + 1)
        }
        self.store.is_read_again = self._is_read_again
        self.course = Course(self.server, self.clients, self.exchange)

    def _is_read_again(self, client_id: int) -> bool:
        """Whether a client ever looks at its own tensors of the round before."""
        client = self.clients[client_id]
        replaced = (
            self.server.starts_from_download
            and client.starts_from_download
            and getattr(type(client.trainer), "update", None) is GeneralTorchTrainer.update
        )
        return (
            not replaced or is_isolated(self.cfg) or not self.withheld.isdisjoint(self.store.names)
        )

    def _build_store(self) -> ClientStore:
        federate = self.cfg.federate
        return ClientStore(
            self.model,
            memory_limit=int(federate.client_memory_mb) * 2**20,
            spill_dir=Path(self.cfg.outdir) / "clients",
            shared_module=federate.shared_module,
            layouts=self.layouts if self.layouts is not None and self.layouts.vary else None,
            engine=self.engine,
        )

    def _build_server(self, server_class: type[Any]) -> Any:
        self.store.activate(SERVER_ID)
        return server_class(
            ID=SERVER_ID,
            config=self.cfg,
            data=self.data.get(SERVER_ID),
            model=self.model,
            client_num=self.cfg.federate.client_num,
            total_round_num=self.cfg.federate.total_round_num,
            device=self.device,
            unseen_clients_id=self.unseen_clients,
            comm_manager=self._manager(),
            engine=self.engine,
            ledger=self.ledger,
            # A book of its own: what it sends fits what it has told clients or was told by them.
            layouts=None if self.store.layouts is None else self.store.layouts.copy(),
            callbacks=self.callbacks,
        )

    def _build_client(
        self, client_class: type[Any], client_id: int, client_configs: CN | None
    ) -> Any:
        return client_class(
            ID=client_id,
            server_id=SERVER_ID,
            config=client_config(self.cfg, client_configs, client_id),
            data=self.data[client_id],
            model=self.model,
            device=self.device,
            is_unseen_client=client_id in self.unseen_clients,
            comm_manager=self._manager(),
            engine=self.engine,
            layouts=self.store.layouts,
            callbacks=self.callbacks,
        )

    def _manager(self) -> StandaloneCommManager:
        return StandaloneCommManager(self.exchange, ledger=self.ledger, withheld=self.withheld)

    def run(self) -> dict[str, Any]:
        """Run the whole course.

        Returns
        -------
        dict
            The server's best results.
        """
        try:
            self.course.run()
        finally:
            # However it ends: what was sent is in the records. What belongs to no round, as FLoRA's
            # last update, goes with the final state.
            if not self.server.has_begun:
                self.ledger.finish.add(self.ledger.training.take())
            for kind in ("training", "evaluation", "finish"):
                self.server.record_traffic(kind)
        return dict(self.server.best_results)

    def _deliver(self, message: Message, receiver: int) -> None:
        """Let a worker handle a message, with its own tensors and random numbers."""
        if not self._idle.acquire(blocking=False):
            raise RuntimeError(
                f"{message} was delivered while another worker was at work. All share one model: "
                f"{type(self.exchange).__name__} has to deliver one message at a time"
            )
        try:
            self._hand_over(message, receiver)
        finally:
            self._idle.release()

    def _hand_over(self, message: Message, receiver: int) -> None:
        worker = self.server if receiver == SERVER_ID else self.clients[receiver]
        handler = worker.msg_handlers.get(message.msg_type)
        if handler is None:
            raise ValueError(
                f"{type(worker).__name__} has no handler for messages of type "
                f"{message.msg_type!r}: register one in _register_default_handlers"
            )
        self.store.activate(receiver)
        if receiver == SERVER_ID:
            handler(message)
            return
        with seeded(self.cfg.seed, receiver, message.state, message.msg_type):
            handler(message)

    def state_dict(self) -> dict[str, Any]:
        """All that the next rounds depend on, see :mod:`federatedscope.core.state`.

        Valid between two rounds: in ``course.between_rounds``.
        """
        return {
            **states_of(self._parts()),
            "clients": {k: client.state_dict() for k, client in self.clients.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`state_dict` of a runner of the same configuration."""
        restore(self._parts(), state)
        for client_id, client in self.clients.items():
            client.load_state_dict(state["clients"][client_id])

    def _parts(self) -> dict[str, Any]:
        return {
            "server": self.server,
            # The clients' book of ranks; the store lays their tensors out by it.
            "layouts": self.store.layouts,
            "store": self.store,
            "method": method_state(self.model),
            "random": RandomState(),
        }

    def close(self) -> None:
        """End the exchange and remove temporary files."""
        try:
            self.exchange.close()
        finally:
            self.store.close()

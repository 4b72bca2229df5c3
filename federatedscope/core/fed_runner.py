"""Where work runs. Today: all workers in this process, connected by one queue.

A runner builds the workers and carries messages between them; what the workers do is theirs. A
runner over a process group or over machines replaces this class and the communication manager,
nothing else.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from federatedscope.core.callbacks import Callbacks
from federatedscope.core.client_store import ClientStore, owned_tensors
from federatedscope.core.communication import SERVER_ID, TrafficLedger
from federatedscope.core.configs.checks_federation import count_unseen
from federatedscope.core.configs.config import CN
from federatedscope.core.configs.loading import client_config
from federatedscope.core.message import Message
from federatedscope.core.seeding import derived_seed, seeded
from federatedscope.core.trainers.torch_trainer import GeneralTorchTrainer
from federatedscope.core.trainers.utils import shared_part
from federatedscope.core.workers.client import ISOLATED_METHODS
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
    ) -> None:
        self.cfg = config
        self.data = data
        self.model = model
        self.device = device
        self.callbacks = callbacks or Callbacks()
        self.queue: deque[Message] = deque()
        self.ledger = TrafficLedger()
        self.layouts = layouts
        if layouts is not None:
            apply_layout(lora_modules(model), layouts.server)
        self.store = self._build_store()
        self.withheld = withheld_names(model, config)
        self.unseen_clients = draw_unseen_clients(config)
        self.server = self._build_server(server_class)
        self.clients = {
            client_id: self._build_client(client_class, client_id, client_configs)
            for client_id in range(1, config.federate.client_num + 1)
        }
        self.store.is_read_again = self._is_read_again

    def _is_read_again(self, client_id: int) -> bool:
        """Whether a client ever looks at its own tensors of the round before."""
        client = self.clients[client_id]
        replaced = (
            self.server.starts_from_download
            and client.starts_from_download
            and getattr(type(client.trainer), "update", None) is GeneralTorchTrainer.update
        )
        isolated = self.cfg.federate.method.lower() in ISOLATED_METHODS
        return not replaced or isolated or not self.withheld.isdisjoint(self.store.names)

    def _build_store(self) -> ClientStore:
        federate = self.cfg.federate
        return ClientStore(
            self.model,
            memory_limit=int(federate.client_memory_mb) * 2**20,
            spill_dir=Path(self.cfg.outdir) / "clients",
            shared_module=federate.shared_module,
            layouts=self.layouts if self.layouts is not None and self.layouts.vary else None,
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
            shared_comm_queue=self.queue,
            ledger=self.ledger,
            withheld=self.withheld,
            # A book of its own: what it sends fits what it has told clients or was told by them.
            layouts=None if self.store.layouts is None else self.store.layouts.copy(),
            callbacks=self.callbacks,
        )

    def _build_client(
        self, client_class: type[Any], client_id: int, client_configs: CN | None
    ) -> Any:
        own = client_configs is not None and f"client_{client_id}" in client_configs
        return client_class(
            ID=client_id,
            server_id=SERVER_ID,
            config=client_config(self.cfg, client_configs, client_id) if own else self.cfg,
            data=self.data[client_id],
            model=self.model,
            device=self.device,
            is_unseen_client=client_id in self.unseen_clients,
            shared_comm_queue=self.queue,
            ledger=self.ledger,
            withheld=self.withheld,
            layouts=self.store.layouts,
            callbacks=self.callbacks,
        )

    def run(self) -> dict[str, Any]:
        """Carry messages until none is left.

        Returns
        -------
        dict
            The server's best results.
        """
        for client in self.clients.values():
            client.join_in()
        while self.queue:
            self._deliver(self.queue.popleft())
        return self.server.best_results

    def _deliver(self, message: Message) -> None:
        """Hand a message to its receivers, each with its own tensors and random numbers."""
        for receiver in message.receivers:
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
                continue
            with seeded(self.cfg.seed, receiver, message.state, message.msg_type):
                handler(message)

    def close(self) -> None:
        """Remove temporary files."""
        self.store.close()


def withheld_names(model: torch.nn.Module, cfg: Any) -> frozenset[str]:
    """Names of the tensors that no message of a run may carry.

    The frozen base, unless ``personalization.share_non_trainable_para`` is on, and what
    ``personalization.local_param`` keeps with the clients.
    """
    owned = owned_tensors(model)
    names = set(owned) - set(shared_part(owned, cfg.personalization.local_param))
    if not cfg.personalization.share_non_trainable_para:
        names |= model.state_dict(keep_vars=True).keys() - owned.keys()
    return frozenset(names)


def idle_clients(cfg: Any) -> list[int]:
    """IDs of the clients that never train: the unseen ones, and ``federate.untrained_clients``."""
    return sorted({*draw_unseen_clients(cfg), *map(int, cfg.federate.untrained_clients)})


def draw_unseen_clients(cfg: Any) -> list[int]:
    """IDs of the clients that never train (``federate.unseen_clients_rate``)."""
    count = count_unseen(cfg.federate.unseen_clients_rate, cfg.federate.client_num)
    if count == 0:
        return []
    rng = np.random.default_rng(derived_seed(cfg.seed, "unseen clients"))
    drawn = rng.choice(np.arange(1, cfg.federate.client_num + 1), size=count, replace=False)
    return sorted(int(i) for i in drawn)

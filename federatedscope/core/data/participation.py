"""Which clients train, and how many rows of theirs are used: settled when the data are there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from federatedscope.core.data.base_data import ClientData
from federatedscope.core.data.utils import take
from federatedscope.core.errors import ConfigError

__all__ = ["limit_rows", "note_untrained"]

logger = logging.getLogger(__name__)


def note_untrained(data: Mapping[int, Any], config: Any) -> None:
    """Add the clients without training rows to ``federate.untrained_clients``, in place.

    Where nobody has any rows nothing is added: that is refused later, by name. A client that there
    is not, or everybody, in ``federate.untrained_clients`` is a :class:`ConfigError`.
    """
    clients = sorted(worker for worker in data if worker > 0)
    named = [int(client) for client in config.federate.untrained_clients]
    strange = [client for client in named if client not in data or client < 1]
    if strange or (named and not set(clients) - set(named)):
        problem = f"there is no client {strange[0]}" if strange else "nobody would be left to train"
        remedy = f"Name some of the clients, whose numbers are {clients[0]} to {clients[-1]}"
        raise ConfigError("federate.untrained_clients", named, problem, remedy)
    hollow = [client for client in clients if _is_hollow(data[client])]
    if not hollow or len(hollow) == len(clients):
        return
    logger.info(
        "Clients without training rows never train, weigh nothing and are only evaluated: %s.",
        ", ".join(map(str, hollow)),
    )
    config.federate.untrained_clients = sorted({*named, *hollow})


def _is_hollow(data: Any) -> bool:
    """No training rows; data of a form that only its trainer knows counts as having some."""
    return isinstance(data, ClientData) and data.rows("train") == 0


def limit_rows(data: Mapping[int, Any], config: Any) -> None:
    """Keep ``data.rows_per_client`` training rows of every client, and of its validation and test
    part ``eval.max_rows``, in place; 0 keeps all.

    Which ones is drawn with ``data.seed``; they stay in order.
    """
    evaluated = int(config.eval.max_rows)
    limits = {"train": int(config.data.rows_per_client), "val": evaluated, "test": evaluated}
    for worker, mine in data.items():
        if worker < 1 or not isinstance(mine, ClientData):
            continue
        for number, (split, most) in enumerate(limits.items()):
            if most == 0 or mine.rows(split) <= most:
                continue
            rng = np.random.default_rng([config.data.seed, worker, number])
            kept = np.sort(rng.choice(mine.rows(split), size=most, replace=False))
            if split == "train":
                lost = mine.rows(split) - most
                mine.left_out.append(("train rows", lost, f"data.rows_per_client {most}"))
            setattr(mine, f"{split}_data", take(mine.dataset(split), kept))

"""Who trains and who is evaluated: three groups of clients, each with one owner here.

*Unseen* clients never train (``federate.unseen_clients_rate``); they show how the course serves
newcomers. *Untrained* ones are these and the clients without training rows. *Evaluated* ones are
those of ``eval.clients``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from federatedscope.core.configs.checks_federation import count_unseen
from federatedscope.core.seeding import derived_seed

__all__ = ["evaluated_clients", "unseen_clients", "untrained_clients"]


def unseen_clients(cfg: Any) -> list[int]:
    """IDs of the clients that are held out, drawn by the run's seed."""
    count = count_unseen(cfg.federate.unseen_clients_rate, cfg.federate.client_num)
    if count == 0:
        return []
    rng = np.random.default_rng(derived_seed(cfg.seed, "unseen clients"))
    drawn = rng.choice(np.arange(1, cfg.federate.client_num + 1), size=count, replace=False)
    return sorted(int(i) for i in drawn)


def untrained_clients(cfg: Any) -> list[int]:
    """IDs of the clients that never train: the unseen ones, and those without training rows."""
    return sorted({*unseen_clients(cfg), *map(int, cfg.federate.untrained_clients)})


def evaluated_clients(cfg: Any, known: Iterable[int], unseen: Iterable[int]) -> set[int]:
    """IDs of the clients whose evaluation a round waits for (``eval.clients``)."""
    everybody, held_out = set(known), set(unseen)
    groups = {"all": everybody, "unseen": everybody & held_out, "seen": everybody - held_out}
    return groups[cfg.eval.clients]

"""State: what lives over rounds, as tensors and JSON.

Whoever keeps something that a later round depends on has ``state_dict`` and ``load_state_dict``:
server, clients, sampler, aggregator, results, rank books, client store, and what a method keeps
beside the backbone. A state is mappings, lists, tuples, strings, numbers, ``None`` and tensors,
which :mod:`federatedscope.core.codec` writes. It is taken at the quiet point between two rounds,
where no message is under way, and given back to objects that were built from the same
configuration.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

__all__ = ["RandomState", "Stateful", "restore", "states_of"]


@runtime_checkable
class Stateful(Protocol):
    """Something that lives over rounds."""

    def state_dict(self) -> dict[str, Any]:
        """What the next rounds depend on, as tensors and JSON."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`state_dict`."""


def states_of(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The states of those parts that have one; what comes from outside need not."""
    return {name: part.state_dict() for name, part in parts.items() if isinstance(part, Stateful)}


def restore(parts: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Give parts their states back."""
    for name, part in parts.items():
        if isinstance(part, Stateful):
            part.load_state_dict(state[name])


class RandomState:
    """The global generators of Python, NumPy and PyTorch (of all devices in use)."""

    def state_dict(self) -> dict[str, Any]:
        """Where they are."""
        version, internal, gauss = random.getstate()
        numpy: Any = np.random.get_state()
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        return {
            "python": [version, list(internal), gauss],
            "numpy": [numpy[0], numpy[1].tolist(), *numpy[2:]],
            "torch": torch.get_rng_state(),
            "cuda": list(cuda),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put them back."""
        version, internal, gauss = state["python"]
        random.setstate((version, tuple(internal), gauss))
        kind, keys, position, has_gauss, cached = state["numpy"]
        np.random.set_state((kind, np.array(keys, np.uint32), position, has_gauss, cached))
        torch.set_rng_state(state["torch"])
        if state["cuda"]:
            torch.cuda.set_rng_state_all(list(state["cuda"]))

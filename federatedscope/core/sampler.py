"""Which clients take part in a round."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from federatedscope.core.errors import ConfigError
from federatedscope.core.seeding import derived_seed

_IDLE = ("idle", "seen")
_BUSY = ("working", "unseen")


class Sampler:
    """Base of the client samplers.

    The draw of a round depends on the seed and the number of draws so far only, not on what else
    used a random generator.

    Attributes
    ----------
    client_state : numpy.ndarray
        1 where a client can be drawn; entry 0 is the server and always 0.
    """

    def __init__(self, client_num: int, seed: int = 0) -> None:
        self.client_state = np.ones(client_num + 1, dtype=np.int64)
        self.client_state[0] = 0
        self.seed = seed
        self.draws = 0

    def sample(self, size: int) -> list[int]:
        """Draw ``size`` idle clients and mark them as working."""
        raise NotImplementedError

    def change_state(self, indices: int | Iterable[int], state: str) -> None:
        """Mark clients as ``idle`` / ``seen`` (can be drawn) or ``working`` / ``unseen``."""
        if state not in _IDLE + _BUSY:
            raise ValueError(f"client state {state!r}: expected one of {_IDLE + _BUSY}")
        ids = [indices] if isinstance(indices, int | np.integer) else list(indices)
        self.client_state[ids] = 1 if state in _IDLE else 0

    def state_dict(self) -> dict[str, Any]:
        """How often was drawn, and who can be."""
        return {"draws": self.draws, "client_state": self.client_state.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`state_dict`."""
        self.draws = int(state["draws"])
        self.client_state[:] = state["client_state"]


class UniformSampler(Sampler):
    """Every idle client with the same probability, without replacement, in order of ID."""

    def sample(self, size: int) -> list[int]:
        """Draw ``size`` idle clients; a :class:`ValueError` where there are fewer."""
        idle = np.flatnonzero(self.client_state)
        if size > len(idle):
            raise ValueError(f"{size} clients asked for, {len(idle)} idle")
        rng = np.random.default_rng(derived_seed(self.seed, "sample", self.draws))
        self.draws += 1
        chosen = sorted(int(i) for i in rng.choice(idle, size=size, replace=False))
        self.change_state(chosen, "working")
        return chosen


def get_sampler(
    sample_strategy: str, client_num: int, client_info: object = None, seed: int = 0
) -> Sampler:
    """The sampler that ``federate.sampler`` names; a :class:`ConfigError` but for ``uniform``."""
    if sample_strategy != "uniform":
        problem = "samplers that need measured response times are outside this project"
        remedy = "write federate.sampler: uniform"
        raise ConfigError("federate.sampler", sample_strategy, problem, remedy)
    return UniformSampler(client_num, seed)

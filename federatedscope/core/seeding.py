"""One seed, independent streams.

Whatever is random in a run draws from a stream that is named by what it is for (client, round,
purpose), so that neither the order in which clients run nor their number of processes changes a
result.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch


def derived_seed(seed: int, *names: object) -> int:
    """A 63-bit seed from the run's seed and the names of a stream.

    Stable over processes and Python versions (``hash`` is not).
    """
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def setup_seed(seed: int) -> None:
    """Seed Python, NumPy and PyTorch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # torch.manual_seed also notes where it was called from, for devices that have not started; that
    # takes a millisecond, and every client's work is seeded.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)


def capture() -> tuple[Any, Any, torch.Tensor, list[torch.Tensor]]:
    """Where the generators of Python, NumPy and PyTorch (of all devices in use) are."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), list(cuda)


def put_back(state: tuple[Any, Any, torch.Tensor, list[torch.Tensor]]) -> None:
    """Set the generators to where :func:`capture` found them."""
    python, numpy, cpu, cuda = state
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(cpu)
    if cuda:
        torch.cuda.set_rng_state_all(cuda)


class RandomStream:
    """Random numbers of their own for what runs with interruptions, by :func:`derived_seed`."""

    def __init__(self, seed: int, *names: object) -> None:
        self.seed = derived_seed(seed, *names)
        self._state: Any = None

    @contextmanager
    def active(self) -> Iterator[None]:
        """Draw from this stream, going on where it was left; others are put back afterwards."""
        outside = capture()
        if self._state is None:
            setup_seed(self.seed)
        else:
            put_back(self._state)
        try:
            yield
        finally:
            self._state = capture()
            put_back(outside)


def seeded(seed: int, *names: object) -> AbstractContextManager[None]:
    """Run a block on its own stream and put the previous generator states back afterwards."""
    return RandomStream(seed, *names).active()

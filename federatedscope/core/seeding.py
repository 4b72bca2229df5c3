"""One seed, independent streams.

Whatever is random in a run draws from a stream that is named by what it is for (client, round,
purpose), so that neither the order in which clients run nor their number of processes changes a
result.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def seeded(seed: int, *names: object) -> Iterator[None]:
    """Run a block on its own stream and put the previous generator states back afterwards."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        setup_seed(derived_seed(seed, *names))
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)

"""Arrays that take a while to compute, kept on disk for the next start."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["cache_folder", "cached_arrays"]

logger = logging.getLogger(__name__)

Arrays = Mapping[str, npt.NDArray[Any]]


def cache_folder(config: Any) -> Path:
    """Where processed data are kept: ``data.cache_dir``, else the environment's
    ``FEDERATEDSCOPE_CACHE``, else ``federatedscope`` in the user's cache folder.
    """
    named = config.data.get("cache_dir", "") or os.environ.get("FEDERATEDSCOPE_CACHE", "")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "federatedscope"


def cached_arrays(folder: Path, key: str, build: Callable[[], Arrays]) -> tuple[Arrays, bool]:
    """Arrays from the cache (read-only, mapped from disk), or built and written there; and whether
    they came from there.

    Parameters
    ----------
    folder : path
        The cache; it need not be writable.
    key : str
        Everything that decides the content.
    build : callable
        Computes the arrays; always the same names.
    """
    entry = folder / hashlib.sha256(key.encode()).hexdigest()[:32]
    try:
        files = sorted(entry.glob("*.npy"))
        arrays = {f.stem: np.load(f, mmap_mode="r", allow_pickle=False) for f in files}
    except (OSError, ValueError):
        arrays = {}
    if arrays:
        return arrays, True
    built = build()
    _write(entry, built)
    return built, False


def _write(entry: Path, arrays: Arrays) -> None:
    """Write the arrays into a new folder and move it into place in one step."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=".new-", dir=entry.parent, ignore_cleanup_errors=True
        ) as temporary:
            for name, values in arrays.items():
                np.save(Path(temporary) / f"{name}.npy", values, allow_pickle=False)
            os.replace(temporary, entry)
    except OSError as error:
        # Another process may have been first; a cache that cannot be written costs only time.
        if not entry.is_dir():
            logger.info("Processed rows are not cached: %s", error)

"""Where the miniature lives on disk, and how it gets there once.

``CACHE/embedded/<digest>/{data,encoder,llama}``. ``CACHE`` is the environment's
``FEDERATEDSCOPE_CACHE``, else ``federatedscope`` in ``XDG_CACHE_HOME`` or ``~/.cache``. The
digest covers the source of everything that is built, so a new version builds anew and an old one
finds its own. A part is built in a temporary folder and renamed, under a lock: whatever is there
is whole.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import IO

from federatedscope_ext.errors import ExtensionError

#: part -> (what is done to build it, the function that does)
_PARTS = {
    "data": ("Writing the miniature's data", "corpora.write:write_all"),
    "encoder": (
        "Pretraining the miniature's encoder, about a minute",
        "pretrain_encoder:train_encoder",
    ),
    "llama": ("Pretraining the miniature's LLaMA, about a minute", "pretrain:train_llama"),
}
PARTS: tuple[str, ...] = tuple(_PARTS)

#: raised by hand when a change outside these sources changes what is built
VERSION = 1


class Progress:
    """A line on standard error that says how far the building is; a terminal's is rewritten."""

    def __init__(self, title: str, stream: IO[str] | None = None) -> None:
        self.title = title
        self.stream = stream if stream is not None else sys.stderr
        self.live = bool(getattr(self.stream, "isatty", lambda: False)())
        self.started = time.monotonic()
        if not self.live:
            self._write(f"{self.title} (once) ...\n")

    def __call__(self, share: float) -> None:
        """Say the finished share, from 0 to 1."""
        if self.live:
            self._write(f"\r{self.title} (once): {share:4.0%}")

    def finish(self, folder: Path) -> None:
        """Say where the result is and how long it took."""
        seconds = time.monotonic() - self.started
        self._write(f"{chr(13) if self.live else ''}{self.title}: {seconds:.0f} s, in {folder}\n")

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


@lru_cache(maxsize=1)
def digest() -> str:
    """Twelve hexadecimal digits that stand for the sources of the miniature."""
    here = Path(__file__).resolve().parent
    state = hashlib.sha256(str(VERSION).encode())
    patterns = ("corpora/*.py", "corpora/*.yaml", "models.py", "vectors.py", "pretrain*.py")
    for file in sorted(file for pattern in patterns for file in here.glob(pattern)):
        # Line endings differ between checkouts of the same source.
        state.update(file.name.encode() + file.read_bytes().replace(b"\r\n", b"\n"))
    return state.hexdigest()[:12]


def cache_root() -> Path:
    """Folder of this version's parts."""
    named = os.environ.get("FEDERATEDSCOPE_CACHE", "")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    base = Path(named).expanduser() if named else home / "federatedscope"
    return base.absolute() / "embedded" / digest()


def _builder(function: str) -> Callable[[Path, Progress], None]:
    """A builder whose module, with PyTorch and more, is imported when it is called."""

    def build(folder: Path, report: Progress) -> None:
        module, name = function.split(":")
        getattr(import_module(f"federatedscope_ext.tools.embedded.{module}"), name)(folder, report)

    return build


_BUILDERS = {part: _builder(function) for part, (_, function) in _PARTS.items()}


def ensure(part: str) -> Path:
    """Folder of a part (``'data'``, ``'encoder'`` or ``'llama'``), built now if it is not there.

    Returns
    -------
    Path
        Absolute; a ``data.root``, or a model folder in Hugging Face's format.

    Raises
    ------
    ExtensionError
        The cache folder cannot be written.
    """
    target = cache_root() / part
    if target.is_dir():
        return target
    from filelock import FileLock

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / f"{part}.lock"):
            if not target.is_dir():
                _build(part, target)
    except OSError as error:
        raise ExtensionError(
            "FEDERATEDSCOPE_CACHE",
            str(target.parent),
            f"the built-in miniature cannot be kept there: {error.strerror or error}",
            "Set the environment variable FEDERATEDSCOPE_CACHE to a folder that can be written",
        ) from error
    return target


@contextmanager
def _quiet_on_one_thread() -> Iterator[None]:
    """Compute on one core, and keep the bars of transformers off the screen.

    Models this small gain nothing from more, and the same numbers come out whatever the machine.
    """
    import torch
    from transformers.utils import logging

    threads, shown = torch.get_num_threads(), logging.is_progress_bar_enabled()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if shown:
            logging.enable_progress_bar()


def _build(part: str, target: Path) -> None:
    """Build into a temporary folder beside ``target``, then rename it."""
    folder = Path(tempfile.mkdtemp(prefix=f".{part}-", dir=target.parent))
    try:
        progress = Progress(_PARTS[part][0])
        with _quiet_on_one_thread():
            _BUILDERS[part](folder, progress)
        folder.chmod(0o755)
        if not target.is_dir():
            os.replace(folder, target)
        progress.finish(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)

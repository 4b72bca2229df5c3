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
from pathlib import Path
from typing import IO

from federatedscope_ext.errors import ExtensionError

PARTS: tuple[str, ...] = ("data", "encoder", "llama")

#: raised by hand when a change outside these sources changes what is built
VERSION = 1


class Progress:
    """A line on standard error that says how far the building is.

    Parameters
    ----------
    title
        What is being built.
    stream
        Where to write; standard error by default. A terminal's line is rewritten in place.
    """

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
    builders = ("models.py", "vectors.py", "pretrain.py", "pretrain_llama.py")
    for file in sorted([*(here / "corpora").glob("*.py"), *(here / name for name in builders)]):
        # Line endings differ between checkouts of the same source.
        state.update(file.name.encode() + file.read_bytes().replace(b"\r\n", b"\n"))
    return state.hexdigest()[:12]


def cache_root() -> Path:
    """Folder of this version's parts."""
    named = os.environ.get("FEDERATEDSCOPE_CACHE", "")
    if named:
        base = Path(named).expanduser()
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "federatedscope"
    return base.absolute() / "embedded" / digest()


@contextmanager
def _lock(file: Path) -> Iterator[None]:
    """Let one process at a time build a part; elsewhere than on Unix the first rename wins."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with file.open("w", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(stream, fcntl.LOCK_UN)


def _build_data(folder: Path, report: Callable[[float], None]) -> None:
    from federatedscope_ext.tools.embedded.corpora.write import write_all

    write_all(folder)
    report(1.0)


def _build_encoder(folder: Path, report: Callable[[float], None]) -> None:
    from federatedscope_ext.tools.embedded.pretrain import train_encoder

    train_encoder(folder, report)


def _build_llama(folder: Path, report: Callable[[float], None]) -> None:
    from federatedscope_ext.tools.embedded.pretrain_llama import train_llama

    train_llama(folder, report)


_BUILDERS: dict[str, Callable[[Path, Callable[[float], None]], None]] = {
    "data": _build_data,
    "encoder": _build_encoder,
    "llama": _build_llama,
}
_TITLES = {
    "data": "Writing the miniature's data",
    "encoder": "Pretraining the miniature's encoder, about a minute",
    "llama": "Pretraining the miniature's LLaMA, about a minute",
}


def ensure(part: str) -> Path:
    """Folder of a part, built now if it is not there.

    Parameters
    ----------
    part
        ``'data'``, ``'encoder'`` or ``'llama'``.

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
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target.parent / f"{part}.lock"):
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
def _one_thread() -> Iterator[None]:
    """Compute on one core: models this small gain nothing from more, and the same numbers come
    out whatever the machine has.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _own_progress_only() -> Iterator[None]:
    """Keep the bars of transformers, which writes files of a megabyte, off the screen."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _build(part: str, target: Path) -> None:
    """Build into a temporary folder beside ``target``, then rename it."""
    folder = Path(tempfile.mkdtemp(prefix=f".{part}-", dir=target.parent))
    try:
        progress = Progress(_TITLES[part])
        with _one_thread(), _own_progress_only():
            _BUILDERS[part](folder, progress)
        folder.chmod(0o755)
        if not target.is_dir():
            os.replace(folder, target)
        progress.finish(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)

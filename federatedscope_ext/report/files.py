"""Writing report files: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from federatedscope_ext.errors import ExtensionError

__all__ = ["atomic_path", "check_writable", "write_text"]


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends without error.

    A reader, or a second report of the same folder, never sees half a file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(folder: Path, option: str) -> None:
    """Try whether files can be written to a folder that may not exist; leaves nothing behind.

    Raises
    ------
    ExtensionError
        If they cannot.
    """
    missing: list[Path] = []
    try:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ExtensionError(
            option, str(folder), f"no file can be written there ({error.strerror or error})",
            "Give a folder that you may write to; it is made if it does not exist",
        ) from error  # fmt: skip
    finally:
        for path in missing:
            with suppress(OSError):
                path.rmdir()


def write_text(path: Path, text: str) -> Path:
    """Write ``text`` to ``path`` atomically, in UTF-8; returns the path."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path

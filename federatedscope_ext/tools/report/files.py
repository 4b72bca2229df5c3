"""Writing report files: whole or not at all."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

from federatedscope.core.files import write_bytes
from federatedscope_ext.errors import ExtensionError

__all__ = ["check_writable", "write_bytes", "write_text"]


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
    write_bytes(path, text.encode("utf-8"))
    return path

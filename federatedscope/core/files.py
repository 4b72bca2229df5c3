"""Files that are either whole or not there."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from federatedscope.core.errors import ConfigError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file beside ``path``, which takes its place when the block ends well."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8, atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def check_writable(field: str, folder: Path) -> None:
    """Refuse a folder that cannot be made or written to, without making it, as ``field``'s."""
    above = folder.absolute()
    while not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir():
        raise _not_writable(field, folder, f"{above} is a file")
    if not os.access(above, os.W_OK | os.X_OK):
        raise _not_writable(field, folder, f"{above} cannot be written to")


def make_folder(field: str, folder: Path) -> None:
    """Make a folder and those above it; where it cannot be made, a refusal of ``field``."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(field, folder, error.strerror or str(error)) from error


def _not_writable(field: str, folder: Path, problem: str) -> ConfigError:
    return ConfigError(field, str(folder), problem, "Give a folder that can be written to")

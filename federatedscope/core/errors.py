"""Errors that a user can repair, raised before anything expensive starts.

The command line prints their text as one paragraph and exits with status 2 instead of showing a
traceback.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fedlora.errors import FieldError, UserError

__all__ = ["ConfigError", "UserError", "is_user_error", "within"]


class ConfigError(FieldError):
    """A configuration key has a value that cannot be used."""


@contextmanager
def within(prefix: str) -> Iterator[None]:
    """Errors of what is done here name their key as ``PREFIX.key``."""
    try:
        yield
    except ConfigError as error:
        field = f"{prefix}.{error.field}"
        raise ConfigError(field, error.value, error.problem, error.remedy) from error


def is_user_error(error: BaseException) -> bool:
    """Whether ``error`` is one to show as a sentence and not as a traceback."""
    return bool(getattr(error, "is_user_error", False))

"""Errors that a user can repair, raised before anything expensive starts.

The command line prints their text as one paragraph and exits with status 2 instead of showing a
traceback.
"""

from __future__ import annotations

from fedlora.errors import FieldError, UserError

__all__ = ["ConfigError", "UserError", "is_user_error"]


class ConfigError(FieldError):
    """A configuration key has a value that cannot be used."""


def is_user_error(error: BaseException) -> bool:
    """Whether ``error`` is one to show as a sentence and not as a traceback."""
    return bool(getattr(error, "is_user_error", False))

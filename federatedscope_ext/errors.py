"""The error that a user can repair."""

from __future__ import annotations

from fedlora.errors import FieldError

__all__ = ["ExtensionError"]


class ExtensionError(FieldError):
    """A configuration key has a value that cannot be used."""

"""Dataclasses that are written as JSON and read back, also by older and later versions.

Reading is tolerant: a field that is missing or null has its default, unknown fields are left alone,
and only a value of a wrong type is refused.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, TypeVar, Union, get_args, get_origin, get_type_hints

from federatedscope.core.errors import ConfigError

__all__ = ["ASIDE", "BRIEF", "Record", "RecordError", "as_number", "wrong_type"]

ASIDE = {"json": False}
"""Marks a field that is not written."""
BRIEF = {"brief": True}
"""Marks a field that is left out where it says nothing."""

Each = TypeVar("Each", bound="Record")


class RecordError(ConfigError):
    """A record that cannot be read; ``field`` says which of its fields."""


class Record:
    """Base of all records."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """As JSON objects, lists, strings and numbers."""
        found: dict[str, Any] = {}
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            if one.metadata.get("json", True) and (value or not one.metadata.get("brief")):
                found[one.name] = _written(value)
        return found

    @classmethod
    def from_json(cls: type[Each], raw: Mapping[str, Any], name: str = "") -> Each:
        """Read what :meth:`to_json` wrote, or an older or later version of this project.

        A value of a type that its field cannot have is a :class:`RecordError`, which calls the
        object ``name``.
        """
        values = {
            key: _read(kind, raw[key], f"{name}{key}")
            for key, kind in _kinds(cls).items()  # type: ignore[arg-type]
            if raw.get(key) is not None
        }
        return cls(**values)


@cache
def _kinds(cls: type[Record]) -> dict[str, Any]:
    """Types of the fields that are written, by name."""
    hints = get_type_hints(cls)
    return {
        one.name: hints[one.name]
        for one in dataclasses.fields(cls)
        if one.metadata.get("json", True)
    }


def _written(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, Mapping):
        return {str(key): _written(item) for key, item in value.items()}
    return [_written(item) for item in value] if isinstance(value, list | tuple) else value


def _read(kind: Any, value: Any, name: str) -> Any:
    """``value`` as ``kind``, one of the few types that records have."""
    if get_origin(kind) in (Union, types.UnionType):
        kind = _choice([one for one in get_args(kind) if one is not type(None)], value)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise wrong_type(name, value, "a list")
        return tuple(_read(inner[0], item, name) for item in value)
    if origin is dict:
        return {
            inner[0](key): _read(inner[1], item, f"{name}.{key}")
            for key, item in _entries(value, name).items()
            if _belongs(item, inner[1])
        }
    if isinstance(kind, type) and issubclass(kind, Record):
        return kind.from_json(_entries(value, name), f"{name}.")
    return _plain(kind, value, name)


def _choice(kinds: list[Any], value: Any) -> Any:
    """Of the types of a union the one that a value has, else the first."""
    wanted = tuple if isinstance(value, list | tuple) else type(value)
    return next((one for one in kinds if wanted in (one, get_origin(one))), kinds[0])


def _belongs(item: Any, kind: Any) -> bool:
    """Among figures only figures count, and null is one that was not finite."""
    if kind is float:
        return item is None or isinstance(item, int | float)
    return item is not None or kind is Any


def _plain(kind: Any, value: Any, name: str) -> Any:
    if kind is float:
        return as_number(value)
    if kind not in (int, str, bool):
        return value
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise wrong_type(name, value, "a number") from None


def _entries(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise wrong_type(name, value, "an object")
    return value


def as_number(value: object) -> float:
    """A float; null and anything that is no number is NaN (JSON has no NaN of its own)."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number else math.nan  # type: ignore[arg-type]


def wrong_type(name: str, value: object, wanted: str) -> RecordError:
    """The error for a field of a wrong type."""
    return RecordError(
        name, value, f"is not {wanted}", "The folder was not written by this runtime, or was edited"
    )

"""Types, choices and conversions of configuration values."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import yaml

from federatedscope.core.configs.yaml_io import parse_yaml
from federatedscope.core.errors import ConfigError

# fmt: off
__all__ = [
    "CommandLineValue", "KeyInfo", "as_mapping", "coerce", "free_value", "info_of_value",
    "is_number", "literal", "nearest_keys", "plain", "shown",
]

_NAMES = {
    bool: "True or False", int: "a whole number", float: "a number", str: "text", list: "a list",
    dict: "a mapping", type(None): "nothing",
}
# fmt: on
_NOT_LITERAL = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)


@dataclass(frozen=True)
class KeyInfo:
    """What is known about one key.

    Attributes
    ----------
    help : str
        One line.
    types : tuple of type
        Accepted types; empty for any.
    choices : tuple
        Accepted values; empty for any.
    required : bool
        Whether ``None`` is reported before a run.
    declared : bool
        Whether the key belongs to the project's own tables (an extension's key does not, and is
        converted more leniently).
    default : object
        The value the key was declared with.
    of_client : bool
        Whether a client reads the key for itself, where
        :data:`~federatedscope.core.configs.loading.PER_CLIENT` does not say so.
    """

    help: str = ""
    types: tuple[type, ...] = ()
    choices: tuple[Any, ...] = ()
    required: bool = False
    declared: bool = False
    default: Any = None
    of_client: bool = False


@dataclass(frozen=True, repr=False)
class CommandLineValue:
    """Text of one command-line value, not yet interpreted."""

    text: str

    def __repr__(self) -> str:
        # Seen by users in messages about keys that do not exist.
        return repr(self.text)


_NO = object()
"""Marks "cannot be converted"."""


def info_of_value(value: Any) -> KeyInfo:
    """The info of a key that an extension added without a description."""
    return KeyInfo(types=() if value is None else (type(value),))


def shown(value: Any) -> Any:
    """The value as the user wrote it."""
    return value.text if isinstance(value, CommandLineValue) else value


def plain(value: Any) -> Any:
    """Copy of a value in plain dicts, lists and scalars."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        return value.item()
    return value


def literal(text: str) -> Any:
    """Text as a Python literal, else as a yaml value, else as it is."""
    with suppress(*_NOT_LITERAL):
        return ast.literal_eval(text)
    try:
        tree, _ = parse_yaml(f"value: {text}")
    except (ConfigError, yaml.YAMLError):
        return text
    return tree["value"] if set(tree) == {"value"} else text


def free_value(value: Any) -> Any:
    """A value for a key without declared type: text that spells a literal becomes one."""
    if isinstance(value, CommandLineValue):
        return literal(value.text)
    if isinstance(value, str):
        with suppress(*_NOT_LITERAL):
            return ast.literal_eval(value)
    if isinstance(value, dict):
        return {key: free_value(item) for key, item in value.items()}
    return value


def as_mapping(value: Any) -> Mapping[str, Any] | None:
    """The value as the content of a section; an empty entry is an empty section."""
    value = _read(value)
    if value is None:
        return {}
    return value if isinstance(value, Mapping) else None


def _read(value: Any) -> Any:
    """The value, of command-line text what it spells."""
    return literal(value.text) if isinstance(value, CommandLineValue) else value


def coerce(dotted: str, value: Any, info: KeyInfo, current: Any, where: str = "") -> Any:
    """Convert one value of the key ``dotted`` to its type and check it against its choices.

    Raises
    ------
    ConfigError
        Wrong type, or not among the choices; tells ``where`` (`` (FILE, line N)`` or empty), and
        the key's default, or ``current`` value, as an example.
    """
    example = info.default if info.declared else current
    if not info.types:
        return _chosen(dotted, _read(value), info, where)
    for wanted in _in_order(info.types, value):
        result = _convert(value, wanted, lenient=not info.declared)
        if result is not _NO:
            return _chosen(dotted, result, info, where)
    expected, got = " or ".join(map(_name, info.types)), _name(type(_read(value)))
    remedy = f"Write for example {dotted}: {_example(example, info, shown(value))}"
    problem = f"wrong type{where}: expected {expected}, got {got}"
    raise ConfigError(dotted, shown(value), problem, remedy)


def _name(kind: type) -> str:
    """A type in words."""
    return _NAMES.get(kind, kind.__name__)


def _chosen(dotted: str, value: Any, info: KeyInfo, where: str) -> Any:
    """The value if it is among the choices; text is compared without regard to case."""
    if not info.choices:
        return value
    for choice in info.choices:
        if type(choice) is type(value) and choice == value:
            return value
        if isinstance(choice, str) and isinstance(value, str) and choice.lower() == value.lower():
            return choice
    near = difflib.get_close_matches(str(value).lower(), [str(c) for c in info.choices], n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    remedy = f"Write one of {', '.join(repr(c) for c in info.choices)}{hint}"
    raise ConfigError(dotted, value, f"not one of the possible values{where}", remedy)


def _in_order(types: tuple[type, ...], value: Any) -> tuple[type, ...]:
    """Types to try: an exact match of a yaml or Python value comes first, text last."""
    if isinstance(value, CommandLineValue) or type(value) not in types:
        return tuple(sorted(types, key=lambda t: t is str))
    return (type(value), *(t for t in types if t is not type(value)))


def _convert(value: Any, wanted: type, lenient: bool) -> Any:
    """``value`` as ``wanted``, or ``_NO``."""
    if isinstance(value, CommandLineValue):
        if wanted is str:
            return _unquoted(value.text)
        value = literal(value.text)
    elif isinstance(value, str) and wanted is not str:
        value = literal(value)
    if wanted is int:
        return _to_int(value, lenient)
    if wanted is float:
        return float(value) if is_number(value) else _NO
    if wanted is str:
        return _to_text(value)
    if wanted in (list, tuple):
        if isinstance(value, (list, tuple)):
            return wanted(plain(value))
        return value if lenient and type(value) is int else _NO
    return value if isinstance(value, wanted) else _NO


def is_number(value: Any) -> bool:
    """Whether it is a number and no switch."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _unquoted(text: str) -> str:
    """Command-line text without the quotes that some launchers leave around it."""
    stripped = text.strip()
    quoted = len(stripped) > 1 and stripped[0] == stripped[-1] and stripped[0] in "'\""
    return stripped[1:-1] if quoted else text


def _to_int(value: Any, lenient: bool) -> Any:
    """A whole number: ints, and floats without a fraction."""
    if is_number(value) and value == value // 1:
        return int(value)
    return plain(value) if lenient and isinstance(value, (list, tuple)) else _NO


def _to_text(value: Any) -> Any:
    """Text; a bare number in yaml is text for a text key, an empty entry is empty text."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return str(value) if is_number(value) else _NO


def _example(value: Any, info: KeyInfo, given: Any) -> str:
    """An acceptable value, for an error message."""
    if info.choices:
        return repr(info.choices[0])
    if list in info.types and isinstance(given, str) and given and given[0] not in "[{(":
        return repr([given])
    if value == 0 and int in info.types and bool not in info.types:
        return "1"  # 0 often means "off", which nobody who writes a number wants
    return repr(plain(value)) if value not in (None, "") else "'...'"


def nearest_keys(dotted: str, known: Sequence[str], limit: int = 3) -> list[str]:
    """Known keys that the user may have meant, the likeliest first.

    In this order: similar keys of the same section, keys of another section whose last component
    is the same, similar full paths, similar last components.
    """
    parent, _, last = dotted.rpartition(".")
    siblings = {key.rpartition(".")[2]: key for key in known if key.rpartition(".")[0] == parent}
    by_last: dict[str, list[str]] = {}
    for key in known:
        by_last.setdefault(key.rpartition(".")[2].lower(), []).append(key)
    found = [siblings[n] for n in difflib.get_close_matches(last, list(siblings), limit, 0.75)]
    found += by_last.get(last.lower(), [])
    if not found:
        found += difflib.get_close_matches(dotted, known, limit, 0.75)
        for name in difflib.get_close_matches(last.lower(), list(by_last), limit, 0.75):
            found += by_last[name]
    return list(dict.fromkeys(found))[:limit]

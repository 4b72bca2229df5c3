"""Helpers of merging into the configuration tree: origins, nesting, files of single clients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from federatedscope.core.configs.values import CommandLineValue, nearest_keys, shown
from federatedscope.core.configs.yaml_io import read_yaml_file
from federatedscope.core.errors import ConfigError

__all__ = ["Origin", "all_keys", "nest", "put", "read_client_file", "some_keys", "unknown_key"]


@dataclass(frozen=True)
class Origin:
    """Where merged values come from, for error messages."""

    name: str = ""
    lines: Mapping[str, int] | None = None

    def of(self, dotted: str) -> str:
        """``" (FILE, line N)"`` or an empty string."""
        if not self.name:
            return ""
        line = (self.lines or {}).get(dotted)
        return f" ({self.name}, line {line})" if line else f" ({self.name})"


def nest(pairs: Sequence[Any]) -> dict[str, Any]:
    """Nested dict of ``[dotted key, value, ...]``; a later pair wins over an earlier one."""
    if len(pairs) % 2:
        remedy = "Write keys and values in pairs: section.key value"
        raise ConfigError(str(pairs[-1]), None, "has no value", remedy)
    tree: dict[str, Any] = {}
    for dotted, value in zip(pairs[0::2], pairs[1::2], strict=True):
        put(tree, str(dotted), CommandLineValue(value) if isinstance(value, str) else value)
    return tree


def put(node: dict[str, Any], dotted: str, value: Any) -> None:
    """Set a dotted key in a nested dict."""
    *parents, last = dotted.split(".")
    below: Any = node
    for parent in parents:
        below = below.setdefault(parent, type(node)())
        if not isinstance(below, dict):
            problem = f"{parent} was given a value before"
            raise ConfigError(dotted, shown(value), problem, "Give one of the two")
    below[last] = value


def all_keys(root: Mapping[str, Any], prefix: str = "", sections: bool = True) -> Iterator[str]:
    """Every dotted key of the tree."""
    for key, value in root.items():
        if sections or not isinstance(value, Mapping):
            yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from all_keys(value, f"{prefix}{key}.", sections)


def some_keys(node: Mapping[str, Any], dotted: str, limit: int = 4) -> str:
    """A few keys of a section, for an error message."""
    keys = [f"{dotted}.{key}" for key in list(node)[:limit]]
    return ", ".join(keys) + (", ..." if len(node) > limit else "")


def unknown_key(dotted: str, value: Any, root: Mapping[str, Any], origin: Origin) -> ConfigError:
    """The error for a key that nobody declared, with the nearest known ones."""
    known = list(all_keys(root))
    if dotted.startswith("client_") and isinstance(value, Mapping):
        problem = "settings of single clients do not belong into this file"
        remedy = "Give that file with --client_cfg, beside --cfg with the common settings"
    elif dotted in known:
        problem = "a key with dots inside a yaml file"
        remedy = "Write one level per line, each indented below the one before"
    elif near := nearest_keys(dotted, known):
        problem, remedy = "unknown key", f"Did you mean {' or '.join(near)}?"
    else:
        problem = "unknown key"
        remedy = "'python federatedscope/main.py --help' lists the keys; a key of an extension"
        remedy += " needs its module in 'extensions'"
    return ConfigError(dotted, shown(value), f"{problem}{origin.of(dotted)}", remedy)


def read_client_file(path: str) -> dict[str, Any]:
    """The sections of a file of ``--client_cfg``: settings of single clients, nested or with dots
    as FederatedScope has them (``client_1.llm.adapter.args: ...``), all nested.

    Raises
    ------
    ConfigError
        A file that cannot be read, or a key that is there twice: with dots and nested, or as a
        value and as a section.
    """
    tree, lines = read_yaml_file(path, "--client_cfg")
    result: dict[str, Any] = {}
    _fill(result, tree, "", Origin(path, lines))
    return result


def _fill(node: dict[str, Any], tree: Mapping[Any, Any], prefix: str, origin: Origin) -> None:
    """Add the keys of ``tree`` to ``node``; lists, and what is in them, stay as they are."""
    for raw_key, raw_value in tree.items():
        key, _, rest = str(raw_key).partition(".")
        # A key such as "client_1." is left for the check of names to refuse.
        key, value = (key, {rest: raw_value}) if key and rest else (str(raw_key), raw_value)
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping):
            # An empty entry is an empty section.
            if node.get(key) is None:
                node[key] = {}
            if not isinstance(node[key], dict):
                raise _twice(dotted, raw_value, "as a value and as a section", origin)
            _fill(node[key], value, f"{dotted}.", origin)
        elif key not in node:
            node[key] = value
        elif not isinstance(node[key], dict):
            raise _twice(dotted, value, "with dots and nested", origin)
        elif value is not None:
            raise _twice(dotted, value, "as a section and as a value", origin)


def _twice(dotted: str, value: Any, how: str, origin: Origin) -> ConfigError:
    problem = f"this key is there twice, {how}{origin.of(dotted)}"
    return ConfigError(dotted, value, problem, "Keep one of the two")

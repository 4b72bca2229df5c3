"""Helpers of merging into the configuration tree: origins, nesting, errors for unknown keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from federatedscope.core.configs.values import CommandLineValue, nearest_keys, shown
from federatedscope.core.errors import ConfigError

__all__ = ["Origin", "all_keys", "nest", "some_keys", "unknown_key"]


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
        *parents, last = str(dotted).split(".")
        node = tree
        for parent in parents:
            child = node.setdefault(parent, {})
            if not isinstance(child, dict):
                problem = f"{parent} was given a value before"
                raise ConfigError(str(dotted), value, problem, "Give one of the two")
            node = child
        node[last] = CommandLineValue(value) if isinstance(value, str) else value
    return tree


def all_keys(root: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Every dotted key of the tree, sections included."""
    for key, value in root.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from all_keys(value, f"{prefix}{key}.")


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

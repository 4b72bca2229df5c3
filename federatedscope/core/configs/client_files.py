"""Files of ``--client_cfg``: settings of single clients, nested or with dots as FederatedScope has
them (``client_1.llm.adapter.args: ...``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from federatedscope.core.configs.merging import Origin
from federatedscope.core.configs.yaml_io import read_yaml_file
from federatedscope.core.errors import ConfigError

__all__ = ["read_client_file"]


def read_client_file(path: str) -> dict[str, Any]:
    """The sections of a client file, with its dotted keys as nested ones.

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
        split = bool(key and rest)
        key, value = (key, {rest: raw_value}) if split else (str(raw_key), raw_value)
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
    return ConfigError(
        dotted, value, f"this key is there twice, {how}{origin.of(dotted)}", "Keep one of the two"
    )

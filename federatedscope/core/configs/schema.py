"""Declaring keys in tables: :class:`Key`, :class:`Section` and :func:`declare`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from federatedscope.core.configs.node import CN
from federatedscope.core.configs.values import KeyInfo, plain

__all__ = ["Key", "Section", "declare"]


@dataclass(frozen=True)
class Key:
    """One configuration key.

    Attributes
    ----------
    name : str
        Last component of the dotted key.
    default : object
        Default value; its type is the accepted type unless ``types`` says otherwise.
    help : str
        One line, for ``--help`` and the reference.
    choices : tuple
        Accepted values; empty for any.
    types : tuple of type
        Accepted types where the default's own is not the only one.
    """

    name: str
    default: Any
    help: str
    choices: tuple[Any, ...] = ()
    types: tuple[type, ...] = ()


@dataclass(frozen=True)
class Section:
    """One section of the tree with its keys.

    Attributes
    ----------
    path : str
        Dotted path, empty for the top level.
    help : str
        One line about the section.
    keys : tuple of Key
        The keys directly in it.
    free : bool
        Whether configurations may add keys of their own to it.
    """

    path: str
    help: str
    keys: tuple[Key, ...] = field(default=())
    free: bool = False


def declare(cfg: CN, sections: Iterable[Section]) -> None:
    """Add sections and keys with their defaults and descriptions to ``cfg``."""
    for section in sections:
        node = cfg
        parts = section.path.split(".") if section.path else []
        for depth, part in enumerate(parts):
            if part not in node:
                node[part] = CN(new_allowed=section.free and depth == len(parts) - 1)
                node.describe(part, KeyInfo(declared=True))
            parent, node = node, node[part]
            if depth == len(parts) - 1:
                parent.describe(part, KeyInfo(help=section.help, declared=True))
        for key in section.keys:
            node[key.name] = plain(key.default)
            node.describe(key.name, _info(key))


def _info(key: Key) -> KeyInfo:
    """Metadata of one declared key."""
    types = key.types or (type(key.default),)
    return KeyInfo(
        help=key.help, types=types, choices=key.choices, declared=True, default=key.default
    )

"""Declaring keys in tables: :class:`Key`, :class:`Section` and :func:`declare`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from federatedscope.core.configs.node import CN
from federatedscope.core.configs.values import KeyInfo, plain

__all__ = ["Key", "Section", "alike", "declare", "outside"]


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

    def info(self) -> KeyInfo:
        """Metadata in the form the tree keeps."""
        types = self.types or (type(self.default),)
        return KeyInfo(self.help, types, self.choices, declared=True, default=self.default)


@dataclass(frozen=True)
class Section:
    """One section of the tree: its dotted path (empty for the top level), a line about it, the
    keys directly in it, and whether configurations may add keys of their own.
    """

    path: str
    help: str
    keys: tuple[Key, ...] = ()
    free: bool = False


def alike(help: str, /, **defaults: Any) -> tuple[Key, ...]:
    """Keys that share their line of help."""
    return tuple(Key(name, default, help) for name, default in defaults.items())


def outside(path: str, feature: str, /, **defaults: Any) -> Section:
    """The section of a feature that is outside this project; whole numbers may be any numbers."""
    text = f"{feature}; outside this project"
    types: dict[str, tuple[type, ...]] = {
        name: (int, float) for name, default in defaults.items() if type(default) is int
    }
    if "attacker_id" in defaults:
        types["attacker_id"] = (int, list)  # one, or several
    return Section(
        path,
        text,
        tuple(Key(n, d, f"{text}.", types=types.get(n, ())) for n, d in defaults.items()),
    )


def declare(cfg: CN, sections: Iterable[Section]) -> None:
    """Add sections and keys with their defaults and descriptions to ``cfg``.

    A section comes after the one that it is in.
    """
    for section in sections:
        node = cfg
        *parents, last = section.path.split(".")
        for parent in parents:
            node = node[parent]
        if last:
            node.setdefault(last, CN(new_allowed=section.free))
            node.describe(last, KeyInfo(section.help, declared=True))
            node = node[last]
        for key in section.keys:
            node[key.name] = plain(key.default)
            node.describe(key.name, key.info())

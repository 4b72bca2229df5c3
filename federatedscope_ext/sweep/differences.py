"""Is the run in this folder the one that is wanted? A comparison of two configurations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

__all__ = ["config_differences", "flat", "named_clients"]

_NOT_THE_RUN = (
    "cfg_file", "device", "embedded.swaps", "eval_device", "expname", "expname_tag",
    "federate.client_memory_mb", "outdir", "print_decimal_digits", "tensorboard", "use_gpu",
    "verbose", "wandb",
)  # fmt: skip
"""Keys and sections that say where a run computes and writes, not what it computes."""

_ABSENT = object()


def config_differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """What differs between two merged configurations, as ``key: FOUND there, WANTED here``.

    Keys about folders, the machine and trackers do not count. Where the miniature replaced a value,
    the value that it replaced is compared, for its own lies in a cache that may have moved.
    """
    here, there = _comparable(wanted), _comparable(found)
    return [
        f"{key}: {_shown(there.get(key, _ABSENT))} there, {_shown(here.get(key, _ABSENT))} here"
        for key in sorted({*here, *there})
        if not _same(here.get(key, _ABSENT), there.get(key, _ABSENT))
    ]


def _comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    values = flat(config)
    embedded = config.get("embedded")
    for swap in (embedded.get("swaps") if isinstance(embedded, Mapping) else None) or ():
        if swap["field"] in values:
            values[swap["field"]] = swap["was"]
    return {
        key: value
        for key, value in values.items()
        if key not in _NOT_THE_RUN and key.split(".")[0] not in _NOT_THE_RUN
    }


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested mappings by dotted key; an empty mapping is a leaf."""
    return dict(_leaves(tree, prefix))


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _same(one: Any, other: Any) -> bool:
    """Equal, where 1 and 1.0 are equal and True and 1 are not; NaN equals NaN."""
    if isinstance(one, bool) != isinstance(other, bool):
        return False
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other) or (one != one and other != other)


def _shown(value: Any, longest: int = 60) -> str:
    if value is _ABSENT:
        return "not there"
    text = repr(value)
    return text if len(text) <= longest else f"{text[: longest - 4]} ..."


def named_clients(file: str | Path | None, pairs: Sequence[tuple[str, str]] = ()) -> list[str]:
    """The clients with settings of their own, ``client_1`` and so on, in the runtime's order.

    Those of the yaml file, then those of ``client_N.section.key`` pairs. Empty for a file that
    cannot be read; the runtime says why.
    """
    tree: Any = {}
    if file:
        try:
            tree = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            return []
    given = flat(tree) if isinstance(tree, Mapping) else {}
    # In the order of their names' first appearance, though these may stand for nothing yet.
    names = {str(key).split(".")[0]: False for key in given}
    for key, value in given.items():
        names[key.split(".")[0]] |= value != {} and (value is not None or "." in key)
    for key, _ in pairs:
        if key.startswith("client_"):
            names[key.split(".")[0]] = True
    return [name for name, has_settings in names.items() if has_settings]

"""Is the run in this folder the one that is wanted? A comparison of two configurations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from federatedscope.core.configs.loading import RunConfig, client_config

__all__ = ["config_differences", "merged_settings"]

_NOT_THE_RUN = frozenset({
    "cfg_file", "device", "embedded.swaps", "eval_device", "expname", "expname_tag",
    "federate.client_memory_mb", "outdir", "print_decimal_digits", "tensorboard", "use_gpu",
    "verbose", "wandb",
})  # fmt: skip
"""Keys and sections that say where a run computes and writes, not what it computes."""

_ABSENT = object()


def merged_settings(settings: RunConfig) -> dict[str, Any]:
    """Every key of a checked configuration; ``client_N.KEY`` is what differs for a client."""
    merged = {key: value for key, _, value in settings.cfg.clone().walk()}
    own = {}
    for name in settings.client_cfgs or ():
        twin = client_config(settings.cfg, settings.client_cfgs, int(name.partition("_")[2]))
        for key, _, value in twin.walk():
            if key not in merged or merged[key] != value:
                own[f"{name}.{key}"] = value
    return {**merged, **own}


def config_differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """What differs between two merged configurations, as ``key: FOUND there, WANTED here``.

    Keys about folders, the machine and trackers do not count. Where the miniature replaced a value,
    the value that it replaced is compared, for its own lies in a cache that may have moved.
    """
    here, there = _comparable(wanted), _comparable(found)
    both = [(key, there.get(key, _ABSENT), here.get(key, _ABSENT)) for key in {**there, **here}]
    return [
        f"{key}: {_shown(old)} there, {_shown(new)} here"
        for key, old, new in sorted(both, key=lambda entry: entry[0])
        if not _same(old, new)
    ]


def _comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    replaced = {swap["field"]: swap["was"] for swap in config.get("embedded.swaps") or ()}
    return {
        key: replaced.get(key, value)
        for key, value in config.items()
        if not {key, key.partition(".")[0]} & _NOT_THE_RUN
    }


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
    text = "not there" if value is _ABSENT else repr(value)
    return text if len(text) <= longest else f"{text[: longest - 4]} ..."

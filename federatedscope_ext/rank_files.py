"""Files of ``llm.adapter.client_ranks``: a list of ranks, or clients and their ranks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from federatedscope_ext.errors import ExtensionError

__all__ = ["FIELD", "read_rank_file"]

FIELD = "llm.adapter.client_ranks"


class _Loader(yaml.SafeLoader):
    """``SafeLoader`` for which a key that is there twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a dict."""
        _refuse_twice([str(key.value) for key, _ in node.value])
        return super().construct_mapping(node, deep=deep)


def _json_mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _refuse_twice([key for key, _ in pairs])
    return dict(pairs)


def _refuse_twice(keys: list[str]) -> None:
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"{key!r} is there twice")


def read_rank_file(path: Path) -> list[Any] | dict[int, Any]:
    """A list of ranks, or a mapping of client IDs to ranks.

    Raises
    ------
    ExtensionError
        The file cannot be read, holds something else, or has two ranks for one client.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = (
            json.loads(text, object_pairs_hook=_json_mapping)
            if path.suffix == ".json"
            else yaml.load(text, _Loader)
        )
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ExtensionError(
            FIELD, str(path), f"cannot be read ({error})", "Give a .yaml or .json file"
        ) from error
    if isinstance(content, list):
        return content
    if isinstance(content, Mapping):
        names = {key: str(key).removeprefix("client_") for key in content}
        if all(name.isdecimal() for name in names.values()):
            return _by_client(path, {key: int(name) for key, name in names.items()}, content)
    raise ExtensionError(
        FIELD,
        str(path),
        "holds neither a list nor a mapping of clients",
        "Write for example [4, 8, 8] or {client_1: 4, client_2: {attention: 8, ffn: 30}}",
    )


def _by_client(
    path: Path, clients: Mapping[Any, int], content: Mapping[Any, Any]
) -> dict[int, Any]:
    """The entries by client; ``client_1`` and ``1`` are the same one."""
    first: dict[int, Any] = {}
    for key, client in clients.items():
        if client in first:
            raise ExtensionError(
                FIELD,
                str(path),
                f"client {client} is there twice, as {first[client]} and as {key}",
                "Keep one of the two",
            )
        first[client] = key
    return {client: content[key] for client, key in first.items()}

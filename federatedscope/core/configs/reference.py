"""The reference of all keys, generated from their declarations.

``python -m federatedscope.core.configs.reference [MODULE ...]`` prints it; with module names, the
keys that those extensions add are included.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from federatedscope.core.configs.config import CN, apply_registered_configs, global_cfg
from federatedscope.core.configs.values import KeyInfo, plain
from federatedscope.core.extensions import load_extensions

__all__ = ["configuration_reference"]

_OUTSIDE = "outside this project"
_OUTSIDE_HEADING = """## Features outside this project

These keys are read, so that configurations which mention them load. Turning one of the features \
on is refused by name.

| section | feature | keys |
|---|---|---|"""


def configuration_reference(cfg: CN) -> str:
    """Markdown tables of every key of ``cfg``: key, default (the value in ``cfg``), meaning.

    Sections whose feature is outside the project come last, with their keys in one line each.
    """
    here: list[tuple[str, KeyInfo, CN]] = []
    outside: list[tuple[str, KeyInfo, CN]] = []
    for path, info, node in [("", KeyInfo(help="The run as a whole"), cfg), *_below(cfg, "")]:
        below = any(path.startswith(f"{parent}.") for parent, _, _ in outside)
        target = outside if below or _OUTSIDE in info.help else here
        target.append((path, info, node))
    parts = ["# Configuration reference", ""]
    for path, info, node in here:
        parts += _table(path, info, node)
    parts.append(_OUTSIDE_HEADING)
    for path, info, node in outside:
        feature = info.help.removesuffix(f"; {_OUTSIDE}")
        keys = ", ".join(f"`{key}`" for key, value in node.items() if not isinstance(value, CN))
        parts.append(f"| `{path}` | {_cell(feature)} | {keys or 'free'} |")
    return "\n".join(parts) + "\n"


def _below(node: CN, prefix: str) -> Iterator[tuple[str, KeyInfo, CN]]:
    """The sections below a node, in order."""
    for key, value in node.items():
        if isinstance(value, CN):
            yield f"{prefix}{key}", node.info(key), value
            yield from _below(value, f"{prefix}{key}.")


def _table(path: str, info: KeyInfo, node: CN) -> list[str]:
    """Heading and table of one section."""
    rows = []
    for key, value in node.items():
        if isinstance(value, CN):
            continue
        meta = node.info(key)
        meaning = _cell(meta.help)
        if meta.choices:
            meaning += f" One of {', '.join(f'`{choice}`' for choice in meta.choices)}."
        dotted = f"{path}.{key}" if path else key
        rows.append(f"| `{dotted}` | `{_cell(repr(plain(value)))}` | {meaning} |")
    if not rows and not node.is_new_allowed():
        return []
    heading = f"## {path}: {info.help}" if path else f"## {info.help}"
    free = ["Keys of your own are accepted in this section.", ""] if node.is_new_allowed() else []
    table = ["| key | default | meaning |", "|---|---|---|", *rows, ""] if rows else []
    return [heading, "", *free, *table]


def _cell(text: str) -> str:
    """Text that does not end a table cell."""
    return text.replace("|", "\\|").replace("\n", " ")


def main(modules: list[str]) -> None:
    """Print the reference, with the keys that ``modules`` add."""
    cfg = global_cfg.clone()
    load_extensions(modules)
    apply_registered_configs(cfg)
    sys.stdout.write(configuration_reference(cfg))


if __name__ == "__main__":
    main(sys.argv[1:])

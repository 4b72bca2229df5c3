"""Reading and writing yaml for the configuration.

Two things differ from plain PyYAML: numbers such as ``2e-2`` are read as floats (PyYAML takes
them for text), and every key's line is kept so that an error can say where it was written.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from federatedscope.core.errors import ConfigError

__all__ = ["dump_yaml", "nearby_yamls", "parse_yaml", "read_yaml_file"]

_FLOAT = re.compile(
    r"""^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)
    |[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
_FLOAT_STARTS = list("-+0123456789.")


class _Loader(yaml.SafeLoader):
    """``SafeLoader`` that knows ``2e-2``, leaves dates as text and refuses a repeated key."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a dict; a key that is written twice is an error and not a silent choice."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen and key != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is written twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """``SafeDumper`` that quotes text which :class:`_Loader` would read as a number."""


_Loader.yaml_implicit_resolvers = {
    start: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
    for start, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, _FLOAT_STARTS)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, _FLOAT_STARTS)


def dump_yaml(tree: dict[str, Any], **kwargs: Any) -> str:
    """Yaml text of a plain nested dict; reads back to the same values."""
    return str(yaml.dump(tree, Dumper=_Dumper, **kwargs))


def parse_yaml(text: str, origin: str = "<text>") -> tuple[dict[str, Any], dict[str, int]]:
    """Parse yaml text whose top level is a mapping; empty text is an empty one.

    Returns
    -------
    tree, lines : dict
        The nested values, and the line number (from 1) of every dotted key.

    Raises
    ------
    ConfigError
        On a syntax error, a repeated key, or a top level that is not a mapping.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        tree = None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        raise _syntax_error(error, origin) from error
    finally:
        loader.dispose()
    if tree is None:
        return {}, {}
    if not isinstance(tree, dict):
        remedy = "Write 'section:' and below it, indented, 'key: value'"
        raise ConfigError(origin, tree, "the file is not a list of keys and values", remedy)
    lines: dict[str, int] = {}
    _collect_lines(node, "", lines)
    return tree, lines


def read_yaml_file(path: str | Path, field: str = "--cfg") -> tuple[dict[str, Any], dict[str, int]]:
    """Parse one yaml file, which the option ``field`` names; see :func:`parse_yaml`.

    Raises
    ------
    ConfigError
        Also when the file does not exist or cannot be read; the message lists yamls nearby.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        reason = "no such file" if not file.exists() else f"cannot be read ({error.strerror})"
        found = nearby_yamls(file)
        remedy = f"Yaml files nearby: {', '.join(found)}" if found else "Check the path"
        raise ConfigError(field, str(path), reason, remedy) from error
    except UnicodeDecodeError as error:
        reason = "the file is not UTF-8 text"
        raise ConfigError(field, str(path), reason, "Save it as UTF-8") from error
    return parse_yaml(text, str(path))


def nearby_yamls(path: Path, limit: int = 6) -> list[str]:
    """Yaml files in the nearest folder above ``path`` that exists, the most similar first."""
    folder = path.parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    try:
        names = sorted(p.name for p in folder.iterdir() if p.suffix in {".yaml", ".yml"})
    except OSError:
        return []
    names.sort(key=lambda n: -difflib.SequenceMatcher(None, n, path.name).ratio())
    return [str(folder / name) for name in names[:limit]]


def _collect_lines(node: yaml.Node | None, prefix: str, lines: dict[str, int]) -> None:
    """Record the line of every key below ``node``."""
    if not isinstance(node, yaml.MappingNode):
        return
    for key_node, value_node in node.value:
        dotted = f"{prefix}{key_node.value}"
        lines[dotted] = key_node.start_mark.line + 1
        _collect_lines(value_node, f"{dotted}.", lines)


def _syntax_error(error: yaml.YAMLError, origin: str) -> ConfigError:
    """A :class:`ConfigError` that names file, line and column."""
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else "the file"
    problem = f"not valid yaml ({getattr(error, 'problem', None) or error})"
    remedy = "Look at that line and the one above it: indentation by spaces only, a blank after"
    return ConfigError(origin, where, problem, f"{remedy} each ':', brackets and quotes closed")

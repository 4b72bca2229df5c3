"""From the rows of a file to instructions and answers as text."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

from federatedscope.core.errors import ConfigError

__all__ = ["Record", "to_records"]

Record = dict[str, str]


def to_records(
    rows: Iterable[Mapping[str, Any]],
    columns: Mapping[str, str],
    file: Path | None = None,
    numbers: Iterable[int] | None = None,
) -> list[Record]:
    """Rows of a file as text.

    Parameters
    ----------
    rows : iterable of mapping
        As they are in the file.
    columns : mapping
        Column of ``instruction``, ``input``, ``output`` and ``category`` where it has another
        name.
    file : path, optional
        Where they come from, for messages.
    numbers : iterable of int, optional
        Numbers of the rows in the file, for messages; from 1 by default.

    Raises
    ------
    ConfigError
        A row without an instruction or an answer, or with something that is no text.
    """
    names = {key: columns.get(key, key) for key in ("instruction", "input", "output", "category")}
    records = []
    for number, row in zip(count(1) if numbers is None else numbers, rows, strict=False):
        if names["instruction"] not in row or names["output"] not in row:
            raise ConfigError(
                "data.type",
                str(file or ""),
                f"row {number} has no {names['instruction']} or no {names['output']}",
                f"Give every row {names['instruction']} and {names['output']} "
                "(input and category are optional)",
            )
        record: Record = {}
        for key, column in names.items():
            try:
                record |= _READERS[key](key, row.get(column))
            except _NoText as error:
                raise _unusable(file, number, column, key, error) from error
        records.append(record)
    return records


class _NoText(Exception):
    """A value that is no text; the message says what it is instead."""


def _unusable(
    file: Path | None, number: int, column: str, key: str, error: Exception
) -> ConfigError:
    wanted = {
        "instruction": "a text, or a list of texts, which are joined",
        "output": "a text, a number, or a list of all right answers",
    }.get(key, "a text, a list of texts, which are joined, or nothing")
    return ConfigError(
        "data.type",
        str(file or ""),
        f"row {number}: the {column} is {error}",
        f"Write {wanted}, or leave the row out",
    )


def _text(value: Any) -> str:
    """A text or a number as text."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise _NoText("empty (null or NaN)")
    if isinstance(value, (int, float, Decimal)):
        return str(value)
    kinds: dict[type, str] = {dict: "an object", list: "a list", bytes: "bytes"}
    raise _NoText(f"{kinds.get(type(value), f'a {type(value).__name__}')}, not a text")


def _texts(value: list[Any]) -> list[str]:
    """The texts of a list."""
    texts = []
    for item in value:
        try:
            texts.append(_text(item))
        except _NoText as error:
            raise _NoText(f"a list with an item that is {error}") from error
    return texts


def _needed(key: str, value: Any) -> Record:
    """A text, or several that belong together, one a line."""
    if value == []:
        raise _NoText("an empty list")
    return {key: "\n".join(_texts(value)) if isinstance(value, list) else _text(value)}


def _optional(key: str, value: Any) -> Record:
    """The same; nothing is the empty text."""
    is_empty = value is None or value == [] or (isinstance(value, float) and math.isnan(value))
    return {key: ""} if is_empty else _needed(key, value)


def _answer(key: str, value: Any) -> Record:
    """An answer; of several right ones the first, and all of them beside it."""
    if not isinstance(value, list) or not value:
        return _needed(key, value)
    texts = _texts(value)
    return {key: texts[0], **({"references": json.dumps(texts)} if len(texts) > 1 else {})}


_READERS: Mapping[str, Callable[[str, Any], Record]] = {
    "instruction": _needed,
    "input": _optional,
    "output": _answer,
    "category": _optional,
}

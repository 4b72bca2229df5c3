"""From the rows of a file to instructions and answers as text."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

from federatedscope.core.errors import ConfigError

__all__ = ["Instruction", "to_instructions"]

# ``instruction``, ``input``, ``output`` and ``category``; where there are several right answers,
# ``references`` is the JSON list of them and ``output`` the first.
Instruction = dict[str, str]

_WANTED = {
    "instruction": "a text, or a list of texts, which are joined",
    "output": "a text, a number, or a list of all right answers",
    "input": "a text, a list of texts, which are joined, or nothing",
    "category": "a text, a list of texts, which are joined, or nothing",
}


def to_instructions(
    rows: Iterable[Mapping[str, Any]],
    columns: Mapping[str, str],
    file: Path | None = None,
    numbers: Iterable[int] | None = None,
) -> list[Instruction]:
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
    names = {key: columns.get(key, key) for key in _WANTED}
    needed = [names["instruction"], names["output"]]
    texts = []
    for number, row in zip(count(1) if numbers is None else numbers, rows, strict=False):
        if not {*needed} <= row.keys():
            problem = f"row {number} has no {' or no '.join(needed)}"
            remedy = f"Give every row {' and '.join(needed)} (input and category are optional)"
            raise ConfigError("data.type", str(file or ""), problem, remedy)
        text: Instruction = {}
        for key, column in names.items():
            try:
                text |= _as_text(key, row.get(column))
            except _NoText as error:
                problem = f"row {number}: the {column} is {error}"
                remedy = f"Write {_WANTED[key]}, or leave the row out"
                raise ConfigError("data.type", str(file or ""), problem, remedy) from error
        texts.append(text)
    return texts


class _NoText(Exception):
    """A value that is no text; the message says what it is instead."""


def _as_text(key: str, value: Any) -> Instruction:
    """A text; several are joined, one a line, but of several right answers the first is taken."""
    if key in ("input", "category") and (_is_empty(value) or value == []):
        return {key: ""}
    if not isinstance(value, list):
        return {key: _text(value)}
    if not value:
        raise _NoText("an empty list")
    try:
        texts = [_text(item) for item in value]
    except _NoText as error:
        raise _NoText(f"a list with an item that is {error}") from error
    if key != "output":
        return {key: "\n".join(texts)}
    return {key: texts[0]} | ({"references": json.dumps(texts)} if len(texts) > 1 else {})


def _text(value: Any) -> str:
    """A text or a number as text."""
    if _is_empty(value):
        raise _NoText("empty (null or NaN)")
    if isinstance(value, str | int | float | Decimal):
        return str(value)
    kinds: dict[type, str] = {dict: "an object", list: "a list", bytes: "bytes"}
    raise _NoText(f"{kinds.get(type(value), f'a {type(value).__name__}')}, not a text")


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))

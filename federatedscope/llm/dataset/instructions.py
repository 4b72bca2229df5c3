"""From the rows of a file to instructions and answers as text."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from federatedscope.core.errors import ConfigError
from federatedscope.llm.dataset.prompts import in_context
from fedfiles.readers import not_text, shown

__all__ = ["WANTED", "Instruction", "to_instructions"]

# ``instruction``, ``input``, ``output`` and ``category``; where there are several right answers,
# ``references`` is the JSON list of them and ``output`` the first.
Instruction = dict[str, str]

WANTED = {
    "instruction": "a text, or a list of texts, which are joined",
    "output": "a text, a number, or a list of all right answers",
    "input": "a text, a list of texts, which are joined, or nothing",
    "category": "a text, a list of texts, which are joined, or nothing",
    "system": "a text, a list of texts, which are joined, or nothing",
    "history": "a list of [instruction, answer] pairs of texts, or nothing",
}
"""Columns, and what may stand in them."""


def to_instructions(
    rows: Iterable[Mapping[str, Any]],
    columns: Mapping[str, str],
    file: Path | None = None,
    numbers: Iterable[int] | None = None,
) -> list[Instruction]:
    """Rows of a file as text. ``system`` and ``history`` become a part of the instruction, see
    :func:`~federatedscope.llm.dataset.prompts.in_context`.

    Parameters
    ----------
    rows : iterable of mapping
        As they are in the file.
    columns : mapping
        Column of a key of :data:`WANTED` where it has another name.
    file : path, optional
        Where they come from, for messages.
    numbers : iterable of int, optional
        Numbers of the rows in the file, for messages; from 1 by default.

    Raises
    ------
    ConfigError
        A row without an instruction or an answer, or with something that is no text.
    """
    names = {key: columns.get(key, key) for key in WANTED}
    needed = [names["instruction"], names["output"]]
    texts = []
    for number, row in zip(count(1) if numbers is None else numbers, rows, strict=False):
        if not {*needed} <= row.keys():
            problem = (
                f"row {number} has no {' or no '.join(needed)}; it has {shown(row) or 'nothing'}"
            )
            remedy = f"Give every row {' and '.join(needed)} (input and category are optional)"
            raise ConfigError("data.type", str(file or ""), problem, remedy)
        text: Instruction = {}
        history: list[list[str]] = []
        for key, column in names.items():
            try:
                if key == "history":
                    history = _turns(row.get(column))
                else:
                    text |= _as_text(key, row.get(column))
            except _NoText as error:
                problem = f"row {number}: the {column} is {error}"
                remedy = f"Write {WANTED[key]}, or leave the row out"
                raise ConfigError("data.type", str(file or ""), problem, remedy) from error
        text["instruction"] = in_context(text["instruction"], text.pop("system"), history)
        texts.append(text)
    return texts


class _NoText(Exception):
    """A value that is no text; the message says what it is instead."""


def _as_text(key: str, value: Any) -> Instruction:
    """A text; several are joined, one a line, but of several right answers the first is taken."""
    if key not in ("instruction", "output") and (_is_empty(value) or value == []):
        return {key: ""}
    if not isinstance(value, list):
        # Spaces around a category would make a second one of it.
        return {key: _text(value).strip() if key == "category" else _text(value)}
    if not value:
        raise _NoText("an empty list")
    try:
        texts = [_text(item) for item in value]
    except _NoText as error:
        raise _NoText(f"a list with an item that is {error}") from error
    if key != "output":
        return {key: "\n".join(texts)}
    return {key: texts[0]} | ({"references": json.dumps(texts)} if len(texts) > 1 else {})


def _turns(value: Any) -> list[list[str]]:
    """Earlier instructions and their answers."""
    if _is_empty(value) or value in ("", []):
        return []
    if not isinstance(value, list):
        kind = not_text(value).partition(",")[0] or f"the text {shown([str(value)])!r}"
        raise _NoText(f"{kind}, not a list of pairs")
    if not all(isinstance(turn, list) and len(turn) == 2 for turn in value):
        raise _NoText("a list with an item that is no pair")
    try:
        return [[_text(part) for part in turn] for turn in value]
    except _NoText as error:
        raise _NoText(f"a list with a part that is {error}") from error


def _text(value: Any) -> str:
    """A text or a number as text."""
    if _is_empty(value):
        raise _NoText("empty (null or NaN)")
    if kind := not_text(value):
        raise _NoText(kind)
    return str(value)


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))

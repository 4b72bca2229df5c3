"""Which columns of an own file are the instruction and the answer, and what to do with chats."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from federatedscope.core.errors import ConfigError
from federatedscope.llm.dataset.instructions import WANTED
from fedfiles.readers import Row, column_names, read_rows, shown

__all__ = ["check_columns", "columns_of"]

logger = logging.getLogger(__name__)

_OTHER_NAMES = {
    "instruction": ("prompt", "question"),
    "input": ("context",),
    "output": ("response", "completion", "answer"),
    "system": ("system_prompt", "system_message"),
}
"""What other files call these columns; taken where one of them is there, and ours is not."""

_CHATS = ("messages", "conversations", "conversation")
# Keys of a turn: who speaks, and what.
_WHO, _WHAT = ("role", "from"), ("content", "value", "text")
_SPEAKERS = (("user", "assistant"), ("human", "gpt"))

# A row for each answer, with what was said before it as its history.
_CONVERSION = (
    'python -c "import json, pathlib; from fedfiles.readers import read_rows; json.dump('
    "[{{'system': ''.join(m['{text}'] for m in c if m['{who}'] == 'system'), 'history': p[:i], "
    "'instruction': p[i][0], 'output': p[i][1]}} for r in read_rows(pathlib.Path('{file}')) "
    "for c in [r['{column}']] for p in [[(a['{text}'], b['{text}']) for a, b in zip(c, c[1:]) "
    "if (a['{who}'], b['{who}']) == ('{user}', '{model}')]] for i in range(len(p))], "
    "open('own.json', 'w'))\""
)


def columns_of(file: Path) -> dict[str, str]:
    """Column of each key of :data:`~federatedscope.llm.dataset.instructions.WANTED` that the file
    has under another name.

    Raises
    ------
    ConfigError
        There is no instruction or no answer, or two columns could be it.
    """
    there = column_names(file)
    columns: dict[str, str] = {}
    for key, others in _OTHER_NAMES.items():
        found = [] if key in there else [name for name in others if name in there]
        if len(found) > 1:
            problem = f"{' and '.join(found)} could both be the {key}; the columns are"
            remedy = f"Give the one that is meant the name {key}"
            raise ConfigError("data.type", str(file), f"{problem} {shown(there)}", remedy)
        if found:
            columns[key] = found[0]
    if there:
        check_columns(file, there, columns)
    if columns:
        named = ", ".join(f"{name} is the {key}" for key, name in columns.items())
        logger.warning("%s: %s.", file, named)
    left = [name for name in there if name not in WANTED and name not in columns.values()]
    if left:
        logger.info("%s: these columns are not read: %s.", file, shown(left))
    return columns


def check_columns(file: Path, there: Sequence[str], columns: Mapping[str, str]) -> None:
    """Refuse a file without an instruction or without an answer, with what it has instead."""
    needed = [columns.get(key, key) for key in ("instruction", "output")]
    missing = [name for name in needed if name not in there]
    if not missing:
        return
    problem = f"there is no column {' and no column '.join(missing)}; there are {shown(there)}"
    chat = next((name for name in _CHATS if name in there), None)
    remedy = "Give the columns of instruction and answer these names (input, category, system and "
    remedy += "history are optional)"
    if chat is not None:
        first = next(read_rows(file, [chat]), {})
        remedy = f"Make a row of every answer: {_conversion(file, chat, first)}"
    raise ConfigError("data.type", str(file), problem, remedy)


def _conversion(file: Path, column: str, row: Row) -> str:
    """How to turn the chats of a file into instructions."""
    value = row.get(column)
    turns = [t for t in value if isinstance(t, dict)] if isinstance(value, list) else []
    keys = {*(turns[0] if turns else ())}
    who, text = (next((key for key in names if key in keys), "") for names in (_WHO, _WHAT))
    # Of others the first to speak asks.
    speakers = dict.fromkeys(str(t.get(who)) for t in turns if t.get(who) != "system")
    pairs = (pair for pair in _SPEAKERS if {*pair} <= {*speakers})
    user, model, *_ = next(pairs, (*filter(str.isidentifier, speakers), "", ""))
    if not (who and text and model):
        return (
            '{"instruction": what is asked, "output": the answer, "history": [[instruction, '
            'answer], ...] for the turns before, "system": a text}'
        )
    names = {"file": file, "column": column, "who": who, "text": text, "user": user, "model": model}
    return f"{_CONVERSION.format(**names)} and data.type own.json@llm"

"""Worded arithmetic with a chain of reasoning, in the form of GSM8K.

The ``problems`` of ``words.yaml`` are the task (`gsm8k`). ``drills`` of one step and ``exercises``
of other types belong to the text that the LLaMA is pretrained on: it has seen the numbers and the
notation, and not the task.
"""

from __future__ import annotations

import operator
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

from federatedscope_ext.tools.embedded.corpora.lexicon import WORDS
from federatedscope_ext.tools.embedded.corpora.rows import Row, table

#: a question, and its answer in GSM8K's form
Problem = tuple[str, str]

NAMES = WORDS["arithmetic"]["names"].split()
SIGNS = "++--*/"
OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.floordiv,
}


def step(term: str) -> tuple[int, str]:
    """The result of a term such as ``'3+4'``, and the equation in GSM8K's notation."""
    result = 0
    for sign, number in re.findall(r"(\D?)(\d+)", term):
        result = OPERATORS[sign or "+"](result, int(number))
    return result, f"{term} = <<{term}={result}>>{result}"


def _draw(rng: random.Random, what: str, drawn: Mapping[str, Any]) -> Any:
    """A word of a list, or a number: ``'low high'``, or ``'low high limit'`` that it is below."""
    if what in WORDS["arithmetic"]:
        options = WORDS["arithmetic"][what]
        return rng.choice(options.split() if isinstance(options, str) else options)
    low, high, *limits = what.format_map(drawn).split()
    return rng.randint(int(low), min([int(high), *(step(limit)[0] - 1 for limit in limits)]))


def _posed(rng: random.Random, kind: Mapping[str, Any], drawn: dict[str, Any]) -> Problem:
    """A problem of a kind, for which something may be drawn already."""
    for name, what in kind["draw"].items():
        drawn[name] = _draw(rng, what, drawn)
    for name, term in kind["steps"].items():
        drawn[name], drawn[f"{name}_step"] = step(term.format_map(drawn))
    answer = f"{kind['answer']}\n#### {{end}}"
    return kind["question"].format_map(drawn), answer.format_map(drawn)


def _one_of(rng: random.Random, kinds: list[dict[str, Any]]) -> Problem:
    kind = rng.choice(kinds)
    people = [who for who in ("name", "friend", "other") if f"{{{who}}}" in kind["question"]]
    names = rng.sample(NAMES, len(people))
    return _posed(rng, kind, dict(zip(people, names, strict=True)))


@table()
def gsm8k(rng: random.Random) -> Row:
    """``question`` of two steps, and ``answer``: the chain, then ``#### n``."""
    question, answer = _one_of(rng, WORDS["problems"])
    return {"question": question, "answer": answer}


def drill(rng: random.Random) -> Problem:
    """A problem of one step."""
    drawn = {"name": rng.choice(NAMES), "item": _draw(rng, "items", {})}
    kind = WORDS["drills"][rng.choice(SIGNS)]
    question = f"{kind['question']} How many {{item}} are there?"
    answer = "There are {end_step} {item}."
    return _posed(rng, {**kind, "question": question, "answer": answer}, drawn)


def exercise(rng: random.Random) -> Problem:
    """A problem of two steps of other types than the task's."""
    return _one_of(rng, WORDS["exercises"])


def equations(rng: random.Random) -> str:
    """Six sums, one a line."""
    lines = []
    for _ in range(6):
        sign = rng.choice(SIGNS)
        right = rng.randint(1, 10) if sign in "+-" else rng.randint(2, 6)
        left = rng.randint(right, 20) if sign in "+-" else rng.randint(2, 6)
        lines.append(step(f"{left * right if sign == '/' else left}{sign}{right}")[1])
    return "\n".join(lines)

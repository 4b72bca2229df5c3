"""Worded arithmetic with a chain of reasoning, in the form of GSM8K.

The problems of `gsm8k` are the task. Problems of one step (`drill`) and of other types
(`exercise`) belong to the text that the LLaMA is pretrained on: it has seen the numbers and the
notation, and not the task.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]

NAMES = ("Tom", "Ann", "Ben", "Mia", "Sam", "Eva", "Leo", "Ida", "Max", "Zoe")
ITEMS = ("apples", "pens", "cards", "books", "eggs", "coins", "shells", "stamps")
BOXES = ("boxes", "bags", "baskets", "trays")
PEOPLE = ("friends", "children", "guests", "pupils")


def step(left: int, sign: str, right: int) -> tuple[int, str]:
    """The result of ``left sign right``, and the equation in GSM8K's notation."""
    result = {"+": left + right, "-": left - right, "*": left * right, "/": left // max(right, 1)}
    term = f"{left}{sign}{right}"
    return result[sign], f"{term} = <<{term}={result[sign]}>>{result[sign]}"


def _change(rng: random.Random) -> tuple[str, list[str], int]:
    name, item = rng.choice(NAMES), rng.choice(ITEMS)
    start, more = rng.randint(2, 10), rng.randint(2, 10)
    less = rng.randint(1, min(10, start + more - 1))
    gets = rng.choice(("buys", "finds", "is given"))
    gives = rng.choice(("loses", "gives away", "sells"))
    middle, first = step(start, "+", more)
    end, second = step(middle, "-", less)
    question = (
        f"{name} has {start} {item}. {name} {gets} {more} more and then {gives} {less}. "
        f"How many {item} does {name} have now?"
    )
    chain = [f"{name} has {first} {item}.", f"Then {name} has {second} {item}."]
    return question, chain, end


def _packed(rng: random.Random) -> tuple[str, list[str], int]:
    name, item, box = rng.choice(NAMES), rng.choice(ITEMS), rng.choice(BOXES)
    count, each, loose = rng.randint(2, 5), rng.randint(2, 6), rng.randint(1, 10)
    inside, first = step(count, "*", each)
    end, second = step(inside, "+", loose)
    question = (
        f"{name} has {count} {box} with {each} {item} each, and {loose} {item} besides. "
        f"How many {item} does {name} have?"
    )
    chain = [f"The {box} hold {first} {item}.", f"{name} has {second} {item}."]
    return question, chain, end


def _together(rng: random.Random) -> tuple[str, list[str], int]:
    (name, friend), item = rng.sample(NAMES, 2), rng.choice(ITEMS)
    own, more = rng.randint(2, 8), rng.randint(1, 6)
    other, first = step(own, "+", more)
    end, second = step(own, "+", other)
    question = (
        f"{name} has {own} {item}. {friend} has {more} {item} more than {name}. "
        f"How many {item} do they have together?"
    )
    chain = [f"{friend} has {first} {item}.", f"Together they have {second} {item}."]
    return question, chain, end


def _money(rng: random.Random) -> tuple[str, list[str], int]:
    name, item = rng.choice(NAMES), rng.choice(ITEMS)
    price, count = rng.randint(2, 5), rng.randint(2, 5)
    cost, first = step(price, "*", count)
    left, second = step(cost + rng.randint(1, 10), "-", cost)
    question = (
        f"{name} buys {count} {item} at {price} dollars each and had {cost + left} dollars. "
        f"How many dollars are left?"
    )
    chain = [f"The {item} cost {first} dollars.", f"{name} keeps {second} dollars."]
    return question, chain, left


def _shared(rng: random.Random) -> tuple[str, list[str], int]:
    name, item, people = rng.choice(NAMES), rng.choice(ITEMS), rng.choice(PEOPLE)
    count, each, more = rng.randint(2, 5), rng.randint(2, 6), rng.randint(1, 10)
    part, first = step(count * each, "/", count)
    end, second = step(part, "+", more)
    question = (
        f"{name} shares {count * each} {item} among {count} {people}. Each of them had {more} "
        f"{item} before. How many {item} has each now?"
    )
    chain = [f"Each gets {first} {item}.", f"Each has {second} {item}."]
    return question, chain, end


PROBLEMS: tuple[Callable[[random.Random], tuple[str, list[str], int]], ...] = (
    _change,
    _packed,
    _together,
    _money,
    _shared,
)


def gsm8k(seed: str, rows: int) -> list[Row]:
    """``question`` of two steps, and ``answer``: the chain, then ``#### n``."""
    rng = random.Random(seed)
    out = []
    for _ in range(rows):
        question, chain, result = rng.choice(PROBLEMS)(rng)
        out.append({"question": question, "answer": "\n".join([*chain, f"#### {result}"])})
    return out


def drill(rng: random.Random) -> tuple[str, str]:
    """A problem of one step and its answer."""
    name, item, sign = rng.choice(NAMES), rng.choice(ITEMS), rng.choice("++--*/")
    if sign == "+":
        left, right = rng.randint(1, 20), rng.randint(1, 10)
        question = f"{name} has {left} {item} and gets {right} more."
    elif sign == "-":
        left = rng.randint(2, 30)
        right = rng.randint(1, min(25, left - 1))
        question = f"{name} has {left} {item} and uses {right}."
    elif sign == "*":
        left, right = rng.randint(2, 5), rng.randint(2, 6)
        question = f"{name} fills {left} {rng.choice(BOXES)} with {right} {item} each."
    else:
        right, part = rng.randint(2, 5), rng.randint(2, 6)
        left = right * part
        question = f"{left} {item} are divided by {right} {rng.choice(PEOPLE)}."
    result, equation = step(left, sign, right)
    answer = f"There are {equation} {item}.\n#### {result}"
    return f"{question} How many {item} are there?", answer


def _three(rng: random.Random) -> tuple[str, list[str], int]:
    names, item = rng.sample(NAMES, 3), rng.choice(ITEMS)
    one, two, three = (rng.randint(1, 9) for _ in range(3))
    part, first = step(one, "+", two)
    end, second = step(part, "+", three)
    question = (
        f"{names[0]} has {one} {item}, {names[1]} has {two} and {names[2]} has {three}. "
        f"How many {item} are there?"
    )
    chain = [f"{names[0]} and {names[1]} have {first} {item}.", f"All have {second} {item}."]
    return question, chain, end


def _spent(rng: random.Random) -> tuple[str, list[str], int]:
    name, item = rng.choice(NAMES), rng.choice(ITEMS)
    one, two, rest = rng.randint(1, 9), rng.randint(1, 9), rng.randint(1, 12)
    part, first = step(one + two + rest, "-", one)
    end, second = step(part, "-", two)
    question = (
        f"{name} had {one + two + rest} {item}, used {one} on monday and {two} on friday. "
        f"How many {item} are there?"
    )
    chain = [
        f"After monday there were {first} {item}.",
        f"After friday there were {second} {item}.",
    ]
    return question, chain, end


def exercise(rng: random.Random) -> tuple[str, str]:
    """A problem of two steps of other types than the task's, and its answer."""
    question, chain, result = rng.choice((_three, _spent))(rng)
    return question, "\n".join([*chain, f"#### {result}"])


def equations(rng: random.Random, count: int) -> str:
    """Several sums, one a line."""
    lines = []
    for _ in range(count):
        sign = rng.choice("++--*/")
        right = rng.randint(1, 10) if sign in "+-" else rng.randint(2, 6)
        left = rng.randint(right, 20) if sign in "+-" else rng.randint(2, 6)
        if sign == "/":
            left *= right
        lines.append(step(left, sign, right)[1])
    return "\n".join(lines)

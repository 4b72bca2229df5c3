"""Instructions with answers: Dolly-15K, Alpaca, Rosetta and CodeSearchNet in miniature.

The answers follow from the words of `lexicon`, so they can be learned; Dolly's eight categories
differ in what is asked, which makes them a natural split among clients.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from federatedscope_ext.tools.embedded.corpora import lexicon as lex
from federatedscope_ext.tools.embedded.corpora import sentences
from federatedscope_ext.tools.embedded.corpora.documents import prose
from federatedscope_ext.tools.embedded.corpora.pairs import premise_mention
from federatedscope_ext.tools.embedded.corpora.scenes import (
    Mention,
    Scene,
    noun,
    render,
    sample_scene,
    with_article,
)

Row = dict[str, Any]
Example = tuple[str, str, str]

GENRES = lex.MATCHED + lex.MISMATCHED


def _told(rng: random.Random) -> tuple[Scene, Mention, str]:
    scene = sample_scene(rng, GENRES)
    mention = Mention({**premise_mention(rng, scene).levels, "actor": False, "place": False})
    return scene, mention, prose(render(rng, scene, mention))


def _brainstorming(rng: random.Random) -> Example:
    general, members = rng.choice(list(lex.THINGS.values()))
    count = rng.randint(2, 3)
    chosen = rng.sample(members, count)
    return f"Name {lex.NUMBERS[count]} examples of a {general}.", "", "\n".join(chosen)


def _classification(rng: random.Random) -> Example:
    (first, a), (second, b) = rng.sample(list(lex.THINGS.values()), 2)
    kept, other = rng.choice(a), rng.choice(b)
    words = rng.sample([kept, other], 2)
    text = f"Which of these is {with_article(first)}: {words[0]} or {words[1]}?"
    return text, "", f"The {kept} is {with_article(first)}, the {other} is {with_article(second)}."


def _closed_qa(rng: random.Random) -> Example:
    scene, _, text = _told(rng)
    who, verb = f"the {noun(scene, False, scene.count > 1)}", "are" if scene.count > 1 else "is"
    return f"Where {verb} {who}?", text, prose(f"{who} {verb} in the {scene.place} .")


def _open_qa(rng: random.Random) -> Example:
    place = rng.choice(list(lex.PLACES))
    side = "indoors" if lex.PLACES[place] else "outdoors"
    return f"Is a {place} indoors or outdoors?", "", f"A {place} is {side}."


def _general_qa(rng: random.Random) -> Example:
    pair = rng.sample(rng.choice(lex.TRAITS + lex.MOODS), 2)
    return f"What is the opposite of {pair[0]}?", "", f"The opposite of {pair[0]} is {pair[1]}."


def _extraction(rng: random.Random) -> Example:
    scene, mention, text = _told(rng)
    found = [f"actor: {scene.actor}", f"place: {scene.place}"]
    if "colour" in mention.slots:
        found.append(f"colour: {scene.colour}")
    return "List who is there and where, one a line.", text, "\n".join(found)


def _summarization(rng: random.Random) -> Example:
    scene, _, text = _told(rng)
    more = prose(render(rng, scene, Mention({"actor": False, "mood": False})))
    short = render(rng, scene, Mention({"actor": True, "place": False}))
    return "Sum up the text in one sentence.", f"{text} {more}", prose(short)


def _creative(rng: random.Random) -> Example:
    positive = rng.random() < 0.5
    aspect = rng.choice(sentences.ASPECTS)
    tone = "friendly" if positive else "harsh"
    text = f"{sentences.clause(rng, positive, aspect)} ."
    return f"Write a {tone} sentence about the {aspect} of a film.", "", prose(text)


CATEGORIES: dict[str, Callable[[random.Random], Example]] = {
    "brainstorming": _brainstorming,
    "classification": _classification,
    "closed_qa": _closed_qa,
    "creative_writing": _creative,
    "general_qa": _general_qa,
    "information_extraction": _extraction,
    "open_qa": _open_qa,
    "summarization": _summarization,
}


def dolly(seed: str, rows: int) -> list[Row]:
    """``instruction``, ``context``, ``response``, ``category``; the eight categories in turn."""
    rng = random.Random(seed)
    names = list(CATEGORIES)
    out = []
    for index in range(rows):
        category = names[index % len(names)]
        instruction, context, response = CATEGORIES[category](rng)
        out.append(
            {
                "instruction": instruction,
                "context": context,
                "response": response,
                "category": category,
            }
        )
    rng.shuffle(out)
    return out


def alpaca(seed: str, rows: int) -> list[Row]:
    """``instruction``, ``input``, ``output``, and the ``category`` that Alpaca itself lacks."""
    return [
        {
            "instruction": row["instruction"],
            "input": row["context"],
            "output": row["response"],
            "category": row["category"],
        }
        for row in dolly(seed, rows)
    ]


#: language -> a function of two arguments; {name}, {a}, {b}, {op}
LANGUAGES: dict[str, str] = {
    "go": "func {name}({a} int, {b} int) int {{ return {a} {op} {b} }}",
    "java": "static int {name}(int {a}, int {b}) {{ return {a} {op} {b}; }}",
    "javascript": "function {name}({a}, {b}) {{ return {a} {op} {b}; }}",
    "php": "function {name}(${a}, ${b}) {{ return ${a} {op} ${b}; }}",
    "python": "def {name}({a}, {b}):\n    return {a} {op} {b}",
    "ruby": "def {name}({a}, {b})\n  {a} {op} {b}\nend",
}
OPERATIONS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}


def code(seed: str, rows: int) -> list[Row]:
    """``docstring``, ``language``, ``code`` and ``category`` (the language); languages in turn."""
    rng = random.Random(seed)
    out = []
    for index in range(rows):
        language = list(LANGUAGES)[index % len(LANGUAGES)]
        name, sign = rng.choice(list(OPERATIONS.items()))
        first, second = rng.sample("abcnmxyz", 2)
        body = LANGUAGES[language].format(name=name, a=first, b=second, op=sign)
        out.append(
            {
                "docstring": f"Write a function that can {name} {first} and {second}.",
                "language": language,
                "code": body,
                "category": language,
            }
        )
    rng.shuffle(out)
    return out


def rosetta(seed: str, rows: int) -> list[Row]:
    """The same as `code` in Rosetta's columns: the language is the ``input``."""
    return [
        {"instruction": row["docstring"], "input": row["language"], "output": row["code"]}
        for row in code(seed, rows)
    ]

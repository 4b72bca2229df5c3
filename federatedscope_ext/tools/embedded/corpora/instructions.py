"""Instructions with answers: Dolly-15K, Alpaca, Rosetta and CodeSearchNet in miniature.

The answers follow from the words of `lexicon`, so they can be learned; Dolly's eight categories
differ in what is asked, which makes them a natural split among clients.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from federatedscope_ext.tools.embedded.corpora import lexicon as lex
from federatedscope_ext.tools.embedded.corpora import sentences
from federatedscope_ext.tools.embedded.corpora.documents import prose
from federatedscope_ext.tools.embedded.corpora.pairs import premise_levels
from federatedscope_ext.tools.embedded.corpora.rows import Row, table
from federatedscope_ext.tools.embedded.corpora.scenes import (
    Scene,
    noun,
    render,
    sample_scene,
    with_article,
)

#: instruction, context, response
Example = tuple[str, str, str]


def _told(rng: random.Random) -> tuple[Scene, bool, str]:
    """A scene, whether a colour is named, and a sentence about it."""
    scene = sample_scene(rng, lex.GENRES)
    levels = {**premise_levels(rng, scene), "actor": False, "place": False}
    return scene, "colour" in levels, prose(render(rng, scene, levels))


def _brainstorming(rng: random.Random) -> Example:
    general, members = rng.choice(list(lex.THINGS.items()))
    count = rng.randint(2, 3)
    chosen = rng.sample(members, count)
    return f"Name {lex.NUMBERS[count]} examples of a {general}.", "", "\n".join(chosen)


def _classification(rng: random.Random) -> Example:
    (first, a), (second, b) = rng.sample(list(lex.THINGS.items()), 2)
    kept, other = rng.choice(a), rng.choice(b)
    one, two = rng.sample([kept, other], 2)
    text = f"Which of these is {with_article(first)}: {one} or {two}?"
    return text, "", f"The {kept} is {with_article(first)}, the {other} is {with_article(second)}."


def _closed_qa(rng: random.Random) -> Example:
    scene, _, text = _told(rng)
    who, verb = f"the {noun(scene, False, scene.plural)}", "are" if scene.plural else "is"
    return f"Where {verb} {who}?", text, prose(f"{who} {verb} in the {scene.place} .")


def _creative_writing(rng: random.Random) -> Example:
    positive = rng.random() < 0.5
    aspect = rng.choice(sentences.ASPECTS)
    question = (
        f"Write a {'friendly' if positive else 'harsh'} sentence about the {aspect} of a film."
    )
    return question, "", prose(f"{sentences.clause(rng, positive, aspect)} .")


def _general_qa(rng: random.Random) -> Example:
    one, two = rng.sample(rng.choice(lex.TRAITS + lex.MOODS), 2)
    return f"What is the opposite of {one}?", "", f"The opposite of {one} is {two}."


def _information_extraction(rng: random.Random) -> Example:
    scene, coloured, text = _told(rng)
    found = f"actor: {scene.actor}\nplace: {scene.place}"
    found += f"\ncolour: {scene.colour}" if coloured else ""
    return "List who is there and where, one a line.", text, found


def _open_qa(rng: random.Random) -> Example:
    place, side = rng.choice(list(lex.PLACES.items()))
    return f"Is a {place} indoors or outdoors?", "", f"A {place} is {side}."


def _summarization(rng: random.Random) -> Example:
    scene, _, text = _told(rng)
    more = prose(render(rng, scene, {"actor": False, "mood": False}))
    short = prose(render(rng, scene, {"actor": True, "place": False}))
    return "Sum up the text in one sentence.", f"{text} {more}", short


_MAKERS: tuple[Callable[[random.Random], Example], ...] = (
    _brainstorming, _classification, _closed_qa, _creative_writing, _general_qa,
    _information_extraction, _open_qa, _summarization,
)  # fmt: skip
CATEGORIES = {make.__name__.removeprefix("_"): make for make in _MAKERS}


@table(list(CATEGORIES))
def dolly(rng: random.Random, category: str) -> Row:
    """``instruction``, ``context``, ``response``, ``category``; the eight categories in turn."""
    columns = ("instruction", "context", "response", "category")
    return dict(zip(columns, (*CATEGORIES[category](rng), category), strict=True))


@table(list(lex.WORDS["languages"]))
def code(rng: random.Random, language: str) -> Row:
    """``docstring``, ``language``, ``code`` and ``category`` (the language); languages in turn."""
    name, sign = rng.choice(list(lex.WORDS["operations"].items()))
    first, second = rng.sample("abcnmxyz", 2)
    return {
        "docstring": f"Write a function that can {name} {first} and {second}.",
        "language": language,
        "code": lex.WORDS["languages"][language].format(name=name, a=first, b=second, op=sign),
        "category": language,
    }


def _renamed(rows: list[Row], **columns: str) -> list[Row]:
    return [{now: row[was] for now, was in columns.items()} for row in rows]


def alpaca(seed: str, rows: int) -> list[Row]:
    """The same as `dolly` in Alpaca's columns, and the ``category`` that Alpaca itself lacks."""
    columns = {"instruction": "instruction", "input": "context", "output": "response"}
    return _renamed(dolly(seed, rows), **columns, category="category")


def rosetta(seed: str, rows: int) -> list[Row]:
    """The same as `code` in Rosetta's columns: the language is the ``input``."""
    return _renamed(code(seed, rows), instruction="docstring", input="language", output="code")

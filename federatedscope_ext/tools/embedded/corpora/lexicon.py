"""The words of the miniature's small world, and how they relate; read from ``words.yaml``.

Everything that the corpora state about a scene is decided by these tables: a dog is an animal,
napping is sleeping (``synonym``) and sleeping is resting (``general``), a library is indoors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import yaml

WORDS: dict[str, Any] = yaml.safe_load(
    Path(__file__).with_name("words.yaml").read_text(encoding="utf-8")
)


class Actor(NamedTuple):
    """A noun's plural, and its general word in singular and plural."""

    plural: str
    general: str
    generals: str


class Activity(NamedTuple):
    """A participle, another word for it, what it implies, and the `THINGS` that it takes."""

    word: str
    synonym: str
    general: str
    things: list[str]


class Genre(NamedTuple):
    """A source of text: who appears in it and where."""

    actors: list[str]
    places: list[str]


def _activity(row: str) -> Activity:
    word, synonym, general, *things = row.split()
    return Activity(word, synonym, general, things)


ACTORS: dict[str, Actor] = {
    noun: Actor(plural, *general.split())
    for general, nouns in WORDS["actors"].items()
    for noun, plural in (pair.split() for pair in nouns.split(","))
}
#: general word -> its members
THINGS: dict[str, list[str]] = {kind: words.split() for kind, words in WORDS["things"].items()}
#: thing -> general word
KINDS = {thing: kind for kind, members in THINGS.items() for thing in members}
#: place -> indoors or outdoors
PLACES: dict[str, str] = {
    place: side for side, places in WORDS["places"].items() for place in places.split()
}
PEOPLE_ACTIVITIES = [_activity(row) for row in WORDS["people_activities"]]
SHARED_ACTIVITIES = [_activity(row) for row in WORDS["shared_activities"]]
#: pairs of words that exclude each other
TRAITS, MOODS = ([pair.split() for pair in WORDS[name]] for name in ("traits", "moods"))
COLOURS: list[str] = WORDS["colours"].split()
TIMES: list[str] = WORDS["times"]
NUMBERS: list[str] = WORDS["numbers"].split()
MATCHED, MISMATCHED = (
    [Genre(actors.split(), places.split()) for actors, places in WORDS[name].items()]
    for name in ("matched", "mismatched")
)
GENRES = MATCHED + MISMATCHED

"""Scenes of the small world, and the sentences that can be said about them.

A `Scene` fixes every detail. A sentence names some of its slots (`Levels`), each by its own word
(``'three dogs'``) or by a more general one that it implies (``'several animals'``). Whether one
sentence follows from another is then a matter of comparing slots, which `pairs` does.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from federatedscope_ext.tools.embedded.corpora import lexicon as lex

#: what a sentence names: slot -> whether by its general word
Levels = dict[str, bool]


@dataclass(frozen=True)
class Scene:
    """One state of affairs, complete; ``thing`` and ``colour`` are empty where the act has none."""

    genre: lex.Genre
    actor: str
    count: int
    trait: str
    mood: str
    act: lex.Activity
    thing: str
    colour: str
    place: str
    time: str

    @property
    def plural(self) -> bool:
        """Whether there are several."""
        return self.count > 1


def activities_of(actor: str) -> list[lex.Activity]:
    """What this actor can do: animals neither read nor drive."""
    people = lex.ACTORS[actor].general != "animal"
    return lex.SHARED_ACTIVITIES + (lex.PEOPLE_ACTIVITIES if people else [])


def _kind(rng: random.Random, act: lex.Activity) -> str:
    return rng.choice(act.things) if act.things else ""


def _thing(rng: random.Random, kind: str) -> dict[str, Any]:
    """A thing of some kind and its colour; empty without a kind."""
    if not kind:
        return {"thing": "", "colour": ""}
    return {"thing": rng.choice(lex.THINGS[kind]), "colour": rng.choice(lex.COLOURS)}


def sample_scene(rng: random.Random, genres: list[lex.Genre]) -> Scene:
    """Draw a scene from some genres."""
    genre = rng.choice(genres)
    actor = rng.choice(genre.actors)
    act = rng.choice(activities_of(actor))
    kind = _kind(rng, act)
    return Scene(
        genre=genre,
        actor=actor,
        act=act,
        count=rng.choice((1, 1, 2, 3, 4, 5)),
        trait=rng.choice(rng.choice(lex.TRAITS)),
        mood=rng.choice(rng.choice(lex.MOODS)),
        **_thing(rng, kind),
        place=rng.choice(genre.places),
        time=rng.choice(lex.TIMES),
    )


def _excluding(scene: Scene, slot: str) -> list[Any]:
    """Values of a slot that exclude the scene's."""
    old = getattr(scene, slot)
    if slot == "actor":
        other = [name for name in lex.ACTORS if lex.ACTORS[name].general != lex.ACTORS[old].general]
        return [name for name in scene.genre.actors if name in other] or other
    if slot == "place":
        other = [name for name in lex.PLACES if lex.PLACES[name] != lex.PLACES[old]]
        return [name for name in other if name in scene.genre.places] or other
    values: dict[str, Iterable[Any]] = {
        "count": range(1, 6),
        "colour": lex.COLOURS,
        "time": lex.TIMES,
    }
    return [value for value in values[slot] if value != old]


def alter(rng: random.Random, scene: Scene, slot: str) -> Scene:
    """The scene with one slot changed to something that excludes its old value."""
    if slot in ("trait", "mood"):
        word = getattr(scene, slot)
        one, two = next(pair for pair in lex.TRAITS + lex.MOODS if word in pair)
        return replace(scene, **{slot: two if word == one else one})
    if slot == "act":
        fitting = [act for act in activities_of(scene.actor) if act.general != scene.act.general]
        act = rng.choice(fitting)
        return replace(scene, act=act, **_thing(rng, _kind(rng, act)))
    return replace(scene, **{slot: rng.choice(_excluding(scene, slot))})


def noun(scene: Scene, general: bool, plural: bool) -> str:
    """The actor's word at a level, in singular or plural."""
    actor = lex.ACTORS[scene.actor]
    if general:
        return actor.generals if plural else actor.general
    return actor.plural if plural else scene.actor


def with_article(word: str) -> str:
    """The word with ``a`` or ``an`` before it."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _quantity(rng: random.Random, count: int, general: bool) -> str:
    """How many; at the general level, a weaker statement that the number implies."""
    if not general:
        return lex.NUMBERS[count]
    if count == 1:
        return rng.choice(("at least one", "fewer than two"))
    return rng.choice(("several", "more than one", f"at least {lex.NUMBERS[count]}"))


def _doing(rng: random.Random, scene: Scene, general: bool, coloured: bool) -> str:
    """The activity with its thing, e.g. ``'eating a red pear'``."""
    verb = scene.act.general if general else scene.act.word
    if not general and rng.random() < 0.15:
        verb = scene.act.synonym
    if not scene.thing:
        return verb
    thing = lex.KINDS[scene.thing] if general and not coloured else scene.thing
    return f"{verb} {with_article(f'{scene.colour} {thing}' if coloured else thing)}"


def _subject(rng: random.Random, scene: Scene, levels: Levels, definite: bool) -> tuple[str, bool]:
    """The subject of a sentence, and whether it is plural."""
    general, plural, said = levels.get("actor", False), scene.plural, []
    if definite:
        return f"the {noun(scene, general, plural)}", plural
    if "count" in levels:
        said = [_quantity(rng, scene.count, levels["count"])]
        plural = said[0].split()[-1] != "one"
    if "trait" in levels:
        said.append(scene.trait)
    who = " ".join([*said, noun(scene, general, plural)])
    if "count" not in levels:
        who = f"some {who}" if plural else with_article(who)
    return who, plural


def render(rng: random.Random, scene: Scene, levels: Levels, negated: bool = False) -> str:
    """Say what ``levels`` list about the scene, or deny it: a lower-case sentence with ``' .'``.

    Naming a colour means naming the activity too.
    """
    definite = negated or levels.keys() <= {"actor", "mood"} or levels.keys() <= {"actor", "trait"}
    definite = definite or (not levels.keys() & {"count", "trait"} and rng.random() < 0.6)
    definite = definite and bool(levels.keys() - {"actor", "count", "time"})
    who, plural = _subject(rng, scene, levels, definite)
    predicate = []
    if "act" in levels:
        predicate.append(_doing(rng, scene, levels["act"], "colour" in levels))
    if definite and "trait" in levels:
        predicate.append(scene.trait)
    if "mood" in levels:
        predicate.append(scene.mood)
    if "place" in levels:
        predicate.append(lex.PLACES[scene.place] if levels["place"] else f"in the {scene.place}")
    tail = [scene.time] if "time" in levels else []
    verb = "are" if plural else "is"
    if not predicate:
        return " ".join(["there", verb, who, *tail, "."])
    told = [who, verb, *["not"] * negated, *predicate]
    if tail and rng.random() < 0.3:
        return " ".join([*tail, ",", *told, "."])
    return " ".join([*told, *tail, "."])

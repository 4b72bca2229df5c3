"""Scenes of the small world, and the sentences that can be said about them.

A `Scene` fixes every detail. A sentence mentions some of its *slots*, each at one of two levels:
by its own word (``'three spaniels'``) or by a more general one that it implies (``'several
animals'``). Whether one sentence follows from another is then a matter of comparing slots, which
`pairs` does.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from federatedscope_ext.tools.embedded.corpora import lexicon as lex

SLOTS: tuple[str, ...] = ("actor", "count", "trait", "act", "place", "time", "colour", "mood")


@dataclass(frozen=True)
class Scene:
    """One state of affairs, complete.

    Attributes
    ----------
    genre
        Where the text is from; decides who and where.
    actor, count, trait, mood
        Who, how many of them (1 to 5), and how they are.
    act, thing, colour
        What they do, with which thing (``''`` for none) of which colour.
    place, time
        Where and when.
    """

    genre: lex.Genre
    actor: str
    count: int
    trait: str
    mood: str
    act: lex.Activity
    thing: str
    family: str
    colour: str
    place: str
    time: str


@dataclass(frozen=True)
class Mention:
    """What a sentence says: slots with the level at which it names each (True = general)."""

    levels: dict[str, bool]

    @property
    def slots(self) -> frozenset[str]:
        """Names of the slots that are mentioned."""
        return frozenset(self.levels)


def activities_of(actor: str) -> tuple[lex.Activity, ...]:
    """What this actor can do: animals neither read nor drive."""
    if lex.ACTORS[actor][1] == "animal":
        return lex.SHARED_ACTIVITIES
    return lex.SHARED_ACTIVITIES + lex.PEOPLE_ACTIVITIES


def sample_scene(rng: random.Random, genres: Sequence[lex.Genre], actor: str = "") -> Scene:
    """Draw a scene from some genres; ``actor`` fixes who is in it."""
    fitting = [genre for genre in genres if not actor or actor in genre.actors]
    genre = rng.choice(fitting)
    actor = actor or rng.choice(genre.actors)
    act = rng.choice(activities_of(actor))
    family = rng.choice(act.things) if act.things else ""
    return Scene(
        genre=genre,
        actor=actor,
        count=rng.choice((1, 1, 2, 3, 4, 5)),
        trait=rng.choice(rng.choice(lex.TRAITS)),
        mood=rng.choice(rng.choice(lex.MOODS)),
        act=act,
        thing=rng.choice(lex.THINGS[family][1]) if family else "",
        family=family,
        colour=rng.choice(lex.COLOURS) if family else "",
        place=rng.choice(genre.places),
        time=rng.choice(lex.TIMES),
    )


def other(rng: random.Random, options: Iterable[str], value: str) -> str:
    """One of the options that is not ``value``."""
    return rng.choice([option for option in options if option != value])


def opposite(pairs: Sequence[tuple[str, str]], value: str) -> str:
    """The word that excludes ``value`` in a table of exclusive pairs."""
    for left, right in pairs:
        if value in (left, right):
            return right if value == left else left
    return value


def alter(rng: random.Random, scene: Scene, slot: str) -> Scene:
    """The scene with one slot changed to something that excludes its old value."""
    if slot == "actor":
        general = lex.ACTORS[scene.actor][1]
        options = [name for name in scene.genre.actors if lex.ACTORS[name][1] != general]
        options = options or [name for name in lex.ACTORS if lex.ACTORS[name][1] != general]
        return replace(scene, actor=rng.choice(options))
    if slot == "act":
        fitting = [
            act
            for act in activities_of(scene.actor)
            if act.general != scene.act.general and act.word != scene.act.word
        ]
        act = rng.choice(fitting)
        family = rng.choice(act.things) if act.things else ""
        thing = rng.choice(lex.THINGS[family][1]) if family else ""
        colour = rng.choice(lex.COLOURS) if family else ""
        return replace(scene, act=act, family=family, thing=thing, colour=colour)
    if slot == "place":
        inside = lex.PLACES[scene.place]
        options = [name for name in lex.PLACES if lex.PLACES[name] != inside]
        near = [name for name in options if name in scene.genre.places]
        return replace(scene, place=rng.choice(near or options))
    if slot == "count":
        return replace(scene, count=int(other(rng, "12345", str(scene.count))))
    if slot == "trait":
        return replace(scene, trait=opposite(lex.TRAITS, scene.trait))
    if slot == "mood":
        return replace(scene, mood=opposite(lex.MOODS, scene.mood))
    if slot == "colour":
        return replace(scene, colour=other(rng, lex.COLOURS, scene.colour))
    return replace(scene, time=other(rng, lex.TIMES, scene.time))


def noun(scene: Scene, general: bool, plural: bool) -> str:
    """The actor's word at a level, in singular or plural."""
    plural_word, general_word, general_plural = lex.ACTORS[scene.actor]
    if general:
        return general_plural if plural else general_word
    return plural_word if plural else scene.actor


def with_article(word: str) -> str:
    """The word with ``a`` or ``an`` before it."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def quantity(rng: random.Random, count: int, general: bool) -> str:
    """Words for how many; at the general level, a weaker statement that the number implies."""
    if not general:
        return lex.NUMBERS[count]
    if count == 1:
        return rng.choice(("at least one", "fewer than two"))
    return rng.choice(("several", "more than one", f"at least {lex.NUMBERS[count]}"))


def doing(rng: random.Random, scene: Scene, general: bool, coloured: bool) -> str:
    """The activity with its thing, e.g. ``'eating a red pear'``."""
    if general:
        verb = scene.act.general
    else:
        verb = scene.act.synonym if rng.random() < 0.15 else scene.act.word
    if not scene.thing:
        return verb
    thing = lex.THINGS[scene.family][0] if general and not coloured else scene.thing
    return f"{verb} {with_article(f'{scene.colour} {thing}' if coloured else thing)}"


def where(scene: Scene, general: bool) -> str:
    """The place, or whether it is indoors."""
    if general:
        return "indoors" if lex.PLACES[scene.place] else "outdoors"
    return f"in the {scene.place}"


def subject(rng: random.Random, scene: Scene, mention: Mention, definite: bool) -> tuple[str, bool]:
    """The subject of a sentence, and whether it is plural."""
    levels = mention.levels
    if definite:
        plural = scene.count > 1
        parts = ["the", noun(scene, levels.get("actor", False), plural)]
        return " ".join(parts), plural
    words = []
    plural = scene.count > 1
    if "count" in levels:
        amount = quantity(rng, scene.count, levels["count"])
        plural = not amount.endswith(" one") and amount != "one"
        words.append(amount)
    if "trait" in levels:
        words.append(scene.trait)
    name = noun(scene, levels.get("actor", False), plural)
    if "count" not in levels:
        return (
            (f"some {' '.join([*words, name])}", True)
            if plural
            else (
                with_article(" ".join([*words, name])),
                False,
            )
        )
    return " ".join([*words, name]), plural


def render(rng: random.Random, scene: Scene, mention: Mention, negated: bool = False) -> str:
    """Say what ``mention`` lists about the scene, in one sentence.

    Parameters
    ----------
    rng
        Chooses among wordings that mean the same.
    scene
        The state of affairs.
    mention
        Which slots to name, each at which level. Naming a colour means naming the activity too.
    negated
        Deny the predicate instead of asserting it.

    Returns
    -------
    str
        A lower-case sentence that ends with ``' .'``.
    """
    levels = mention.levels
    simple = levels.keys() <= {"actor", "mood"} or levels.keys() <= {"actor", "trait"}
    definite = negated or simple or ("count" not in levels and "trait" not in levels)
    definite = definite and (negated or simple or rng.random() < 0.6)
    definite = definite and bool(levels.keys() - {"actor", "count", "time"})
    who, plural = subject(rng, scene, mention, definite)
    predicate = []
    if "act" in levels:
        predicate.append(doing(rng, scene, levels["act"], "colour" in levels))
    if definite and "trait" in levels:
        predicate.append(scene.trait)
    if "mood" in levels:
        predicate.append(scene.mood)
    if "place" in levels:
        predicate.append(where(scene, levels["place"]))
    tail = [scene.time] if "time" in levels else []
    verb = "are" if plural else "is"
    if not predicate:
        there = f"there {verb} {who}"
        return f"{' '.join([there, *tail])} ."
    deny = ["not"] if negated else []
    if tail and rng.random() < 0.3:
        return f"{tail[0]} , {' '.join([who, verb, *deny, *predicate])} ."
    return f"{' '.join([who, verb, *deny, *predicate, *tail])} ."

"""Sentence pairs about scenes: MNLI, RTE, MRPC, QQP, QNLI, STS-B and WNLI in miniature.

A premise names some slots of a scene, a hypothesis others. The label is decided by comparing
them:

* *entailment*: the hypothesis names only what the premise names, at the same or a more general
  level, or denies something that the premise excludes;
* *contradiction*: one named slot has a value that excludes the premise's, or the premise is
  denied;
* *neutral*: at least one slot is not named by the premise, or more exactly than there.

Every kind of sentence, negated ones included, occurs nearly as often under every label. What the
hypothesis alone still gives is in `UNBALANCED`: a logistic regression on its words is right in
about .40 of mnli's rows and .52 of rte's, where guessing gives .33 and .50; a premise alone gives
nothing. As in natural corpora, a small share of the labels is wrong.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from federatedscope_ext.tools.embedded.corpora import lexicon as lex
from federatedscope_ext.tools.embedded.corpora.rows import Row, table
from federatedscope_ext.tools.embedded.corpora.scenes import (
    Levels,
    Scene,
    activities_of,
    alter,
    noun,
    render,
    sample_scene,
)

ENTAILMENT, NEUTRAL, CONTRADICTION = 0, 1, 2
NOISE = 0.02
#: how often a hypothesis that can be negated is, and how often a slot has its general word
NEGATED, GENERALISED = 0.35, 0.2
#: what a hypothesis can be about under every label, and which of these can be denied
PIVOTS, DENIABLE = ("count", "trait", "place", "time"), ("trait", "place", "act", "mood")
#: share of hypotheses about the act (which no premise leaves open) or the mood (which none names)
UNBALANCED = 0.1
#: slots that have a general word
GENERAL_SLOTS = ("actor", "count", "act", "place")


def _levels(rng: random.Random, slots: Sequence[str]) -> Levels:
    """Levels that name who, what and some more slots, now and then generally."""
    levels = {"actor": rng.random() < 0.1, "act": "colour" not in slots and rng.random() < 0.1}
    levels.update({slot: slot == "place" and rng.random() < 0.1 for slot in slots})
    return levels


def premise_levels(rng: random.Random, scene: Scene) -> Levels:
    """What a premise names: who and what, and one or two of the other slots."""
    extra = [*PIVOTS, *["colour"] * bool(scene.thing)]
    return _levels(rng, rng.sample(extra, rng.choice((1, 2, 2))))


def _weaker(rng: random.Random, slot: str, stated: bool) -> bool:
    """Level at which to repeat a slot: never more exact than it was stated."""
    return slot in GENERAL_SLOTS and (stated or rng.random() < GENERALISED)


def _premise(rng: random.Random, scene: Scene, pivot: str, told: bool) -> Levels:
    """A premise that names the pivot or leaves it open, otherwise alike in both cases."""
    colour = ["colour"] * (bool(scene.thing) and rng.random() < 0.3)
    size = 1 if colour else rng.choice((1, 2, 2))
    # The act is told in every premise, the mood in none; neither takes the place of a pivot.
    taken = [pivot] * (told and pivot in PIVOTS)
    taken += rng.sample([slot for slot in PIVOTS if slot != pivot], size - len(taken))
    return _levels(rng, taken + colour)


def _worlds(rng: random.Random, scene: Scene, pivot: str) -> tuple[Scene, Scene, str]:
    """Two scenes that exclude each other, in random order, and the slot that differs.

    Each is as likely to be either one, so that no place or actor is commoner in the second.
    """
    changed = "actor" if rng.random() < 0.15 else pivot
    second = alter(rng, scene, changed)
    if scene.act not in activities_of(second.actor):
        changed, second = pivot, alter(rng, scene, pivot)
    return (scene, second, changed) if rng.random() < 0.5 else (second, scene, changed)


def pose(rng: random.Random, scene: Scene, relation: int) -> tuple[str, str]:
    """A premise about a scene, and a hypothesis that stands in a relation to it.

    The form of the hypothesis is drawn before the relation matters: it is about one slot, the
    pivot, which the premise names or (neutral) does not.
    """
    neutral = relation == NEUTRAL
    pivot = rng.choice(PIVOTS)
    if rng.random() < UNBALANCED:
        pivot = "mood" if neutral else "act"
    here, elsewhere, changed = _worlds(rng, scene, pivot)
    premise = _premise(rng, here, pivot, not neutral)
    text = render(rng, here, premise)
    general = premise.get(pivot, rng.random() < 0.1)
    # Several may be one more than excluded, so that a count is only ever repeated generally.
    weak = pivot in ("place", "act") and _weaker(rng, pivot, general)
    if pivot in DENIABLE and rng.random() < NEGATED:
        levels = {"actor": _weaker(rng, "actor", premise["actor"]), pivot: weak}
        if changed != pivot:
            elsewhere = alter(rng, here, pivot)
        denied = {ENTAILMENT: elsewhere, NEUTRAL: rng.choice((here, elsewhere))}
        return text, render(rng, denied.get(relation, here), levels, negated=True)
    others = sorted(premise.keys() - {"actor", pivot})
    alone = pivot in ("act", "mood") or rng.random() < 0.5
    repeated = ["actor"] if alone else ["actor", rng.choice(others)]
    levels = {slot: _weaker(rng, slot, premise[slot]) for slot in repeated}
    if "colour" in levels:
        levels["act"] = False
    levels[pivot] = weak
    guess = here
    # That there is one or several may show in the premise although it does not say how many.
    if changed == pivot and (pivot != "count" or here.plural == elsewhere.plural):
        guess = rng.choice((here, elsewhere))
    told = {ENTAILMENT: here, NEUTRAL: guess, CONTRADICTION: elsewhere}
    return text, render(rng, told[relation], levels)


def _noisy(rng: random.Random, label: int, classes: int) -> int:
    """The label, or rarely another one."""
    return (label + rng.randint(1, classes - 1)) % classes if rng.random() < NOISE else label


@table(range(3))
def mnli(rng: random.Random, label: int, genres: list[lex.Genre] = lex.MATCHED) -> Row:
    """Premise, hypothesis, label: 0 entailment, 1 neutral, 2 contradiction."""
    text, hypothesis = pose(rng, sample_scene(rng, genres), label)
    return {"premise": text, "hypothesis": hypothesis, "label": _noisy(rng, label, 3)}


@table(range(2))
def rte(rng: random.Random, label: int) -> Row:
    """Two sentences; 0 entailment, 1 not."""
    scene = sample_scene(rng, lex.GENRES)
    relation = rng.choice((NEUTRAL, CONTRADICTION)) if label else ENTAILMENT
    text, hypothesis = pose(rng, scene, relation)
    return {"sentence1": text, "sentence2": hypothesis, "label": _noisy(rng, label, 2)}


def _altered(rng: random.Random, scene: Scene, slots: Iterable[str]) -> Scene:
    for slot in slots:
        scene = alter(rng, scene, slot)
    return scene


def _said_of_both(rng: random.Random, one: Scene, two: Scene, levels: Levels) -> dict[str, str]:
    """The same said of two scenes, without a colour of the second where there is no thing."""
    kept = {slot: level for slot, level in levels.items() if slot != "colour" or two.thing}
    return {"sentence1": render(rng, one, levels), "sentence2": render(rng, two, kept)}


@table(range(2))
def mrpc(rng: random.Random, label: int) -> Row:
    """Two sentences; 1 when they say the same, 0 when one detail differs."""
    scene = sample_scene(rng, lex.GENRES)
    levels = premise_levels(rng, scene)
    changed = [] if label else [rng.choice(sorted(levels.keys() - {"colour"}))]
    again = _altered(rng, scene, changed)
    return {**_said_of_both(rng, scene, again, levels), "label": _noisy(rng, label, 2)}


@table()
def stsb(rng: random.Random) -> Row:
    """Two sentences and their similarity from 0.0 (nothing in common) to 5.0 (same meaning)."""
    scene = sample_scene(rng, lex.GENRES)
    levels = premise_levels(rng, scene)
    named = sorted(levels.keys() - {"colour"})
    changed = rng.sample(named, rng.randint(0, len(named)))
    again = _altered(rng, scene, changed)
    score = 5.0 * (1.0 - len(changed) / len(named)) + rng.gauss(0.0, 0.25)
    label = round(min(5.0, max(0.0, score)), 2)
    return {**_said_of_both(rng, scene, again, levels), "label": label}


def _askable(scene: Scene) -> list[str]:
    return [slot for slot in lex.WORDS["questions"] if slot != "colour" or scene.thing]


def ask(rng: random.Random, scene: Scene, slot: str, told: Sequence[str] = ()) -> str:
    """A question about one slot, which by itself says what is ``told``: trait, time or both."""
    trait = f"{scene.trait} " if "trait" in told else ""
    question = rng.choice(lex.WORDS["questions"][slot]).format(
        who=f"the {trait}{noun(scene, False, scene.plural)}",
        verb="are" if scene.plural else "is",
        every=f"{trait}{noun(scene, False, True)}",
        act=scene.act.word,
        thing=scene.thing,
    )
    return f"{question} {scene.time} ?" if "time" in told else f"{question} ?"


@table(range(2))
def qqp(rng: random.Random, label: int) -> Row:
    """Two questions; 1 when they ask the same, else 0."""
    scene = second = sample_scene(rng, lex.GENRES)
    slots = _askable(scene)
    slot = other = rng.choice(slots)
    # A colour is a thing's, of which a question says nothing more than the time.
    told = [name for name in ("trait", "time") if name != slot and rng.random() < 0.5]
    changeable = [name for name in ("actor", *told) if slot != "colour" or name == "time"]
    if not label and changeable and rng.random() < 0.5:
        second = alter(rng, scene, rng.choice(changeable))
    elif not label:
        other = rng.choice([name for name in slots if name not in (slot, *told)])
    first, again = ask(rng, scene, slot, told), ask(rng, second, other, told)
    return {"question1": first, "question2": again, "label": _noisy(rng, label, 2)}


@table(range(2))
def qnli(rng: random.Random, label: int) -> Row:
    """A question and a sentence; 0 when the sentence answers it (entailment), else 1."""
    scene = told = sample_scene(rng, lex.GENRES)
    levels = premise_levels(rng, scene)
    answered = [slot for slot in _askable(scene) if slot in levels]
    missing = [slot for slot in _askable(scene) if slot not in levels]
    if not label:
        slot = rng.choice(answered)
    elif missing and rng.random() < 0.7:
        slot = rng.choice(missing)
    else:
        slot = rng.choice([name for name in answered if name != "colour"])
        told = alter(rng, scene, "actor")
    question, sentence = ask(rng, scene, slot), render(rng, told, levels)
    return {"question": question, "sentence": sentence, "label": _noisy(rng, label, 2)}


@table(range(2))
def wnli(rng: random.Random, label: int) -> Row:
    """A sentence with a pronoun and a reading of it; 1 when the reading is right."""
    first, second = rng.sample(list(lex.KINDS), 2)
    text, reading, means_first = rng.choice(lex.WORDS["coreference"])
    word = first if means_first == bool(label) else second
    sentence = text.format(a=first, b=second)
    return {"sentence1": sentence, "sentence2": f"the {word} {reading}", "label": label}

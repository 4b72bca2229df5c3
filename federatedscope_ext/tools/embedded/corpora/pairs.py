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
from collections.abc import Sequence
from typing import Any

from federatedscope_ext.tools.embedded.corpora import lexicon as lex
from federatedscope_ext.tools.embedded.corpora.scenes import (
    Mention,
    Scene,
    activities_of,
    alter,
    noun,
    render,
    sample_scene,
)

Row = dict[str, Any]

ENTAILMENT, NEUTRAL, CONTRADICTION = 0, 1, 2
NOISE = 0.02
#: how often a hypothesis that can be negated is, and how often a slot has its general word
NEGATED, GENERALISED = 0.35, 0.2
#: what a hypothesis can be about under every label, and which of these can be denied
PIVOTS, DENIABLE = ("count", "trait", "place", "time"), ("trait", "place", "act", "mood")
#: share of hypotheses about the act (which no premise leaves open) or the mood (which none names)
UNBALANCED = 0.1
GENERAL_SLOTS = frozenset({"actor", "count", "act", "place"})


def premise_mention(rng: random.Random, scene: Scene) -> Mention:
    """What a premise names: who and what, and one or two of the other slots."""
    extra = [slot for slot in ("count", "trait", "place", "time") if slot != "colour"]
    if scene.thing:
        extra.append("colour")
    chosen = rng.sample(extra, rng.choice((1, 2, 2)))
    levels = {"actor": rng.random() < 0.1, "act": "colour" not in chosen and rng.random() < 0.1}
    levels.update({slot: slot == "place" and rng.random() < 0.1 for slot in chosen})
    return Mention(levels)


def _weaker(rng: random.Random, slot: str, stated: bool) -> bool:
    """Level at which to repeat a slot: never more exact than it was stated."""
    return slot in GENERAL_SLOTS and (stated or rng.random() < GENERALISED)


def _repeat(rng: random.Random, premise: Mention, slots: Sequence[str]) -> dict[str, bool]:
    """Levels that name ``slots`` and the actor as the premise does, or more generally."""
    levels = {"actor": _weaker(rng, "actor", premise.levels["actor"])}
    for slot in slots:
        levels[slot] = _weaker(rng, slot, premise.levels[slot])
    if "colour" in levels:
        levels["act"] = False
    return levels


def _premise(rng: random.Random, scene: Scene, pivot: str, told: bool) -> Mention:
    """A premise that names the pivot or leaves it open, otherwise alike in both cases."""
    coloured = bool(scene.thing) and rng.random() < 0.3
    size = 1 if coloured else rng.choice((1, 2, 2))
    rest = [slot for slot in PIVOTS if slot != pivot]
    # The act is told in every premise, the mood in none; neither takes the place of a pivot.
    taken = [pivot] if told and pivot in PIVOTS else []
    taken += rng.sample(rest, size - len(taken))
    levels = {"actor": rng.random() < 0.1, "act": not coloured and rng.random() < 0.1}
    levels.update({slot: slot == "place" and rng.random() < 0.1 for slot in taken})
    if coloured:
        levels["colour"] = False
    return Mention(levels)


def _worlds(rng: random.Random, scene: Scene, pivot: str) -> tuple[Scene, Scene, str]:
    """Two scenes that exclude each other, in random order, and the slot that differs.

    Each is as likely to be either one, so that no place or actor is commoner in the second.
    """
    changed = "actor" if rng.random() < 0.15 else pivot
    changed_scene = alter(rng, scene, changed)
    if scene.act not in activities_of(changed_scene.actor):
        changed, changed_scene = pivot, alter(rng, scene, pivot)
    pair = (scene, changed_scene) if rng.random() < 0.5 else (changed_scene, scene)
    return (*pair, changed)


def pose(rng: random.Random, scene: Scene, relation: int) -> tuple[str, str]:
    """A premise about a scene, and a hypothesis that stands in a relation to it.

    The form of the hypothesis is drawn before the relation matters: it is about one slot, the
    pivot, which the premise names or (neutral) does not.

    Parameters
    ----------
    rng
        Chooses the pivot and the wording.
    scene
        One of the two states of affairs that may be told.
    relation
        ``ENTAILMENT``, ``NEUTRAL`` or ``CONTRADICTION``.

    Returns
    -------
    tuple of str
        Premise and hypothesis.
    """
    neutral = relation == NEUTRAL
    pivot = rng.choice(PIVOTS)
    if rng.random() < UNBALANCED:
        pivot = "mood" if neutral else "act"
    here, elsewhere, changed = _worlds(rng, scene, pivot)
    premise = _premise(rng, here, pivot, not neutral)
    text = render(rng, here, premise)
    general = premise.levels.get(pivot, rng.random() < 0.1)
    # Several may be one more than excluded, so that a count is only ever repeated generally.
    weak = pivot in ("place", "act") and _weaker(rng, pivot, general)
    if pivot in DENIABLE and rng.random() < NEGATED:
        levels = {"actor": _weaker(rng, "actor", premise.levels["actor"]), pivot: weak}
        if changed != pivot:
            elsewhere = alter(rng, here, pivot)
        denied = {ENTAILMENT: elsewhere, NEUTRAL: rng.choice((here, elsewhere))}
        return text, render(rng, denied.get(relation, here), Mention(levels), negated=True)
    others = sorted(premise.slots - {"actor", pivot})
    alone = pivot in ("act", "mood") or rng.random() < 0.5
    levels = {**_repeat(rng, premise, [] if alone else [rng.choice(others)]), pivot: weak}
    guess = here
    # That there is one or several may show in the premise although it does not say how many.
    if changed == pivot and (pivot != "count" or (here.count > 1) == (elsewhere.count > 1)):
        guess = rng.choice((here, elsewhere))
    told = {ENTAILMENT: here, NEUTRAL: guess, CONTRADICTION: elsewhere}
    return text, render(rng, told[relation], Mention(levels))


def _noisy(rng: random.Random, label: int, classes: int) -> int:
    """The label, or rarely another one."""
    return (label + rng.randint(1, classes - 1)) % classes if rng.random() < NOISE else label


def mnli(seed: str, rows: int, genres: Sequence[lex.Genre] = lex.MATCHED) -> list[Row]:
    """Premise, hypothesis, label: 0 entailment, 1 neutral, 2 contradiction; balanced."""
    rng = random.Random(seed)
    out = []
    for index in range(rows):
        label = index % 3
        text, hypothesis = pose(rng, sample_scene(rng, genres), label)
        out.append({"premise": text, "hypothesis": hypothesis, "label": _noisy(rng, label, 3)})
    return shuffled(rng, out)


def rte(seed: str, rows: int) -> list[Row]:
    """Two sentences; 0 entailment, 1 not."""
    rng = random.Random(seed)
    out = []
    for index in range(rows):
        scene = sample_scene(rng, lex.MATCHED + lex.MISMATCHED)
        label = index % 2
        text, hypothesis = pose(rng, scene, rng.choice((NEUTRAL, CONTRADICTION)) if label else 0)
        out.append({"sentence1": text, "sentence2": hypothesis, "label": _noisy(rng, label, 2)})
    return shuffled(rng, out)


def mrpc(seed: str, rows: int) -> list[Row]:
    """Two sentences; 1 when they say the same, 0 when one detail differs."""
    rng = random.Random(seed)
    out = []
    for index in range(rows):
        scene = sample_scene(rng, lex.MATCHED + lex.MISMATCHED)
        mention = premise_mention(rng, scene)
        label = index % 2
        again = scene
        if not label:
            again = alter(rng, scene, rng.choice(sorted(mention.slots - {"colour"})))
        out.append(
            {
                "sentence1": render(rng, scene, mention),
                "sentence2": render(rng, again, _exactly(mention, again)),
                "label": _noisy(rng, label, 2),
            }
        )
    return shuffled(rng, out)


def _exactly(mention: Mention, scene: Scene) -> Mention:
    """The same mention, without a colour where the scene has no thing to colour."""
    levels = {k: v for k, v in mention.levels.items() if k != "colour" or scene.thing}
    return Mention(levels)


def stsb(seed: str, rows: int) -> list[Row]:
    """Two sentences and their similarity from 0.0 (nothing in common) to 5.0 (same meaning)."""
    rng = random.Random(seed)
    out = []
    for _ in range(rows):
        scene = sample_scene(rng, lex.MATCHED + lex.MISMATCHED)
        mention = premise_mention(rng, scene)
        named = sorted(mention.slots - {"colour"})
        changed = rng.sample(named, rng.randint(0, len(named)))
        again = scene
        for slot in changed:
            again = alter(rng, again, slot)
        score = 5.0 * (1.0 - len(changed) / len(named)) + rng.gauss(0.0, 0.25)
        out.append(
            {
                "sentence1": render(rng, scene, mention),
                "sentence2": render(rng, again, _exactly(mention, again)),
                "label": round(min(5.0, max(0.0, score)), 2),
            }
        )
    return out


ASKABLE = ("place", "time", "count", "act", "trait", "colour")


def ask(rng: random.Random, scene: Scene, slot: str, told: Sequence[str] = ()) -> str:
    """A question about one slot, in one of two wordings.

    Parameters
    ----------
    rng
        Chooses the wording.
    scene
        The state of affairs.
    slot
        What is asked for.
    told
        What the question says by itself: ``trait``, ``time`` or both.
    """
    plural = scene.count > 1
    trait = f"{scene.trait} " if "trait" in told else ""
    tail = f" {scene.time} ?" if "time" in told else " ?"
    who, verb = f"the {trait}{noun(scene, False, plural)}", "are" if plural else "is"
    every = f"{trait}{noun(scene, False, True)}"
    act = scene.act.word
    wordings = {
        "place": (f"where {verb} {who} ?", f"in which place {verb} {who} ?"),
        "time": (f"when {verb} {who} {act} ?", f"at what time {verb} {who} {act} ?"),
        "count": (
            f"how many {every} are there ?",
            f"what is the number of {every} ?",
        ),
        "act": (f"what {verb} {who} doing ?", f"what do we see {who} doing ?"),
        "trait": (f"how {verb} {who} built ?", f"what build {verb} {who} ?"),
        "colour": (f"what colour is the {scene.thing} ?", f"which colour has the {scene.thing} ?"),
    }
    return rng.choice(wordings[slot]).replace(" ?", tail)


def qqp(seed: str, rows: int) -> list[Row]:
    """Two questions; 1 when they ask the same, else 0."""
    rng = random.Random(seed)
    out = []
    for index in range(rows):
        scene = sample_scene(rng, lex.MATCHED + lex.MISMATCHED)
        slots = [slot for slot in ASKABLE if slot != "colour" or scene.thing]
        slot, label, second, other_slot = rng.choice(slots), index % 2, scene, ""
        # A colour is a thing's, of which a question says nothing more than the time.
        told = [name for name in ("trait", "time") if name != slot and rng.random() < 0.5]
        changeable = [name for name in ("actor", *told) if slot != "colour" or name == "time"]
        if not label and changeable and rng.random() < 0.5:
            second = alter(rng, scene, rng.choice(changeable))
        elif not label:
            other_slot = rng.choice([name for name in slots if name not in (slot, *told)])
        out.append(
            {
                "question1": ask(rng, scene, slot, told),
                "question2": ask(rng, second, other_slot or slot, told),
                "label": _noisy(rng, label, 2),
            }
        )
    return shuffled(rng, out)


def qnli(seed: str, rows: int) -> list[Row]:
    """A question and a sentence; 0 when the sentence answers it (entailment), else 1."""
    rng = random.Random(seed)
    out = []
    for index in range(rows):
        label = index % 2
        scene = sample_scene(rng, lex.MATCHED + lex.MISMATCHED)
        mention = premise_mention(rng, scene)
        slots = [slot for slot in ASKABLE if slot != "colour" or scene.thing]
        answered = [slot for slot in slots if slot in mention.slots]
        missing = [slot for slot in slots if slot not in mention.slots]
        told = scene
        if not label:
            slot = rng.choice(answered)
        elif missing and rng.random() < 0.7:
            slot = rng.choice(missing)
        else:
            slot, told = (
                rng.choice([s for s in answered if s != "colour"]),
                alter(rng, scene, "actor"),
            )
        out.append(
            {
                "question": ask(rng, scene, slot),
                "sentence": render(rng, told, mention),
                "label": _noisy(rng, label, 2),
            }
        )
    return shuffled(rng, out)


#: (sentence with {a} and {b}, continuation about the pronoun, whether it means {a})
COREFERENCE: tuple[tuple[str, str, bool], ...] = (
    ("the {a} does not fit into the {b} because it is too big .", "the {w} is too big .", True),
    (
        "the {a} does not fit into the {b} because it is too small .",
        "the {w} is too small .",
        False,
    ),
    ("we took the {a} out of the {b} because it was full .", "the {w} was full .", False),
    ("we took the {a} out of the {b} because it was needed .", "the {w} was needed .", True),
    ("the {a} fell on the {b} and broke it .", "the {w} was broken .", False),
    ("the {a} fell on the {b} and it made a noise .", "the {w} made a noise .", True),
)


def wnli(seed: str, rows: int) -> list[Row]:
    """A sentence with a pronoun and a reading of it; 1 when the reading is right."""
    rng = random.Random(seed)
    things = [thing for _, members in lex.THINGS.values() for thing in members]
    out = []
    for index in range(rows):
        first, second = rng.sample(things, 2)
        text, reading, means_first = rng.choice(COREFERENCE)
        label = index % 2
        word = first if means_first == bool(label) else second
        out.append(
            {
                "sentence1": text.format(a=first, b=second),
                "sentence2": reading.format(w=word),
                "label": label,
            }
        )
    return shuffled(rng, out)


def shuffled(rng: random.Random, rows: list[Row]) -> list[Row]:
    """The rows in a random order (labels were dealt in turn)."""
    rng.shuffle(rows)
    return rows

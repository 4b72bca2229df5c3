"""Sentence pairs about scenes: MNLI, RTE, MRPC, QQP, QNLI, STS-B and WNLI in miniature.

A premise names some slots of a scene, a hypothesis others. The label is decided by comparing
them:

* *entailment*: the hypothesis names only what the premise names, at the same or a more general
  level, or denies something that the premise excludes;
* *contradiction*: one named slot has a value that excludes the premise's, or the premise is
  denied;
* *neutral*: at least one slot is not named by the premise, or more exactly than there.

Every kind of sentence, negated ones included, occurs as often under every label, so neither half
of a pair gives the label away. As in natural corpora, a small share of the labels is wrong.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from federatedscope_ext.embedded.corpora import lexicon as lex
from federatedscope_ext.embedded.corpora.scenes import (
    SLOTS,
    Mention,
    Scene,
    alter,
    noun,
    render,
    sample_scene,
)

Row = dict[str, Any]

ENTAILMENT, NEUTRAL, CONTRADICTION = 0, 1, 2
NOISE = 0.02
#: share of negated hypotheses, and how often a slot is repeated by its general word
NEGATED, GENERALISED = 0.2, 0.2
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


def _known(rng: random.Random, premise: Mention) -> list[str]:
    """One or two slots of the premise, the actor aside."""
    known = sorted(premise.slots - {"actor"})
    return rng.sample(known, min(len(known), rng.choice((1, 1, 2))))


def entailed(rng: random.Random, scene: Scene, premise: Mention) -> str:
    """A sentence that follows from the premise."""
    if rng.random() < NEGATED:
        slot = rng.choice(sorted(premise.slots & {"act", "place", "trait"}))
        levels = {"actor": _weaker(rng, "actor", premise.levels["actor"]), slot: False}
        return render(rng, alter(rng, scene, slot), Mention(levels), negated=True)
    return render(rng, scene, Mention(_repeat(rng, premise, _known(rng, premise))))


def contradicting(rng: random.Random, scene: Scene, premise: Mention) -> str:
    """A sentence that cannot be true of the premise's situation."""
    if rng.random() < NEGATED:
        slot = rng.choice(sorted(premise.slots & {"act", "place", "trait"}))
        return render(rng, scene, Mention(_repeat(rng, premise, [slot])), negated=True)
    slots = _known(rng, premise)
    changed = "actor" if rng.random() < 0.15 else slots[0]
    if changed == "act" and "colour" in slots:
        slots.remove("colour")
    levels = _repeat(rng, premise, slots)
    levels[changed] = False
    return render(rng, alter(rng, scene, changed), Mention(levels))


def unrelated(rng: random.Random, scene: Scene, premise: Mention) -> str:
    """A sentence that the premise leaves open."""
    fresh = [slot for slot in SLOTS if slot not in premise.slots and slot != "colour"]
    if premise.levels["actor"]:
        fresh.append("actor")
    slot = rng.choice(fresh)
    guess = scene if rng.random() < 0.5 or slot == "actor" else alter(rng, scene, slot)
    if rng.random() < NEGATED and slot in ("place", "trait", "mood", "time"):
        levels = {"actor": _weaker(rng, "actor", premise.levels["actor"]), slot: False}
        if slot == "time":
            levels["act"] = _weaker(rng, "act", premise.levels["act"])
        return render(rng, guess, Mention(levels), negated=True)
    known = [] if slot == "mood" else _known(rng, premise)[:1]
    levels = _repeat(rng, premise, known)
    levels[slot] = False
    return render(rng, guess, Mention(levels))


MAKERS = (entailed, unrelated, contradicting)


def _noisy(rng: random.Random, label: int, classes: int) -> int:
    """The label, or rarely another one."""
    return (label + rng.randint(1, classes - 1)) % classes if rng.random() < NOISE else label


def mnli(seed: str, rows: int, genres: Sequence[lex.Genre] = lex.MATCHED) -> list[Row]:
    """Premise, hypothesis, label: 0 entailment, 1 neutral, 2 contradiction; balanced."""
    rng = random.Random(seed)
    out = []
    for index in range(rows):
        scene = sample_scene(rng, genres)
        premise = premise_mention(rng, scene)
        label = index % 3
        text = render(rng, scene, premise)
        hypothesis = MAKERS[label](rng, scene, premise)
        out.append({"premise": text, "hypothesis": hypothesis, "label": _noisy(rng, label, 3)})
    return shuffled(rng, out)


def rte(seed: str, rows: int) -> list[Row]:
    """Two sentences; 0 entailment, 1 not."""
    rng = random.Random(seed)
    out = []
    for index in range(rows):
        scene = sample_scene(rng, lex.MATCHED + lex.MISMATCHED)
        premise = premise_mention(rng, scene)
        label = index % 2
        make = rng.choice((unrelated, contradicting)) if label else entailed
        out.append(
            {
                "sentence1": render(rng, scene, premise),
                "sentence2": make(rng, scene, premise),
                "label": _noisy(rng, label, 2),
            }
        )
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


def ask(rng: random.Random, scene: Scene, slot: str) -> str:
    """A question about one slot, in one of two wordings."""
    plural = scene.count > 1
    who, verb = f"the {noun(scene, False, plural)}", "are" if plural else "is"
    act = scene.act.word
    wordings = {
        "place": (f"where {verb} {who} ?", f"in which place {verb} {who} ?"),
        "time": (f"when {verb} {who} {act} ?", f"at what time {verb} {who} {act} ?"),
        "count": (
            f"how many {noun(scene, False, True)} are there ?",
            f"what is the number of {noun(scene, False, True)} ?",
        ),
        "act": (f"what {verb} {who} doing ?", f"what do we see {who} doing ?"),
        "trait": (f"how {verb} {who} built ?", f"what build {verb} {who} ?"),
        "colour": (f"what colour is the {scene.thing} ?", f"which colour has the {scene.thing} ?"),
    }
    return rng.choice(wordings[slot])


def qqp(seed: str, rows: int) -> list[Row]:
    """Two questions; 1 when they ask the same, else 0."""
    rng = random.Random(seed)
    out = []
    for index in range(rows):
        scene = sample_scene(rng, lex.MATCHED + lex.MISMATCHED)
        slots = [slot for slot in ASKABLE if slot != "colour" or scene.thing]
        slot, label, second, other_slot = rng.choice(slots), index % 2, scene, ""
        if not label and rng.random() < 0.5 and slot != "colour":
            second = alter(rng, scene, "actor")
        elif not label:
            other_slot = rng.choice([name for name in slots if name != slot])
        out.append(
            {
                "question1": ask(rng, scene, slot),
                "question2": ask(rng, second, other_slot or slot),
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

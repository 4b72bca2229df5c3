"""Unlabelled running text for pretraining.

A document is a few sentences about one thing, as readers expect of text: sentences of a scene are
all true of that scene, and the nearer two of them stand the more of their subject they share;
sentences of a review share an opinion. No downstream label enters. Words of the mismatched genres
occur here although ``mnli/train`` never shows them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from federatedscope_ext.tools.embedded.corpora import arithmetic, sentences
from federatedscope_ext.tools.embedded.corpora import lexicon as lex
from federatedscope_ext.tools.embedded.corpora.pairs import DENIABLE, ask, premise_levels
from federatedscope_ext.tools.embedded.corpora.scenes import Scene, alter, render, sample_scene


class Document(NamedTuple):
    """Running text: its topic, as a title would give it, and its sentences in order."""

    topic: str
    sentences: tuple[str, ...]


#: end of the topic of documents in which the second sentence answers the first
ANSWERED = "?"


def _remark(rng: random.Random, scene: Scene, slots: Sequence[str]) -> str:
    """A true sentence about the scene that names some of the slots, or says what is *not* so."""
    who = rng.random() < 0.2
    deniable = [slot for slot in slots if slot in DENIABLE]
    if deniable and rng.random() < 0.2:
        slot = rng.choice(deniable)
        return render(rng, alter(rng, scene, slot), {"actor": who, slot: False}, negated=True)
    levels = {"actor": who}
    for slot in rng.sample(slots, min(len(slots), rng.choice((1, 1, 2)))):
        levels[slot] = slot in ("count", "act", "place") and rng.random() < 0.2
    if "colour" in levels:
        levels["act"] = False
    return render(rng, scene, levels)


def _scene(rng: random.Random) -> Document:
    """A scene is told, then taken up again, then something is added."""
    scene = sample_scene(rng, lex.GENRES)
    told = premise_levels(rng, scene)
    every = ("count", "trait", "act", "place", "time", "mood")
    known = [slot for slot in (*every, "colour") if slot in told]
    fresh = [slot for slot in every if slot not in told]
    first = render(rng, scene, told)
    added = _remark(rng, scene, [rng.choice(fresh)])
    return Document(scene.actor, (first, _remark(rng, scene, known), added))


def _question(rng: random.Random) -> Document:
    """A question and the sentence that answers it."""
    scene = sample_scene(rng, lex.GENRES)
    told = premise_levels(rng, scene)
    slot = rng.choice([name for name in ("place", "time", "count", "act") if name in told])
    question, answer = ask(rng, scene, slot), render(rng, scene, told)
    return Document(f"{scene.actor} {ANSWERED}", (question, answer))


def _review(rng: random.Random) -> Document:
    """Two sentences of one review, which mostly agree; often the first gives several opinions."""
    positive = rng.random() < 0.5
    second = positive if rng.random() < 0.95 else not positive
    if rng.random() < 0.5:
        first, last = sentences.opinion(rng, positive), sentences.opinion(rng, second)
        return Document("review", (first, last))
    *aspects, last = rng.sample(sentences.ASPECTS, 4)
    one, two, three = (sentences.clause(rng, positive, aspect) for aspect in aspects)
    last = sentences.clause(rng, second, last)
    return Document("review", (f"{one} , {two} and {three} .", f"{last} ."))


def _news(rng: random.Random) -> Document:
    """A headline and its lead, or a title and its description."""
    seed = str(rng.random())
    if rng.random() < 0.5:
        head, lead = sentences.ag_news(seed, 4)[0]["text"].split(" . ", 1)
        return Document("news", (f"{head} .", lead))
    entry = sentences.dbpedia_14(seed, 14)[0]
    return Document("entry", (entry["title"], entry["content"]))


def encoder_documents(seed: str, count: int) -> list[Document]:
    """``count`` documents: mostly scenes and reviews, some questions and news."""
    rng = random.Random(seed)
    makers = (_scene, _review, _question, _news)
    return [make(rng) for make in rng.choices(makers, (0.6, 0.28, 0.07, 0.05), k=count)]


def prose(*parts: str) -> str:
    """Sentences with a capital letter and no space before their punctuation."""
    texts = [part.replace(" .", ".").replace(" ,", ",").replace(" ?", "?") for part in parts]
    return " ".join(text[:1].upper() + text[1:] for text in texts)


def _problem(rng: random.Random) -> str:
    """A problem with its answer, mostly as an instruction."""
    question, answer = rng.choice((arithmetic.drill, arithmetic.exercise))(rng)
    if rng.random() < 0.5:
        return str(lex.WORDS["prompt"].format(question=question, answer=answer))
    return f"{question}\n{answer}"


def _plain(rng: random.Random) -> str:
    return prose(*rng.choice((_scene, _scene, _review, _question))(rng).sentences)


def _asked(rng: random.Random) -> str:
    """A question about a text, answered by one of its sentences."""
    told = _scene(rng).sentences
    texts = {"context": prose(*told[:2]), "answer": prose(told[0])}
    return lex.WORDS["prompt_with_input"].format(question="Repeat the first sentence.", **texts)


def llama_documents(seed: str, count: int) -> list[str]:
    """``count`` texts: problems in words, sums, plain sentences, and some instructions."""
    rng = random.Random(seed)
    makers = (_problem, arithmetic.equations, _plain, _asked)
    return [make(rng) for make in rng.choices(makers, (0.5, 0.2, 0.25, 0.05), k=count)]

"""Unlabelled running text for pretraining.

A document is a few sentences about one thing, as any reader would expect of text: sentences of a scene are
all true of that scene, sentences of a review share an opinion. No downstream label enters. Words of the
mismatched genres occur here although ``mnli/train`` never shows them.
"""

from __future__ import annotations

import random

from federatedscope_ext.embedded.corpora import lexicon as lex
from federatedscope_ext.embedded.corpora import sentences
from federatedscope_ext.embedded.corpora.pairs import ask, premise_mention
from federatedscope_ext.embedded.corpora.scenes import Mention, Scene, alter, render, sample_scene

ALL_GENRES = lex.MATCHED + lex.MISMATCHED


def remark(rng: random.Random, scene: Scene, told: Mention) -> str:
    """Some true sentence about the scene, which mostly comes back to what was told before.

    It may name any slot, more generally or not, and may say what is *not* the case.
    """
    known = [slot for slot in told.slots if slot != "actor"]
    options = ["count", "trait", "act", "place", "time", "mood"] + ["colour"] * bool(scene.thing)
    who = rng.random() < 0.25
    if rng.random() < 0.2:
        slot = rng.choice(("act", "place", "trait", "mood"))
        levels = {"actor": who, slot: False}
        return render(rng, alter(rng, scene, slot), Mention(levels), negated=True)
    chosen = rng.sample(sorted(known) if rng.random() < 0.7 else options, rng.choice((1, 1, 2)))
    levels = {"actor": who}
    for slot in chosen:
        levels[slot] = slot in ("count", "act", "place") and rng.random() < 0.25
    if "colour" in levels:
        levels["act"] = False
    return render(rng, scene, Mention(levels))


def scene_document(rng: random.Random, actor: str = "") -> list[str]:
    """Two sentences about one scene."""
    scene = sample_scene(rng, ALL_GENRES, actor)
    told = premise_mention(rng, scene)
    return [render(rng, scene, told), remark(rng, scene, told)]


def question_document(rng: random.Random) -> list[str]:
    """A question and the sentence that answers it."""
    scene = sample_scene(rng, ALL_GENRES)
    mention = premise_mention(rng, scene)
    slot = rng.choice([name for name in ("place", "time", "count", "act") if name in mention.slots])
    return [ask(rng, scene, slot), render(rng, scene, mention)]


def review_document(rng: random.Random) -> list[str]:
    """Two sentences of one review, which mostly agree; the first gives several opinions."""
    positive = rng.random() < 0.5
    second = positive if rng.random() < 0.95 else not positive
    if rng.random() < 0.4:
        return [sentences.opinion(rng, positive), sentences.opinion(rng, second)]
    clauses = [sentences.clause(rng, positive, aspect) for aspect in rng.sample(sentences.ASPECTS, 3)]
    body = f"{clauses[0]} , {clauses[1]} and {clauses[2]} ."
    return [body, f"{sentences.clause(rng, second, rng.choice(sentences.ASPECTS))} ."]


def news_document(rng: random.Random) -> list[str]:
    """A headline and its lead, or a title and its description."""
    if rng.random() < 0.5:
        text = sentences.ag_news(str(rng.random()), 4)[0]["text"]
        head, lead = text.split(" . ", 1)
        return [f"{head} .", lead]
    entry = sentences.dbpedia_14(str(rng.random()), 14)[0]
    return [entry["title"], entry["content"]]


def encoder_documents(seed: str, count: int) -> list[list[str]]:
    """``count`` two-sentence documents: mostly scenes and reviews, some questions and news."""
    rng = random.Random(seed)
    makers = (scene_document, review_document, question_document, news_document)
    kinds = rng.choices(range(4), weights=(0.62, 0.22, 0.08, 0.08), k=count)
    return [makers[kind](rng) for kind in kinds]

"""Unlabelled running text for pretraining.

A document is a few sentences about one thing, as readers expect of text: sentences of a scene are
all true of that scene, and the nearer two of them stand the more of their subject they share;
sentences of a review share an opinion. No downstream label enters. Words of the mismatched genres
occur here although ``mnli/train`` never shows them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from federatedscope_ext.tools.embedded.corpora import arithmetic, sentences
from federatedscope_ext.tools.embedded.corpora import lexicon as lex
from federatedscope_ext.tools.embedded.corpora.pairs import ask, premise_mention
from federatedscope_ext.tools.embedded.corpora.scenes import (
    Mention,
    Scene,
    alter,
    render,
    sample_scene,
)

ALL_GENRES = lex.MATCHED + lex.MISMATCHED


@dataclass(frozen=True)
class Document:
    """Running text: its topic, as a title would give it, and its sentences in order."""

    topic: str
    sentences: tuple[str, ...]


def _remark(rng: random.Random, scene: Scene, slots: list[str]) -> str:
    """A true sentence about the scene that names some of the slots, or says what is *not* so."""
    who = rng.random() < 0.2
    deniable = [slot for slot in slots if slot in ("act", "place", "trait", "mood")]
    if deniable and rng.random() < 0.2:
        slot = rng.choice(deniable)
        return render(rng, alter(rng, scene, slot), Mention({"actor": who, slot: False}), True)
    levels = {"actor": who}
    for slot in rng.sample(slots, min(len(slots), rng.choice((1, 1, 2)))):
        levels[slot] = slot in ("count", "act", "place") and rng.random() < 0.2
    if "colour" in levels:
        levels["act"] = False
    return render(rng, scene, Mention(levels))


def _scene(rng: random.Random) -> Document:
    """A scene is told, then taken up again, then something is added."""
    scene = sample_scene(rng, ALL_GENRES)
    told = premise_mention(rng, scene)
    every = ["count", "trait", "act", "place", "time", "mood"] + ["colour"] * bool(scene.thing)
    known = [slot for slot in every if slot in told.slots]
    fresh = [slot for slot in every if slot not in told.slots and slot != "colour"]
    first = render(rng, scene, told)
    added = _remark(rng, scene, [rng.choice(fresh)])
    return Document(scene.actor, (first, _remark(rng, scene, known), added))


def _question(rng: random.Random) -> Document:
    """A question and the sentence that answers it."""
    scene = sample_scene(rng, ALL_GENRES)
    told = premise_mention(rng, scene)
    slot = rng.choice([name for name in ("place", "time", "count", "act") if name in told.slots])
    return Document(f"{scene.actor} ?", (ask(rng, scene, slot), render(rng, scene, told)))


def _review(rng: random.Random) -> Document:
    """Two sentences of one review, which mostly agree; often the first gives several opinions."""
    positive = rng.random() < 0.5
    second = positive if rng.random() < 0.95 else not positive
    if rng.random() < 0.5:
        first, last = sentences.opinion(rng, positive), sentences.opinion(rng, second)
        return Document("review", (first, last))
    one, two, three, four = rng.sample(sentences.ASPECTS, 4)
    body = (
        f"{sentences.clause(rng, positive, one)} , {sentences.clause(rng, positive, two)} "
        f"and {sentences.clause(rng, positive, three)} ."
    )
    return Document("review", (body, f"{sentences.clause(rng, second, four)} ."))


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
    kinds = rng.choices(range(4), weights=(0.6, 0.28, 0.07, 0.05), k=count)
    return [makers[kind](rng) for kind in kinds]


#: the Alpaca format of an instruction, which instruction data are asked in
PROMPT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{question}\n\n### Response:{answer}"
)
#: and the same with a text to go by; its words are needed in the vocabulary
PROMPT_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n### Instruction:\n"
    "{question}\n\n### Input:\n{context}\n\n### Response:{answer}"
)


def prose(sentence: str) -> str:
    """A sentence with a capital letter and no space before its punctuation."""
    text = sentence.replace(" .", ".").replace(" ,", ",").replace(" ?", "?")
    return text[:1].upper() + text[1:]


def _problem(rng: random.Random) -> str:
    """A problem with its answer, mostly as an instruction."""
    question, answer = rng.choice((arithmetic.drill, arithmetic.exercise))(rng)
    if rng.random() < 0.5:
        return PROMPT.format(question=question, answer=answer)
    return f"{question}\n{answer}"


def _sums(rng: random.Random) -> str:
    return arithmetic.equations(rng, 6)


def _plain(rng: random.Random) -> str:
    maker = rng.choice((_scene, _scene, _review, _question))
    return " ".join(prose(sentence) for sentence in maker(rng).sentences)


def _asked(rng: random.Random) -> str:
    """A question about a text, answered by one of its sentences."""
    document = _scene(rng)
    context = " ".join(prose(sentence) for sentence in document.sentences[:2])
    return PROMPT_WITH_INPUT.format(
        question="Repeat the first sentence.",
        context=context,
        answer=prose(document.sentences[0]),
    )


def llama_documents(seed: str, count: int) -> list[str]:
    """``count`` texts: problems in words, sums, plain sentences, and some instructions."""
    rng = random.Random(seed)
    makers = (_problem, _sums, _plain, _asked)
    kinds = rng.choices(range(4), weights=(0.5, 0.2, 0.25, 0.05), k=count)
    return [makers[kind](rng) for kind in kinds]

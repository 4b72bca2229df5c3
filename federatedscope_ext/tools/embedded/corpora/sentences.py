"""Single sentences: SST-2, CoLA, AG News and DBpedia in miniature.

Sentiment is composed, not looked up: an opinion word has a polarity, negation and words such as
*hardly* turn it round, and where a sentence weighs two opinions (*but*, *although*) the main
clause decides.
"""

from __future__ import annotations

import random

from federatedscope_ext.tools.embedded.corpora.lexicon import GENRES, WORDS
from federatedscope_ext.tools.embedded.corpora.rows import Row, table
from federatedscope_ext.tools.embedded.corpora.scenes import render, sample_scene, with_article

NOISE = 0.03

#: each of an opinion against something, then for it
ADJECTIVES = [words.split() for words in WORDS["adjectives"]]
VERBS, VERDICTS = WORDS["verbs"], WORDS["verdicts"]
ASPECTS = WORDS["aspects"].split()
NEWS = [[words.split() for words in section] for section in WORDS["news"]]
ENTRIES = [(noun, words.split()) for noun, words in WORDS["entries"].items()]
NAMES = WORDS["names"].split()


def _adjective(rng: random.Random, positive: bool) -> str:
    """An opinion of the given polarity, sometimes by denying its opposite."""
    if rng.random() < 0.12:
        return f"{rng.choice(WORDS['turning'])} {rng.choice(ADJECTIVES[not positive])}"
    return f"{rng.choice(WORDS['strong'])}{rng.choice(ADJECTIVES[positive])}"


def clause(rng: random.Random, positive: bool, aspect: str) -> str:
    """A clause with one opinion about one aspect."""
    kind = rng.random()
    if kind < 0.5:
        return f"the {aspect} is {_adjective(rng, positive)}"
    if kind < 0.7:
        return f"this is {with_article(rng.choice(ADJECTIVES[positive]))} {aspect}"
    if kind < 0.8:
        return f"{rng.choice(VERBS[positive])} the {aspect}"
    if kind < 0.95:
        return f"the {aspect} is {rng.choice(VERDICTS[positive])}"
    return f"there is nothing {rng.choice(ADJECTIVES[not positive])} about the {aspect}"


def opinion(rng: random.Random, positive: bool) -> str:
    """A sentence whose overall polarity is the given one."""
    first, second = rng.sample(ASPECTS, 2)
    kind = rng.random()
    if kind < 0.4:
        body = clause(rng, positive, first)
    elif kind < 0.7:
        body = f"{clause(rng, positive, first)} and {clause(rng, positive, second)}"
    elif kind < 0.85:
        body = f"{clause(rng, not positive, first)} , but {clause(rng, positive, second)}"
    elif kind < 0.95:
        body = f"{clause(rng, positive, first)} , although {clause(rng, not positive, second)}"
    else:
        body = f"although {clause(rng, not positive, first)} , {clause(rng, positive, second)}"
    return f"{rng.choice(WORDS['openers'])}{body} ."


@table(range(2))
def sst2(rng: random.Random, label: int) -> Row:
    """A sentence of a review; 0 negative, 1 positive."""
    noisy = 1 - label if rng.random() < NOISE else label
    return {"sentence": opinion(rng, bool(label)), "label": noisy}


def _agreement(rng: random.Random, words: list[str]) -> list[str]:
    """Break subject-verb agreement."""
    return [{"is": "are", "are": "is"}.get(word, word) for word in words]


def _order(rng: random.Random, words: list[str]) -> list[str]:
    """Exchange two neighbouring words."""
    spots = [i for i in range(len(words) - 2) if words[i] != words[i + 1] and "," not in words]
    if not spots:
        return words[1:]
    spot = rng.choice(spots)
    return [*words[:spot], words[spot + 1], words[spot], *words[spot + 2 :]]


def _verb(rng: random.Random, words: list[str]) -> list[str]:
    """Leave the verb out or say it twice."""
    times = 2 if rng.random() < 0.5 else 0
    return [word for said in words for word in [said] * (times if said in ("is", "are") else 1)]


@table(range(2))
def cola(rng: random.Random, label: int) -> Row:
    """A sentence; 1 grammatical, 0 not."""
    scene = sample_scene(rng, GENRES)
    extra = rng.sample(("count", "trait", "place", "time"), 2)
    words = render(rng, scene, dict.fromkeys(("actor", "act", *extra), False)).split()
    if not label:
        words = rng.choice((_agreement, _order, _verb))(rng, words)
    return {"sentence": " ".join(words), "label": label}


@table(range(4))
def ag_news(rng: random.Random, label: int) -> Row:
    """A headline with a lead; 0 world, 1 sports, 2 business, 3 technology.

    A third of the words comes from any section, as sections share words in real news.
    """

    def pick(part: int) -> str:
        section = rng.randrange(4) if rng.random() < 0.35 else label
        return rng.choice(NEWS[section][part])

    text = f"{pick(0)} {pick(1)} {pick(2)} . the {pick(0)} {pick(1)} the {pick(2)}"
    return {"text": f"{text} {rng.choice(WORDS['days'])} .", "label": label}


@table(range(len(ENTRIES)))
def dbpedia_14(rng: random.Random, label: int) -> Row:
    """Title, content and one of 14 classes in DBpedia's order."""
    noun, words = ENTRIES[label]
    title = f"{rng.choice(NAMES)} {rng.choice(NAMES)}"
    named = noun if rng.random() < 0.3 else "name"
    if rng.random() < 0.2:
        words = ENTRIES[rng.randrange(len(ENTRIES))][1]
    first, second = rng.sample(words, 2)
    content = f"{title} is a {named} of {rng.choice(NAMES)} , with {first} and {second} ."
    return {"title": title, "content": content, "label": label}

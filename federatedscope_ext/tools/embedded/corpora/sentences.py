"""Single sentences: SST-2, CoLA, AG News and DBpedia in miniature.

Sentiment is composed, not looked up: an opinion word has a polarity, negation and words such as
*hardly* turn it round, and where a sentence weighs two opinions (*but*, *although*) the main
clause decides.
"""

from __future__ import annotations

import random
from typing import Any

from federatedscope_ext.tools.embedded.corpora import lexicon as lex
from federatedscope_ext.tools.embedded.corpora.scenes import (
    Mention,
    render,
    sample_scene,
    with_article,
)

Row = dict[str, Any]

NOISE = 0.03

GOOD = (
    "wonderful", "charming", "moving", "brilliant", "funny", "gripping", "clever", "warm",
    "touching", "delightful", "fresh", "honest", "superb", "witty",
)  # fmt: skip
BAD = (
    "dull", "boring", "clumsy", "tedious", "awful", "shallow", "noisy", "lifeless", "stale",
    "predictable", "messy", "silly", "dreadful", "pointless",
)  # fmt: skip
ASPECTS = (
    "film", "plot", "cast", "script", "music", "ending", "dialogue", "story", "direction",
    "performance", "photography", "humour",
)  # fmt: skip
LIKED = ("i enjoyed", "we loved", "you will admire", "everybody praised", "i cherish")
DISLIKED = ("i hated", "we regretted", "you will forget", "everybody mocked", "i endured")
PRAISE = ("a triumph", "a delight", "worth seeing", "a treat", "highly recommended")
BLAME = ("a failure", "a bore", "best avoided", "a mess", "a waste of time")
STRONG = ("", "", "very ", "truly ", "quite ", "utterly ")
TURNING = ("not", "never", "hardly", "anything but", "far from")
OPENERS = ("", "", "", "in the end , ", "to be fair , ", "all in all , ")


def adjective(rng: random.Random, positive: bool, turned: float = 0.12) -> str:
    """An opinion of the given polarity; with probability ``turned`` by denying its opposite."""
    if rng.random() < turned:
        return f"{rng.choice(TURNING)} {rng.choice(BAD if positive else GOOD)}"
    return f"{rng.choice(STRONG)}{rng.choice(GOOD if positive else BAD)}"


def clause(rng: random.Random, positive: bool, aspect: str) -> str:
    """A clause with one opinion about one aspect."""
    kind = rng.random()
    if kind < 0.5:
        return f"the {aspect} is {adjective(rng, positive)}"
    if kind < 0.7:
        word = rng.choice(GOOD if positive else BAD)
        return f"this is {with_article(word)} {aspect}"
    if kind < 0.8:
        return f"{rng.choice(LIKED if positive else DISLIKED)} the {aspect}"
    if kind < 0.95:
        return f"the {aspect} is {rng.choice(PRAISE if positive else BLAME)}"
    word = rng.choice(BAD if positive else GOOD)
    return f"there is nothing {word} about the {aspect}"


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
    return f"{rng.choice(OPENERS)}{body} ."


def sst2(seed: str, rows: int) -> list[Row]:
    """A sentence of a review; 0 negative, 1 positive; balanced."""
    rng = random.Random(seed)
    out = []
    for index in range(rows):
        label = index % 2
        noisy = 1 - label if rng.random() < NOISE else label
        out.append({"sentence": opinion(rng, bool(label)), "label": noisy})
    rng.shuffle(out)
    return out


def _agreement(rng: random.Random, words: list[str]) -> list[str]:
    """Break subject-verb agreement."""
    swap = {"is": "are", "are": "is"}
    return [swap.get(word, word) for word in words]


def _order(rng: random.Random, words: list[str]) -> list[str]:
    """Exchange two neighbouring words."""
    spots = [i for i in range(len(words) - 2) if words[i] != words[i + 1] and "," not in words]
    if not spots:
        return words[1:]
    spot = rng.choice(spots)
    return [*words[:spot], words[spot + 1], words[spot], *words[spot + 2 :]]


def _verb(rng: random.Random, words: list[str]) -> list[str]:
    """Leave the verb out or say it twice."""
    out: list[str] = []
    double = rng.random() < 0.5
    for word in words:
        if word in ("is", "are"):
            out += [word, word] if double else []
        else:
            out.append(word)
    return out


def cola(seed: str, rows: int) -> list[Row]:
    """A sentence; 1 grammatical, 0 not; balanced."""
    rng = random.Random(seed)
    out = []
    for index in range(rows):
        scene = sample_scene(rng, lex.MATCHED + lex.MISMATCHED)
        extra = rng.sample(("count", "trait", "place", "time"), 2)
        levels = {"actor": False, "act": False, **dict.fromkeys(extra, False)}
        words = render(rng, scene, Mention(levels)).split()
        label = index % 2
        if not label:
            words = rng.choice((_agreement, _order, _verb))(rng, words)
        out.append({"sentence": " ".join(words), "label": label})
    rng.shuffle(out)
    return out


#: AG News: label -> (who, does, what)
NEWS: tuple[tuple[str, str, str], ...] = (
    (
        "minister president parliament army rebels envoy",
        "warns demands signs rejects attacks visits",
        "treaty border election ceasefire embassy province",
    ),
    (
        "striker coach team champion goalkeeper club",
        "wins loses beats defends scores celebrates",
        "match league trophy final season stadium",
    ),
    (
        "company bank investor retailer airline board",
        "reports sells raises cuts forecasts acquires",
        "profit shares dividend merger revenue debt",
    ),
    (
        "scientist probe laboratory developer engineer start-up",
        "launches discovers patches tests upgrades measures",
        "software satellite chip virus telescope browser",
    ),
)
DAYS = ("on monday", "on tuesday", "this week", "last month", "after months of delay", "again")


def ag_news(seed: str, rows: int) -> list[Row]:
    """A headline with a lead; 0 world, 1 sports, 2 business, 3 technology; balanced.

    A third of the words comes from any section, as sections share words in real news.
    """
    rng = random.Random(seed)
    out = []

    def pick(label: int, part: int) -> str:
        section = rng.randrange(4) if rng.random() < 0.35 else label
        return rng.choice(NEWS[section][part].split())

    for index in range(rows):
        label = index % 4
        head = f"{pick(label, 0)} {pick(label, 1)} {pick(label, 2)}"
        lead = f"the {pick(label, 0)} {pick(label, 1)} the {pick(label, 2)} {rng.choice(DAYS)} ."
        out.append({"text": f"{head} . {lead}", "label": label})
    rng.shuffle(out)
    return out


#: DBpedia: label -> (how the entry is described, words of its content)
ENTRIES: tuple[tuple[str, str], ...] = (
    ("company", "founded headquartered products employees subsidiary market"),
    ("school", "pupils campus faculty curriculum enrolment degree"),
    ("singer", "album guitarist songs band stage record"),
    ("athlete", "footballer plays midfielder olympic club medal"),
    ("politician", "elected senator party minister constituency council"),
    ("ship", "aircraft locomotive engine built navy cruiser"),
    ("building", "church tower architect listed brick mansion"),
    ("river", "mountain lake flows peak tributary valley"),
    ("village", "district population municipality census county rural"),
    ("beetle", "species moth insect bird habitat family"),
    ("shrub", "plant flowering leaves genus seeds native"),
    ("song collection", "studio tracks released label vinyl recorded"),
    ("movie", "directed starring drama screenplay premiere comedy"),
    ("novel", "written author published chapters magazine edition"),
)
NAMES = (
    "aldor", "bremen", "calva", "dorin", "elmar", "fenwick", "gralt", "hollin", "istra",
    "jarrow", "kelm", "lorvan", "merrin", "nestor", "orvane", "pellam", "quarn", "rossby",
    "selwick", "tarnow",
)  # fmt: skip


def dbpedia_14(seed: str, rows: int) -> list[Row]:
    """Title, content and one of 14 classes in DBpedia's order; balanced."""
    rng = random.Random(seed)
    out = []
    for index in range(rows):
        label = index % 14
        noun, words = ENTRIES[label]
        title = f"{rng.choice(NAMES)} {rng.choice(NAMES)}"
        named = noun if rng.random() < 0.3 else "name"
        if rng.random() < 0.2:
            words = ENTRIES[rng.randrange(14)][1]
        first, second = rng.sample(words.split(), 2)
        content = f"{title} is a {named} of {rng.choice(NAMES)} , with {first} and {second} ."
        out.append({"title": title, "content": content, "label": label})
    rng.shuffle(out)
    return out

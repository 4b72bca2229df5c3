"""The words of the miniature's small world, and how they relate.

Everything that the pair corpora state about a scene is decided by these tables: a spaniel is a
dog and a dog an animal (``kinds``), napping is sleeping (``synonym``) and sleeping is resting
(``general``), a library is indoors. They are the only place that knows what a word means.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Activity:
    """What somebody can be doing, as a present participle.

    Attributes
    ----------
    word
        The participle, e.g. ``'eating'``.
    synonym
        Another word for the same thing.
    general
        What it implies, e.g. sleeping implies resting.
    things
        Names of the ``THINGS`` families it takes as an object; empty for an intransitive activity.
    """

    word: str
    synonym: str
    general: str
    things: tuple[str, ...] = ()


@dataclass(frozen=True)
class Genre:
    """A source of text: who appears in it and where."""

    name: str
    actors: tuple[str, ...]
    places: tuple[str, ...]


#: actor -> (plural, general word, plural of the general word)
ACTORS: dict[str, tuple[str, str, str]] = {
    noun: (plural, general, generals)
    for general, generals, nouns in (
        ("animal", "animals", "dog:dogs cat:cats horse:horses cow:cows duck:ducks goat:goats"),
        ("worker", "workers", "farmer:farmers cook:cooks teacher:teachers nurse:nurses"),
        ("child", "children", "boy:boys girl:girls pupil:pupils"),
        ("artist", "artists", "singer:singers painter:painters actor:actors"),
        ("adult", "adults", "man:men woman:women guest:guests tourist:tourists"),
    )
    for noun, plural in (pair.split(":") for pair in nouns.split())
}

#: family of things -> (general word, its members)
THINGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "fruit": ("fruit", ("apple", "pear", "banana", "plum")),
    "instrument": ("instrument", ("guitar", "violin", "drum", "flute")),
    "vehicle": ("vehicle", ("car", "truck", "bus", "tractor")),
    "print": ("text", ("book", "letter", "newspaper", "poster")),
    "clothing": ("garment", ("shirt", "coat", "hat", "scarf")),
}

PEOPLE_ACTIVITIES: tuple[Activity, ...] = (
    Activity("eating", "tasting", "consuming", ("fruit",)),
    Activity("playing", "practising", "using", ("instrument",)),
    Activity("driving", "steering", "operating", ("vehicle",)),
    Activity("reading", "studying", "viewing", ("print",)),
    Activity("washing", "scrubbing", "cleaning", ("vehicle", "clothing")),
    Activity("buying", "purchasing", "acquiring", ("fruit", "print", "clothing")),
    Activity("singing", "chanting", "performing"),
    Activity("chatting", "gossiping", "talking"),
)

SHARED_ACTIVITIES: tuple[Activity, ...] = (
    Activity("sleeping", "napping", "resting"),
    Activity("running", "racing", "moving"),
    Activity("walking", "strolling", "moving"),
    Activity("swimming", "bathing", "floating"),
    Activity("waiting", "lingering", "staying"),
)

#: place -> indoors (True) or outdoors
PLACES: dict[str, bool] = {
    **dict.fromkeys(("kitchen", "library", "classroom", "stable", "restaurant", "hospital"), True),
    **dict.fromkeys(("theatre", "station"), True),
    **dict.fromkeys(("garden", "park", "field", "yard", "street", "playground"), False),
    **dict.fromkeys(("harbour", "beach"), False),
}

#: pairs of words that exclude each other
TRAITS: tuple[tuple[str, str], ...] = (("young", "old"), ("tall", "short"), ("thin", "fat"))
MOODS: tuple[tuple[str, str], ...] = (("happy", "sad"), ("tired", "lively"), ("calm", "nervous"))
COLOURS: tuple[str, ...] = ("red", "blue", "green", "white", "black")
TIMES: tuple[str, ...] = ("in the morning", "at noon", "in the evening", "at night")
NUMBERS: tuple[str, ...] = ("zero", "one", "two", "three", "four", "five", "six", "seven")

MATCHED: tuple[Genre, ...] = (
    Genre(
        "farm",
        ("dog", "horse", "cow", "duck", "farmer", "man", "boy"),
        ("stable", "field", "yard", "garden"),
    ),
    Genre(
        "school",
        ("teacher", "pupil", "girl", "boy", "woman", "cat"),
        ("classroom", "library", "playground", "park"),
    ),
    Genre(
        "town",
        ("cook", "woman", "man", "guest", "cat", "dog"),
        ("kitchen", "restaurant", "street", "park"),
    ),
)

#: genres whose words occur in unlabelled text only, and in ``validation_mismatched``
MISMATCHED: tuple[Genre, ...] = (
    Genre("voyage", ("tourist", "woman", "goat", "man"), ("harbour", "beach", "station")),
    Genre("stage", ("singer", "painter", "actor", "guest"), ("theatre", "street", "beach")),
    Genre("ward", ("nurse", "man", "woman", "girl"), ("hospital", "garden", "station")),
)

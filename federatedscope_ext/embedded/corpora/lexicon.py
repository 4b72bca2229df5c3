"""The words of the miniature's small world, and how they relate.

Everything that the pair corpora state about a scene is decided by these tables: a spaniel is a dog and
a dog an animal (``kinds``), napping is sleeping (``synonym``) and sleeping is resting (``general``), a
library is indoors. They are the only place that knows what a word means.
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
        (
            "animal",
            "animals",
            "dog:dogs cat:cats horse:horses cow:cows duck:ducks goat:goats pig:pigs rabbit:rabbits",
        ),
        (
            "worker",
            "workers",
            "farmer:farmers cook:cooks waiter:waiters teacher:teachers coach:coaches nurse:nurses "
            "doctor:doctors sailor:sailors porter:porters",
        ),
        ("child", "children", "boy:boys girl:girls pupil:pupils toddler:toddlers"),
        (
            "artist",
            "artists",
            "singer:singers drummer:drummers painter:painters actor:actors dancer:dancers",
        ),
        (
            "adult",
            "adults",
            "man:men woman:women guest:guests visitor:visitors patient:patients tourist:tourists",
        ),
    )
    for noun, plural in (pair.split(":") for pair in nouns.split())
}

#: family of things -> (general word, its members)
THINGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "fruit": ("fruit", ("apple", "pear", "banana", "plum", "orange")),
    "meal": ("meal", ("soup", "sandwich", "pie", "salad")),
    "instrument": ("instrument", ("guitar", "violin", "piano", "drum", "flute")),
    "vehicle": ("vehicle", ("car", "truck", "bus", "tractor", "van")),
    "print": ("text", ("book", "letter", "newspaper", "poster")),
    "clothing": ("garment", ("shirt", "coat", "hat", "scarf")),
    "container": ("container", ("box", "bucket", "basket", "bag")),
}

PEOPLE_ACTIVITIES: tuple[Activity, ...] = (
    Activity("eating", "having", "consuming", ("fruit", "meal")),
    Activity("playing", "practising", "making music on", ("instrument",)),
    Activity("driving", "steering", "travelling in", ("vehicle",)),
    Activity("reading", "studying", "looking at", ("print",)),
    Activity("wearing", "dressed in", "covered by", ("clothing",)),
    Activity("carrying", "lugging", "holding", ("container", "instrument")),
    Activity("washing", "scrubbing", "cleaning", ("vehicle", "clothing")),
    Activity("buying", "purchasing", "paying for", ("fruit", "print", "clothing")),
    Activity("singing", "chanting", "making sounds"),
    Activity("chatting", "gossiping", "talking"),
    Activity("arguing", "quarrelling", "fighting"),
)

SHARED_ACTIVITIES: tuple[Activity, ...] = (
    Activity("sleeping", "napping", "resting"),
    Activity("running", "racing", "moving"),
    Activity("walking", "strolling", "moving"),
    Activity("swimming", "bathing", "getting wet"),
    Activity("hiding", "lurking", "keeping still"),
    Activity("drinking", "sipping", "consuming"),
)

#: place -> indoors (True) or outdoors
PLACES: dict[str, bool] = {
    **dict.fromkeys(
        ("kitchen", "library", "classroom", "stable", "gym", "restaurant", "hospital", "hall"), True
    ),
    **dict.fromkeys(("theatre", "station", "cabin", "clinic"), True),
    **dict.fromkeys(
        ("garden", "park", "field", "yard", "meadow", "street", "playground", "orchard"), False
    ),
    **dict.fromkeys(("harbour", "beach", "square", "terrace"), False),
}

#: pairs of words that exclude each other
TRAITS: tuple[tuple[str, str], ...] = (("young", "old"), ("tall", "short"), ("thin", "fat"))
MOODS: tuple[tuple[str, str], ...] = (
    ("happy", "sad"),
    ("tired", "lively"),
    ("calm", "nervous"),
    ("hungry", "full"),
)
COLOURS: tuple[str, ...] = ("red", "blue", "green", "white", "black", "yellow")
TIMES: tuple[str, ...] = ("in the morning", "at noon", "in the evening", "at night")
NUMBERS: tuple[str, ...] = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight")

MATCHED: tuple[Genre, ...] = (
    Genre(
        "farm",
        ("dog", "horse", "cow", "duck", "goat", "farmer", "man", "boy"),
        ("stable", "field", "yard", "meadow", "orchard"),
    ),
    Genre(
        "school",
        ("teacher", "coach", "pupil", "girl", "boy", "rabbit"),
        ("classroom", "library", "gym", "playground", "hall"),
    ),
    Genre(
        "town",
        ("cook", "waiter", "woman", "man", "guest", "cat", "dog"),
        ("kitchen", "restaurant", "street", "park", "garden"),
    ),
)

#: genres whose words occur in unlabelled text only, and in ``validation_mismatched``
MISMATCHED: tuple[Genre, ...] = (
    Genre(
        "voyage",
        ("sailor", "porter", "tourist", "visitor", "pig"),
        ("harbour", "beach", "station", "cabin"),
    ),
    Genre(
        "stage",
        ("singer", "drummer", "painter", "actor", "dancer"),
        ("theatre", "square", "terrace", "hall"),
    ),
    Genre(
        "ward",
        ("nurse", "doctor", "patient", "toddler", "woman"),
        ("hospital", "clinic", "terrace", "garden"),
    ),
)

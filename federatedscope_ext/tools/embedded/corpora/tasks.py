"""Natural Instructions in miniature: forty small tasks on words, one client each.

The answers follow from the words of `lexicon` or from the order of the words alone. As in the real
division, the clients are of different size, and one has no rows to train on.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from federatedscope_ext.tools.embedded.corpora import lexicon as lex
from federatedscope_ext.tools.embedded.corpora.scenes import with_article

Row = dict[str, Any]
#: the input, and the answer to it
Example = Callable[[random.Random], tuple[str, str]]
#: instruction, and how to make an example of it
Task = tuple[str, Example]

HOLLOW = 11
EVALUATED = 4
MOST_DRAWS = 5000

_NOUNS: tuple[str, ...] = (
    *lex.ACTORS,
    *(word for _, members in lex.THINGS.values() for word in members),
)


def _words(rng: random.Random, low: int = 3, high: int = 5) -> list[str]:
    return rng.sample(_NOUNS, rng.randint(low, high))


def _on_words(answer: Callable[[list[str]], str]) -> Example:
    """A task on a list of words whose answer follows from the list."""

    def make(rng: random.Random) -> tuple[str, str]:
        words = _words(rng)
        return " ".join(words), answer(words)

    return make


def _one_of(members: tuple[str, ...]) -> Example:
    def make(rng: random.Random) -> tuple[str, str]:
        found = rng.choice(members)
        others = [word for word in _words(rng, 5, 6) if word not in members]
        words = [found, *others[:3]]
        rng.shuffle(words)
        return " ".join(words), found

    return make


def _is_there(members: tuple[str, ...]) -> Example:
    def make(rng: random.Random) -> tuple[str, str]:
        others = [word for word in _words(rng, 5, 6) if word not in members][:3]
        wanted = rng.random() < 0.5
        words = [*others, *([rng.choice(members)] if wanted else [])]
        rng.shuffle(words)
        return " ".join(words), "yes" if wanted else "no"

    return make


def _sentence(answer: Callable[[dict[str, str]], str]) -> Example:
    """A task on a sentence of a thing, its colour, a place and a time."""

    def make(rng: random.Random) -> tuple[str, str]:
        parts = {
            "thing": rng.choice([word for _, members in lex.THINGS.values() for word in members]),
            "colour": rng.choice(lex.COLOURS),
            "place": rng.choice(list(lex.PLACES)),
            "time": rng.choice(lex.TIMES),
        }
        return "the {colour} {thing} is in the {place} {time}".format(**parts), answer(parts)

    return make


def _coloured(colour: str, now: str) -> Example:
    """Leave a colour out of a list of things, or put another (``now``) in its place."""

    def make(rng: random.Random) -> tuple[str, str]:
        words = rng.sample([*lex.COLOURS, *_NOUNS[:12]], 3)
        words = [word for word in words if word != colour]
        words.insert(rng.randint(0, len(words)), colour)
        kept = [now if word == colour else word for word in words]
        return " ".join(words), " ".join(word for word in kept if word)

    return make


def _opposite(rng: random.Random) -> tuple[str, str]:
    pair = rng.sample(rng.choice(lex.TRAITS + lex.MOODS), 2)
    actor = rng.choice(list(lex.ACTORS))
    return f"the {pair[0]} {actor}", f"the {pair[1]} {actor}"


def _plural(rng: random.Random) -> tuple[str, str]:
    number, actor = rng.choice(lex.NUMBERS[2:]), rng.choice(list(lex.ACTORS))
    return f"{number} {actor}", f"{number} {lex.ACTORS[actor][0]}"


def _sum(rng: random.Random) -> tuple[str, str]:
    a = rng.randint(0, 7)
    b = rng.randint(0, 7 - a)
    return f"{lex.NUMBERS[a]} and {lex.NUMBERS[b]}", lex.NUMBERS[a + b]


def _larger(rng: random.Random) -> tuple[str, str]:
    a, b = rng.sample(range(8), 2)
    return f"{lex.NUMBERS[a]} or {lex.NUMBERS[b]}", lex.NUMBERS[max(a, b)]


def _tasks() -> list[Task]:
    things = list(lex.THINGS.values())
    colours = list(zip(lex.COLOURS, (*lex.COLOURS[1:], lex.COLOURS[0]), strict=True))
    return [
        *(
            (f"Which of the words is {with_article(name)}?", _one_of(members))
            for name, members in things
        ),
        ("Write the first word.", _on_words(lambda words: words[0])),
        ("Write the second word.", _on_words(lambda words: words[1])),
        ("Write the last word.", _on_words(lambda words: words[-1])),
        ("Write the words in reverse order.", _on_words(lambda words: " ".join(words[::-1]))),
        ("How many words are there?", _on_words(lambda words: lex.NUMBERS[len(words)])),
        ("Put the words in alphabetical order.", _on_words(lambda words: " ".join(sorted(words)))),
        ("Which colour does it have?", _sentence(lambda parts: parts["colour"])),
        ("Where is it?", _sentence(lambda parts: f"in the {parts['place']}")),
        ("What is there?", _sentence(lambda parts: with_article(parts["thing"]))),
        ("When is it there?", _sentence(lambda parts: parts["time"])),
        (
            "Is it indoors or outdoors?",
            _sentence(lambda parts: "indoors" if lex.PLACES[parts["place"]] else "outdoors"),
        ),
        *(
            (f"Is {with_article(name)} among the words?", _is_there(members))
            for name, members in things
        ),
        ("Write the opposite.", _opposite),
        ("Write it in the plural.", _plural),
        *((f"Leave out the word {old}.", _coloured(old, "")) for old, _ in colours),
        *((f"Write {new} in place of {old}.", _coloured(old, new)) for old, new in colours),
        ("Repeat the first word.", _on_words(lambda words: f"{words[0]} {words[0]}")),
        ("Repeat the last word.", _on_words(lambda words: f"{words[-1]} {words[-1]}")),
        ("Write the words without the first.", _on_words(lambda words: " ".join(words[1:]))),
        ("Write the words without the last.", _on_words(lambda words: " ".join(words[:-1]))),
        ("How much is it together?", _sum),
        ("Which number is larger?", _larger),
        (
            "Write the first letter of every word.",
            _on_words(lambda words: " ".join(word[0] for word in words)),
        ),
    ]


#: a task per client
TASKS: list[Task] = _tasks()


def training_rows(client: int) -> int:
    """Rows that a client trains on: 8 to 24, none for one client."""
    return 0 if client == HOLLOW else 8 + client * 7 % 17


#: rows of each table
SIZES: dict[str, int] = {
    "train": sum(map(training_rows, range(len(TASKS)))),
    "validation": EVALUATED * len(TASKS),
    "test": EVALUATED * len(TASKS),
}


def natural_instructions(name: str, rows: int = 0) -> list[Row]:
    """The rows of a split in the columns of FlexLoRA's division.

    Parameters
    ----------
    name
        Ends in ``train``, ``validation`` or ``test``.
    rows
        Not looked at: `SIZES` has them.
    """
    split = name.rpartition("/")[2]
    return [row for client in range(len(TASKS)) for row in _client(client)[split]]


def _client(client: int) -> dict[str, list[Row]]:
    """All rows of a client; no input comes twice."""
    instruction, make = TASKS[client]
    rng = random.Random(f"natural instructions {client}")
    sizes = {"validation": EVALUATED, "test": EVALUATED, "train": training_rows(client)}
    found: dict[str, str] = {}
    for _ in range(MOST_DRAWS):
        if len(found) == sum(sizes.values()):
            break
        text, answer = make(rng)
        found.setdefault(text, answer)
    examples = iter(found.items())
    return {
        split: [
            {
                "client_id": client,
                "idx": index,
                "category": f"{instruction.split()[0]} {client}",
                "instruction": instruction,
                "input": text,
                "output": answer,
            }
            for index, (text, answer) in zip(range(size), examples, strict=False)
        ]
        for split, size in sizes.items()
    }

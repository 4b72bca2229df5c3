"""Natural Instructions in miniature: forty small tasks on words, one client each.

The answers follow from the words of `lexicon` or from the order of the words alone. As in the real
division, the clients are of different size, and one has no rows to train on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial

from federatedscope_ext.tools.embedded.corpora import lexicon as lex
from federatedscope_ext.tools.embedded.corpora.rows import Row
from federatedscope_ext.tools.embedded.corpora.scenes import with_article

#: makes an input, and the answer to it
Example = Callable[[random.Random], tuple[str, str]]

#: the client without training rows, and every client's rows of a split for evaluation
HOLLOW, EVALUATED = 11, 4

NOUNS: tuple[str, ...] = (*lex.ACTORS, *lex.KINDS)


def _words(rng: random.Random, low: int = 3, high: int = 5) -> list[str]:
    return rng.sample(NOUNS, rng.randint(low, high))


def _on_words(answer: Callable[[list[str]], str], rng: random.Random) -> tuple[str, str]:
    """A list of words, from which the answer follows."""
    words = _words(rng)
    return " ".join(words), answer(words)


def _one_of(members: Sequence[str], rng: random.Random) -> tuple[str, str]:
    """Which of some words is one of the members?"""
    found = rng.choice(members)
    words = [found, *[word for word in _words(rng, 5, 6) if word not in members][:3]]
    rng.shuffle(words)
    return " ".join(words), found


def _is_there(members: Sequence[str], rng: random.Random) -> tuple[str, str]:
    """Is one of the members among the words?"""
    words = [word for word in _words(rng, 5, 6) if word not in members][:3]
    wanted = rng.random() < 0.5
    words += [rng.choice(members)] if wanted else []
    rng.shuffle(words)
    return " ".join(words), "yes" if wanted else "no"


def _sentence(answer: Callable[[dict[str, str]], str], rng: random.Random) -> tuple[str, str]:
    """A thing, its colour, a place and a time, from which the answer follows."""
    parts = {
        "thing": rng.choice(list(lex.KINDS)),
        "colour": rng.choice(lex.COLOURS),
        "place": rng.choice(list(lex.PLACES)),
        "time": rng.choice(lex.TIMES),
    }
    return "the {colour} {thing} is in the {place} {time}".format(**parts), answer(parts)


def _coloured(colour: str, now: str, rng: random.Random) -> tuple[str, str]:
    """Leave a colour out of a list of things, or put another (``now``) in its place."""
    words = [word for word in rng.sample([*lex.COLOURS, *NOUNS[:12]], 3) if word != colour]
    words.insert(rng.randint(0, len(words)), colour)
    kept = [now if word == colour else word for word in words]
    return " ".join(words), " ".join(word for word in kept if word)


def _opposite(rng: random.Random) -> tuple[str, str]:
    one, two = rng.sample(rng.choice(lex.TRAITS + lex.MOODS), 2)
    actor = rng.choice(list(lex.ACTORS))
    return f"the {one} {actor}", f"the {two} {actor}"


def _plural(rng: random.Random) -> tuple[str, str]:
    number, actor = rng.choice(lex.NUMBERS[2:]), rng.choice(list(lex.ACTORS))
    return f"{number} {actor}", f"{number} {lex.ACTORS[actor].plural}"


def _sum(rng: random.Random) -> tuple[str, str]:
    a = rng.randint(0, 7)
    b = rng.randint(0, 7 - a)
    return f"{lex.NUMBERS[a]} and {lex.NUMBERS[b]}", lex.NUMBERS[a + b]


def _larger(rng: random.Random) -> tuple[str, str]:
    a, b = rng.sample(range(8), 2)
    return f"{lex.NUMBERS[a]} or {lex.NUMBERS[b]}", lex.NUMBERS[max(a, b)]


def _tasks() -> dict[str, Example]:
    def on_words(answer: Callable[[list[str]], str]) -> Example:
        return partial(_on_words, answer)

    def sentence(answer: Callable[[dict[str, str]], str]) -> Example:
        return partial(_sentence, answer)

    a_kind = {with_article(kind): members for kind, members in lex.THINGS.items()}
    colours = list(zip(lex.COLOURS, lex.COLOURS[1:] + lex.COLOURS[:1], strict=True))
    return {
        **{f"Which of the words is {kind}?": partial(_one_of, a_kind[kind]) for kind in a_kind},
        "Write the first word.": on_words(lambda words: words[0]),
        "Write the second word.": on_words(lambda words: words[1]),
        "Write the last word.": on_words(lambda words: words[-1]),
        "Write the words in reverse order.": on_words(lambda words: " ".join(words[::-1])),
        "How many words are there?": on_words(lambda words: lex.NUMBERS[len(words)]),
        "Put the words in alphabetical order.": on_words(lambda words: " ".join(sorted(words))),
        "Which colour does it have?": sentence(lambda parts: parts["colour"]),
        "Where is it?": sentence(lambda parts: f"in the {parts['place']}"),
        "What is there?": sentence(lambda parts: with_article(parts["thing"])),
        "When is it there?": sentence(lambda parts: parts["time"]),
        "Is it indoors or outdoors?": sentence(lambda parts: lex.PLACES[parts["place"]]),
        **{f"Is {kind} among the words?": partial(_is_there, a_kind[kind]) for kind in a_kind},
        "Write the opposite.": _opposite,
        "Write it in the plural.": _plural,
        **{f"Leave out the word {old}.": partial(_coloured, old, "") for old in lex.COLOURS},
        **{f"Write {new} in place of {old}.": partial(_coloured, old, new) for old, new in colours},
        "Repeat the first word.": on_words(lambda words: f"{words[0]} {words[0]}"),
        "Repeat the last word.": on_words(lambda words: f"{words[-1]} {words[-1]}"),
        "Write the words without the first.": on_words(lambda words: " ".join(words[1:])),
        "Write the words without the last.": on_words(lambda words: " ".join(words[:-1])),
        "How much is it together?": _sum,
        "Which number is larger?": _larger,
        "Write the first letter of every word.": on_words(
            lambda words: " ".join(word[0] for word in words)
        ),
    }


#: instruction -> how to make an example of it; a task per client
TASKS: dict[str, Example] = _tasks()


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
    """The rows of a split, which ``name`` ends in, in the columns of FlexLoRA's division.

    Their number is that of `SIZES`, whatever ``rows`` says.
    """
    split = name.rpartition("/")[2]
    return [row for client in range(len(TASKS)) for row in _client(client, split)]


def _client(client: int, split: str) -> list[Row]:
    """A client's rows of a split; no input comes twice in all of them."""
    instruction, make = list(TASKS.items())[client]
    rng = random.Random(f"natural instructions {client}")
    sizes = {"validation": EVALUATED, "test": EVALUATED, "train": training_rows(client)}
    found: dict[str, str] = {}
    while len(found) < sum(sizes.values()):
        text, answer = make(rng)
        found.setdefault(text, answer)
    start = {"validation": 0, "test": EVALUATED, "train": 2 * EVALUATED}[split]
    category = f"{instruction.split()[0]} {client}"
    about = {"category": category, "instruction": instruction}
    return [
        {"client_id": client, "idx": index, **about, "input": text, "output": answer}
        for index, (text, answer) in enumerate(list(found.items())[start:][: sizes[split]])
    ]

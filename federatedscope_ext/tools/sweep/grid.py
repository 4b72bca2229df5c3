"""The grid of a sweep: which values a key takes, and the points that follow. No files, no runs.

A grid is a mapping of keys to lists of values; its points are the Cartesian product. Several grids
are united: a point that is in two of them is run once.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from federatedscope.core.errors import UserError

__all__ = ["Grid", "Values", "all_points", "parse_grid", "point_names", "split_values"]

Grid = dict[str, list[str]]
"""Key -> its values, as written on the command line."""

Values = dict[str, str]
"""One point: key -> value."""

_AXIS = re.compile(r"([A-Za-z_]\w*(?:\.\w+)*)=(.*)", re.DOTALL)
_PAIRS = {"[": "]", "(": ")", "{": "}"}
_UNSAFE = re.compile(r"[^\w.+@~-]+", re.ASCII)
# The last part of a key names the point, unless many sections have such a key.
_GENERIC = frozenset({"args", "name", "root", "seed", "type", "use"})
_LONGEST_VALUE, _LONGEST_NAME = 48, 180


def parse_grid(axes: Sequence[str]) -> Grid:
    """The grid of ``KEY=VALUE,VALUE,...`` words.

    Raises
    ------
    UserError
        A word of another form, a key twice, a value twice, an empty value, an open bracket.
    """
    grid: Grid = {}
    for axis in axes:
        match = _AXIS.fullmatch(axis)
        if match is None:
            raise UserError(
                f"--grid {axis}: not of the form KEY=VALUE,VALUE. Write for example "
                "--grid federate.method=fedavg,fedsa seed=0,1,2"
            )
        key, text = match.groups()
        if key in grid:
            raise UserError(f"--grid {axis}: {key} is in this grid twice. Write all its values "
                             "behind one '='; a second --grid unites two grids")  # fmt: skip
        grid[key] = _checked(axis, split_values(text))
    if not grid:
        raise UserError("--grid: no key follows. Write for example --grid seed=0,1,2")
    return grid


def _checked(axis: str, values: list[str]) -> list[str]:
    """The values, none of them empty or there twice."""
    if not all(values):
        raise UserError(
            f"--grid {axis}: a value is empty. Write commas without blanks around them, and '' in "
            "quotes for an empty text"
        )
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise UserError(f"--grid {axis}: {twice[0]} is there twice. Write each value once")
    return values


def split_values(text: str) -> list[str]:
    """Split at the commas that are outside of brackets and quotes; blanks around values go.

    ``"[4,8],[16,32]"`` has two values, ``"'a,b',c"`` too. A quote counts at the start of a value
    and inside brackets, so that an apostrophe in a word is none.

    Raises
    ------
    UserError
        A bracket or quote is left open, or a bracket is closed that was not opened.
    """
    values = [""]
    closers: list[str] = []
    quote = ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and (closers or not values[-1].strip()):
            quote = character
        elif character in _PAIRS:
            closers.append(_PAIRS[character])
        elif character in _PAIRS.values():
            if not closers or closers.pop() != character:
                raise UserError(f"--grid: {text!r} closes a {character!r} that it did not open")
        elif character == "," and not closers:
            values.append("")
            continue
        values[-1] += character
    if quote or closers:
        raise UserError(
            f"--grid: {(quote or closers[-1])!r} is missing in {text!r}. A value with blanks or "
            "quotes needs quotes of the shell around it"
        )
    return [value.strip() for value in values]


def all_points(grids: Sequence[Grid]) -> list[Values]:
    """The points of all grids in the order written (the last key changes fastest), each once."""
    found: dict[frozenset[tuple[str, str]], Values] = {}
    for grid in grids:
        for values in itertools.product(*grid.values()):
            point = dict(zip(grid, values, strict=True))
            found.setdefault(frozenset(point.items()), point)
    return list(found.values())


def point_names(points: Sequence[Values]) -> list[str]:
    """A readable, unique name per point, good as a folder: ``method=fedavg,seed=0``.

    It depends on the point alone, so that a grid which grows finds its finished points again; only
    where two points would be called the same, both get a mark of their values.
    """
    names = [_cut(",".join(_labels(point)), _LONGEST_NAME) for point in points]
    # Some file systems do not tell upper from lower case.
    counts = Counter(name.lower() for name in names)
    return [
        f"{name}~{_mark(repr(sorted(point.items())))}" if counts[name.lower()] > 1 else name
        for name, point in zip(names, points, strict=True)
    ]


def _labels(point: Mapping[str, str]) -> Iterator[str]:
    short = {key: _short_key(key) for key in point}
    counts = Counter(short.values())
    for key, value in point.items():
        yield f"{short[key] if counts[short[key]] == 1 else key}={_short_value(value)}"


def _short_key(key: str) -> str:
    parts = key.split(".")
    kept = 2 if parts[-1] in _GENERIC else 1
    label = ".".join(parts[-kept:])
    single = parts[0].startswith("client_") and len(parts) > kept
    return f"{parts[0]}.{label}" if single else label


def _short_value(text: str) -> str:
    """The value without what is awkward in a file name: ``[4, 8]`` becomes ``4-8``."""
    bare = re.sub(r"[\s'\"\[\](){}]", "", text)
    if "/" in bare and "," not in bare:
        bare = bare.rstrip("/").rpartition("/")[2]  # of a path its last part
    safe = _UNSAFE.sub("-", bare) or "empty"
    return _cut(safe, _LONGEST_VALUE)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 7]}~{_mark(text)}"


def _mark(text: str) -> str:
    """Six hexadecimal digits that tell texts apart."""
    return hashlib.sha256(text.encode()).hexdigest()[:6]

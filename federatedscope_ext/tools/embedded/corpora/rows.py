"""The frame of all tables: rows are made one by one from one stream of random numbers."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

Row = dict[str, Any]
#: ``(seed, rows, **options)``; makes so many rows, the same ones for a seed
Maker = Callable[..., list[Row]]


def table(labels: Sequence[Any] = ()) -> Callable[[Callable[..., Row]], Maker]:
    """Turn a maker of one row, ``(rng, label, **options)``, into a `Maker`.

    The labels are dealt in turn and the rows shuffled; without labels there is neither.
    """

    def decorate(make: Callable[..., Row]) -> Maker:
        @wraps(make)
        def rows_of(seed: str, rows: int, **options: Any) -> list[Row]:
            rng = random.Random(seed)
            if not labels:
                return [make(rng, **options) for _ in range(rows)]
            out = [make(rng, labels[index % len(labels)], **options) for index in range(rows)]
            rng.shuffle(out)
            return out

        return rows_of

    return decorate

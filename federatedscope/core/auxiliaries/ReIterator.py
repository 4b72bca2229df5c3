"""A loader without an end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["ReIterator"]


class ReIterator:
    """Iterates again and again over a loader, which shuffles anew at every start if it shuffles.

    ``next`` raises :class:`StopIteration` only when the loader is empty.
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        self.loader = loader
        self.reset_flag = False
        self.reset()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        for item in self.iterator:
            return item
        self.reset()
        return next(self.iterator)

    def reset(self) -> None:
        """Start again from the loader's beginning."""
        self.iterator = iter(self.loader)

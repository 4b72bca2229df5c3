"""Callbacks: whatever watches a run without taking part in it.

A callback is any object with some of the methods of :class:`Callback`. Extensions add theirs with
``register_callback``; the runtime's own write the records and draw the progress.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

logger = logging.getLogger(__name__)

Event = dict[str, Any]


class Callback:
    """What a callback may implement; every method does nothing by default.

    The events are the lines of ``metrics.jsonl``; ``run`` is the content of ``run.json``.
    """

    def on_run_start(self, run: Event) -> None:
        """Everything is checked and built; the first round begins."""

    def on_round_start(self, rnd: int, clients: list[int]) -> None:
        """Round ``rnd`` (from 1) begins with these clients."""

    def on_batch(self, client: int, ctx: Any, monitor: Any) -> None:
        """A batch of training or evaluation is done."""

    def on_train(self, event: Event) -> None:
        """A client finished its local training."""

    def on_eval(self, event: Event) -> None:
        """A participant was evaluated."""

    def on_round(self, event: Event) -> None:
        """A round was aggregated."""

    def on_traffic(self, event: Event) -> None:
        """Something was sent beside a round's training."""

    def on_run_end(self, run: Event, outdir: str) -> None:
        """The run is over, for whatever reason (``run['status']``)."""


class Callbacks:
    """Calls every callback in order, by the methods of :class:`Callback`.

    Parameters
    ----------
    members : iterable
        Callbacks; a method that one lacks is skipped.
    """

    def __init__(self, members: Iterable[Any] = ()) -> None:
        self.members = list(members)

    def __getattr__(self, event: str) -> Callable[..., None]:
        if not hasattr(Callback, event):
            raise AttributeError(event)

        def tell(*told: Any) -> None:
            for member in self.members:
                if (method := getattr(member, event, None)) is not None:
                    method(*told)

        return tell

    def on_run_end(self, run: Event, outdir: str) -> None:
        """All are told, also after one that fails: files and displays of the others must be closed,
        and a page that cannot be drawn must not hide how the run ended.
        """
        for member in self.members:
            try:
                if (method := getattr(member, "on_run_end", None)) is not None:
                    method(run, outdir)
            except Exception:
                logger.exception("%s failed at the end of the run.", type(member).__name__)

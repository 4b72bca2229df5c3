"""Evaluations as tables: who was evaluated when, on what, and the means over clients.

Two means over clients (:mod:`federatedscope.core.monitors.means`) are kept apart everywhere: the
plain one is the headline, the weighted one counts a client by the rows it was evaluated on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from federatedscope.core.monitors.means import mean, std, weighted_mean
from federatedscope.core.records import EvalEvent
from federatedscope_ext.tools.report.records import RunRecord, split_metric

__all__ = ["Evaluations", "Series", "Spread", "is_bookkeeping", "is_proportion"]

_BOOKKEEPING = ("total", "correct", "loss", "avg_loss", "loss_regular")

Metrics = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Series:
    """One kind of evaluation: of whom, taken when, on what model.

    ``population`` is ``"clients"`` (took part in training), ``"unseen"`` (never train) or
    ``"server"`` (client 0); ``phase`` is ``"before"`` or ``"after"`` the aggregation; ``scope``
    is ``"personal"`` or ``"global"``.
    """

    population: str
    phase: str
    scope: str

    def __str__(self) -> str:
        """The series in words, without its scope."""
        who = {"clients": "clients", "unseen": "unseen clients", "server": "server"}
        return f"{who.get(self.population, self.population)}, {self.phase} aggregation"


@dataclass(frozen=True, slots=True)
class Spread:
    """A metric over clients at one round.

    ``error`` is the sampling error of the plain mean that comes from the finite number of
    evaluation rows alone, ``sqrt(sum p_k (1 - p_k) / n_k) / K``; NaN for a metric that is no
    proportion.
    """

    n: int
    plain: float
    weighted: float
    std: float
    low: float
    high: float
    error: float = math.nan


Table = dict[Series, dict[int, dict[int, Metrics]]]


def is_proportion(metric: str) -> bool:
    """Whether a metric is a share of rows, so that a majority class is a baseline for it."""
    name = split_metric(metric)[1].lower()
    return name.startswith("acc") or "accuracy" in name or name == "exact_match"


def is_bookkeeping(metric: str) -> bool:
    """Whether a metric is a loss or a row count and so no result to compare by."""
    return split_metric(metric)[1] in _BOOKKEEPING


class Evaluations:
    """All evaluations of a run, by series, round and client.

    Attributes
    ----------
    tables : dict
        ``tables[series][round][client]`` is a mapping from metric name to value.
    partial_round : int or None
        A last round that was only partly evaluated when the run stopped. It is left out: a mean
        over the clients that happened to come first would look like a result.
    metric : str
        The metric of methods that are given none.
    """

    metric: str

    def __init__(self, record: RunRecord) -> None:
        self._clients = record.info.client_table
        self.tables = _index(record.evals, {c.id for c in record.info.clients if c.unseen})
        self.partial_round: int | None = None
        if record.info.status != "finished":
            self.partial_round = _drop_partial_round(self.tables)

    def figures(self, series: Series | None, round_: int | None) -> Mapping[int, Metrics]:
        """All metrics by client at a round; nothing for no series or round."""
        if series is None or round_ is None:
            return {}
        return self.tables.get(series, {}).get(round_, {})

    def values(
        self, series: Series | None, round_: int | None, metric: str | None = None
    ) -> dict[int, float]:
        """A metric by client at a round; clients without it are absent."""
        name = metric or self.metric
        figures = self.figures(series, round_)
        return {client: found[name] for client, found in figures.items() if name in found}

    def spread(
        self, series: Series | None, round_: int | None, metric: str | None = None
    ) -> Spread | None:
        """Means and spread of a metric over the clients of one evaluation, ``None`` if absent.

        A value that is not finite makes the means NaN: a diverged client is not averaged away.
        """
        name = metric or self.metric
        values = self.values(series, round_, name)
        if not values:
            return None
        weights = [self.rows(series, round_, client, name) for client in values]
        numbers = list(values.values())
        error = math.nan
        if is_proportion(name) and math.fsum(weights) > 0 and all(0 <= v <= 1 for v in numbers):
            terms = (v * (1 - v) / w for w, v in zip(weights, numbers, strict=True) if w)
            error = math.sqrt(math.fsum(terms)) / len(numbers)
        return Spread(
            n=len(numbers),
            plain=mean(numbers),
            weighted=weighted_mean(zip(numbers, weights, strict=True)),
            std=std(numbers),
            low=min(numbers),
            high=max(numbers),
            error=error,
        )

    def rows(self, series: Series | None, round_: int | None, client: int, metric: str) -> float:
        """Rows a client was evaluated on; NaN where nothing says so."""
        split = split_metric(metric)[0] or "val"
        measured = self.figures(series, round_).get(client, {}).get(f"{split}_total")
        if measured is not None:
            return measured
        info = self._clients.get(client)
        return float(info.rows.get(split, math.nan)) if info else math.nan

    def curve(self, series: Series | None, metric: str | None = None) -> list[tuple[int, Spread]]:
        """``(round, spread)`` of a metric over the evaluated rounds, ascending."""
        rounds = sorted(self.tables.get(series, {})) if series else []
        points = ((at, self.spread(series, at, metric)) for at in rounds)
        return [(at, spread) for at, spread in points if spread is not None]


def _index(events: Sequence[EvalEvent], unseen: set[int]) -> Table:
    """Events as series -> round -> client -> metrics; a repeated evaluation replaces or extends."""
    tables: Table = {}
    for event in events:
        population = "clients"
        if event.client == 0:
            population = "server"
        elif event.unseen or event.client in unseen:
            population = "unseen"
        series = Series(population, event.phase, event.scope)
        clients = tables.setdefault(series, {}).setdefault(event.round, {})
        clients[event.client] = {**clients.get(event.client, {}), **event.metrics}
    return tables


def _drop_partial_round(tables: Table) -> int | None:
    """Take out a last round with fewer clients than an earlier one; returns it if there is one."""
    dropped = None
    for rounds in tables.values():
        last = max(rounds)
        earlier = [len(clients) for round_, clients in rounds.items() if round_ != last]
        expected = max(earlier, default=len(rounds[last]))
        if len(rounds[last]) < expected:
            del rounds[last]
            dropped = last
    return dropped

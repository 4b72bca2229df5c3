"""The figures that a run's record stands for: best round, clients, rounds, communication."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from federatedscope.core.monitors.means import Best, mean, weighted_mean
from federatedscope.core.records import ClientInfo, RoundEvent, TrafficEvent
from federatedscope.register import larger_is_better
from federatedscope_ext.tools.report.evaluations import (
    Evaluations,
    Series,
    Spread,
    is_bookkeeping,
    is_proportion,
)
from federatedscope_ext.tools.report.records import RunRecord, split_metric
from federatedscope_ext.tools.report.run_setup import run_options

__all__ = ["ClientRow", "Communication", "RoundRow", "RunSummary"]


@dataclass(frozen=True)
class ClientRow:
    """One line of the client table. Values are NaN where there is no measurement."""

    id: int
    unseen: bool
    rows: Mapping[str, int]
    rank: int | tuple[int, ...] | None
    majority_label: str
    baseline: float
    best: float
    last: float
    rounds_trained: int
    bytes_up: int
    bytes_down: int


@dataclass(frozen=True)
class RoundRow:
    """One line of the round table."""

    round: int
    seconds: float
    trained: int
    train_loss: float
    plain: float
    weighted: float
    server: float
    bytes_up: int
    bytes_down: int
    nonfinite: int


class Communication:
    """What was measured on the wire. ``per_round_*`` and ``per_client_*`` are means in bytes.

    ``evaluation`` is what was sent for evaluations only, ``finish`` the final state, ``unfinished``
    what a round that was not completed had sent, ``encoding`` what all messages have beside their
    tensors; they are in none of the other figures.
    ``clients_*`` are by client, ``cumulative`` holds ``(round, up, down)`` so far.
    """

    def __init__(self, events: Sequence[RoundEvent], beside: Sequence[TrafficEvent] = ()) -> None:
        self.clients_up: Counter[int] = Counter()
        self.clients_down: Counter[int] = Counter()
        self.cumulative: list[tuple[int, int, int]] = []
        for event in events:
            self.clients_up.update(event.bytes_up)
            self.clients_down.update(event.bytes_down)
            so_far = self.clients_up.total(), self.clients_down.total()
            self.cumulative.append((event.round, *so_far))
        self.rounds = len(events)
        self.up, self.down = self.clients_up.total(), self.clients_down.total()
        kinds: Counter[str] = Counter()
        for sent in beside:
            kinds[sent.kind] += sum(sent.bytes_up.values()) + sum(sent.bytes_down.values())
        # Older records have the bytes of evaluations in their rounds.
        older = sum(sum(event.bytes_evaluation.values()) for event in events)
        self.evaluation = kinds["evaluation"] + older
        self.finish, self.unfinished = kinds["finish"], kinds["training"]
        self.encoding = sum(e.bytes_encoding for e in events)
        self.encoding += sum(sent.bytes_encoding for sent in beside)
        self.per_round_up = _ratio(self.up, self.rounds)
        self.per_round_down = _ratio(self.down, self.rounds)
        self.per_client_up = _ratio(self.up, sum(len(event.bytes_up) for event in events))
        self.per_client_down = _ratio(self.down, sum(len(event.bytes_down) for event in events))


def _ratio(amount: float, parts: float) -> float:
    return amount / parts if parts else math.nan


class RunSummary(Evaluations):
    """Everything the report, the terminal table and the comparison show about one run.

    Parameters
    ----------
    record : RunRecord
        The run.
    metric : str, optional
        Metric that chooses the best round and fills the tables, with its split (``"val_acc"``);
        default the run's own main metric.
    """

    def __init__(self, record: RunRecord, metric: str | None = None) -> None:
        self.record = record
        self.info = record.info
        super().__init__(record)
        self.metric = metric or self._default_metric()
        if self.metric == self.info.main_metric:
            self.larger_is_better = self.info.larger_is_better
        else:
            self.larger_is_better = larger_is_better(self.metric)

    def _default_metric(self) -> str:
        names = self.metrics
        if self.info.main_metric in names or not names:
            return self.info.main_metric or "val_loss"
        return next((name for name in names if not is_bookkeeping(name)), names[0])

    @cached_property
    def options(self) -> dict[str, str]:
        """What is on beside the method, such as ``{"fedprox": "mu 0.1"}``."""
        return run_options(self.record)

    @cached_property
    def metrics(self) -> list[str]:
        """Names of all evaluated metrics, in the order of their first appearance."""
        names: dict[str, None] = {}
        for event in self.record.evals:
            names.update(dict.fromkeys(event.metrics))
        return list(names)

    @cached_property
    def extra_metrics(self) -> list[str]:
        """Metrics worth a column beside the main one (no losses, no counts)."""
        return [n for n in self.metrics if n != self.metric and not is_bookkeeping(n)]

    # -- which evaluation is the headline -------------------------------------------------

    @cached_property
    def headline(self) -> Series | None:
        """The evaluation the run is judged by.

        Participating clients after aggregation; where that was not measured, before aggregation;
        else the server's.
        """
        scope = self.info.evaluation.scope
        wanted = [
            Series("clients", phase, one)
            for phase in ("after", "before")
            for one in dict.fromkeys([scope, "personal", "global"])
        ]
        wanted += [series for series in self.tables if series.population == "server"]
        wanted += [series for series in self.tables if series.population == "unseen"]
        return next((series for series in wanted if self.curve(series)), None)

    def other_phase(self, phase: str) -> Series | None:
        """The participating clients' evaluation at ``phase``, unless it is the headline."""
        found = [s for s in self.tables if s.population == "clients" and s.phase == phase]
        return next((series for series in found if series != self.headline), None)

    def population(self, name: str) -> Series | None:
        """The evaluation of a population (``"server"``, ``"unseen"``), after before before."""
        found = [s for s in self.tables if s.population == name and self.curve(s)]
        return min(found, key=lambda series: series.phase, default=None)

    # -- means ----------------------------------------------------------------------------

    @cached_property
    def main_curve(self) -> list[tuple[int, Spread]]:
        """``(round, spread)`` of the main metric in the headline evaluation."""
        return self.curve(self.headline)

    @cached_property
    def best_round(self) -> int | None:
        """The round with the best plain mean of the headline evaluation (the first of equals).

        Round 0 is the untrained model and only counts when nothing else was evaluated.
        """
        return self._best(lambda spread: spread.plain)

    @cached_property
    def best_round_weighted(self) -> int | None:
        """The round with the best weighted mean, which is FederatedScope's own choice."""
        return self._best(lambda spread: spread.weighted)

    def _best(self, value: Callable[[Spread], float]) -> int | None:
        points = [(r, value(s)) for r, s in self.main_curve if math.isfinite(value(s))]
        best = Best(self.larger_is_better)
        for point in [point for point in points if point[0] > 0] or points:
            best.offer(*point)
        return best.round

    @cached_property
    def last_round(self) -> int | None:
        """The last round whose evaluation is complete."""
        return self.main_curve[-1][0] if self.main_curve else None

    @property
    def best(self) -> Spread | None:
        """Means and spread of the headline evaluation at the best round."""
        return self.spread(self.headline, self.best_round)

    @property
    def last(self) -> Spread | None:
        """Means and spread of the headline evaluation at the last round."""
        return self.spread(self.headline, self.last_round)

    @property
    def split(self) -> str:
        """The split that the metric is of; empty where its name does not tell."""
        return split_metric(self.metric)[0]

    @property
    def rounds_done(self) -> int:
        """Completed rounds."""
        return max([event.round for event in self.record.rounds] + [self.info.last_round or 0])

    # -- clients --------------------------------------------------------------------------

    def baseline(self, client: int, metric: str | None = None) -> float:
        """Share of the client's most frequent label, for metrics that are shares; else NaN."""
        metric = metric or self.metric
        info = self.info.client_table.get(client)
        if info is None or info.majority is None or not is_proportion(metric):
            return math.nan
        share = getattr(info.majority, split_metric(metric)[0] or "val")
        return math.nan if share is None else share

    def mean_baseline(self, weighted: bool = False) -> float:
        """Mean of the majority baselines over the clients evaluated, plain or by their rows."""
        series = self.headline
        if series is None or series.population == "server" or not self.tables.get(series):
            return math.nan
        last = max(self.tables[series])
        found = {client: self.baseline(client) for client in self.tables[series][last]}
        known = {client: value for client, value in found.items() if math.isfinite(value)}
        if not weighted:
            return mean(known.values())
        return weighted_mean(
            (value, self.rows(series, last, client, self.metric)) for client, value in known.items()
        )

    @cached_property
    def client_rows(self) -> list[ClientRow]:
        """The client table, by id; unseen clients are in it and marked."""
        trained = Counter(event.client for event in self.record.train)
        unseen = {event.client: event.unseen for event in self.record.evals if event.client}
        infos = self.info.client_table
        return [
            self._client_row(
                infos.get(client, ClientInfo(client)), unseen.get(client, False), trained[client]
            )
            for client in sorted({*infos, *unseen, *trained})
        ]

    def _client_row(self, info: ClientInfo, unseen: bool, trained: int) -> ClientRow:
        """A client's line; ``unseen`` if it was evaluated as one."""
        unseen = unseen or info.unseen
        series = self.population("unseen") if unseen else self.headline
        best, last = (
            self.values(series, at).get(info.id, math.nan)
            for at in (self.best_round, self.last_round)
        )
        return ClientRow(
            id=info.id,
            unseen=unseen,
            rows=info.rows,
            rank=info.rank,
            majority_label=self.info.label_name((info.majority and info.majority.label) or ""),
            baseline=self.baseline(info.id),
            best=best,
            last=last,
            rounds_trained=trained,
            bytes_up=self.communication.clients_up.get(info.id, 0),
            bytes_down=self.communication.clients_down.get(info.id, 0),
        )

    # -- rounds, bytes, time --------------------------------------------------------------

    @cached_property
    def round_rows(self) -> list[RoundRow]:
        """The round table: every round that was trained or evaluated."""
        losses = self.train_loss_by_round
        trained = Counter(event.round for event in self.record.train)
        bad: Counter[int] = Counter()
        for event in self.record.train:
            bad[event.round] += event.nonfinite
        ends = {event.round: event for event in self.record.rounds}
        clients = dict(self.main_curve)
        server = dict(self.curve(self.population("server")))
        return [
            RoundRow(
                round=at,
                seconds=ends[at].seconds if at in ends else math.nan,
                trained=trained[at],
                train_loss=losses.get(at, math.nan),
                plain=clients[at].plain if at in clients else math.nan,
                weighted=clients[at].weighted if at in clients else math.nan,
                server=server[at].plain if at in server else math.nan,
                bytes_up=sum(ends[at].bytes_up.values()) if at in ends else 0,
                bytes_down=sum(ends[at].bytes_down.values()) if at in ends else 0,
                nonfinite=bad[at],
            )
            for at in sorted({*losses, *ends, *clients, *server})
        ]

    @cached_property
    def train_loss_by_round(self) -> dict[int, float]:
        """Plain mean over the clients that trained of their mean training loss."""
        found: dict[int, list[float]] = defaultdict(list)
        for event in self.record.train:
            if "train_avg_loss" in event.metrics:
                found[event.round].append(event.metrics["train_avg_loss"])
        return {round_: mean(values) for round_, values in sorted(found.items())}

    @cached_property
    def communication(self) -> Communication:
        """Bytes on the wire, from the events of rounds and of what was sent beside them."""
        return Communication(self.record.rounds, self.record.traffic)

    @cached_property
    def seconds_per_round(self) -> float:
        """Mean wall time of a round in seconds, evaluation left out."""
        return mean(event.seconds for event in self.record.rounds)

    @cached_property
    def tokens_per_second(self) -> float:
        """Training throughput over all local training; NaN where tokens were not counted."""
        tokens = sum(event.tokens for event in self.record.train)
        seconds = math.fsum(event.seconds for event in self.record.train)
        return tokens / seconds if tokens and seconds > 0 else math.nan

    @cached_property
    def nonfinite_steps(self) -> int:
        """Training steps whose loss or gradient was not finite."""
        return sum(event.nonfinite for event in self.record.train)

    @property
    def has_global_model(self) -> bool:
        """Whether one model exists that all clients share, as one could deploy it.

        Not under methods that keep a part of every model at its client.
        """
        return self.info.method != "local" and not self.keeps_factor_local

    @property
    def keeps_factor_local(self) -> bool:
        """Whether a factor of the adapter (FedSA's B) never reaches the server."""
        return self.info.method == "fedsa" or any(
            "lora_B" in name or "vera_lambda_b" in name for name in self.info.local_param
        )

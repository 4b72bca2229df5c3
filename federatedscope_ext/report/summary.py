"""The figures that a run's record stands for: best round, clients, rounds, communication."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from federatedscope_ext.report.evaluations import (
    Evaluations,
    Metrics,
    Series,
    Spread,
    is_bookkeeping,
    is_proportion,
    larger_is_better,
)
from federatedscope_ext.report.records import RunRecord, mean, split_metric, weighted_mean
from federatedscope_ext.report.run_setup import run_options

__all__ = ["ClientRow", "Communication", "RoundRow", "RunSummary"]


@dataclass(frozen=True)
class ClientRow:
    """One line of the client table. Values are NaN where there is no measurement.

    ``evaluated`` is the number of rows the client was evaluated on, its weight in weighted means.
    """

    id: int
    unseen: bool
    rows: Mapping[str, int]
    rank: int | tuple[int, ...] | None
    weight: float
    majority_label: str
    baseline: float
    best: float
    last: float
    before: float
    extra: Mapping[str, float]
    rounds_trained: int
    bytes_up: int
    bytes_down: int
    evaluated: float


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


@dataclass(frozen=True)
class Communication:
    """What was measured on the wire. ``per_round_*`` and ``per_client_*`` are means in bytes.

    ``evaluation`` is what was sent for evaluations only; it is in none of the other figures.
    """

    up: int
    down: int
    evaluation: int
    rounds: int
    per_round_up: float
    per_round_down: float
    per_client_up: float
    per_client_down: float
    cumulative: Sequence[tuple[int, int, int]] = field(repr=False)
    clients_up: Mapping[int, int] = field(repr=False)
    clients_down: Mapping[int, int] = field(repr=False)


class RunSummary:
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
        self.evaluations = Evaluations(record)
        self.tables = self.evaluations.tables
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
        scope = str(self.info.evaluation.get("scope", "personal"))
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

    def spread(
        self, series: Series | None, round_: int | None, metric: str | None = None
    ) -> Spread | None:
        """Means and spread over clients of a metric (default the main one) at a round."""
        return self.evaluations.spread(series, round_, metric or self.metric)

    def curve(self, series: Series | None, metric: str | None = None) -> list[tuple[int, Spread]]:
        """``(round, spread)`` of a metric (default the main one) over the evaluated rounds."""
        return self.evaluations.curve(series, metric or self.metric)

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
        trained = [point for point in points if point[0] > 0] or points
        if not trained:
            return None
        sign = 1 if self.larger_is_better else -1
        return max(trained, key=lambda point: sign * point[1])[0]

    @cached_property
    def last_round(self) -> int | None:
        """The last round whose evaluation is complete."""
        return self.main_curve[-1][0] if self.main_curve else None

    @property
    def rounds_done(self) -> int:
        """Completed rounds."""
        return max([event.round for event in self.record.rounds] + [self.info.last_round or 0])

    # -- clients --------------------------------------------------------------------------

    def baseline(self, client: int, metric: str | None = None) -> float:
        """Share of the client's most frequent label, for metrics that are shares; else NaN."""
        metric = metric or self.metric
        info = self.info.client_table.get(client)
        if info is None or not is_proportion(metric):
            return math.nan
        return info.majority.get(split_metric(metric)[0] or "val", math.nan)

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
            (value, self.evaluations.rows(series, last, client, self.metric))
            for client, value in known.items()
        )

    @cached_property
    def client_rows(self) -> list[ClientRow]:
        """The client table, by id; unseen clients are in it and marked."""
        trained = Counter(event.client for event in self.record.train)
        wire = self.communication
        unseen = self.population("unseen")
        before = self.other_phase("before")
        seen_at = {event.client: event.unseen for event in self.record.evals if event.client}
        infos = self.info.client_table
        rows = []
        for client in sorted(set(infos) | set(seen_at) | set(trained)):
            info = infos.get(client)
            is_unseen = seen_at.get(client, False) or bool(info and info.unseen)
            series = unseen if is_unseen else self.headline
            best = self._client_metrics(series, self.best_round, client)
            last = self._client_metrics(series, self.last_round, client)
            at = self.best_round if best else self.last_round
            rows.append(
                ClientRow(
                    id=client,
                    unseen=is_unseen,
                    rows=info.rows if info else {},
                    rank=info.rank if info else None,
                    weight=info.weight if info else math.nan,
                    majority_label=self.label_name(info.majority_label) if info else "",
                    baseline=self.baseline(client),
                    best=best.get(self.metric, math.nan),
                    last=last.get(self.metric, math.nan),
                    before=self._client_metrics(before, self.best_round, client).get(
                        self.metric, math.nan
                    ),
                    extra={name: best.get(name, math.nan) for name in self.extra_metrics},
                    rounds_trained=trained[client],
                    bytes_up=wire.clients_up.get(client, 0),
                    bytes_down=wire.clients_down.get(client, 0),
                    evaluated=self.evaluations.rows(series, at, client, self.metric),
                )
            )
        return rows

    def _client_metrics(self, series: Series | None, round_: int | None, client: int) -> Metrics:
        if series is None or round_ is None:
            return {}
        return self.tables.get(series, {}).get(round_, {}).get(client, {})

    def label_name(self, label: str | None) -> str:
        """A label as the task calls it (``"entailment"`` for ``"0"``) where names are known."""
        names = self.info.label_names
        if label is not None and names and label.isdigit() and int(label) < len(names):
            return names[int(label)]
        return label or ""

    # -- rounds, bytes, time --------------------------------------------------------------

    @cached_property
    def round_rows(self) -> list[RoundRow]:
        """The round table: every round that was trained or evaluated."""
        losses = self.train_loss_by_round
        counts = Counter(event.round for event in self.record.train)
        bad: Counter[int] = Counter()
        for event in self.record.train:
            bad[event.round] += event.nonfinite
        ends = {event.round: event for event in self.record.rounds}
        evaluated = dict(self.main_curve)
        server = dict(self.curve(self.population("server")))
        rows = []
        for round_ in sorted(set(losses) | set(ends) | set(evaluated) | set(server)):
            end = ends.get(round_)
            spread = evaluated.get(round_)
            rows.append(
                RoundRow(
                    round=round_,
                    seconds=end.seconds if end else math.nan,
                    trained=counts[round_],
                    train_loss=losses.get(round_, math.nan),
                    plain=spread.plain if spread else math.nan,
                    weighted=spread.weighted if spread else math.nan,
                    server=server[round_].plain if round_ in server else math.nan,
                    bytes_up=sum(end.bytes_up.values()) if end else 0,
                    bytes_down=sum(end.bytes_down.values()) if end else 0,
                    nonfinite=bad[round_],
                )
            )
        return rows

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
        """Bytes on the wire, from the round events."""
        up: Counter[int] = Counter()
        down: Counter[int] = Counter()
        cumulative: list[tuple[int, int, int]] = []
        messages_up = messages_down = 0
        for event in self.record.rounds:
            up.update(event.bytes_up)
            down.update(event.bytes_down)
            messages_up += len(event.bytes_up)
            messages_down += len(event.bytes_down)
            cumulative.append((event.round, up.total(), down.total()))
        rounds = len(self.record.rounds)
        return Communication(
            up=up.total(),
            down=down.total(),
            evaluation=sum(sum(e.bytes_evaluation.values()) for e in self.record.rounds),
            rounds=rounds,
            per_round_up=up.total() / rounds if rounds else math.nan,
            per_round_down=down.total() / rounds if rounds else math.nan,
            per_client_up=up.total() / messages_up if messages_up else math.nan,
            per_client_down=down.total() / messages_down if messages_down else math.nan,
            cumulative=cumulative,
            clients_up=up,
            clients_down=down,
        )

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

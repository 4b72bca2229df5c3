"""One run as a comparison sees it, and groups of runs of one setup."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from federatedscope.core.monitors.means import mean, std
from federatedscope_ext.tools.report.evaluations import Spread
from federatedscope_ext.tools.report.numbers import number_of
from federatedscope_ext.tools.report.records import RunRecord
from federatedscope_ext.tools.report.run_setup import RunSetup, setup_of
from federatedscope_ext.tools.report.summary import RunSummary

__all__ = ["FIGURES", "Figure", "Group", "Run", "short_name", "telling_columns"]

_LABELLED = 3
"""Up to this many fields are all in a label."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure over the runs of a group; ``std`` is NaN for fewer than two runs."""

    mean: float
    std: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Figure | None:
        """Mean and sample standard deviation of what was measured; ``None`` of nothing.

        A value that was measured and is not finite stays in: it makes the mean NaN.
        """
        found = [value for value in values if value is not None]
        if not found:
            return None
        return cls(mean(found), std(found, sample=True), len(found))


@dataclass(frozen=True, slots=True)
class ClientRound:
    """A client at one evaluated round, over the runs of a group.

    ``before`` is after its local training, before the aggregation (``eval.phases``), ``after`` is
    what it holds of the aggregate; ``None`` where it was not evaluated.
    """

    round: int
    before: Figure | None
    after: Figure | None


@dataclass(frozen=True, slots=True)
class ClientFigure:
    """One client over the runs of a group, at each run's best round."""

    baseline: float
    best: Figure


class Run:
    """One run with the figures that a comparison shows; ``None`` is *not measured*."""

    def __init__(self, record: RunRecord, metric: str | None = None) -> None:
        self.record = record
        self.summary = RunSummary(record, _resolve(metric, record))
        self.setup: RunSetup = setup_of(record)

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.record.info.status == "finished"

    @property
    def seed(self) -> int | None:
        """The run's seed."""
        return self.record.info.seed

    def curve(self) -> dict[int, float]:
        """Plain mean of the headline evaluation by round."""
        return {round_: spread.plain for round_, spread in self.summary.main_curve}


def _measured(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def _at(point: Spread | None, attribute: str = "plain") -> float | None:
    return None if point is None else getattr(point, attribute)


FIGURES: dict[str, Callable[[RunSummary], float | None]] = {
    "baseline": lambda s: _measured(s.mean_baseline()),
    "weighted_baseline": lambda s: _measured(s.mean_baseline(weighted=True)),
    "best": lambda s: _at(s.best),
    "best_round": lambda s: None if s.best_round is None else float(s.best_round),
    "last": lambda s: _at(s.last),
    "weighted_best": lambda s: _at(s.best, "weighted"),
    "weighted_last": lambda s: _at(s.last, "weighted"),
    "before": lambda s: _at(s.spread(s.other_phase("before"), s.best_round)),
    "sampling_error": lambda s: _measured(_at(s.best, "error") or None),
    "bytes_up_per_round": lambda s: _measured(s.communication.per_round_up),
    "bytes_down_per_round": lambda s: _measured(s.communication.per_round_down),
    "seconds_per_round": lambda s: _measured(s.seconds_per_round),
    "rounds_done": lambda s: float(s.rounds_done),
}
"""What is compared, by name: a function of one run's summary."""


@dataclass
class Group:
    """Runs of one setup.

    ``columns`` are the fields that differ between groups, ``told_by`` those of them that the label
    shows (all where empty).
    """

    runs: list[Run]
    columns: dict[str, str] = field(default_factory=dict)
    told_by: list[str] = field(default_factory=list)

    def figure(self, name: str) -> Figure | None:
        """A figure of :data:`FIGURES` over the runs."""
        return Figure.of(FIGURES[name](run.summary) for run in self.runs)

    @property
    def label(self) -> str:
        """What tells this group from the others, as ``method=fedsa, lr=0.002``."""
        names = self.told_by or list(self.columns)
        parts = [f"{short_name(name, self.columns)}={self.columns[name]}" for name in names]
        return ", ".join(parts) or self.runs[0].setup.fields.get("variant", "run")

    @property
    def unfinished(self) -> int:
        """Number of runs that did not come to their end."""
        return sum(not run.finished for run in self.runs)

    @property
    def runs_text(self) -> str:
        """How many seeds, and whether all runs are complete."""
        seeds = len({run.seed for run in self.runs})
        text = number_of(seeds, "seed")
        if seeds != len(self.runs):
            text += f", {len(self.runs)} runs"
        if self.unfinished:
            text += f" ({self.unfinished} unfinished)"
        return text

    def clients(self) -> dict[int, ClientFigure]:
        """Every client's metric at its run's best round, over the runs; unseen ones left out."""
        found: dict[int, list[float]] = {}
        baselines: dict[int, float] = {}
        for run in self.runs:
            for row in run.summary.client_rows:
                if not row.unseen and not math.isnan(row.best):
                    found.setdefault(row.id, []).append(row.best)
                    baselines.setdefault(row.id, row.baseline)
        return {
            client: ClientFigure(baselines[client], figure)
            for client, values in sorted(found.items())
            if (figure := Figure.of(values))
        }

    def rounds_of(self, client: int) -> list[ClientRound]:
        """The evaluated rounds of a client, ascending."""
        measured: dict[int, dict[str, list[float]]] = {}
        for run in self.runs:
            for series, rounds in run.summary.tables.items():
                for at in rounds:
                    values = run.summary.values(series, at, run.summary.metric)
                    if client in values:
                        phases = measured.setdefault(at, {"before": [], "after": []})
                        phases.setdefault(series.phase, []).append(values[client])
        return [
            ClientRound(at, Figure.of(phases["before"]), Figure.of(phases["after"]))
            for at, phases in sorted(measured.items())
        ]

    def curve(self) -> list[tuple[int, Figure]]:
        """``(round, figure)`` of the plain mean, over the rounds that all its runs evaluated."""
        curves = [run.curve() for run in self.runs if run.curve()]
        if not curves:
            return []
        common = set.intersection(*(set(curve) for curve in curves))
        return [
            (round_, figure)
            for round_ in sorted(common or set().union(*curves))
            if (figure := Figure.of(curve.get(round_) for curve in curves))
        ]


def telling_columns(groups: Sequence[Group]) -> list[str]:
    """The columns for labels: all of a few, else as many as tell the groups apart.

    Runs of two tasks differ in a dozen fields; a label with all of them cannot be read, and the
    table has them.
    """
    names = list(groups[0].columns) if groups else []
    if len(names) <= _LABELLED:
        return names
    chosen: list[str] = []
    kinds = 1
    for name in names:
        found = len({tuple(group.columns[one] for one in [*chosen, name]) for group in groups})
        if found > kinds:
            chosen.append(name)
            kinds = found
    return chosen


def short_name(name: str, names: Iterable[str]) -> str:
    """``optimizer.lr`` as ``lr`` when no other of the names ends so."""
    last = name.rpartition(".")[2]
    if last == "type" and "." in name:
        last = name.split(".")[-2]
    return last if sum(other.rpartition(".")[2] == last for other in names) <= 1 else name


def _resolve(metric: str | None, record: RunRecord) -> str | None:
    """A metric as the run calls it: ``acc`` stands for the ``val_acc`` it has."""
    if metric is None:
        return None
    names = {name for event in record.evals for name in event.metrics}
    if metric in names:
        return metric
    return next((f"{s}_{metric}" for s in ("val", "test") if f"{s}_{metric}" in names), metric)

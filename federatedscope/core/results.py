"""What a server makes of evaluations: events, summaries over clients, the best round."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from federatedscope.core.errors import ConfigError
from federatedscope.core.monitors.early_stopper import EarlyStopper
from federatedscope.core.monitors.formatting import SUPPORTED_FORMS
from federatedscope.core.monitors.means import Best, mean
from federatedscope.core.monitors.monitor import Monitor
from federatedscope.core.records import EvalEvent
from federatedscope.core.task import is_isolated

# The mean that decides when to stop: the first of these that there is.
_DECIDING_FORMS = ("Results_weighted_avg", "Results_avg")

Metrics = Mapping[str, Any]


class ResultsField:
    """An attribute of a server that is one of its results."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, server: Any, owner: Any = None) -> Any:
        return self if server is None else getattr(server.results, self.name)

    def __set__(self, server: Any, value: Any) -> None:
        setattr(server.results, self.name, value)


class Results:
    """The evaluations of a course.

    Parameters
    ----------
    config : CN
        The run's configuration.
    monitor : Monitor
        The server's.
    callbacks : Callbacks or None
        Told about every evaluation.
    unseen : sequence of int
        Clients that never train; they are summarised apart.

    Attributes
    ----------
    best : dict
        Kind of summary to the metrics of its best round.
    best_round : int or None
        Rounds completed when the plain mean over the participating clients of
        ``eval.best_res_update_round_wise_key`` was best, the first of equal ones; the server's own
        figure where it evaluates. The model under ``federate.save_to`` is of this round.
    best_round_weighted : int or None
        The same by the mean weighted by rows, which is FederatedScope's rule; ``None`` where the
        server evaluates. The ``Final`` line has the figures of both rounds.
    history : dict
        ``{"Results_avg": {"val_acc": [one value per evaluation]}}`` and the like.
    """

    def __init__(
        self, config: Any, monitor: Monitor, callbacks: Any, unseen: Sequence[int]
    ) -> None:
        self.config = config
        self.monitor = monitor
        self.callbacks = callbacks
        self.unseen = unseen
        self.best: dict[str, Any] = {}
        self.best_round: int | None = None
        self.best_round_weighted: int | None = None
        self._best = Best(monitor.the_larger_the_better)
        self.history: dict[str, dict[str, list[float]]] = {}
        self.early_stopper = EarlyStopper(
            config.early_stop.patience,
            config.early_stop.delta,
            config.early_stop.improve_indicator_mode,
            monitor.the_larger_the_better,
        )

    def emit(self, client: int, metrics: Metrics, phase: str, scope: str, completed: int) -> None:
        """Tell about one evaluation.

        Parameters
        ----------
        client : int
            Whose; 0 for the server's own.
        metrics : mapping
            Its figures.
        phase, scope : str
            See :class:`~federatedscope.core.records.EvalEvent`.
        completed : int
            Rounds completed.
        """
        if self.callbacks is None or not metrics:
            return
        figures = {k: v for k, v in metrics.items() if isinstance(v, int | float)}
        event = EvalEvent(completed, client, phase, scope, client in self.unseen, figures)
        self.callbacks.on_eval(event.to_json())

    def check_key(self, results: Iterable[Metrics]) -> None:
        """Stop at the first evaluation that lacks the figure by which rounds are compared.

        Raises
        ------
        ConfigError
            With the figures that there are.
        """
        key = self.monitor.round_wise_update_key
        names = sorted({name for metrics in results for name in metrics})
        if names and key not in names:
            raise ConfigError(
                "eval.best_res_update_round_wise_key",
                key,
                "the evaluation gives no such figure",
                f"It gives {', '.join(names)}; write one of them",
            )

    def take_clients(self, results: Mapping[int, Metrics], rnd: int, completed: int) -> Metrics:
        """Take in the clients' evaluations of a round, participating and unseen ones apart.

        Parameters
        ----------
        results : mapping of int to mapping
            Metrics by client.
        rnd : int
            Index of the round, for the result lines.
        completed : int
            Rounds completed.

        Returns
        -------
        mapping
            The summaries by form, as in the result line.
        """
        results = {client: metrics for client, metrics in sorted(results.items()) if metrics}
        scope = "personal" if self._is_personal else "global"
        for client, metrics in results.items():
            self.emit(client, metrics, "after", scope, completed)
        merged: dict[str, Any] = {}
        for unseen in (False, True):
            group = [m for k, m in results.items() if (k in self.unseen) == unseen]
            if group:
                keys = {key: None for metrics in group for key in metrics}
                table = {key: [float(m[key]) for m in group if key in m] for key in keys}
                merged.update(self._summarize(table, rnd, completed, unseen))
                if unseen == self._goes_by_unseen:
                    self._judge(table, completed)
        return merged

    def take_server(self, metrics: Metrics, rnd: int, completed: int) -> None:
        """Take in the server's own evaluation; see :meth:`take_clients`."""
        self.check_key([metrics])
        formatted = self.monitor.format_eval_res(metrics, rnd, role="Server #", return_raw=True)
        self.monitor.save_formatted_results(formatted)
        if self.monitor.update_best_result(self.best, metrics, results_type="server_global_eval"):
            self.best_round = completed
        self.remember({"Results_avg": metrics})
        self.emit(0, metrics, "after", "global", completed)

    def remember(self, formatted: Metrics) -> None:
        """Add a round's summaries to the history."""
        for form, values in formatted.items():
            # Raw results are one value per client: they would grow with clients and rounds.
            if isinstance(values, dict) and form != "Results_raw":
                history = self.history.setdefault(form, {})
                for key, value in values.items():
                    history.setdefault(key, []).append(value)

    def should_stop(self) -> bool:
        """Whether there has been no improvement for too long."""
        if is_isolated(self.config):
            return False
        end = "_unseen" if self._goes_by_unseen else ""
        for form in _DECIDING_FORMS:
            known = self.history.get(f"{form}{end}", {})
            if history := known.get(self.monitor.round_wise_update_key):
                return self.early_stopper.track_and_check(history)
        return False

    def _judge(self, table: Mapping[str, Sequence[float]], completed: int) -> None:
        """Note this round if it is the best by the plain mean over clients."""
        values = table.get(self.monitor.round_wise_update_key)
        if not values:
            return
        # Not of the summary, which is rounded for the log: rounds may look equal there.
        if self._best.offer(completed, mean(values)):
            self.best_round = completed

    @property
    def _goes_by_unseen(self) -> bool:
        """Whether the unseen clients decide, because no others are evaluated."""
        return self.config.eval.clients == "unseen"

    @property
    def _is_personal(self) -> bool:
        """Whether clients evaluate tensors that no other client has."""
        method = self.config.federate.method.lower()
        return bool(self.config.personalization.local_param) or method == "local"

    def _summarize(
        self, table: Mapping[str, list[float]], rnd: int, completed: int, unseen: bool
    ) -> dict[str, Any]:
        monitor, best, prefix = self.monitor, self.best, "unseen_" if unseen else ""
        formatted = monitor.format_eval_res(table, rnd, role="Server #", forms=SUPPORTED_FORMS)
        monitor.update_best_result(best, table, f"{prefix}client_best_individual")
        for form in ("fairness", "avg", "weighted_avg"):
            improved = monitor.update_best_result(
                best, formatted[f"Results_{form}"], f"{prefix}client_summarized_{form}"
            )
            if improved and form == "weighted_avg" and unseen == self._goes_by_unseen:
                self.best_round_weighted = completed
        if unseen:
            formatted = {
                f"{k}_unseen" if k.startswith("Results_") else k: v for k, v in formatted.items()
            }
        monitor.save_formatted_results(self._reported(formatted))
        return formatted

    def _reported(self, formatted: dict[str, Any]) -> dict[str, Any]:
        """Of all summaries those that ``eval.report`` asks for."""
        forms = self.config.eval.report
        wanted = {f"Results_{form}{end}" for form in forms for end in ("", "_unseen")}
        return {k: v for k, v in formatted.items() if not k.startswith("Results_") or k in wanted}

    def save_best(self) -> None:
        """Write the line of best results."""
        formatted = self.monitor.format_eval_res(
            self.best, rnd="Final", role="Server #", forms=["raw"], return_raw=True
        )
        self.monitor.save_formatted_results(formatted)

    def state_dict(self) -> dict[str, Any]:
        """Everything that later rounds are compared with."""
        return {
            "best": self.best,
            "best_round": self.best_round,
            "best_round_weighted": self.best_round_weighted,
            "best_mean": self._best.value,
            "history": self.history,
            "early_stopper": self.early_stopper.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`state_dict`."""
        # In place: workers hold on to both.
        self.best.clear()
        self.best.update(state["best"])
        self.history.clear()
        self.history.update(state["history"])
        self.best_round = state["best_round"]
        self.best_round_weighted = state["best_round_weighted"]
        self._best.round, self._best.value = state["best_round"], state["best_mean"]
        self.early_stopper.load_state_dict(state["early_stopper"])

"""What a server makes of evaluations: events, summaries over clients, the best round, checkpoints.

Step 7 of a round; the others are in :mod:`federatedscope.core.workers.server`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from federatedscope.core.message import Message
from federatedscope.core.monitors.early_stopper import EarlyStopper
from federatedscope.core.monitors.formatting import SUPPORTED_FORMS
from federatedscope.core.monitors.means import Best, mean
from federatedscope.core.records import EvalEvent
from federatedscope.core.workers.base_worker import Worker
from federatedscope.core.workers.client import ISOLATED_METHODS

# The mean that decides when to stop: the first of these that there is.
DECIDING_FORMS = ("Results_weighted_avg", "Results_avg")


class ResultKeeper(Worker):
    """A worker that collects the evaluations of a course.

    Attributes
    ----------
    best_results : dict
        Kind of summary to the metrics of its best round.
    best_round : int or None
        Rounds completed when the plain mean over the participating clients of
        ``eval.best_res_update_round_wise_key`` was best, the first of equal ones; the server's own
        figure where it evaluates. The model under ``federate.save_to`` is of this round.
    best_round_weighted : int or None
        The same by the mean weighted by rows, which is FederatedScope's rule; ``None`` where the
        server evaluates. The ``Final`` line has the figures of both rounds.
    history_results : dict
        ``{"Results_avg": {"val_acc": [one value per evaluation]}}`` and the like.
    """

    aggregator: Any
    total_round_num: int
    msg_buffer: dict[str, dict[int, Any]]

    def _setup_results(self, config: Any, unseen_clients_id: list[int]) -> None:
        self.unseen_clients_id = unseen_clients_id
        self.best_results: dict[str, Any] = {}
        self.best_round: int | None = None
        self.best_round_weighted: int | None = None
        self._best = Best(self._monitor.the_larger_the_better)
        self.history_results: dict[str, dict[str, list[float]]] = {}
        self.stopped_early = False
        self.early_stopper = EarlyStopper(
            config.early_stop.patience,
            config.early_stop.delta,
            config.early_stop.improve_indicator_mode,
            self._monitor.the_larger_the_better,
        )

    def callback_funcs_for_local_metrics(self, message: Message) -> None:
        """Record what a client reached right after local training, before aggregation."""
        self._emit_eval(message.sender, message.content, "before", "personal", message.state + 1)

    def _emit_eval(
        self, client: int, metrics: dict[str, Any], phase: str, scope: str, rnd: int
    ) -> None:
        if self.callbacks is None or not metrics:
            return
        self.callbacks.on_eval(
            EvalEvent(
                round=rnd,
                client=client,
                phase=phase,
                scope=scope,
                unseen=client in self.unseen_clients_id,
                metrics={k: v for k, v in metrics.items() if isinstance(v, int | float)},
            ).to_json()
        )

    def _remember(self, formatted: dict[str, Any]) -> None:
        for form, values in formatted.items():
            # Raw results are one value per client: they would grow with clients and rounds.
            if isinstance(values, dict) and form != "Results_raw":
                history = self.history_results.setdefault(form, {})
                for key, value in values.items():
                    history.setdefault(key, []).append(value)

    def merge_eval_results_from_all_clients(self) -> dict[str, Any]:
        """Summaries over clients, participating and unseen ones apart; written and compared."""
        rnd = max(self.msg_buffer["eval"])
        results = {k: v for k, v in sorted(self.msg_buffer["eval"][rnd].items()) if v}
        scope = "personal" if self._is_personal else "global"
        for client, metrics in results.items():
            self._emit_eval(client, metrics, phase="after", scope=scope, rnd=self.state)
        merged: dict[str, Any] = {}
        for unseen in (False, True):
            group = [m for k, m in results.items() if (k in self.unseen_clients_id) == unseen]
            if group:
                keys = {key: None for metrics in group for key in metrics}
                table = {key: [float(m[key]) for m in group if key in m] for key in keys}
                merged.update(self._summarize_group(table, rnd, unseen))
                if unseen == self._goes_by_unseen:
                    self._judge(table)
        return merged

    def _judge(self, table: Mapping[str, Sequence[float]]) -> None:
        """Keep this round if it is the best by the plain mean over clients."""
        values = table.get(self._monitor.round_wise_update_key)
        if not values:
            return
        # Not of the summary, which is rounded for the log: rounds may look equal there.
        if self._best.offer(self.state, mean(values)):
            self._keep_best()

    @property
    def _goes_by_unseen(self) -> bool:
        """Whether the unseen clients decide, because no others are evaluated."""
        return self._cfg.eval.clients == "unseen"

    @property
    def _is_personal(self) -> bool:
        """Whether clients evaluate tensors that no other client has."""
        method = self._cfg.federate.method.lower()
        return bool(self._cfg.personalization.local_param) or method == "local"

    def _summarize_group(
        self, table: dict[str, list[float]], rnd: int, unseen: bool
    ) -> dict[str, Any]:
        formatted = self._monitor.format_eval_res(
            table, rnd=rnd, role="Server #", forms=SUPPORTED_FORMS
        )
        prefix = "unseen_" if unseen else ""
        best = self.best_results
        self._monitor.update_best_result(best, table, f"{prefix}client_best_individual")
        for form in ("fairness", "avg", "weighted_avg"):
            improved = self._monitor.update_best_result(
                best, formatted[f"Results_{form}"], f"{prefix}client_summarized_{form}"
            )
            if improved and form == "weighted_avg" and unseen == self._goes_by_unseen:
                self.best_round_weighted = self.state
        if unseen:
            formatted = {
                f"{k}_unseen" if k.startswith("Results_") else k: v for k, v in formatted.items()
            }
        self._monitor.save_formatted_results(self._reported(formatted))
        return formatted

    def _reported(self, formatted: dict[str, Any]) -> dict[str, Any]:
        """Of all summaries those that ``eval.report`` asks for."""
        forms = self._cfg.eval.report
        wanted = {f"Results_{form}{end}" for form in forms for end in ("", "_unseen")}
        return {k: v for k, v in formatted.items() if not k.startswith("Results_") or k in wanted}

    def _should_stop(self) -> bool:
        if self._cfg.federate.method.lower() in ISOLATED_METHODS:
            return False
        end = "_unseen" if self._goes_by_unseen else ""
        for form in DECIDING_FORMS:
            history = self.history_results.get(f"{form}{end}", {}).get(
                self._monitor.round_wise_update_key
            )
            if history:
                return self.early_stopper.track_and_check(history)
        return False

    def _keep_best(self) -> None:
        self.best_round = self.state
        if self._cfg.federate.save_to:
            self._save("")

    def _save(self, prefix: str) -> None:
        path = Path(self._cfg.federate.save_to)
        self.aggregator.save_model(str(path.with_name(prefix + path.name)), self.state)

    def save_best_results(self) -> None:
        """Write the final model and the line of best results."""
        if self._cfg.federate.save_to:
            self._save("final_")
        formatted = self._monitor.format_eval_res(
            self.best_results, rnd="Final", role="Server #", forms=["raw"], return_raw=True
        )
        self._monitor.save_formatted_results(formatted)

"""A worker's monitor: metrics of its trainer, result lines, best values."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from federatedscope import register
from federatedscope.core.monitors.formatting import (
    SUPPORTED_FORMS,
    ResultLine,
    result_line,
    summarize,
)
from federatedscope.core.monitors.means import is_better
from federatedscope.core.monitors.metric_calculator import MetricCalculator

logger = logging.getLogger(__name__)


_COUNTED = (
    "total_upload_bytes",
    "total_download_bytes",
    "global_convergence_round",
    "local_convergence_round",
)


class Monitor:
    """Evaluates a trainer's context and keeps the books of one worker.

    Attributes
    ----------
    cfg, monitored_object, callbacks
        The worker's configuration, the worker, and who is told about every batch.
    round_wise_update_key : str
        ``eval.best_res_update_round_wise_key``, the metric that decides which round is best.
    the_larger_the_better : bool
        Its direction.
    tokens, seconds, nonfinite_steps, steps : number
        Statistics of the routine at hand.
    """

    SUPPORTED_FORMS = SUPPORTED_FORMS

    def __init__(self, cfg: Any, monitored_object: Any = None, callbacks: Any = None) -> None:
        self.cfg = cfg
        self.monitored_object = monitored_object
        self.callbacks = callbacks
        self.outdir = cfg.outdir
        self.metric_calculator = MetricCalculator(cfg.eval.metrics)
        self.round_wise_update_key = cfg.eval.best_res_update_round_wise_key
        self.the_larger_the_better = larger_is_better(
            self.round_wise_update_key, self.metric_calculator
        )
        self.total_upload_bytes = self.total_download_bytes = 0
        self.global_convergence_round = self.local_convergence_round = 0
        self.start_routine()

    def start_routine(self) -> None:
        """Set the statistics of a routine to zero."""
        self.steps = self.tokens = self.nonfinite_steps = 0
        self.started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since the routine began."""
        return time.perf_counter() - self.started

    def on_batch(self, ctx: Any) -> None:
        """Count a batch and pass it on to the progress display."""
        self.steps += 1
        batch = ctx.get("data_batch")
        if isinstance(batch, Mapping) and "attention_mask" in batch:
            self.tokens += int(batch["attention_mask"].sum())
        if self.callbacks is not None:
            worker = getattr(self.monitored_object, "ID", 0)
            self.callbacks.on_batch(worker, ctx, self)

    def eval(self, ctx: Any) -> dict[str, float]:
        """Metrics of what the trainer just ran, ``{split}_{metric}`` each."""
        return self.metric_calculator.eval(ctx)

    def format_eval_res(
        self,
        results: Mapping[str, Any],
        rnd: int | str,
        role: int | str = -1,
        forms: Sequence[str] | None = None,
        return_raw: bool = False,
    ) -> dict[str, Any]:
        """Put results into FederatedScope's line format.

        Parameters
        ----------
        results : mapping
            Metrics of one worker, or for a server's summary lists over clients.
        rnd, role
            Index of the round; ``Server #`` or ``Client #k``.
        forms : sequence of str, optional
            Which summaries: ``weighted_avg``, ``avg``, ``fairness``, ``raw``; all by default, and
            with ``return_raw`` only the raw values.
        """
        wanted = [f for f in (SUPPORTED_FORMS if forms is None else forms) if f in SUPPORTED_FORMS]
        if return_raw or not str(role).lower().startswith("server"):
            wanted = ["raw"]
        summaries = {f: results if f == "raw" else summarize(results, f) for f in wanted}
        return result_line(str(role), rnd, summaries, self.cfg.print_decimal_digits)

    def update_best_result(
        self, best_results: dict[str, Any], new_results: Mapping[str, Any], results_type: str
    ) -> bool:
        """Keep the best round's results under ``results_type``; whether it is this one.

        All metrics are those of the round that is best by ``round_wise_update_key``. Lists (one
        value per client) are judged and kept by their best element.
        """
        key = self.round_wise_update_key
        best = best_results.setdefault(results_type, {})
        picked = {name: self._pick(name, value) for name, value in new_results.items()}
        if key not in picked:
            # A fairness summary has `val_acc_std` and no `val_acc`: nothing decides there.
            return False
        improved = key not in best or self.is_better(picked[key], best[key])
        if improved:
            best_results[results_type] = picked
        return improved

    def is_better(self, new: float, old: float) -> bool:
        """Whether one value of the deciding metric is better than another; NaN is the worst."""
        return is_better(new, old, self.the_larger_the_better)

    def _pick(self, name: str, value: Any) -> Any:
        if not isinstance(value, list | tuple) or not value:
            return value
        return (max if larger_is_better(name, self.metric_calculator) else min)(value)

    def add_items_to_best_result(
        self, best_results: dict[str, Any], new_results: Any, results_type: str
    ) -> None:
        """Store ``new_results`` as they are."""
        best_results[results_type] = new_results

    def save_formatted_results(
        self, formatted_res: Mapping[str, Any], save_file_name: str = "eval_results.log"
    ) -> None:
        """Log a result line and append it to a file of the run folder."""
        line = str(ResultLine(formatted_res))
        logger.info(line)
        if save_file_name and self.outdir:
            path = Path(self.outdir) / save_file_name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    def calc_model_metric(
        self, last_model: Any, local_updated_models: Any, rnd: int
    ) -> dict[str, float]:
        """Hook for diagnostics of uploaded models; none are built in."""
        return {}

    def track_upload_bytes(self, bytes: int) -> None:
        """Count bytes that the worker sent."""
        self.total_upload_bytes += bytes

    def track_download_bytes(self, bytes: int) -> None:
        """Count bytes that the worker received."""
        self.total_download_bytes += bytes

    def track_model_size(self, models: Any) -> None:
        """Kept for extensions; sizes are part of the run's summary."""

    def track_avg_flops(self, flops: float, sample_num: int = 1) -> None:
        """Kept for extensions; ``eval.count_flops`` has no effect."""

    def global_converged(self) -> None:
        """Remember that the server stopped early."""
        self.global_convergence_round = getattr(self.monitored_object, "state", 0)

    def local_converged(self) -> None:
        """Remember that the client stopped early."""
        self.local_convergence_round = getattr(self.monitored_object, "state", 0)

    def state_dict(self) -> dict[str, Any]:
        """What was counted so far."""
        return {name: getattr(self, name) for name in _COUNTED}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting from a :meth:`state_dict`."""
        for name in _COUNTED:
            setattr(self, name, state[name])

    def finish_fl(self) -> None:
        """The course is over."""


def larger_is_better(key: str, calculator: MetricCalculator) -> bool:
    """Direction of a result key such as ``val_accuracy``."""
    metric = key.split("_", 1)[-1]
    known = calculator.eval_metric.get(metric)
    if known is not None:
        return bool(known[1])
    return register.larger_is_better(key)

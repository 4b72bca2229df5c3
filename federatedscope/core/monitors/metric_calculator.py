"""Metrics of one evaluation.

A metric is a function ``f(ctx, y_true, y_pred, y_prob, metric)`` of keyword arguments. For a
classification the arrays have a trailing task axis, as in FederatedScope: ``y_true`` and
``y_pred`` of shape ``(n, tasks)``, ``y_prob`` (logits) of shape ``(n, classes, tasks)``. For a
regression ``y_true`` and ``y_prob`` have one shape and ``y_pred`` is ``None``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from federatedscope.core.auxiliaries.metric_builder import Metric, get_metric
from federatedscope.core.errors import ConfigError

__all__ = ["SUPPORT_METRICS", "MetricCalculator"]

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]

DEFAULT_METRICS = ("loss", "avg_loss", "total")


class MetricCalculator:
    """Computes the metrics of a run, ``loss``, ``avg_loss`` and ``total`` always among them.

    Given the names of metrics (``eval.metrics``), built in or registered, ``eval_metric`` maps each
    to ``(function, larger is better)``; one that nobody knows is a :class:`ConfigError`.
    """

    def __init__(self, eval_metric: Iterable[str] | str) -> None:
        names = [eval_metric] if isinstance(eval_metric, str) else list(eval_metric)
        self.eval_metric = self.get_metric_funcs([*DEFAULT_METRICS, *names])

    def get_metric_funcs(self, eval_metric: Iterable[str]) -> dict[str, Metric]:
        """Functions of the named metrics."""
        return get_metric(eval_metric)

    def eval(self, ctx: Any) -> dict[str, Any]:
        """The metrics of the split that was just run, ``{'val_acc': 0.91, ...}``; NaN throughout
        where no row was seen.

        Parameters
        ----------
        ctx : Context
            Reads ``cur_split``, ``loss_batch_total``, ``num_samples``, and where the trainer
            keeps them ``ys_true`` of shape ``(n,)`` and ``ys_prob`` of shape ``(n, classes)``
            (logits), ``(n, 1)`` or ``(n,)`` (a regression), or ``ys_pred``. A metric that needs
            what there is not of these is a :class:`ConfigError`.
        """
        if not ctx.num_samples:
            # Every batch was skipped: a total of 0, and nothing else is a number.
            names = self.eval_metric
            return {f"{ctx.cur_split}_{n}": 0 if n == "total" else float("nan") for n in names}
        y_true, y_pred, y_prob = self._check_and_parse(ctx)
        results = {}
        for name, (function, _) in self.eval_metric.items():
            if problem := _lacking(function, y_true, y_pred, y_prob):
                raise ConfigError(
                    "eval.metrics",
                    name,
                    problem,
                    "Leave it out (loss, avg_loss and total are always there), or use a metric "
                    "that fits",
                )
            results[f"{ctx.cur_split}_{name}"] = function(
                ctx=ctx, y_true=y_true, y_pred=y_pred, y_prob=y_prob, metric=name
            )
        return results

    @staticmethod
    def _check_and_parse(ctx: Any) -> tuple[Array | None, Array | None, Array | None]:
        """``y_true``, ``y_pred`` and ``y_prob`` in the shapes that metrics take."""
        y_true, y_pred, y_prob = (_array(ctx, f"ys_{kind}") for kind in ("true", "pred", "prob"))
        if y_true is None:
            return None, None, None
        if y_pred is not None:
            return _with_task_axis(y_true), _with_task_axis(y_pred), None
        if y_prob is None:
            return y_true, None, None
        task = str(ctx.cfg.model.task).lower()
        if "regression" in task or y_prob.ndim == 1 or y_prob.shape[1] == 1:
            return y_true.reshape(len(y_true), -1), None, y_prob.reshape(len(y_prob), -1)
        y_true = _with_task_axis(y_true)
        y_prob = y_prob[..., None] if y_prob.ndim == 2 else y_prob
        y_pred = np.argmax(y_prob, axis=1)
        if y_true.shape != y_pred.shape:
            raise ValueError(
                f"labels of shape {y_true.shape} do not belong to predictions of shape "
                f"{y_pred.shape}"
            )
        return y_true, y_pred, y_prob


def _array(ctx: Any, name: str) -> Array | None:
    value = ctx.get(name) if hasattr(ctx, "get") else getattr(ctx, name, None)
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    return None if value is None or len(value) == 0 else np.asarray(value)


def _with_task_axis(values: Array) -> Array:
    return values[:, None] if values.ndim == 1 else values


def _lacking(
    function: Any, y_true: Array | None, y_pred: Array | None, y_prob: Array | None
) -> str:
    """What a built-in metric needs and does not have; empty where it has all."""
    needed = _NEEDS_PREDICTIONS.get(function)
    if needed and (y_true is None or (y_pred is None and y_prob is None)):
        return "it compares predictions with labels, and this trainer keeps only the loss"
    if needed == "y_pred" and y_pred is None:
        return "it needs predicted classes, and this model predicts a number"
    if needed == "y_prob" and y_prob is None:
        return "it needs the model's scores, and this trainer keeps predicted classes only"
    return ""


def _per_task(y_true: Array, other: Array, score: Callable[[Array, Array], Any]) -> list[float]:
    """``score`` of every task over its labelled rows (a label that is NaN is no label)."""
    scores = []
    for task in range(y_true.shape[1]):
        labelled = y_true[:, task] == y_true[:, task]
        value = score(y_true[labelled, task], other[labelled, ..., task])
        if value is not None:
            scores.append(float(value))
    return scores


def _eval_correct(y_true: Array, y_pred: Array, **kwargs: Any) -> float:
    return float(np.mean(_per_task(y_true, y_pred, lambda t, p: np.sum(t == p))))


def _eval_acc(y_true: Array, y_pred: Array, **kwargs: Any) -> float:
    return float(np.mean(_per_task(y_true, y_pred, lambda t, p: np.mean(t == p))))


def _eval_ap(y_true: Array, y_pred: Array, **kwargs: Any) -> float:
    """Average precision of the predicted classes, of labels 0 and 1."""

    def score(labels: Array, predicted: Array) -> Any:
        both = np.any(labels == 1) and np.any(labels == 0)
        return average_precision_score(labels, predicted) if both else None

    scores = _per_task(y_true, y_pred, score)
    if not scores:
        logger.warning("ap: no rows with both labels 0 and 1; reported as 0.")
    return float(np.mean(scores)) if scores else 0.0


def _eval_f1(y_true: Array, y_pred: Array, **kwargs: Any) -> float:
    """F1 of every class, plain mean (macro)."""
    if y_true.shape[1] == 1:
        y_true, y_pred = y_true[:, 0], y_pred[:, 0]
    return float(f1_score(y_true, y_pred, average="macro"))


def _eval_roc_auc(y_true: Array, y_prob: Array, **kwargs: Any) -> float:
    """Area under the ROC curve, one class against the rest, mean over the classes present."""
    scores = _per_task(y_true, y_prob, _one_versus_rest)
    if not scores:
        logger.warning("roc_auc: only one class among the labels; reported as 0.5.")
    return float(np.mean(scores)) if scores else 0.5


def _one_versus_rest(labels: Array, logits: Array) -> float | None:
    probabilities = softmax(logits.astype(np.float64), axis=-1)
    classes = range(1, 2) if logits.shape[1] == 2 else range(logits.shape[1])
    scores = [
        roc_auc_score(labels == k, probabilities[:, k])
        for k in classes
        if 0 < np.sum(labels == k) < len(labels)
    ]
    return float(np.mean(scores)) if scores else None


def _eval_mse(y_true: Array, y_prob: Array, **kwargs: Any) -> float:
    if y_true.shape != y_prob.shape:
        problem = "it is for models that predict a number, and this one predicts classes"
        remedy = "Write acc, or model.task: regression with data.num_labels: 1"
        raise ConfigError("eval.metrics", kwargs.get("metric", "mse"), problem, remedy)
    return float(np.mean((y_true.astype(np.float64) - y_prob) ** 2))


def _eval_rmse(y_true: Array, y_prob: Array, **kwargs: Any) -> float:
    return float(np.sqrt(_eval_mse(y_true, y_prob, **kwargs)))


SUPPORT_METRICS: dict[str, Metric] = {
    "loss": (lambda ctx, **_: float(ctx.loss_batch_total), False),
    "avg_loss": (lambda ctx, **_: float(ctx.loss_batch_total) / ctx.num_samples, False),
    "total": (lambda ctx, **_: int(ctx.num_samples), False),
    "correct": (_eval_correct, True),
    "acc": (_eval_acc, True),
    "ap": (_eval_ap, True),
    "f1": (_eval_f1, True),
    "roc_auc": (_eval_roc_auc, True),
    "rmse": (_eval_rmse, False),
    "mse": (_eval_mse, False),
    "loss_regular": (lambda ctx, **_: float(ctx.loss_regular_total), False),
}

# What each built-in metric reads besides the context.
_NEEDS_PREDICTIONS: dict[Callable[..., Any], str] = {
    **dict.fromkeys((_eval_correct, _eval_acc, _eval_ap, _eval_f1), "y_pred"),
    **dict.fromkeys((_eval_roc_auc, _eval_mse, _eval_rmse), "y_prob"),
}


def needs_predictions(function: Callable[..., Any]) -> bool:
    """Whether a metric compares labels with predicted classes or numbers.

    Registered metrics say so with an attribute of that name.
    """
    return function in _NEEDS_PREDICTIONS or bool(getattr(function, "needs_predictions", False))


def text_kind(function: Callable[..., Any]) -> str:
    """What text a metric compares: ``generated``, ``forced``, or ``""`` for none.

    Registered metrics say so with an attribute ``text``; see
    :class:`federatedscope.llm.trainer.trainer.LLMTrainer`.
    """
    return str(getattr(function, "text", ""))

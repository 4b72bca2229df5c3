"""The official metrics of the GLUE tasks, computed in the library (nothing is fetched).

Each is registered under its own name and its other spellings. Where a figure is undefined (one
class only, constant predictions) it is 0, as the benchmark's own scorer has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score, matthews_corrcoef

from federatedscope.register import register_metric
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.tasks import GLUE_TASKS, TextTask

__all__ = ["GLUE_METRICS", "GLUE_TASKS", "check_metrics"]

Metric = Callable[..., float]

# Metrics of the runtime that make sense for one kind of label only.
_CLASSIFICATION = {"acc", "correct", "ap", "roc_auc"}
_REGRESSION = {"mse", "rmse"}
_ALWAYS = {"loss", "avg_loss", "total", "loss_regular"}


def _classes(metric: str, y_true: Any, y_pred: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Labels and predicted classes of shape ``(n,)``."""
    if y_true is None or y_pred is None:
        raise ExtensionError(
            "eval.metrics",
            metric,
            "it compares predicted classes with labels, and this trainer or model gives none",
            "Use it with a classification task, or leave it out (the loss is always reported)",
        )
    return np.asarray(y_true).ravel(), np.asarray(y_pred).ravel()


def _numbers(metric: str, y_true: Any, y_prob: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Targets and predicted numbers of shape ``(n,)`` in float64."""
    if y_true is None or y_prob is None or np.size(y_prob) != np.size(y_true):
        raise ExtensionError(
            "eval.metrics",
            metric,
            "it compares predicted numbers with targets, and this trainer or model gives none",
            "Use it with a regression task (stsb@glue), or leave it out",
        )
    return (
        np.asarray(y_true, dtype=np.float64).ravel(),
        np.asarray(y_prob, dtype=np.float64).ravel(),
    )


def accuracy(y_true: Any, y_pred: Any, metric: str = "accuracy", **kwargs: Any) -> float:
    """Share of rows whose class is predicted."""
    labels, predictions = _classes(metric, y_true, y_pred)
    return float(np.mean(labels == predictions))


def f1(ctx: Any, y_true: Any, y_pred: Any, metric: str = "f1", **kwargs: Any) -> float:
    """F1 of class 1 for GLUE's tasks of two classes; the mean over classes for all others."""
    labels, predictions = _classes(metric, y_true, y_pred)
    name, _, suffix = str(ctx.cfg.data.type).lower().rpartition("@")
    task = GLUE_TASKS.get(name) if suffix == "glue" else None
    binary = task is not None and task.num_labels == 2
    average = "binary" if binary else "macro"
    return float(f1_score(labels, predictions, average=average, zero_division=0))


def f1_binary(y_true: Any, y_pred: Any, metric: str = "f1_binary", **kwargs: Any) -> float:
    """F1 of class 1."""
    labels, predictions = _classes(metric, y_true, y_pred)
    return float(f1_score(labels == 1, predictions == 1, zero_division=0))


def matthews_correlation(
    y_true: Any, y_pred: Any, metric: str = "matthews_correlation", **kwargs: Any
) -> float:
    """Matthews correlation of labels and predicted classes, in [-1, 1]."""
    return float(matthews_corrcoef(*_classes(metric, y_true, y_pred)))


def pearson(y_true: Any, y_prob: Any, metric: str = "pearson", **kwargs: Any) -> float:
    """Linear correlation of targets and predicted numbers, in [-1, 1]."""
    return _correlation(pearsonr, *_numbers(metric, y_true, y_prob))


def spearman(y_true: Any, y_prob: Any, metric: str = "spearmanr", **kwargs: Any) -> float:
    """Rank correlation of targets and predicted numbers, in [-1, 1]."""
    return _correlation(spearmanr, *_numbers(metric, y_true, y_prob))


def _correlation(function: Callable[..., Any], x: npt.NDArray[Any], y: npt.NDArray[Any]) -> float:
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(function(x, y).statistic)


# Name to (function, whether it is for classes); all are the larger the better.
GLUE_METRICS: dict[str, tuple[Metric, bool]] = {
    "accuracy": (accuracy, True),
    "f1": (f1, True),
    "f1_binary": (f1_binary, True),
    "matthews_correlation": (matthews_correlation, True),
    "matthews": (matthews_correlation, True),
    "mcc": (matthews_correlation, True),
    "pearson": (pearson, False),
    "pearsonr": (pearson, False),
    "spearmanr": (spearman, False),
    "spearman": (spearman, False),
}


def check_metrics(metrics: Iterable[str], task: TextTask) -> None:
    """Refuse metrics that belong to the other kind of task.

    Raises
    ------
    ExtensionError
        A correlation of numbers for a classification, or a metric of classes for a regression.
    """
    for name in metrics:
        known = GLUE_METRICS.get(name)
        of_classes = name in _CLASSIFICATION or (known is not None and known[1])
        of_numbers = name in _REGRESSION or (known is not None and not known[1])
        if name in _ALWAYS or not (of_numbers if not task.is_regression else of_classes):
            continue
        kind = "is a regression" if task.is_regression else f"has {task.num_labels} classes"
        wrong = "predicted numbers" if of_numbers else "predicted classes"
        raise ExtensionError(
            "eval.metrics",
            list(metrics),
            f"{name} is a metric of {wrong}, and {task.name} {kind}",
            f"Write eval.metrics: {list(task.metrics)}, the metrics of {task.name}",
        )


def _builder(name: str, function: Metric) -> Callable[[Iterable[str]], Any]:
    def build(types: Iterable[str]) -> tuple[str, Metric, bool] | None:
        return (name, function, True) if name in types else None

    return build


for _name, (_function, _) in GLUE_METRICS.items():
    # Read by the runtime: a language model gives nothing to compare.
    vars(_function)["needs_predictions"] = True
    register_metric(_name, _builder(_name, _function))

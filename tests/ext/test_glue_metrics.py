"""The metrics of GLUE against scikit-learn, SciPy and hand-made figures."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score, matthews_corrcoef

import federatedscope_ext.metrics  # noqa: F401  registers them
from federatedscope.core.monitors.metric_calculator import MetricCalculator
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.metrics.glue import GLUE_METRICS, GLUE_TASKS

RNG = np.random.RandomState(0)
TRUE, LOGITS = RNG.randint(0, 2, 40), RNG.randn(40, 2)
PRED = LOGITS.argmax(1)
TARGETS = RNG.uniform(0, 5, 40)
NUMBERS = TARGETS + RNG.randn(40)


def evaluate(metric, true, prob, data_type="mrpc@glue"):
    ctx = {
        "cur_split": "val",
        "loss_batch_total": 1.0,
        "num_samples": 40,
        "ys_true": true,
        "ys_prob": prob,
        "cfg": SimpleNamespace(
            model=SimpleNamespace(task="node"), data=SimpleNamespace(type=data_type)
        ),
    }
    context = type("Ctx", (dict,), {"__getattr__": dict.__getitem__})(ctx)
    return MetricCalculator([metric]).eval(context)[f"val_{metric}"]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("accuracy", np.mean(TRUE == PRED)),
        ("f1", f1_score(TRUE, PRED)),
        ("f1_binary", f1_score(TRUE, PRED)),
        ("matthews_correlation", matthews_corrcoef(TRUE, PRED)),
        ("mcc", matthews_corrcoef(TRUE, PRED)),
        ("matthews", matthews_corrcoef(TRUE, PRED)),
    ],
)
def test_classes(metric, expected):
    assert evaluate(metric, TRUE, LOGITS) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(40,), (40, 1)])
@pytest.mark.parametrize(
    ("metric", "function"),
    [
        ("pearson", pearsonr),
        ("pearsonr", pearsonr),
        ("spearmanr", spearmanr),
        ("spearman", spearmanr),
    ],
)
def test_numbers(metric, function, shape):
    expected = function(TARGETS, NUMBERS).statistic
    value = evaluate(metric, TARGETS.astype(np.float32), NUMBERS.reshape(shape), "stsb@glue")
    assert value == pytest.approx(expected, abs=1e-6)


def test_f1_is_macro_outside_of_the_two_class_tasks():
    expected = f1_score(TRUE, PRED, average="macro")
    assert evaluate("f1", TRUE, LOGITS, "mails.csv@text") == pytest.approx(expected)
    three = np.arange(40) % 3
    logits = RNG.randn(40, 3)
    expected = f1_score(three, logits.argmax(1), average="macro")
    assert evaluate("f1", three, logits, "mnli@glue") == pytest.approx(expected)


def test_undefined_figures_are_zero():
    assert evaluate("pearson", TARGETS, np.ones(40)) == 0.0
    assert evaluate("spearmanr", np.ones(40), NUMBERS) == 0.0
    assert evaluate("mcc", np.zeros(40, dtype=int), LOGITS) == 0.0
    assert evaluate("f1", np.zeros(40, dtype=int), np.tile([1.0, 0.0], (40, 1))) == 0.0


@pytest.mark.parametrize("metric", GLUE_METRICS)
def test_trainer_without_predictions(metric):
    with pytest.raises(ExtensionError, match=f"'{metric}'"):
        evaluate(metric, None, None)


def test_metric_of_the_other_kind():
    with pytest.raises(ExtensionError, match="accuracy"):
        evaluate("accuracy", TARGETS, NUMBERS)
    with pytest.raises(ExtensionError, match="pearson"):
        evaluate("pearson", TRUE, LOGITS)


def test_nine_tasks_each_with_registered_metrics():
    assert sorted(GLUE_TASKS) == [
        "cola",
        "mnli",
        "mrpc",
        "qnli",
        "qqp",
        "rte",
        "sst2",
        "stsb",
        "wnli",
    ]
    for task in GLUE_TASKS.values():
        assert task.metrics
        assert all(GLUE_METRICS[name][1] != task.is_regression for name in task.metrics)

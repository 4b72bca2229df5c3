"""Built-in metrics against hand-made and scikit-learn's figures."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import f1_score, roc_auc_score

from federatedscope import register
from federatedscope.core.auxiliaries.metric_builder import get_metric
from federatedscope.core.errors import ConfigError
from federatedscope.core.monitors.metric_calculator import SUPPORT_METRICS, MetricCalculator


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch):
    monkeypatch.setattr(register, "metric_dict", {})


class Ctx(dict):
    __getattr__ = dict.__getitem__


def context(task="node", **values):
    cfg = SimpleNamespace(model=SimpleNamespace(task=task))
    base = {"cur_split": "val", "loss_batch_total": 6.0, "num_samples": 4, "cfg": cfg}
    return Ctx({**base, "loss_regular_total": 0.5, **values})


TRUE = np.array([0, 1, 1, 0])
LOGITS = np.array([[2.0, 1.0], [0.0, 1.0], [1.0, 0.5], [3.0, -1.0]])


def evaluate(metric, **values):
    results = MetricCalculator([metric]).eval(context(**values))
    return results[f"val_{metric}"]


def test_loss_is_always_there():
    results = MetricCalculator([]).eval(context())
    assert results == {"val_loss": 6.0, "val_avg_loss": 1.5, "val_total": 4}


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("acc", 0.75),
        ("correct", 3.0),
        ("f1", f1_score(TRUE, [0, 1, 0, 0], average="macro")),
        ("roc_auc", roc_auc_score(TRUE, softmax(LOGITS, axis=1)[:, 1])),
        ("ap", 0.75),
        ("loss_regular", 0.5),
    ],
)
def test_two_classes(metric, expected, as_tensor):
    kind = torch.as_tensor if as_tensor else np.asarray
    value = evaluate(metric, ys_true=kind(TRUE), ys_prob=kind(LOGITS))
    assert isinstance(value, float) and value == pytest.approx(expected)


def test_several_classes():
    rng = np.random.RandomState(0)
    true, logits = rng.randint(0, 4, 50), rng.randn(50, 4)
    expected = roc_auc_score(true, softmax(logits, axis=1), multi_class="ovr")
    assert evaluate("roc_auc", ys_true=true, ys_prob=logits) == pytest.approx(expected)
    expected = f1_score(true, logits.argmax(1), average="macro")
    assert evaluate("f1", ys_true=true, ys_prob=logits) == pytest.approx(expected)


def test_one_class_only():
    ones = np.ones(4, dtype=int)
    assert evaluate("roc_auc", ys_true=ones, ys_prob=LOGITS) == 0.5
    assert evaluate("ap", ys_true=ones, ys_prob=LOGITS) == 0.0
    assert evaluate("acc", ys_true=ones, ys_prob=LOGITS) == 0.25


def test_predicted_classes_instead_of_scores():
    assert evaluate("acc", ys_true=TRUE, ys_pred=np.array([0, 1, 0, 0])) == 0.75
    with pytest.raises(ConfigError, match=r"roc_auc.*scores"):
        evaluate("roc_auc", ys_true=TRUE, ys_pred=TRUE)


def test_rows_without_a_label_do_not_count():
    true = np.array([[0.0, 1.0], [np.nan, 1.0]])
    pred = np.array([[0.0, 0.0], [1.0, 1.0]])
    assert evaluate("acc", ys_true=true, ys_pred=pred) == pytest.approx((1.0 + 0.5) / 2)


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_regression(shape):
    true, predicted = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0, 2.0])
    values = {"ys_true": true, "ys_prob": predicted.reshape(shape)}
    assert evaluate("mse", **values) == pytest.approx(1.0)
    assert evaluate("rmse", **values) == pytest.approx(1.0)
    with pytest.raises(ConfigError, match=r"acc.*number"):
        evaluate("acc", **values)


@pytest.mark.parametrize("metric", ["acc", "f1", "ap", "correct", "roc_auc", "mse", "rmse"])
@pytest.mark.parametrize("values", [{}, {"ys_true": TRUE}, {"ys_true": [], "ys_prob": []}])
def test_trainer_that_keeps_only_the_loss(metric, values):
    with pytest.raises(ConfigError, match=f"'{metric}'.*only the loss"):
        evaluate(metric, **values)


def test_error_of_squares_of_classes():
    with pytest.raises(ConfigError, match="mse"):
        evaluate("mse", ys_true=TRUE, ys_prob=LOGITS)


def test_shapes_that_do_not_belong_together():
    with pytest.raises(ValueError, match="shape"):
        evaluate("acc", ys_true=TRUE[:3], ys_prob=LOGITS)


def test_unknown_metric_names_the_known_ones():
    with pytest.raises(ConfigError) as error:
        MetricCalculator(["accuracy_of_mine"])
    for name in ("accuracy_of_mine", *SUPPORT_METRICS):
        assert name in str(error.value)


def test_registered_metric_in_the_form_of_extensions():
    seen = {}

    def mine(ctx, y_true, y_pred, y_prob, **kwargs):
        seen.update(kwargs, shapes=(y_true.shape, y_pred.shape, y_prob.shape))
        return 7.0

    register.register_metric(
        "mine", lambda types: ("mine", mine, False) if "mine" in types else None
    )
    calculator = MetricCalculator("mine")
    assert calculator.eval_metric["mine"] == (mine, False)
    assert calculator.eval(context(ys_true=TRUE, ys_prob=LOGITS))["val_mine"] == 7.0
    assert seen == {"metric": "mine", "shapes": ((4, 1), (4, 1), (4, 2, 1))}
    assert "mine" not in get_metric(["acc"])


def test_registered_metric_comes_before_the_built_in_one():
    register.register_metric("acc", lambda types: ("acc", lambda **kw: 0.123, True))
    assert evaluate("acc") == 0.123


def test_larger_is_better():
    metrics = get_metric(["acc", "loss", "rmse"])
    assert {name: larger for name, (_, larger) in metrics.items()} == {
        "acc": True,
        "loss": False,
        "rmse": False,
    }

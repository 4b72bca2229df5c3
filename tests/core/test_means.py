"""Means over clients and the best round, in their one place."""

from __future__ import annotations

import math
import statistics

import pytest

from federatedscope import register
from federatedscope.core.monitors.means import Best, mean, std, weighted_mean

NAN, INF = math.nan, math.inf


def test_means() -> None:
    values = [0.1, 0.2, 0.6]
    assert mean(values) == pytest.approx(0.3)
    assert mean([0.1] * 10) == 0.1
    assert weighted_mean([(0.2, 1), (0.8, 3)]) == pytest.approx(0.65)
    assert std(values) == pytest.approx(statistics.pstdev(values))
    assert std(values, sample=True) == pytest.approx(statistics.stdev(values))


def test_nothing_and_too_little() -> None:
    assert math.isnan(mean([])) and math.isnan(std([])) and math.isnan(std([1.0], sample=True))
    assert math.isnan(weighted_mean([(0.5, 0)])) and std([1.0]) == 0


@pytest.mark.parametrize("values", [[NAN, 1.0], [INF, -INF], [1e308, 1e308], [INF, 1.0]])
def test_what_diverged_is_not_averaged_away(values: list[float]) -> None:
    assert not math.isfinite(mean(values))
    assert not math.isfinite(std([*values, 0.0]))


@pytest.mark.parametrize(
    ("larger", "values", "rounds"),
    [
        (True, [0.5, 0.7, 0.7, 0.6], [1, 2]),
        (False, [0.5, 0.7, 0.4], [1, 3]),
        (True, [NAN, NAN, 0.1, NAN], [1, 3]),
        (False, [INF, 3.0], [1, 2]),
    ],
)
def test_the_best_is_the_first_of_equal_rounds(
    larger: bool, values: list[float], rounds: list[int]
) -> None:
    best = Best(larger)
    assert [rnd for rnd, value in enumerate(values, start=1) if best.offer(rnd, value)] == rounds
    assert best.round == rounds[-1]


def test_the_name_of_a_figure_tells_its_direction() -> None:
    larger = [name for name in ("val_acc", "val_f1", "test_rouge_l", "val_matthews_correlation")
              if register.larger_is_better(name)]  # fmt: skip
    assert len(larger) == 4
    for name in ("val_loss", "test_avg_loss", "val_Perplexity", "val_ppl", "val_mae", "val_rmse"):
        assert not register.larger_is_better(name)

"""Robust rules against slow float64 oracles written from the papers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from aggregation_cases import (
    State,
    assert_close,
    config,
    dense,
    flat,
    oracle_mean,
    round_of,
    run,
    states,
)
from torch import nn

from federatedscope.core.aggregators import (
    AggregationError,
    KrumAggregator,
)
from federatedscope.core.auxiliaries.aggregator_builder import get_aggregator
from federatedscope.core.configs.config import CN
from federatedscope.core.errors import ConfigError, UserError


def oracle_krum_order(points: np.ndarray, alive: list[int], faulty: int) -> list[int]:
    scores = {}
    for i in alive:
        distances = sorted(float(((points[i] - points[j]) ** 2).sum()) for j in alive if j != i)
        # Equal scores (two that are each other's only neighbour): the smaller total first.
        scores[i] = (sum(distances[: max(len(alive) - faulty - 2, 1)]), sum(distances))
    return sorted(alive, key=lambda i: scores[i])


def oracle_krum(uploads: list[State], faulty: int, number: int, sizes: list[float]) -> Any:
    chosen = oracle_krum_order(flat(uploads), list(range(len(uploads))), faulty)[:number]
    return oracle_mean([uploads[i] for i in chosen], [sizes[i] for i in chosen])


def oracle_per_value(uploads: list[State], rule: Any) -> dict[str, np.ndarray]:
    out = {}
    for name in uploads[0]:
        values = dense(uploads, name)
        columns = values.reshape(len(uploads), -1)
        combined = [rule(sorted(columns[:, i].tolist())) for i in range(columns.shape[1])]
        out[name] = np.array(combined).reshape(values.shape[1:])
    return out


def oracle_median(values: list[float]) -> float:
    n = len(values)
    return values[n // 2] if n % 2 else (values[n // 2 - 1] + values[n // 2]) / 2


def oracle_bulyan(uploads: list[State], faulty: int) -> dict[str, np.ndarray]:
    points, alive, chosen = flat(uploads), list(range(len(uploads))), []
    while len(chosen) < len(uploads) - 2 * faulty:
        chosen.append(oracle_krum_order(points, alive, faulty)[0])
        alive.remove(chosen[-1])
    beta = len(chosen) - 2 * faulty

    def around_median(values: list[float]) -> float:
        middle = oracle_median(values)
        # The nearest values to the median are a run of the sorted ones.
        runs = [values[i : i + beta] for i in range(len(values) - beta + 1)]
        nearest = min(runs, key=lambda r: max(abs(v - middle) for v in r))
        return sum(nearest) / beta

    return oracle_per_value([uploads[i] for i in chosen], around_median)


COUNTS = {"krum": [5, 6, 9], "median": [3, 4, 7], "trimmedmean": [5, 8], "bulyan": [7, 8, 11]}


@pytest.mark.parametrize(
    ("rule", "count"), [(rule, count) for rule, counts in COUNTS.items() for count in counts]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_robust_rule_equals_slow_oracle(rule: str, count: int, seed: int) -> None:
    uploads, sizes = states(count, seed), [1.0 + i % 4 for i in range(count)]
    cfg = config(rule, aggregator__BFT_args__krum_agg_num=2)
    cut = int(0.2 * count)
    expected = {
        "krum": lambda: oracle_krum(uploads, 1, 2, sizes),
        "median": lambda: oracle_per_value(uploads, oracle_median),
        "trimmedmean": lambda: oracle_per_value(
            uploads, lambda v: sum(v[cut : count - cut]) / (count - 2 * cut)
        ),
        "bulyan": lambda: oracle_bulyan(uploads, 1),
    }[rule]()
    assert_close(run(rule, round_of(uploads, sizes), cfg), expected)


@pytest.mark.parametrize("faulty", [0, 2])
def test_bulyan_with_none_and_two_faulty(faulty: int) -> None:
    uploads = states(11)
    cfg = config("bulyan", aggregator__byzantine_node_num=faulty)
    assert_close(run("bulyan", round_of(uploads), cfg), oracle_bulyan(uploads, faulty))


@pytest.mark.parametrize("scale", [1e2, 1e6, -1e6])
@pytest.mark.parametrize("rule", ["krum", "median", "trimmedmean", "bulyan", "fedavg"])
def test_planted_outliers(rule: str, scale: float) -> None:
    """One client far off: robust rules stay within the honest range, the mean does not."""
    base = states(1, seed=3, dtype=torch.float64)[0]
    honest = [
        {n: base[n] + 1e-3 * t for n, t in noise.items()}
        for noise in states(6, dtype=torch.float64)
    ]
    outlier = {n: base[n] + scale for n in base}
    cfg = config(rule, aggregator__byzantine_node_num=1)
    for place in (0, 3, 6):
        uploads = [*honest[:place], outlier, *honest[place:]]
        result = run(rule, round_of(uploads), cfg)
        inside = all(
            bool((result[n] >= torch.stack([h[n] for h in honest]).amin(0) - 1e-12).all())
            and bool((result[n] <= torch.stack([h[n] for h in honest]).amax(0) + 1e-12).all())
            for n in ("q.lora_A.default.weight", "head.bias", "temperature")
        )
        assert inside is (rule != "fedavg")


def test_krum_beside_a_huge_outlier_still_tells_honest_clients_apart() -> None:
    cfg = config("krum")
    points = [0.0, 1e-3, 1.5e-3, 9e-3, 1e8]
    uploads = [{"w": torch.full((4, 6), p, dtype=torch.float64)} for p in points]
    # Two neighbours count; the second point has the nearest ones.
    assert run("krum", round_of(uploads), cfg)["w"][0, 0].item() == 1e-3
    weights = KrumAggregator(config=cfg).weights(round_of(uploads))
    assert weights == {10: 0.0, 11: 1.0, 12: 0.0, 13: 0.0, 14: 0.0}


def test_normbounding_equals_oracle() -> None:
    uploads, current, sizes = states(5), states(1, seed=8)[0], [1.0, 2.0, 3.0, 4.0, 5.0]
    uploads[1] = {n: 100 * t for n, t in uploads[1].items()}
    uploads[2] = {n: current[n] + 1e-3 * t for n, t in uploads[2].items()}
    bound = 4.0
    slightly = 1.2 * bound / np.linalg.norm(flat([uploads[3]])[0])
    uploads[3] = {n: current[n] + slightly * t for n, t in uploads[3].items()}
    shift, points = flat([current])[0], flat(uploads)
    clipped = []
    for point in points:
        norm = float(np.sqrt(((point - shift) ** 2).sum()))
        clipped.append(shift + (point - shift) * min(1.0, bound / norm))
    expected = sum(w / 15 * c for w, c in zip(sizes, clipped, strict=True))
    cfg = config("normbounding", aggregator__BFT_args__normbounding_norm_bound=bound)
    result = run("normbounding", round_of(uploads, sizes, current), cfg)
    np.testing.assert_allclose(flat([result])[0], expected, rtol=1e-6, atol=1e-6)
    assert np.linalg.norm(flat([result])[0] - shift) <= bound


def test_current_state_defaults_to_the_models() -> None:
    model = nn.Linear(3, 2)
    upload = {"weight": model.weight.detach() + 10.0, "bias": model.bias.detach().clone()}
    cfg = config("normbounding", aggregator__BFT_args__normbounding_norm_bound=0.5)
    aggregator = get_aggregator("fedavg", model=model, device="cpu", config=cfg)
    result = aggregator.aggregate({"client_feedback": [(1, upload)]})
    moved = (result["weight"] - model.weight.detach()).norm().item()
    assert moved == pytest.approx(0.5, rel=1e-5)
    with pytest.raises(UserError, match="other"):
        aggregator.aggregate({"client_feedback": [(1, {"other": torch.ones(1)})]})


@pytest.mark.parametrize(("rule", "needed"), [("krum", 5), ("median", 3), ("bulyan", 7)])
def test_too_few_uploads_for_a_robust_rule(rule: str, needed: int) -> None:
    run(rule, round_of(states(needed)))
    with pytest.raises(AggregationError, match=f"{rule} needs at least {needed} uploads"):
        run(rule, round_of(states(needed - 1)))


def test_trimming_cuts_whole_clients_exactly() -> None:
    """floor(0.29 * 100) is 29 although 0.29 * 100 is 28.999999999999996."""
    uploads = [{"w": torch.tensor([float(i * i)])} for i in range(100)]
    cfg = config("trimmedmean", aggregator__BFT_args__trimmedmean_excluded_ratio=0.29)
    expected = np.mean([i * i for i in range(29, 71)])
    assert run("trimmedmean", round_of(uploads), cfg)["w"].item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rule", "key", "value", "word"),
    [
        ("krum", "aggregator__BFT_args__krum_agg_num", 0, "krum_agg_num"),
        ("krum", "aggregator__BFT_args__krum_agg_num", 1.5, "krum_agg_num"),
        ("krum", "aggregator__byzantine_node_num", -1, "byzantine_node_num"),
        ("trimmedmean", "aggregator__BFT_args__trimmedmean_excluded_ratio", 0.5, "ratio"),
        ("normbounding", "aggregator__BFT_args__normbounding_norm_bound", 0.0, "norm_bound"),
        ("normbounding", "aggregator__BFT_args", CN(new_allowed=True), "norm_bound"),
    ],
)
def test_arguments_of_robust_rules(rule: str, key: str, value: Any, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        get_aggregator("fedavg", config=config(rule, **{key: value}))


def test_trimming_less_than_the_faulty_clients_is_refused() -> None:
    cfg = config("trimmedmean", aggregator__byzantine_node_num=2)
    with pytest.raises(AggregationError, match="fewer than the 2 faulty"):
        run("trimmedmean", round_of(states(5)), cfg)

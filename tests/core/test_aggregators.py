"""What every server rule must keep, and which one a run gets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from aggregation_cases import (
    ALL,
    RULES,
    SHAPES,
    State,
    assert_close,
    config,
    oracle_mean,
    round_of,
    run,
    states,
)
from torch import nn

from federatedscope import register
from federatedscope.core.aggregators import (
    AggregationError,
    Aggregator,
    BulyanAggregator,
    ClientsAvgAggregator,
    FedOptAggregator,
    KrumAggregator,
    MedianAggregator,
    NoCommunicationAggregator,
    NormboundingAggregator,
    OnlineClientsAvgAggregator,
    TrimmedmeanAggregator,
)
from federatedscope.core.auxiliaries.aggregator_builder import get_aggregator
from federatedscope.core.errors import ConfigError


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rule", ALL)
def test_inputs_stay_as_they_are_and_are_not_in_the_result(rule: str, dtype: torch.dtype) -> None:
    uploads, current = states(7, dtype=dtype), states(1, seed=9, dtype=dtype)[0]
    before = [{n: t.clone() for n, t in s.items()} for s in [*uploads, current]]
    result = run(rule, round_of(uploads, [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0], current))
    for state, copy in zip([*uploads, current], before, strict=True):
        for name in SHAPES:
            assert torch.equal(state[name], copy[name]), name
            if state[name].numel():
                assert result[name].data_ptr() != state[name].data_ptr(), name
    for tensor in result.values():
        tensor.fill_(77.0)
    assert all(torch.equal(s[n], c[n]) for s, c in zip(uploads, before, strict=False) for n in s)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rule", ALL)
def test_result_has_names_shapes_and_dtypes_of_the_uploads(rule: str, dtype: torch.dtype) -> None:
    result = run(rule, round_of(states(7, dtype=dtype)))
    assert {n: tuple(t.shape) for n, t in result.items()} == SHAPES
    assert {t.dtype for t in result.values()} == {dtype}
    assert not any(t.requires_grad for t in result.values())


@pytest.mark.parametrize("rule", ALL)
def test_order_of_clients_does_not_matter(rule: str) -> None:
    uploads, sizes = states(7), [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0]
    expected = {n: t.double().numpy() for n, t in run(rule, round_of(uploads, sizes)).items()}
    generator = np.random.default_rng(0)
    for _ in range(5):
        order = generator.permutation(7)
        shuffled = round_of([uploads[i] for i in order], [sizes[i] for i in order])
        assert_close(run(rule, shuffled), expected, 1e-6)


@pytest.mark.parametrize("rule", ALL)
def test_clients_that_agree_get_their_state_back(rule: str) -> None:
    state = states(1)[0]
    result = run(rule, round_of([state] * 7, [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0], state))
    assert all(torch.equal(result[name], state[name]) for name in SHAPES)


@pytest.mark.parametrize("rule", ["fedavg", "online", "normbounding", "median", "trimmedmean"])
def test_single_client_gets_its_own_state_back(rule: str) -> None:
    state = states(1)[0]
    result = run(rule, round_of([state], [5.0]), config(rule, aggregator__byzantine_node_num=0))
    assert all(torch.equal(result[name], state[name]) for name in SHAPES)


@pytest.mark.parametrize("rule", ALL)
def test_rule_moves_with_a_common_shift(rule: str) -> None:
    """A rule on states equals the published one on updates: f(x + c) = f(x) + c."""
    uploads, shift = states(7, dtype=torch.float64), states(1, seed=5, dtype=torch.float64)[0]
    moved = [{n: t + shift[n] for n, t in u.items()} for u in uploads]
    still = run(rule, round_of(uploads))
    there = run(rule, round_of(moved, current=shift))
    expected = {n: (still[n] + shift[n]).numpy() for n in SHAPES}
    assert_close(there, expected, 1e-6 if rule == "fedopt" else 1e-12)


@pytest.mark.parametrize("rule", ALL)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_upload_is_named(rule: str, value: float) -> None:
    uploads = states(7)
    uploads[3]["q.lora_B.default.weight"][7, 2] = value
    with pytest.raises(AggregationError, match=r"Client 13 .*1 of 160 .*q\.lora_B") as caught:
        run(rule, round_of(uploads))
    assert (caught.value.client_id, caught.value.key) == (13, "q.lora_B.default.weight")
    assert caught.value.is_user_error


@pytest.mark.parametrize("rule", ALL)
@pytest.mark.parametrize("damage", ["missing", "extra", "shape"])
def test_upload_of_another_layout_is_named(rule: str, damage: str) -> None:
    uploads = states(7)
    if damage == "missing":
        del uploads[2]["head.bias"]
    elif damage == "extra":
        uploads[2]["head.bias.more"] = torch.zeros(2)
    else:
        uploads[2]["head.bias"] = torch.zeros(4)
    with pytest.raises(AggregationError, match=r"head\.bias") as caught:
        run(rule, round_of(uploads))
    assert caught.value.client_id == 12


@pytest.mark.parametrize("rule", ALL)
@pytest.mark.parametrize("size", [-1.0, float("nan"), float("inf")])
def test_impossible_sample_size_is_named(rule: str, size: float) -> None:
    with pytest.raises(AggregationError, match="Client 11 reports a sample size"):
        run(rule, round_of(states(7), [1.0, size, 1.0, 1.0, 1.0, 1.0, 1.0]))


@pytest.mark.parametrize("rule", ["fedavg", "online", "fedopt", "normbounding"])
def test_sample_sizes_that_add_up_to_zero(rule: str) -> None:
    with pytest.raises(AggregationError, match="add up to"):
        run(rule, round_of(states(3), [0.0, 0.0, 0.0]))


@pytest.mark.parametrize("rule", RULES)
def test_no_upload_at_all(rule: str) -> None:
    with pytest.raises(AggregationError, match="no client"):
        get_aggregator("fedavg", config=config(rule)).aggregate({"client_feedback": []})


@pytest.mark.parametrize("content", [None, 3, (1, 2), ("many", {}), (1, {"w": "text"})])
def test_content_that_is_no_upload(content: Any) -> None:
    with pytest.raises(AggregationError, match=r"[Cc]lient 1"):
        ClientsAvgAggregator(config=config()).aggregate({"client_feedback": [content]})


def test_client_ids_must_fit() -> None:
    info = round_of(states(2))
    info["staleness"] = [(4, 0), (4, 0)]
    with pytest.raises(AggregationError, match="IDs"):
        ClientsAvgAggregator(config=config()).aggregate(info)


def test_complex_tensors_are_refused() -> None:
    with pytest.raises(AggregationError, match="complex"):
        run("fedavg", round_of([{"w": torch.ones(2, dtype=torch.complex64)}], current={}))


@pytest.mark.parametrize("rule", RULES)
def test_weights_cover_the_clients_and_add_up_to_one(rule: str) -> None:
    info = round_of(states(7), [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0])
    weights = get_aggregator("fedavg", config=config(rule)).weights(info)
    assert list(weights) == [10, 11, 12, 13, 14, 15, 16]
    assert sum(weights.values()) == pytest.approx(1.0) and min(weights.values()) >= 0


@pytest.mark.parametrize("rule", ["fedavg", "krum"])
def test_weights_are_the_ones_used(rule: str) -> None:
    uploads, sizes = states(7), [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0]
    cfg = config(rule, aggregator__BFT_args__krum_agg_num=3)
    info = round_of(uploads, sizes)
    weights = get_aggregator("fedavg", config=cfg).weights(info)
    assert_close(run(rule, info, cfg), oracle_mean(uploads, list(weights.values())))


# Builder


@pytest.mark.parametrize(
    ("method", "sections", "expected"),
    [
        ("FedAvg", {}, ClientsAvgAggregator),
        ("fedsa", {}, ClientsAvgAggregator),
        ("ffa", {}, ClientsAvgAggregator),
        ("fedprox", {}, ClientsAvgAggregator),
        ("Local", {}, NoCommunicationAggregator),
        ("GLOBAL", {}, NoCommunicationAggregator),
        ("FedOpt", {}, FedOptAggregator),
        ("fedavg", {"fedopt__use": True}, FedOptAggregator),
        ("fedavg", {"aggregator__robust_rule": "krum"}, KrumAggregator),
        ("fedsa", {"aggregator__robust_rule": "median"}, MedianAggregator),
        ("fedavg", {"aggregator__robust_rule": "trimmedmean"}, TrimmedmeanAggregator),
        ("fedavg", {"aggregator__robust_rule": "bulyan"}, BulyanAggregator),
    ],
)
def test_builder(method: str, sections: dict[str, Any], expected: type) -> None:
    assert type(get_aggregator(method, config=config(**sections))) is expected


def test_builder_online_and_normbounding() -> None:
    assert (
        type(get_aggregator("fedavg", online=True, config=config())) is OnlineClientsAvgAggregator
    )
    built = get_aggregator("fedavg", config=config("normbounding"))
    assert type(built) is NormboundingAggregator


@pytest.mark.parametrize(
    ("sections", "online", "field"),
    [
        ({"aggregator__robust_rule": "mode"}, False, "robust_rule"),
        ({"aggregator__robust_rule": "krum", "fedopt__use": True}, False, "robust_rule"),
        ({"aggregator__robust_rule": "median"}, True, "online_aggr"),
        ({"fedopt__use": True}, True, "online_aggr"),
    ],
)
def test_builder_refuses_contradictions(sections: dict[str, Any], online: bool, field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        get_aggregator("fedavg", online=online, config=config(**sections))


def test_registered_aggregator_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    class First(Aggregator):
        def aggregate(self, agg_info: Any) -> State:
            return dict(agg_info["client_feedback"][0][1])

    def build(method: str, **kwargs: Any) -> First | None:
        return First(**kwargs) if method == "first" else None

    monkeypatch.setattr(register, "aggregator_dict", {"first": build})
    model = nn.Linear(2, 2)
    built = get_aggregator("First", model=model, device="cpu", config=config())
    assert type(built) is First and built.model is model
    assert type(get_aggregator("fedavg", config=config())) is ClientsAvgAggregator


def test_no_communication() -> None:
    aggregator = NoCommunicationAggregator(config=config())
    assert aggregator.aggregate(round_of(states(2))) == {}
    assert aggregator.weights(round_of(states(2))) == {}

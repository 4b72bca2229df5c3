"""The weighted mean against a float64 oracle, at once and as a stream."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from aggregation_cases import (
    SHAPES,
    State,
    assert_close,
    config,
    oracle_mean,
    round_of,
    run,
    states,
)

from federatedscope.core.aggregators import (
    AggregationError,
    ClientsAvgAggregator,
    OnlineClientsAvgAggregator,
)
from federatedscope.core.auxiliaries.aggregator_builder import get_aggregator


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        (torch.float64, 1e-14),
        (torch.float32, 2e-7),
        (torch.float16, 1e-3),
        (torch.bfloat16, 8e-3),
    ],
)
@pytest.mark.parametrize("count", [2, 3, 37])
def test_mean_equals_float64_oracle(dtype: torch.dtype, tolerance: float, count: int) -> None:
    uploads = states(count, dtype=dtype)
    sizes = [1.0 + (7 * i) % 11 for i in range(count)]
    assert_close(run("fedavg", round_of(uploads, sizes)), oracle_mean(uploads, sizes), tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_mean_is_rounded_once(dtype: torch.dtype) -> None:
    """300 clients in half precision: the result is the exact mean's nearest half."""
    uploads = states(300, dtype=dtype)
    sizes = [float(1 + i % 5) for i in range(300)]
    result = run("fedavg", round_of(uploads, sizes))
    for name, exact in oracle_mean(uploads, sizes).items():
        assert torch.equal(result[name], torch.as_tensor(exact).to(dtype)), name


def test_mean_of_a_dense_update_over_partial_participation() -> None:
    """Weights are normalised over the clients that reported, not over all."""
    uploads, sizes = states(6), [5.0, 1.0, 2.0, 8.0, 3.0, 1.0]
    reported = [4, 1, 3]
    info = round_of([uploads[i] for i in reported], [sizes[i] for i in reported])
    expected = oracle_mean([uploads[i] for i in reported], [3.0, 1.0, 8.0])
    assert_close(run("fedavg", info), expected)
    weights = ClientsAvgAggregator(config=config()).weights(info)
    assert weights == pytest.approx({10: 0.25, 11: 1 / 12, 12: 8 / 12})


@pytest.mark.parametrize("key", ["federate__ignore_weight", "aggregator__weights"])
def test_uniform_weights(key: str) -> None:
    cfg = config(**{key: "uniform" if key.endswith("weights") else True})
    uploads = states(3)
    info = round_of(uploads, [1.0, 50.0, 0.0])
    assert_close(run("fedavg", info, cfg), oracle_mean(uploads, [1.0, 1.0, 1.0]))
    assert get_aggregator("fedavg", config=cfg).weights(info) == {
        10: pytest.approx(1 / 3),
        11: pytest.approx(1 / 3),
        12: pytest.approx(1 / 3),
    }


def test_client_without_rows_is_left_out() -> None:
    uploads = states(3)
    result = run("fedavg", round_of(uploads, [2.0, 0.0, 6.0]))
    assert_close(result, oracle_mean([uploads[0], uploads[2]], [2.0, 6.0]))


def test_without_ids_clients_count_from_one() -> None:
    info = {"client_feedback": [(1, states(1)[0]), (3, states(2)[1])]}
    assert ClientsAvgAggregator(config=config()).weights(info) == {1: 0.25, 2: 0.75}


def test_integer_and_boolean_buffers() -> None:
    def upload(counter: int, flag: bool) -> State:
        return {"counter": torch.tensor([counter]), "flag": torch.tensor(flag)}

    same = run("fedavg", round_of([upload(7, True), upload(7, True)], [1.0, 2.0]))
    assert same["counter"].item() == 7 and same["counter"].dtype == torch.int64
    assert same["flag"].item() is True and same["flag"].dtype == torch.bool
    mixed = run("fedavg", round_of([upload(1, False), upload(10, False)], [1.0, 2.0]))
    assert mixed["counter"].item() == 7
    with pytest.raises(AggregationError, match="flag"):
        run("fedavg", round_of([upload(1, True), upload(1, False)]))


def test_numbers_and_arrays_are_read_as_tensors() -> None:
    info = {"client_feedback": [(1, {"w": [1.0, 2.0]}), (1, {"w": np.array([3.0, 4.0])})]}
    assert run("fedavg", {**info, "staleness": [], "current": {}})["w"].tolist() == [2.0, 3.0]


def test_mixed_dtypes_give_the_wider_one() -> None:
    uploads = [states(1, dtype=torch.bfloat16)[0], states(1)[0]]
    for order in (uploads, uploads[::-1]):
        assert run("fedavg", round_of(order))["head.bias"].dtype == torch.float32


def test_name_that_outside_subclasses_call() -> None:
    class Mine(ClientsAvgAggregator):
        def aggregate(self, agg_info: Any) -> State:
            return self._para_weighted_avg(agg_info["client_feedback"], recover_fun=None)

    uploads = states(3)
    info = round_of(uploads, [1.0, 2.0, 3.0])
    assert_close(Mine(config=config()).aggregate(info), oracle_mean(uploads, [1.0, 2.0, 3.0]))


# Online


def test_online_equals_batch_bitwise_and_resets() -> None:
    aggregator = OnlineClientsAvgAggregator(config=config())
    for seed in (0, 1):
        uploads, sizes = states(9, seed), [1.0 + i % 4 for i in range(9)]
        info = round_of(uploads, sizes)
        aggregator.reset()
        for content, (client_id, _) in zip(info["client_feedback"], info["staleness"], strict=True):
            aggregator.inc(content, client_id)
        batch = ClientsAvgAggregator(config=config())
        expected, result = batch.aggregate(info), aggregator.aggregate(info)
        assert all(torch.equal(result[n], expected[n]) for n in SHAPES)
        assert aggregator.weights() == batch.weights(info)


def test_online_result_does_not_change_with_later_uploads() -> None:
    first, second = states(2, dtype=torch.float64)
    aggregator = OnlineClientsAvgAggregator(config=config())
    aggregator.inc((1, first))
    result = aggregator.aggregate()
    aggregator.inc((1, second))
    assert torch.equal(result["head.bias"], first["head.bias"])


def test_online_without_uploads() -> None:
    with pytest.raises(AggregationError, match="no client"):
        OnlineClientsAvgAggregator(config=config()).aggregate()

"""Server rules against slow float64 oracles, and what every one of them must keep."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
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
from federatedscope.core.configs.config import CN, global_cfg
from federatedscope.core.errors import ConfigError, UserError
from torch import Tensor, nn

# Non-square layers, a vector, a scalar, an empty tensor.
SHAPES = {
    "q.lora_A.default.weight": (4, 24),
    "q.lora_B.default.weight": (40, 4),
    "head.bias": (3,),
    "temperature": (),
    "unused": (0, 5),
}
RULES = ("fedavg", "krum", "median", "trimmedmean", "bulyan", "normbounding")
OTHERS = ("online", "fedopt")
State = dict[str, Tensor]


def config(rule: str = "fedavg", **sections: Any) -> CN:
    cfg = global_cfg.clone()
    cfg.defrost()
    cfg.aggregator.robust_rule = rule if rule in RULES else "fedavg"
    cfg.aggregator.byzantine_node_num = 1 if rule in ("krum", "median", "bulyan") else 0
    if rule == "normbounding":
        cfg.aggregator.BFT_args.normbounding_norm_bound = 1e6
    if rule == "trimmedmean":
        cfg.aggregator.BFT_args.trimmedmean_excluded_ratio = 0.2
    if rule == "fedopt":
        cfg.fedopt.use = True
        cfg.fedopt.optimizer.lr = 1.0
    for dotted, value in sections.items():
        node, *path = cfg, *dotted.split("__")
        for part in path[:-1]:
            node = node[part]
        node[path[-1]] = value
    return cfg


def states(count: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[State]:
    generator = torch.Generator().manual_seed(seed)
    return [
        {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in SHAPES.items()}
        for _ in range(count)
    ]


def round_of(
    uploads: list[State], sizes: list[float] | None = None, current: State | None = None
) -> dict[str, Any]:
    sizes = sizes if sizes is not None else [1.0] * len(uploads)
    info: dict[str, Any] = {
        "client_feedback": list(zip(sizes, uploads, strict=True)),
        "recover_fun": None,
        "staleness": [(10 + i, 0) for i in range(len(uploads))],
    }
    if current is not None:
        info["current"] = current
    return info


def zeros_like(state: State) -> State:
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


def run(rule: str, info: dict[str, Any], cfg: CN | None = None) -> State:
    """Aggregate by the rule of that name; the server's state before is zero unless given."""
    if "current" not in info:
        info = {**info, "current": zeros_like(info["client_feedback"][0][1])}
    aggregator = get_aggregator(
        "fedavg", device="cpu", online=rule == "online", config=cfg or config(rule)
    )
    if rule == "online":
        for content, (client_id, _) in zip(
            info["client_feedback"], info["staleness"], strict=True
        ):
            aggregator.inc(content, client_id)
    result: State = aggregator.aggregate(info)
    return result


def dense(uploads: list[State], name: str) -> np.ndarray:
    return np.stack([u[name].to(torch.float64).numpy() for u in uploads])


# Oracles: plain loops in float64, written from the papers.


def oracle_mean(uploads: list[State], weights: list[float]) -> dict[str, np.ndarray]:
    total = sum(weights)
    return {
        name: sum(w / total * x for w, x in zip(weights, dense(uploads, name), strict=True))
        for name in uploads[0]
    }


def flat(uploads: list[State]) -> np.ndarray:
    return np.stack(
        [np.concatenate([u[n].double().numpy().ravel() for n in SHAPES]) for u in uploads]
    )


def oracle_krum_order(points: np.ndarray, alive: list[int], faulty: int) -> list[int]:
    scores = {}
    for i in alive:
        distances = sorted(float(((points[i] - points[j]) ** 2).sum()) for j in alive if j != i)
        scores[i] = sum(distances[: max(len(alive) - faulty - 2, 1)])
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


def assert_close(result: State, expected: dict[str, np.ndarray], tolerance: float = 1e-6) -> None:
    assert result.keys() == expected.keys()
    for name, tensor in result.items():
        np.testing.assert_allclose(
            tensor.double().numpy(), expected[name], rtol=tolerance, atol=tolerance, err_msg=name
        )


# The weighted mean


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


# Every rule, every invariant


ALL = (*RULES, *OTHERS)


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


# Robust rules


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
    uploads = [{"w": torch.tensor([float(i)])} for i in range(100)]
    uploads[71]["w"] += 1000.0
    cfg = config("trimmedmean", aggregator__BFT_args__trimmedmean_excluded_ratio=0.29)
    kept = [float(i) for i in range(29, 71)]
    assert run("trimmedmean", round_of(uploads), cfg)["w"].item() == pytest.approx(np.mean(kept) + 0.5)


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


# FedOpt


def test_fedopt_with_sgd_and_rate_one_is_fedavg() -> None:
    uploads, current, sizes = states(4), states(1, seed=4)[0], [1.0, 2.0, 3.0, 4.0]
    info = round_of(uploads, sizes, current)
    expected = {n: t.double().numpy() for n, t in run("fedavg", info).items()}
    assert_close(run("fedopt", info), expected)


def fedadam_oracle(rounds: list[tuple[np.ndarray, np.ndarray]], lr: float) -> list[np.ndarray]:
    """Adam on g = x - mean, where x is what the round starts from."""
    m = v = np.zeros_like(rounds[0][0])
    out = []
    for t, (x, mean) in enumerate(rounds, start=1):
        g = x - mean
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        out.append(x - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8))
    return out


def adam_config() -> CN:
    return config("fedopt", fedopt__optimizer=CN({"type": "Adam", "lr": 0.1}))


def test_fedadam_keeps_its_moments_over_rounds_and_restarts() -> None:
    name = "q.lora_A.default.weight"
    current, rounds, results = {name: torch.randn(4, 24)}, [], []
    aggregator = FedOptAggregator(config=adam_config())
    for t in range(4):
        uploads = [{name: s[name]} for s in states(3, seed=t)]
        mean = oracle_mean(uploads, [1.0] * 3)[name]
        rounds.append((current[name].double().numpy(), mean))
        if t == 2:  # a restart in the middle
            saved = aggregator.state_dict()
            aggregator = FedOptAggregator(config=adam_config())
            aggregator.load_state_dict(saved)
        current = aggregator.aggregate(round_of(uploads, current=current))
        results.append(current[name])
    for result, expected in zip(results, fedadam_oracle(rounds, 0.1), strict=True):
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_fedopt_state_survives_a_safe_file(tmp_path: Any) -> None:
    aggregator = FedOptAggregator(config=adam_config())
    uploads = states(3)
    aggregator.aggregate(round_of(uploads, current=zeros_like(uploads[0])))
    torch.save(aggregator.state_dict(), tmp_path / "server.pt")
    other = FedOptAggregator(config=adam_config())
    other.load_state_dict(torch.load(tmp_path / "server.pt", weights_only=True))
    info = round_of(states(3, seed=1), current=uploads[0])
    first, second = aggregator.aggregate(info), other.aggregate(info)
    assert all(torch.equal(first[n], second[n]) for n in SHAPES)
    fresh = FedOptAggregator(config=adam_config()).aggregate(info)
    assert not torch.equal(fresh["head.bias"], first["head.bias"])


def test_fedopt_annealing_lowers_the_rate_every_few_rounds() -> None:
    cfg = config("fedopt", fedopt__annealing=True, fedopt__annealing_step_size=2)
    cfg.fedopt.annealing_gamma = 0.1
    aggregator = FedOptAggregator(config=cfg)
    current, one = {"w": torch.zeros(2, 3)}, [{"w": torch.ones(2, 3)}]
    moved = [
        aggregator.aggregate(round_of(one, current=current))["w"][0, 0].item() for _ in range(5)
    ]
    assert moved == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.01])


def test_fedopt_needs_the_same_tensors_every_round() -> None:
    aggregator = FedOptAggregator(config=adam_config())
    for names in (["a", "b"], ["b", "a"]):
        state = {n: torch.ones(2) for n in names}
        aggregator.aggregate(round_of([state], current=state))
    with pytest.raises(AggregationError, match="c"):
        aggregator.aggregate(round_of([{"c": torch.ones(2)}], current={"c": torch.ones(2)}))


def test_fedopt_refuses_a_bad_optimizer_at_once() -> None:
    with pytest.raises(ConfigError, match=r"fedopt\.optimizer\.type.*'Adam'"):
        FedOptAggregator(config=config("fedopt", fedopt__optimizer=CN({"type": "adam", "lr": 1.0})))


# Online


def test_online_equals_batch_bitwise_and_resets() -> None:
    aggregator = OnlineClientsAvgAggregator(config=config())
    for seed in (0, 1):
        uploads, sizes = states(9, seed), [1.0 + i % 4 for i in range(9)]
        info = round_of(uploads, sizes)
        aggregator.reset()
        for content, (client_id, _) in zip(
            info["client_feedback"], info["staleness"], strict=True
        ):
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
    assert type(get_aggregator("fedavg", online=True, config=config())) is OnlineClientsAvgAggregator
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
def test_builder_refuses_contradictions(
    sections: dict[str, Any], online: bool, field: str
) -> None:
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


# The server's model


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".safetensors"])
def test_save_and_load(tmp_path: Any, suffix: str) -> None:
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    path = tmp_path / "deep" / f"model{suffix}"
    ClientsAvgAggregator(model=model, config=config()).save_model(path, 17)
    assert ClientsAvgAggregator(model=other, config=config()).load_model(path) == 17
    assert torch.equal(other.weight, model.weight) and torch.equal(other.bias, model.bias)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_save_leaves_the_frozen_backbone_out(tmp_path: Any) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    ClientsAvgAggregator(model=model, config=config()).save_model(tmp_path / "m.ckpt", 1)
    content = torch.load(tmp_path / "m.ckpt", weights_only=True)
    assert set(content) == {"cur_round", "model"} and set(content["model"]) == {
        "1.weight",
        "1.bias",
    }


@pytest.mark.parametrize("kind", ["missing", "garbage", "code", "other model", "other shape"])
def test_load_refuses_what_does_not_fit(tmp_path: Any, kind: str) -> None:
    path, model = tmp_path / "model.ckpt", nn.Linear(3, 2)
    content: dict[str, Any] = {"cur_round": 3}
    if kind == "garbage":
        path.write_bytes(b"no checkpoint")
    elif kind == "code":
        torch.save({"cur_round": 1, "model": {"weight": itertools.count()}}, path)
    elif kind == "other model":
        torch.save({**content, "model": {"w": torch.ones(1)}}, path)
    elif kind == "other shape":
        torch.save({**content, "model": {"weight": torch.ones(5, 3)}}, path)
    before = model.weight.detach().clone()
    with pytest.raises(UserError, match=r"model\.ckpt"):
        ClientsAvgAggregator(model=model, config=config()).load_model(path)
    assert torch.equal(model.weight, before)


def test_update_copies_and_checks() -> None:
    model = nn.Linear(3, 2)
    aggregator = ClientsAvgAggregator(model=model, config=config())
    value = torch.ones(2, 3)
    aggregator.update({"weight": value})
    value.zero_()
    assert torch.equal(model.weight.detach(), torch.ones(2, 3))
    with pytest.raises(UserError, match="wieght"):
        aggregator.update({"wieght": value})
    with pytest.raises(UserError, match="without a model"):
        ClientsAvgAggregator(config=config()).update({"weight": value})

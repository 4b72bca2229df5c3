"""Every rule against every property that all of them must have."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from rank_cases import (
    EXACT,
    LAYERS,
    RANKS,
    RULES,
    SERVER,
    SIZES,
    Case,
    State,
    aggregate,
    assert_close,
    case,
    names,
    received,
    wide,
)

from fedlora.errors import AggregationError

every_rule = pytest.mark.parametrize("key", RULES)


def close(left: State, right: State, tolerance: float = 1e-6) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        torch.testing.assert_close(tensor, right[name], rtol=tolerance, atol=tolerance)


@every_rule
def test_inputs_are_not_written_into(key: str) -> None:
    given, untouched = case(), case()
    rule, result = aggregate(key, given)
    for tensor in result.values():
        tensor.zero_()
    for pair in rule.base_update.values():
        pair.A.zero_()
        pair.B.zero_()
    assert given.current is not None and untouched.current is not None
    for before, after in [(untouched.current, given.current)] + [
        (untouched.uploads[k], given.uploads[k]) for k in RANKS
    ]:
        assert all(torch.equal(before[name], after[name]) for name in before)


@every_rule
@pytest.mark.parametrize("current", [True, False])
def test_names_ranks_and_dtypes_are_the_servers(key: str, current: bool) -> None:
    given = case(dtype=torch.bfloat16, current=current)
    _, result = aggregate(key, given)
    assert result.keys() == given.uploads[4].keys()
    for module, (d_out, d_in) in LAYERS.items():
        a, b = names(module)
        assert result[a].shape == (SERVER[module], d_in)
        assert result[b].shape == (d_out, SERVER[module])
        assert result[a].dtype == result[b].dtype == torch.bfloat16
        assert all(bool(torch.isfinite(result[n]).all()) for n in (a, b))
    assert result["m.counter"].dtype == torch.int64


@every_rule
def test_other_tensors_take_the_weighted_mean(key: str) -> None:
    given = case()
    _, result = aggregate(key, given)
    expected = sum(p * wide(given.uploads[k]["m.head.weight"]) for k, p in given.weights().items())
    assert_close(wide(result["m.head.weight"]), expected, 1e-7)
    assert int(result["m.counter"]) == round(sum(p * k for k, p in given.weights().items()))


@every_rule
def test_the_order_of_clients_does_not_matter(key: str) -> None:
    forward, backward = case((4, 7, 8, 9)), case((9, 8, 7, 4))
    one, two = aggregate(key, forward), aggregate(key, backward)
    for module in LAYERS:
        for rank in {r[module] for r in RANKS.values()}:
            assert_close(received(*one, module, rank), received(*two, module, rank))


@every_rule
@pytest.mark.parametrize("when", ["reset", "aggregate"])
def test_streaming_gives_the_same_as_all_at_once(key: str, when: str) -> None:
    """With the server's state known from the start, or only at the end."""
    given = case()
    batch, expected = aggregate(key, given)
    info = given.info
    feedback = info.pop("client_feedback")
    rule = RULES[key]()
    rule.reset(info if when == "reset" else None)
    for client, content in zip(given.uploads, feedback, strict=True):
        passing = (content[0], {name: tensor.clone() for name, tensor in content[1].items()})
        rule.inc(passing, client, given.scales[client])
        for tensor in passing[1].values():
            tensor.zero_()  # a client goes on with its own tensors
    close(rule.aggregate(None if when == "reset" else info), expected)
    assert rule.weights() == rule.weights(given.info) == batch.weights()
    if key != "hetlora":
        assert rule.weights() == given.weights()
    for module, pair in batch.base_update.items():
        torch.testing.assert_close(
            rule.base_update[module].B @ rule.base_update[module].A, pair.B @ pair.A
        )


@every_rule
@pytest.mark.parametrize("client", RANKS)
def test_a_client_alone_gets_its_own_update_back(key: str, client: int) -> None:
    given = case((client,))
    rule, result = aggregate(key, given)
    for module, rank in RANKS[client].items():
        assert_close(received(rule, result, module, rank), given.update(client, module))


@every_rule
def test_equal_clients_are_their_own_mean(key: str) -> None:
    """Same rank, factors and scale everywhere: no rule may change anything."""
    given = case((9,))
    given.uploads |= {4: given.uploads[9], 7: given.uploads[9]}
    given.scales = dict.fromkeys((4, 7, 9), given.scales[9])
    rule, result = aggregate(key, given)
    for module, rank in RANKS[9].items():
        assert_close(received(rule, result, module, rank), given.update(9, module))


@every_rule
def test_a_client_without_rows_is_left_out(key: str) -> None:
    """Also as the owner of rank rows: client 9 alone has rows 5 to 7 of q."""
    given, without = case(), case((4, 7, 8))
    given.sizes[9] = 0.0
    rule, result = aggregate(key, given)
    other, expected = aggregate(key, without)
    close({n: t for n, t in result.items() if n != "m.counter"}, _no_counter(expected))
    assert rule.weights()[9] == 0.0 and other.base_update.keys() == rule.base_update.keys()


def _no_counter(given: State) -> State:
    return {name: tensor for name, tensor in given.items() if name != "m.counter"}


@every_rule
@pytest.mark.parametrize("section", ["federate", "aggregator"])
def test_uniform_weights(key: str, section: str) -> None:
    uniform = {"federate": {"ignore_weight": True}, "aggregator": {"weights": "uniform"}}
    config = {section: uniform[section], "llm": {"adapter": {"args": [{"r": 8}]}}}
    given, equal = case(), case()
    equal.sizes = dict.fromkeys(SIZES, 1.0)
    rule, result = aggregate(key, given, config=config)
    close(result, aggregate(key, equal)[1])
    if key != "hetlora":
        assert rule.weights() == dict.fromkeys(RANKS, 0.25)


@every_rule
def test_ranks_above_a_layers_side(key: str) -> None:
    """`tiny` is 5 x 3 and the server holds rank 6."""
    given = case()
    rule, result = aggregate(key, given)
    a, _ = names("m.tiny")
    assert bool((result[a].norm(dim=1) > 0.05).all()), "every row of A can be trained"
    if key in (*EXACT, "flexlora", "fedsvd"):
        assert_close(received(rule, result, "m.tiny"), given.mean("m.tiny"))


@every_rule
def test_half_precision_is_summed_in_full(key: str) -> None:
    """A hundred equal clients in bfloat16: summed in bfloat16 the mean would be far off."""
    single = case((9,), dtype=torch.bfloat16)
    given = case((9,), dtype=torch.bfloat16)
    given.uploads = dict.fromkeys(range(1, 101), single.uploads[9])
    given.scales = dict.fromkeys(range(1, 101), single.scales[9])
    given.sizes = {k: 1.0 + k for k in range(1, 101)}
    one, many = aggregate(key, single), aggregate(key, given)
    tolerance = 1e-6 if key == "flora" else 4e-3
    for module, rank in RANKS[9].items():
        assert_close(received(*many, module, rank), received(*one, module, rank), tolerance)


def spoiled(name: str, change: Any) -> Case:
    given = case()
    given.uploads[8] = {**given.uploads[8], name: change(given.uploads[8][name])}
    return given


A_OF_Q, B_OF_Q = names("m.q")
MISTAKES: dict[str, tuple[Any, str]] = {
    "nan": (lambda: spoiled(A_OF_Q, lambda t: t * math.nan), "Client 8 .*lora_A.*NaN"),
    "infinity": (lambda: spoiled("m.head.weight", lambda t: t / 0), "Client 8 .*head.*infinity"),
    "complex": (lambda: spoiled("m.head.weight", lambda t: t * 1j), "Client 8 .*complex"),
    "other layer": (lambda: spoiled(A_OF_Q, lambda t: t[:, 1:]), r"\(r, 23\) at client 8"),
    "one rank each": (lambda: spoiled(A_OF_Q, lambda t: t[1:]), "Client 8 sent .*one rank r"),
    "convolution": (lambda: spoiled(A_OF_Q, lambda t: t[..., None]), "linear layers"),
    "no tensor": (lambda: spoiled(A_OF_Q, lambda t: "text"), "sent m.q.* as a str"),
    "head of another size": (lambda: spoiled("m.head.weight", lambda t: t[1:]), "Only the rank"),
}


@every_rule
@pytest.mark.parametrize("mistake", MISTAKES)
def test_spoiled_uploads_are_refused(key: str, mistake: str) -> None:
    make, words = MISTAKES[mistake]
    with pytest.raises(AggregationError, match=words) as caught:
        aggregate(key, make())
    assert caught.value.is_user_error and caught.value.client_id == 8


@every_rule
def test_rounds_that_make_no_sense_are_refused(key: str) -> None:
    info = case().info
    with pytest.raises(AggregationError, match="nothing to aggregate"):
        RULES[key]().aggregate({**info, "client_feedback": [], "staleness": []})
    with pytest.raises(AggregationError, match="one ID each"):
        RULES[key]().aggregate({**info, "staleness": [(1, 0), (2, 0), (2, 0), (3, 0)]})
    feedback = info["client_feedback"]
    for sizes, words in (([-1, 1, 1, 1], "sample size of -1"), ([0] * 4, "add up to 0")):
        spoilt = [(n, s) for n, (_, s) in zip(sizes, feedback, strict=True)]
        with pytest.raises(AggregationError, match=words):
            RULES[key]().aggregate({**info, "client_feedback": spoilt})
    del feedback[2][1]["m.head.weight"]
    with pytest.raises(AggregationError, match=r"client 8 lacks m\.head\.weight"):
        RULES[key]().aggregate(info)
    with pytest.raises(AggregationError, match=r"expected \(sample_size, state_dict\)"):
        RULES[key]().aggregate({**info, "client_feedback": [3, *feedback[1:]]})


@every_rule
def test_a_server_of_too_low_a_rank_is_refused(key: str) -> None:
    given = case(server=dict.fromkeys(LAYERS, 4))
    with pytest.raises(AggregationError, match="came with rank 8, and the server holds rank 4"):
        aggregate(key, given)


@every_rule
def test_one_client_twice_in_a_stream_is_refused(key: str) -> None:
    rule = RULES[key]()
    rule.inc((1.0, case().uploads[4]), 4)
    with pytest.raises(AggregationError, match="two updates"):
        rule.inc((1.0, case().uploads[4]), 4)


@every_rule
def test_diagnostics_against_the_oracle(key: str) -> None:
    given = case()
    rule, result = aggregate(key, given)
    expected: dict[str, list[float]] = {"rank": [], "method": [], "mean": [], "energy": []}
    for module in LAYERS:
        w = given.mean(module)
        sigma = np.linalg.svd(w, compute_uv=False)
        share = sigma / sigma.sum()
        expected["rank"].append(math.exp(-(share * np.log(share.clip(1e-300))).sum()))
        expected["energy"].append((sigma[:2] ** 2).sum() / (sigma**2).sum())
        norm = np.linalg.norm(w)
        expected["method"].append(np.linalg.norm(received(rule, result, module) - w) / norm)
        zero = received(*aggregate("zero_pad", given), module)
        expected["mean"].append(np.linalg.norm(zero - w) / norm)
    found = rule.diagnostics
    assert found["modules"] == len(LAYERS)
    assert found["effective_rank"] == pytest.approx(np.mean(expected["rank"]), rel=1e-6)
    assert found["energy"]["2"] == pytest.approx(np.mean(expected["energy"][::2]), rel=1e-6)
    assert found["method_error"] == pytest.approx(np.mean(expected["method"]), rel=1e-4, abs=2e-7)
    assert found["factor_mean_error"] == pytest.approx(np.mean(expected["mean"]), rel=1e-4)


@every_rule
@pytest.mark.parametrize("switch", ["attribute", "key", "round"])
def test_diagnostics_change_nothing_and_can_be_switched_off(key: str, switch: str) -> None:
    given = case()
    rule, expected = aggregate(key, given)
    config = {"aggregator": {"diagnostics": switch != "key"}, "llm": {"adapter": {"args": [{}]}}}
    silent = RULES[key](config)
    if switch == "attribute":
        silent.diagnose = False
    result = silent.aggregate({**given.info, "evaluated": switch != "round"})
    assert silent.diagnostics == {} and rule.diagnostics != {}
    assert all(torch.equal(result[name], expected[name]) for name in expected)

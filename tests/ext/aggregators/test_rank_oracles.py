"""Each method against its formula, dense and in float64."""

from __future__ import annotations

import math
import os
from pathlib import Path
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
    SERVER_SCALES,
    Case,
    Matrix,
    State,
    aggregate,
    assert_close,
    best_approximation,
    case,
    names,
    padded,
    product,
    received,
    state,
    wide,
)

from federatedscope_ext.aggregators.module import named_stream
from federatedscope_ext.methods.fedrot import procrustes_rotation
from fedlora.errors import AggregationError

ORACLES = Path(os.environ.get("FEDERATEDSCOPE_TEST_DATA", "")) / "oracles"


def canonical(given: Case, client: int, module: str) -> tuple[Matrix, Matrix]:
    """A and the transpose of s B: rank rows first in both."""
    a, b = (wide(given.uploads[client][name]) for name in names(module))
    return a, given.scales[client][module] * b.T


def written(result: State, module: str) -> tuple[Matrix, Matrix]:
    a, b = (wide(result[name]) for name in names(module))
    return a, SERVER_SCALES[module] * b.T


@pytest.mark.parametrize("key", ["zero_pad", "rolora"])
@pytest.mark.parametrize("module", LAYERS)
def test_zero_padding(key: str, module: str) -> None:
    given = case()
    _, result = aggregate(key, given)
    for side in (0, 1):
        expected = sum(
            p * padded(canonical(given, k, module)[side], SERVER[module])
            for k, p in given.weights().items()
        )
        assert_close(written(result, module)[side], expected)


def literally_replicated(rows: dict[int, Matrix], weights: dict[int, float]) -> Matrix:
    """Level by level from the highest rank: the mean so far fills the missing rows of the next."""
    full: dict[int, Matrix] = {}
    for rank in sorted({len(r) for r in rows.values()}, reverse=True):
        total = sum(weights[k] for k in full)
        above = sum(weights[k] / total * r for k, r in full.items()) if full else None
        for client, own in rows.items():
            if len(own) == rank:
                filled = [own] if above is None else [own, above[rank:]]
                full[client] = np.concatenate(filled)
    return sum(weights[k] * full[k] for k in rows)


@pytest.mark.parametrize("module", LAYERS)
@pytest.mark.parametrize("clients", [(4, 9), (4, 8, 9), (4, 7, 8, 9)])
def test_replication_padding_is_literal_padding(module: str, clients: tuple[int, ...]) -> None:
    """Two, three and more levels of rank."""
    given = case(clients)
    _, result = aggregate("replication_pad", given)
    for side in (0, 1):
        rows = {k: canonical(given, k, module)[side] for k in clients}
        expected = literally_replicated(rows, given.weights())
        assert_close(written(result, module)[side][: len(expected)], expected)


def test_replication_padding_is_the_mean_over_owners() -> None:
    """Row 6 of q belongs to client 9 alone, row 3 to 8 and 9."""
    given = case()
    _, result = aggregate("replication_pad", given)
    a, b = written(result, "m.q")
    eight, nine = canonical(given, 8, "m.q"), canonical(given, 9, "m.q")
    for side, rows in enumerate((a, b)):
        np.testing.assert_allclose(rows[6], nine[side][6], rtol=1e-6)
        mean = (given.sizes[8] * eight[side][3] + given.sizes[9] * nine[side][3]) / (
            given.sizes[8] + given.sizes[9]
        )
        np.testing.assert_allclose(rows[3], mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("key", ["zero_pad", "replication_pad", "hetlora", "fedrot", "rolora"])
def test_rows_that_nobody_of_the_round_owns_stay_bitwise(key: str) -> None:
    given = case((4, 8))
    _, result = aggregate(key, given)
    assert given.current is not None
    for module in LAYERS:
        owned = max(RANKS[k][module] for k in (4, 8))
        a, b = names(module)
        assert torch.equal(result[a][owned:], given.current[a][owned:])
        assert torch.equal(result[b][:, owned:], given.current[b][:, owned:])
        assert not torch.equal(result[a][:owned], given.current[a][:owned])


@pytest.mark.parametrize("key", ["flexlora", "fedsvd"])
@pytest.mark.parametrize("module", LAYERS)
def test_flexlora_is_the_best_approximation_for_every_rank(key: str, module: str) -> None:
    given = case()
    rule, result = aggregate(key, given)
    for rank in range(1, SERVER[module] + 1):
        expected = best_approximation(given.mean(module), rank)
        assert_close(received(rule, result, module, rank), expected)


def test_flexloras_factors_are_the_singular_ones() -> None:
    """A has orthonormal rows, the columns of s B are as long as the singular values."""
    given = case()
    _, result = aggregate("flexlora", given)
    for module in ("m.q", "m.v"):
        a, b = written(result, module)
        np.testing.assert_allclose(a @ a.T, np.eye(len(a)), atol=1e-6)
        sigma = np.linalg.svd(given.mean(module), compute_uv=False)[: len(a)]
        np.testing.assert_allclose(np.linalg.norm(b, axis=1), sigma, rtol=1e-5)
        peaks = np.take_along_axis(a, np.abs(a).argmax(axis=1)[:, None], axis=1)
        assert (peaks > 0).all()


@pytest.mark.parametrize("key", ["flexlora", "fedsvd"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_beyond_the_rank_of_the_mean_can_still_be_trained(key: str, dtype: str) -> None:
    """One client of rank 2 reported and the server holds 8: six directions are new."""
    given = case((4,))
    config = {"flexlora": {"dtype": dtype}, "llm": {"adapter": {"args": [{}]}}}
    rule, result = aggregate(key, given, config=config)
    a, b = written(result, "m.q")
    np.testing.assert_allclose(a @ a.T, np.eye(8), atol=1e-6)
    assert (b[2:] == 0).all() and (np.linalg.norm(b[:2], axis=1) > 0).all()
    again = aggregate(key, given, config=config)[1]
    assert all(torch.equal(again[name], result[name]) for name in result)
    assert_close(received(rule, result, "m.q"), given.update(4, "m.q"))


@pytest.mark.parametrize("path", ["stacked", "dense", "auto"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_flexlora_by_either_path_and_precision(path: str, dtype: str) -> None:
    config = {"flexlora": {"path": path, "dtype": dtype}, "llm": {"adapter": {"args": [{}]}}}
    given = case()
    rule, result = aggregate("flexlora", given, config=config)
    for module in LAYERS:
        expected = best_approximation(given.mean(module), 2)
        assert_close(received(rule, result, module, 2), expected, 5e-6)


@pytest.mark.skipif(not ORACLES.is_dir(), reason="FEDERATEDSCOPE_TEST_DATA has no oracles/")
def test_flexlora_against_the_authors_own_functions() -> None:
    stored = np.load(ORACLES / "flexlora_reference.npz", allow_pickle=False)
    ranks, sizes = stored["ranks"].tolist(), stored["num_samples"].tolist()
    modules = sorted({key.split("/")[1] for key in stored if key.startswith("global/")})
    uploads = [
        {
            f"{m}.lora_{f}.default.weight": torch.from_numpy(stored[f"in/client{k}/{m}.lora_{f}"])
            for m in modules
            for f in "AB"
        }
        for k in range(len(ranks))
    ]
    alpha = float(stored["lora_alpha"])
    config = {"llm": {"adapter": {"args": [{"r": 32, "lora_alpha": alpha}]}}}
    rule = RULES["flexlora"](config=config)
    result = rule.aggregate({"client_feedback": list(zip(sizes, uploads, strict=True))})
    assert len(modules) == 4
    for module in modules:
        for rank in (4, 8, 16, 32):
            delta = alpha / 32 * product(result, module, rank)
            assert_close(delta, stored[f"out/rank{rank}/{module}.delta"].astype(float), 1e-5)


@pytest.mark.parametrize("module", LAYERS)
def test_hetlora_weighs_by_the_norm_of_the_applied_update(module: str) -> None:
    given = case()
    _, result = aggregate("hetlora", given)
    norms = {k: np.linalg.norm(given.update(k, module)) for k in RANKS}
    for side in (0, 1):
        expected = sum(
            norms[k]
            / sum(norms.values())
            * padded(canonical(given, k, module)[side], SERVER[module])
            for k in RANKS
        )
        assert_close(written(result, module)[side], expected)


def test_the_weights_that_hetlora_reports_are_means_of_norm_shares() -> None:
    given = case()
    given.sizes[9] = 0.0
    rule, _ = aggregate("hetlora", given)
    expected = dict.fromkeys(RANKS, 0.0)
    for module in LAYERS:
        norms = {k: np.linalg.norm(given.update(k, module)) for k in (4, 7, 8)}
        for client, norm in norms.items():
            expected[client] += float(norm / sum(norms.values())) / len(LAYERS)
    assert rule.weights() == pytest.approx(expected)


def test_hetlora_without_any_update_weighs_by_rows() -> None:
    given = case()
    for upload in given.uploads.values():
        for module in LAYERS:
            upload[names(module)[1]].zero_()
    rule, result = aggregate("hetlora", given)
    expected = aggregate("zero_pad", given)[1]
    assert all(torch.equal(result[name], expected[name]) for name in expected)
    assert rule.weights() == given.weights()


@pytest.mark.parametrize("key", EXACT)
@pytest.mark.parametrize("clients", [(4, 7, 8, 9), (4, 8), (7, 9)])
def test_exact_methods_are_exact_for_receivers_of_every_rank(
    key: str, clients: tuple[int, ...]
) -> None:
    given = case(clients)
    rule, result = aggregate(key, given)
    assert rule.base_update.keys() == LAYERS.keys()
    for module in LAYERS:
        for rank in (*{r[module] for r in RANKS.values()}, None):
            assert_close(received(rule, result, module, rank), given.mean(module))


@pytest.mark.parametrize("key", EXACT)
def test_exact_methods_are_exact_in_half_precision_too(key: str) -> None:
    """The residual takes up what rounding the written factors to bfloat16 lost."""
    given = case(dtype=torch.bfloat16)
    rule, result = aggregate(key, given)
    for module in LAYERS:
        pair = rule.base_update[module]
        assert pair.A.dtype == pair.B.dtype == torch.float32
        lowest = min(r[module] for r in RANKS.values())
        assert_close(received(rule, result, module, lowest), given.mean(module))


def test_flora_starts_fresh_by_seed_round_and_module() -> None:
    given = case()
    _, result = aggregate("flora", given)
    for module, (_, d_in) in LAYERS.items():
        a, b = names(module)
        bound = 1 / math.sqrt(d_in)
        assert float(result[a].abs().max()) <= bound < float(result[a].abs().max()) * 1.5
        assert not bool(result[b].any())
    again = aggregate("flora", given)[1]
    assert torch.equal(again[names("m.q")[0]], result[names("m.q")[0]])
    other = RULES["flora"]().aggregate({**given.info, "round": 4})
    assert not torch.equal(other[names("m.q")[0]], result[names("m.q")[0]])
    seeded = aggregate("flora", given, config={"seed": 1})[1]
    assert not torch.equal(seeded[names("m.q")[0]], result[names("m.q")[0]])


@pytest.mark.parametrize("trained", [0, 1], ids="AB")
def test_a_mean_of_one_factor_is_exact_in_the_rows_that_somebody_owns(trained: int) -> None:
    """FFA-LoRA and RoLoRA: the other factor is common; the server's rows beyond stay, and count."""
    given = case((4, 7))
    old = given.info["current"]
    given.scales = dict.fromkeys((4, 7), SERVER_SCALES)
    for client, upload in given.uploads.items():
        for module, rank in RANKS[client].items():
            common = names(module)[1 - trained]
            upload[common] = old[common][:, :rank] if trained == 0 else old[common][:rank]
    sent = {
        k: {n: t for n, t in u.items() if n not in {names(m)[1 - trained] for m in LAYERS}}
        for k, u in given.uploads.items()
    }
    info = {**given.info, "client_feedback": [(given.sizes[k], sent[k]) for k in sent]}
    result = {**old, **RULES["rolora"]().aggregate(info)}
    for module, scale in SERVER_SCALES.items():
        owned = max(RANKS[k][module] for k in sent)
        assert_close(scale * product(result, module, owned), given.mean(module))
        beyond = scale * (product(old, module) - product(old, module, owned))
        assert_close(scale * product(result, module), given.mean(module) + beyond)


@pytest.mark.parametrize("start", ["gaussian", "Gaussian", False, "orthogonal"])
def test_flora_starts_fresh_as_peft_does(start: Any) -> None:
    """Compared with a model that PEFT makes at the same random state."""
    from peft import LoraConfig, get_peft_model

    arguments = {"init_lora_weights": start}
    config = {"llm": {"adapter": {"args": [arguments]}}, "seed": 5}
    given = case()
    before = torch.get_rng_state()
    _, result = aggregate("flora", given, config=config)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(result[names("m.q")[1]], given.info["current"][names("m.q")[1]])
    for module, (d_out, d_in) in LAYERS.items():
        net = torch.nn.Sequential(torch.nn.Linear(d_in, d_out))
        fresh = LoraConfig(r=SERVER[module], target_modules=["0"], **arguments)
        with torch.random.fork_rng():
            # The stream is named by seed, round and module.
            torch.default_generator.set_state(named_stream(f"5/3/{module}").get_state())
            layer = get_peft_model(net, fresh).base_model.model[0]
        for name, factor in zip(names(module), (layer.lora_A, layer.lora_B), strict=True):
            torch.testing.assert_close(result[name], factor["default"].weight.detach())
        assert bool(layer.lora_B["default"].weight.any()) is (start in (False, "orthogonal"))


def test_floras_stack_is_no_larger_than_the_layer() -> None:
    rule, _ = aggregate("flora", case())
    ranks = {m: sum(r[m] for r in RANKS.values()) for m in LAYERS}
    for module, pair in rule.base_update.items():
        assert pair.A.shape[0] == min(ranks[module], *LAYERS[module])
    assert ranks["m.tiny"] > 3 and ranks["m.v"] > 18 and ranks["m.q"] < 24


def test_fedex_of_equal_ranks_is_the_papers() -> None:
    given = case((9,))
    given.uploads |= {k: state(RANKS[9], 70 + k) for k in (4, 7)}
    given.scales = dict.fromkeys((4, 7, 9), given.scales[9])
    info = {**given.info, "ranks": {m: [r] for m, r in RANKS[9].items()}}
    info["current"] = state(RANKS[9], 2)
    rule = RULES["fedex"]()
    result = rule.aggregate(info)
    expected = RULES["zero_pad"]().aggregate(info)
    for module in LAYERS:
        for name in names(module):
            torch.testing.assert_close(result[name], expected[name])
        pair = rule.base_update[module]
        residual = given.mean(module) - SERVER_SCALES[module] * product(result, module)
        assert_close(wide(pair.B) @ wide(pair.A), residual)
        assert pair.A.shape[0] <= min(3 * RANKS[9][module], *LAYERS[module])


def test_fedex_keeps_old_rows_beyond_what_everybody_owns() -> None:
    given = case()
    _, result = aggregate("fedex", given)
    a, b = names("m.q")
    assert given.current is not None
    assert torch.equal(result[a][2:], given.current[a][2:])
    assert not bool(result[b][:, 2:].any()) and bool(result[b][:, :2].all())


def rotation_of(correlation: Matrix) -> Matrix:
    u, _, vh = np.linalg.svd(correlation)
    u[:, -1] *= np.sign(np.linalg.det(u @ vh))
    return u @ vh


@pytest.mark.parametrize("number", [0, 1, 2, None])
@pytest.mark.parametrize("module", ["m.q", "m.v"])
def test_fedrot_turns_towards_the_servers_factors(number: int | None, module: str) -> None:
    given = case()
    assert given.current is not None
    result = RULES["fedrot"]().aggregate({**given.info, "round": number})
    reference = written(given.current, module)
    expected = [np.zeros_like(side) for side in reference]
    for client, p in given.weights().items():
        rank, own = RANKS[client][module], canonical(given, client, module)
        used = (0, 1) if number is None else ((number + 1) % 2,)
        rotation = rotation_of(sum(own[s] @ reference[s][:rank].T for s in used))
        for side in (0, 1):
            expected[side] += p * padded(rotation.T @ own[side], SERVER[module])
    for side in (0, 1):
        assert_close(written(result, module)[side], expected[side])


def test_fedrot_makes_the_mean_of_turned_copies_exact() -> None:
    """Clients with one update in turned bases: the plain mean loses most of it, this does not."""
    given = case((9,))
    assert given.current is not None
    own = given.uploads[9]
    generator = torch.Generator().manual_seed(5)
    for client in (4, 7, 8):
        given.uploads[client] = dict(own)
        given.scales[client] = given.scales[9]
        for module, rank in RANKS[9].items():
            turn = torch.linalg.qr(torch.randn(rank, rank, generator=generator)).Q
            turn = turn * torch.det(turn).sign() if rank % 2 else turn
            turn[:, 0] *= torch.det(turn).sign()
            a, b = names(module)
            given.uploads[client][a] = turn.T @ own[a]
            given.uploads[client][b] = own[b] @ turn
    rule, result = aggregate("fedrot", given)
    plain = aggregate("zero_pad", given)
    for module, rank in RANKS[9].items():
        expected = given.mean(module)
        assert_close(received(rule, result, module, rank), expected, 1e-5)
        lost = np.linalg.norm(received(*plain, module, rank) - expected)
        assert lost > 0.3 * np.linalg.norm(expected)


def test_fedrot_without_the_servers_state_takes_the_largest_upload() -> None:
    """Client 9 has q's largest rank: the same as if its upload were the server's state."""
    given = case((4, 8, 9), current=False)
    for upload in given.uploads.values():
        for name in [n for n in upload if ".q." not in n]:
            del upload[name]
    info = {**given.info, "round": None}
    alone = RULES["fedrot"]().aggregate(info)
    info |= {"current": given.uploads[9], "server_scales": {"m.q": given.scales[9]["m.q"]}}
    known = RULES["fedrot"]().aggregate(info)
    a, b = names("m.q")
    torch.testing.assert_close(alone[a], known[a])
    factor = SERVER_SCALES["m.q"] / given.scales[9]["m.q"]
    torch.testing.assert_close(alone[b] * factor, known[b])


def plane_turn(angle: float) -> Matrix:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


@pytest.mark.parametrize("strength", [0.0, 0.25, 0.5, 1.0])
def test_the_strength_of_a_rotation(strength: float) -> None:
    """In the plane: the angle of ``(1 - strength) I + strength R``."""
    turn = plane_turn(1.2)
    found = wide(procrustes_rotation(torch.from_numpy(turn @ np.diag([3.0, 2.0]))))
    np.testing.assert_allclose(found, turn, atol=1e-7)
    part = wide(procrustes_rotation(torch.from_numpy(turn @ np.diag([3.0, 2.0])), strength))
    chord = (1 - strength) * np.eye(2) + strength * turn
    np.testing.assert_allclose(part, plane_turn(math.atan2(chord[1, 0], chord[0, 0])), atol=1e-7)


def test_a_reflection_is_no_rotation() -> None:
    found = wide(procrustes_rotation(torch.diag(torch.tensor([3.0, 2.0, -1.0])).double()))
    np.testing.assert_allclose(found, np.eye(3), atol=1e-7)


def test_a_reference_that_says_nothing_turns_nothing() -> None:
    """No reference at all, and one that covers two of four directions."""
    assert torch.equal(procrustes_rotation(torch.zeros(3, 3)), torch.eye(3))
    basis = np.linalg.qr(np.random.default_rng(2).normal(size=(4, 4)))[0]
    half, kept = np.zeros((4, 4)), np.eye(4)
    half[:2, :2] = kept[:2, :2] = plane_turn(0.7)
    found = wide(procrustes_rotation(torch.from_numpy(basis @ half @ basis.T)))
    np.testing.assert_allclose(found, basis @ kept @ basis.T, atol=1e-6)


@pytest.mark.parametrize("key", ["zero_pad", "rolora", "fedsvd", "flexlora"])
@pytest.mark.parametrize("sent", ["A", "B"])
def test_one_factor_common_to_all_makes_the_mean_exact(key: str, sent: str) -> None:
    """FFA-LoRA, RoLoRA and FedSVD: only one factor travels, the other is the server's."""
    given = case()
    assert given.current is not None
    keep, drop = (0, 1) if sent == "A" else (1, 0)
    total: dict[str, Matrix] = {}
    for module in LAYERS:
        name = names(module)[drop]
        for client, upload in given.uploads.items():
            rank, own = RANKS[client][module], upload[names(module)[keep]]
            del upload[name]
            common = given.current[name]
            scale = given.scales[client][module]
            if sent == "A":
                update = SERVER_SCALES[module] * wide(common)[:, :rank] @ wide(own)
            else:
                update = scale * wide(own) @ wide(common)[:rank]
            total[module] = total.get(module, 0) + given.weights()[client] * update
    rule, result = aggregate(key, given)
    for module in LAYERS:
        rewritten = key in ("fedsvd", "flexlora")
        assert (names(module)[drop] in result) is rewritten
        made = {**given.current, **result}
        assert_close(SERVER_SCALES[module] * product(made, module), total[module])
    assert rule.diagnostics["method_error"] < 1e-6


def test_replication_of_one_factor_is_fedsas_rule() -> None:
    """B stays at the clients and is unknown to the server."""
    given = case()
    expected = aggregate("replication_pad", given)[1]
    assert given.current is not None
    for holder in (given.current, *given.uploads.values()):
        for module in LAYERS:
            del holder[names(module)[1]]
    rule, result = aggregate("replication_pad", given)
    assert rule.diagnostics == {}
    assert result.keys() == {n for n in expected if "lora_B" not in n}
    assert all(torch.equal(result[name], expected[name]) for name in result)


@pytest.mark.parametrize("key", ["flexlora", "hetlora", "flora", "fedex", "fedsvd", "fedrot"])
def test_products_cannot_be_taken_of_one_factor(key: str) -> None:
    given = case(current=False)
    for upload in given.uploads.values():
        for module in LAYERS:
            del upload[names(module)[1]]
    with pytest.raises(AggregationError, match="without B, and the server's state"):
        aggregate(key, given)

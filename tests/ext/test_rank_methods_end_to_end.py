"""Clients of unequal rank, end to end: what everybody computes after a round, against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from rank_course import RANKS, Course, Dense, close, close_to_means, truncated

from federatedscope_ext.methods import METHODS
from fedlora.names import pair_names


@pytest.fixture
def course(rig: Any, mail: Any, step: Any) -> Any:
    """``course('federate.method', 'flexlora', ...)``."""
    return lambda *options: Course(rig, mail, step, *options)


def test_the_ranks_are_theirs_and_the_scales_differ(course: Any) -> None:
    run = course("federate.method", "flexlora")
    run.until_evaluated(0)
    for client, rank in enumerate(RANKS, 1):
        sent = run.uploads(0)[client][1]
        shapes = {sent[a].shape[0] for a, _ in pair_names(sent).values()}
        assert shapes == {rank}
        assert set(run.runner.layouts.of(client).scales.values()) == {8 / rank}
        owned = run.runner.store.state(client)
        assert {owned[b].shape[1] for _, b in pair_names(owned).values()} == {rank}


TWO_OF_THREE = ("federate.sample_client_num", 2)


@pytest.mark.parametrize("sampling", [(), TWO_OF_THREE], ids=["all", "two of three"])
@pytest.mark.parametrize("rule", ["alpha", "proportional", "rslora"])
def test_flexlora_gives_everybody_the_best_approximation_of_the_own_rank(
    course: Any, sampling: Any, rule: str
) -> None:
    run = course("federate.method", "flexlora", "llm.adapter.scale_rule", rule, *sampling)
    for rnd in (0, 1):
        run.until_evaluated(rnd)
        for module, mean in run.mean(rnd).items():
            for client, rank in enumerate(RANKS, 1):
                oracle = truncated(mean, rank)
                close(run.weights[client][module], oracle, run.base[module])


@pytest.mark.parametrize("sampling", [(), TWO_OF_THREE], ids=["all", "two of three"])
@pytest.mark.parametrize("method", ["flora", "fedex"])
def test_exact_methods_give_every_rank_the_exact_mean(
    course: Any, method: str, sampling: Any
) -> None:
    """Also after a second round, on top of weights that the first one changed."""
    run = course("federate.method", method, *sampling)
    for rnd, before in run.rounds(2):
        for module, mean in run.mean(rnd).items():
            for client in run.weights:
                close(run.weights[client][module], mean, before[module])


@pytest.mark.parametrize("method", ["flora", "fedex"])
def test_exact_methods_lose_nothing_to_half_precision(course: Any, method: str) -> None:
    """One round's update is smaller than the rounding of the weights that it goes into."""
    run = course("federate.method", method, "train.is_enable_half", True,
                 "train.half_dtype", "bf16", "train.local_update_steps", 1)  # fmt: skip
    for rnd, before in run.rounds(2):
        for module, mean in run.mean(rnd).items():
            assert run.runner.model.get_submodule(module).weight.dtype == torch.bfloat16
            for client in run.weights:
                lost = run.weights[client][module] - before[module] - mean
                assert float(lost.norm()) < 0.01 * float(mean.norm())


@pytest.mark.parametrize("method", ["rolora", "fedsvd"])
def test_methods_with_a_common_factor_are_exact_at_the_largest_rank(
    course: Any, method: str
) -> None:
    run = course("federate.method", method)
    for rnd in (0, 1):
        run.until_evaluated(rnd)
        for module, mean in run.mean(rnd).items():
            close(run.weights[3][module], mean, run.base[module])


def test_ffa_keeps_one_common_a_and_averages_b_exactly(course: Any) -> None:
    run = course("federate.method", "ffa")
    frozen = {n: p.detach().clone() for n, p in run.runner.model.named_parameters()}
    run.until_evaluated(0)
    share, scales = run.shares(0), run.runner.layouts
    for module in run._modules():
        a = frozen[f"{module}.lora_A.default.weight"].double()
        oracle = torch.zeros_like(run.base[module])
        for client, (_, sent) in run.uploads(0).items():
            b = sent[f"{module}.lora_B.default.weight"].double()
            scale = scales.of(client).scales[module]
            oracle += share[client] * scale * (b @ a[: b.shape[1]])
        close(run.weights[3][module], oracle, run.base[module])


@pytest.mark.parametrize("rule", ["alpha", "proportional"])
@pytest.mark.parametrize(
    "method", ["zero_pad", "fedavg", "fedprox", "feddpa", "replication_pad", "fedrot"]
)
def test_padding_row_by_row(course: Any, method: str, rule: str) -> None:
    """FedRot-LoRA too: in its first round there is nothing to turn towards."""
    mu = ("fedprox.mu", 0.1) if method == "fedprox" else ()
    run = course("federate.method", method, "llm.adapter.scale_rule", rule, *mu)
    run.until_evaluated(0)
    pairs, share = run.pairs(0), run.shares(0)
    for module in run._modules():
        close_to_means(run, pairs, share, module, owners_only=method == "replication_pad")


@pytest.mark.parametrize("method", ["zero_pad", "replication_pad", "feddpa"])
def test_rows_that_no_client_of_a_round_owns_stay_the_servers(course: Any, method: str) -> None:
    """One of three reports in each of four rounds; everybody is sent the slice of the own rank."""
    run = course(
        "federate.method", method, "federate.sample_client_num", 1, "federate.total_round_num", 4
    )  # fmt: skip
    run.until_evaluated(0)
    # The rows that round 0 replaced are replaced below too.
    start = run.runner.store.state(0)
    server = {
        m: (
            start[f"{m}.lora_A.default.weight"].double().clone(),
            torch.zeros(run.base[m].shape[0], max(RANKS), dtype=torch.float64),
        )
        for m in run.base
    }
    reported = []
    for rnd in range(4):
        if rnd:
            run.until_evaluated(rnd)
        ((client, pairs),) = run.pairs(rnd).items()
        reported.append(client)
        for module, (a, b) in server.items():
            own_a, own_b = pairs[module]
            a[: len(own_a)], b[:, : len(own_a)] = own_a, own_b
            for receiver, rank in enumerate(RANKS, 1):
                close(run.weights[receiver][module], b[:, :rank] @ a[:rank], run.base[module])
    assert len(set(reported)) == 3


@pytest.mark.parametrize("rule", ["alpha", "proportional"])
def test_hetlora_pads_with_norms_as_weights(course: Any, rule: str) -> None:
    run = course("federate.method", "hetlora", "llm.adapter.scale_rule", rule)
    for rnd in (0, 1):
        run.until_evaluated(rnd)
        pairs = run.pairs(rnd)
        for module in run._modules():
            norms = {k: float((pairs[k][module][1] @ pairs[k][module][0]).norm()) for k in pairs}
            share = {k: norm / sum(norms.values()) for k, norm in norms.items()}
            assert max(share.values()) > 1.01 * min(share.values())
            close_to_means(run, pairs, share, module)


def turned(pair: Any, reference: torch.Tensor) -> Any:
    """A pair after the rotation that brings its A closest to the reference's rows."""
    a, b = pair
    u, _, vh = torch.linalg.svd(a @ reference[: len(a)].T)
    u[:, -1] *= torch.linalg.det(u @ vh).sign()
    return (u @ vh).T @ a, b @ (u @ vh)


def test_fedrot_turns_towards_the_a_of_the_server_in_odd_rounds(course: Any) -> None:
    # Rank 20: above the sides of the layers M is singular, and R is not unique.
    run = course("federate.method", "fedrot", "llm.adapter.client_ranks", "[2, 5, 20]")
    run.until_evaluated(0)
    run.until_evaluated(1)
    share, sent = run.shares(1), run.pairs(1)
    for module in run._modules():
        name = f"{module}.lora_A.default.weight"
        reference = run.received(1, 3)[name].double()
        pairs = {k: {module: turned(sent[k][module], reference)} for k in sent}
        assert max(float((pairs[k][module][0] - sent[k][module][0]).norm()) for k in sent) > 1e-3
        close_to_means(run, pairs, share, module)


@pytest.mark.parametrize("method", ["slora", "flexlora"])
def test_the_sparse_stage_starts_every_rank_from_its_best_approximation(
    course: Any, method: str
) -> None:
    run = course("federate.method", method, "slora.rounds", 1)
    run.until_evaluated(0)
    share = run.shares(0)
    for module in run._modules():
        layer = run.runner.model.get_submodule(module)
        mean = torch.zeros_like(run.base[module]).flatten()
        for client, (_, sent) in run.uploads(0).items():
            assert not any(".lora_" in name for name in sent)
            values = sent[f"{module}.slora_values"].double()
            mean[layer.slora_index[: len(values)]] += share[client] * values
        mean = mean.view_as(run.base[module])
        assert mean.norm() > 0
        for client, rank in enumerate(RANKS, 1):
            close(run.weights[client][module], truncated(mean, rank), run.base[module])
    run.until_evaluated(1)
    pairs, share, mean_of = run.pairs(1), run.shares(1), run.mean(1)
    for module in run._modules():
        if method == "slora":
            close_to_means(run, pairs, share, module)
        else:
            for client, rank in enumerate(RANKS, 1):
                oracle = truncated(mean_of[module], rank)
                close(run.weights[client][module], oracle, run.base[module])


def test_replication_under_fedsa_averages_a_over_the_owners_of_a_row(course: Any) -> None:
    run = course("federate.method", "fedsa")
    run.until_evaluated(0)
    sent, share = run.uploads(0), run.shares(0)
    assert all("lora_B" not in name for _, tensors in sent.values() for name in tensors)
    for name in sent[3][1]:
        for row in range(max(RANKS)):
            owners = [k for k, rank in enumerate(RANKS, 1) if rank > row]
            total = sum(share[k] for k in owners)
            oracle = sum(share[k] / total * sent[k][1][name][row].double() for k in owners)
            state = run.runner.store.state(3)[name][row]
            np.testing.assert_allclose(state.double(), oracle, atol=1e-6)


@pytest.mark.parametrize("method", [*METHODS, "fedavg"])
def test_a_client_that_reports_alone_gets_its_own_update_back(course: Any, method: str) -> None:
    """Whatever its rank; the others get what their rank allows of it."""
    run = course("federate.method", method, "federate.sample_client_num", 1)
    if method == "slora":
        # The first stage has no adapters; the second starts here.
        run.until_evaluated(0)
    rnd = 1 if method == "slora" else 0
    before = {m: run._frozen(m) for m in run.base}
    trained: Dense = {}
    alone = 0
    for message, receiver in run.messages:
        if message.msg_type == "model_para" and receiver > 0 and message.state == rnd:
            alone, trained = receiver, run.applied(receiver)
        if message.msg_type == "evaluate" and receiver == alone and message.state == rnd:
            now = run.applied(alone)
            for module in now:
                close(run._frozen(module) + now[module], trained[module], before[module])
            return
    pytest.fail("nobody was evaluated")

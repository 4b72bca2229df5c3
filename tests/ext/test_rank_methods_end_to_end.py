"""Clients of unequal rank, end to end: what everybody computes after a round, against float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from federatedscope_ext.adapters import pair_names
from federatedscope_ext.methods import METHODS

# The last rank is larger than a side of every layer (32 and 48).
RANKS = [2, 5, 40]
OPTIONS = (
    "llm.adapter.args",
    "[{'adapter_package': 'peft', 'adapter_method': 'lora', 'r': 4, 'lora_alpha': 8,"
    " 'target_modules': ['query', 'intermediate.dense']}]",
    "llm.adapter.client_ranks", str(RANKS), "hetlora.gamma", 1.0,
    "data.splitter_args", "[{'alpha': 1.0}]", "aggregator.diagnostics", False,
)  # fmt: skip
Dense = dict[str, torch.Tensor]


class Course:
    """A run message by message, with the dense weights that everybody computes with.

    After :meth:`until_evaluated`, ``weights[k]`` is what client k applies in each module, frozen
    weight and adapter together, as float64.
    """

    def __init__(self, rig: Any, mail: Any, step: Any, *options: Any) -> None:
        self.runner = rig.runner(*OPTIONS, *options)
        self.mail = mail
        self.messages = step(self.runner)
        self.base = {m: self._frozen(m) for m in self._modules()}
        self.weights: dict[int, Dense] = {}

    def _modules(self) -> list[str]:
        return list(self.runner.layouts.server.ranks)

    def _frozen(self, module: str) -> torch.Tensor:
        layer = self.runner.model.get_submodule(module)
        weight = layer.get_base_layer().weight.detach().double().clone()
        lost = getattr(self.runner.model, "rounded_off", {}).get(f"{module}.base_layer.weight")
        return weight if lost is None else weight + lost.double()

    def applied(self, client: int) -> Dense:
        """What the active client's adapters add, by PEFT's own account of its scale."""
        named = dict(self.runner.model.named_parameters())
        out = {}
        for module, (a, b) in pair_names(named).items():
            scale = self.runner.model.get_submodule(module).scaling["default"]
            out[module] = scale * (named[b].detach().double() @ named[a].detach().double())
        return out

    def until_evaluated(self, rnd: int) -> None:
        """Run until all clients have evaluated the state after round ``rnd``."""
        self.weights = {}
        for message, receiver in self.messages:
            if message.msg_type == "evaluate" and receiver > 0 and message.state == rnd:
                update = self.applied(receiver)
                self.weights[receiver] = {m: self._frozen(m) + update[m] for m in update}
                if len(self.weights) == len(RANKS):
                    return

    def uploads(self, rnd: int) -> dict[int, tuple[float, Dense]]:
        """Of each client that reported: rows, and what it sent."""
        return {
            m.sender: (float(m.content[0]), m.tensors)
            for m in self.mail
            if m.type == "model_para" and m.sender and m.state == rnd
        }

    def received(self, rnd: int, client: int) -> Dense:
        """What a client was sent to train on."""
        (message,) = [
            m
            for m in self.mail
            if m.type == "model_para" and not m.sender and m.state == rnd and client in m.receivers
        ]
        return dict(message.tensors)

    def pairs(self, rnd: int) -> dict[int, dict[str, tuple[torch.Tensor, torch.Tensor]]]:
        """After local training, of each client: A and ``s B`` of each module in float64."""
        out = {}
        for client, (_, sent) in self.uploads(rnd).items():
            whole = {**self.received(rnd, client), **sent}
            scales = self.runner.layouts.of(client).scales
            out[client] = {
                module: (whole[a].double(), scales[module] * whole[b].double())
                for module, (a, b) in pair_names(whole).items()
            }
        return out

    def shares(self, rnd: int) -> dict[int, float]:
        """``p_k``."""
        rows = {client: n for client, (n, _) in self.uploads(rnd).items()}
        return {client: n / sum(rows.values()) for client, n in rows.items()}

    def mean(self, rnd: int) -> Dense:
        """``sum_k p_k s_k B_k A_k`` of each module."""
        pairs, share = self.pairs(rnd), self.shares(rnd)
        return {
            module: sum(share[k] * pairs[k][module][1] @ pairs[k][module][0] for k in pairs)
            for module in self._modules()
        }


@pytest.fixture
def course(rig: Any, mail: Any, step: Any) -> Any:
    """``course('federate.method', 'flexlora', ...)``."""
    return lambda *options: Course(rig, mail, step, *options)


def truncated(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return (left[:, :rank] * values[:rank]) @ right[:rank]


def close(actual: torch.Tensor, oracle: torch.Tensor, frozen: torch.Tensor) -> None:
    """Equal to float32 rounding of the weights that they are part of."""
    size = float(oracle.norm() + frozen.norm())
    np.testing.assert_allclose(actual, oracle + frozen, atol=2e-6 * size, rtol=0)


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
    before = dict(run.base)
    for rnd in (0, 1):
        if rnd:
            # FLoRA's adapters start at zero again; FedEx's carry on from the common update.
            before = {m: run._frozen(m) for m in before}
        run.until_evaluated(rnd)
        for module, mean in run.mean(rnd).items():
            for client in run.weights:
                close(run.weights[client][module], mean, before[module])


@pytest.mark.parametrize("method", ["flora", "fedex"])
def test_exact_methods_lose_nothing_to_half_precision(course: Any, method: str) -> None:
    """One round's update is smaller than the rounding of the weights that it goes into."""
    run = course("federate.method", method, "train.is_enable_half", True,
                 "train.half_dtype", "bf16", "train.local_update_steps", 1)  # fmt: skip
    before = dict(run.base)
    for rnd in (0, 1):
        if rnd:
            before = {m: run._frozen(m) for m in before}
        run.until_evaluated(rnd)
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


def padded_means(
    pairs: Mapping[int, Any], share: Mapping[int, float], module: str, owners_only: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Factor means row by row: over everybody, or over the owners of the row."""
    most = max(pairs[k][module][0].shape[0] for k in pairs)
    some = next(iter(pairs.values()))[module]
    a = torch.zeros(most, some[0].shape[1], dtype=torch.float64)
    b = torch.zeros(some[1].shape[0], most, dtype=torch.float64)
    for row in range(most):
        owners = [k for k in pairs if pairs[k][module][0].shape[0] > row]
        total = sum(share[k] for k in (owners if owners_only else pairs))
        a[row] = sum(share[k] / total * pairs[k][module][0][row] for k in owners)
        b[:, row] = sum(share[k] / total * pairs[k][module][1][:, row] for k in owners)
    return a, b


def close_to_means(
    run: Course, pairs: Mapping[int, Any], share: Mapping[int, float], module: str, **how: bool
) -> None:
    """Everybody applies the first rows of the factor means."""
    a, b = padded_means(pairs, share, module, how.get("owners_only", False))
    for client, rank in enumerate(RANKS, 1):
        close(run.weights[client][module], b[:, :rank] @ a[:rank], run.base[module])


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
            mean[layer.slora_index] += share[client] * sent[f"{module}.slora_values"].double()
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


@pytest.mark.parametrize("method", [*METHODS, "fedavg", "local"])
def test_nothing_of_one_client_changes_while_another_works(
    rig: Any, step: Any, method: str
) -> None:
    """Bitwise, for every tensor, also where ranks differ."""
    runner = rig.runner(*OPTIONS, "federate.method", method)
    before: dict[int, dict[str, torch.Tensor]] = {}
    compared = 0
    for message, receiver in step(runner):
        if message.msg_type not in ("model_para", "evaluate"):
            continue
        worker = ~receiver if receiver < 0 else receiver
        others = [k for k in runner.store.owners if k not in (worker, 0)]
        if receiver < 0:
            before = {k: {n: t.clone() for n, t in runner.store.state(k).items()} for k in others}
            continue
        for k in before:
            now = runner.store.state(k)
            assert all(torch.equal(before[k][name], now[name]) for name in now), (k, worker)
            compared += 1
    assert compared


@pytest.mark.parametrize("method", [*METHODS, "fedavg"])
def test_bytes_are_those_of_the_own_rank(rig: Any, mail: Any, method: str) -> None:
    done = rig(*OPTIONS, "federate.method", method)
    assert done.code == 0, done.run.get("error")
    for event in done.of("round"):
        rnd = event["round"] - 1
        for client in (1, 2, 3):
            (sent,) = [
                m for m in mail if m.type == "model_para" and m.sender == client and m.state == rnd
            ]
            size = sum(t.numel() * t.element_size() for t in sent.tensors.values())
            assert event["bytes_up"][str(client)] == size
        # The first stage of SLoRA sends sparse updates of one size.
        if not (method == "slora" and rnd == 0):
            up = [event["bytes_up"][str(k)] for k in (1, 2, 3)]
            assert up == sorted(up)
            assert len(set(up)) == 3
    ranks = [client["rank"] for client in done.run["clients"]]
    assert ranks == RANKS
    assert [client["scale"] for client in done.run["clients"]] == [8 / rank for rank in RANKS]


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_run(rig: Any, method: str) -> None:
    options = (*OPTIONS, "federate.method", method, "federate.sample_client_num", 2)
    first, second = rig(*options), rig(*options)
    assert first.events
    assert first.timeless == second.timeless


@pytest.mark.parametrize("method", ["flexlora", "zero_pad", "hetlora", "flora", "fedrot"])
def test_the_order_in_which_uploads_come_changes_nothing(rig: Any, method: str) -> None:
    """Bitwise: over a network the fastest client answers first."""
    states = []
    for backwards in (False, True):
        runner = rig.runner(*OPTIONS, "federate.method", method)
        for client in runner.clients.values():
            client.join_in()
        held: list[Any] = []
        while runner.queue or held:
            if not runner.queue:
                runner.queue.extend(reversed(held) if backwards else held)
                held = []
            message = runner.queue.popleft()
            runner._deliver(message)
            late = [m for m in runner.queue if m.msg_type == "model_para" and m.sender]
            for upload in late:
                runner.queue.remove(upload)
            held += late
        assert runner.server.is_finish
        states.append({n: t.clone() for n, t in runner.store.state(0).items()})
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_every_round_is_diagnosed(rig: Any) -> None:
    options = (
        *OPTIONS,
        "federate.method",
        "flexlora",
        "federate.total_round_num",
        3,
        "eval.freq",
        3,
    )
    done = rig(*options, "aggregator.diagnostics", True)
    for event in done.of("round"):
        found = event["diagnostics"]
        assert 1.0 <= found["effective_rank"] <= 32.0
        energy = [found["energy"][str(rank)] for rank in RANKS]
        assert energy == sorted(energy)
        assert energy[-1] == pytest.approx(1.0)
        assert found["factor_mean_error"] > 0.0
        assert found["method_error"] < 1e-5
    assert all("diagnostics" not in event for event in rig(*options).of("round"))


@pytest.mark.parametrize("method", [*METHODS, "fedavg"])
def test_clients_beyond_the_memory_limit_change_no_figure(rig: Any, method: str) -> None:
    """Where nothing is private, what a client holds between rounds is dropped, not written."""
    options = (*OPTIONS, "federate.method", method, "federate.sample_client_num", 2,
               "federate.total_round_num", 4)  # fmt: skip
    plain, small = rig.runner(*options), rig.runner(*options)
    small.store.memory_limit = 1
    written: set[int] = set()
    write = small.store._write

    def watched(owner: int, state: Any) -> None:
        written.add(owner)
        write(owner, state)

    small.store._write = watched
    plain.run()
    small.run()
    assert small.server.best_results == plain.server.best_results
    server = plain.store.state(0)
    assert all(torch.equal(tensor, server[name]) for name, tensor in small.store.state(0).items())
    keeps = method in ("fedsa", "feddpa", "rolora")
    assert bool(written) is keeps
    if keeps:
        for client in (1, 2, 3):
            mine = small.store.state(client)
            assert all(torch.equal(t, mine[n]) for n, t in plain.store.state(client).items())
    small.close()


@pytest.mark.parametrize("method", [*METHODS, "fedavg"])
def test_promoted_clients_start_from_the_servers_rows_like_all_others(
    rig: Any, method: str
) -> None:
    """What is shared is the server's first rows when training begins, in each round."""
    runner = rig.runner(
        *OPTIONS, "federate.method", method, "llm.adapter.client_ranks", "[9, 2, 2]",
        "llm.adapter.scale_rule", "proportional", "llm.adapter.promotion.rank", 9,
        "llm.adapter.promotion.share", 0.67, "federate.total_round_num", 4, "eval.freq", 1,
    )  # fmt: skip
    ranks = []
    for client in runner.clients.values():
        train = client._train

        def watched(client: Any = client, train: Any = train) -> Any:
            if client.state:
                mine, server = runner.store.state(client.ID), runner.store.state(0)
                shared = [n for n in mine if n not in runner.withheld]
                for name in shared:
                    part = tuple(slice(size) for size in mine[name].shape)
                    assert torch.equal(mine[name], server[name][part]), (client.ID, name)
                ranks.append((client.state, client.ID, max(min(t.shape) for n, t in mine.items()
                                                           if ".lora_" in n)))  # fmt: skip
            return train()

        client._train = watched
    runner.run()
    grown = {k for rnd, k, rank in ranks if k > 1 and rank == 9}
    assert grown
    assert {rnd for rnd, k, _ in ranks if k in grown} == {1, 2, 3}

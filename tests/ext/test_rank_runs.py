"""Runs with clients of unequal rank: isolation, bytes, seeds, order, memory, promotion."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from exchanges import AnyOrder
from rank_course import OPTIONS, RANKS

from federatedscope_ext.methods import METHODS


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
    for order in (list, reversed):
        runner = rig.runner(*OPTIONS, "federate.method", method, exchange=AnyOrder(order))
        runner.run()
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

"""No client's personal tensors ever reach another one: checked bitwise, hand-over by hand-over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from torch import Tensor

from federatedscope.core.trainers.utils import shared_part
from federatedscope.core.workers import Client, Server

FULL = ("federate.client_num", 3)
PARTIAL = ("federate.client_num", 4, "federate.sample_client_num", 2, "data.splitter", "iid")
CASES = [
    (method, head, participation)
    for method, heads in (
        ("fedsa", ("local", "shared")),
        ("fedavg", ("local", "shared")),
        ("ffa", ("local", "shared")),
        ("local", ("local",)),
    )
    for head in heads
    for participation in (FULL, PARTIAL)
    # Without exchange there is nothing to sample.
    if not (method == "local" and participation is PARTIAL)
]


def bits(state: Mapping[str, Tensor]) -> dict[str, bytes]:
    return {name: t.detach().cpu().contiguous().numpy().tobytes() for name, t in state.items()}


def everything(runner: Any) -> dict[int, dict[str, bytes]]:
    return {k: bits(runner.store.state(k)) for k in (0, *runner.clients)}


@pytest.mark.parametrize(
    ("method", "head", "participation"),
    CASES,
    ids=[f"{m}-{h}-{'full' if p is FULL else 'partial'}" for m, h, p in CASES],
)
def test_only_the_receiver_of_a_message_changes(
    rig: Any, step: Any, method: str, head: str, participation: tuple[Any, ...]
) -> None:
    runner = rig.runner(
        "federate.method", method, "personalization.head", head, *participation,
        "eval.phases", "['before', 'after']", "train.local_update_steps", 1,
    )  # fmt: skip
    frozen = {n: p for n, p in runner.model.named_parameters() if not p.requires_grad}
    base, addresses = bits(frozen), {n: p.data_ptr() for n, p in frozen.items()}
    local = runner.cfg.personalization.local_param
    trained = set()
    before: dict[int, dict[str, bytes]] = {}
    for message, receiver in step(runner):
        if receiver < 0:
            before = everything(runner)
            continue
        after = everything(runner)
        for owner in after:
            if owner != receiver:
                assert after[owner] == before[owner], (message, owner)
        mine, theirs = after[receiver], after[0]
        if receiver and message.msg_type == "model_para":
            trained.add(receiver)
            assert mine != before[receiver]
        if receiver and message.msg_type == "evaluate" and method != "local":
            # What is shared is the server's, what stays is as it was.
            shared = shared_part(mine, local)
            assert shared == {k: theirs[k] for k in shared}
            assert {k: v for k, v in mine.items() if k not in shared} == {
                k: v for k, v in before[receiver].items() if k not in shared
            }
    assert runner.server.state == 2
    assert len(trained) >= 2
    personal = [bits(runner.store.state(i)) for i in sorted(trained)]
    kept = [{k: v for k, v in p.items() if k not in shared_part(p, local)} for p in personal]
    if local or method == "local":
        assert len({str(k) for k in kept}) == len(kept)
    assert bits(frozen) == base
    assert {n: p.data_ptr() for n, p in frozen.items()} == addresses


@pytest.mark.parametrize("head", ["local", "shared"])
def test_isolation_holds_with_clients_on_disk(rig: Any, head: str) -> None:
    """Spilling changes no figure."""
    options = ("federate.client_num", 5, "data.splitter", "iid", "personalization.head", head)
    plain = rig.runner(*options)
    plain.run()
    spilling = rig.runner(*options)
    spilling.store.memory_limit = 1
    spilling.run()
    assert spilling.store._spilled
    assert everything(plain) == everything(spilling)
    spilling.close()
    assert not spilling.store.spill_dir.exists()


def test_what_travels_otherwise_is_not_taken_to_replace_everything() -> None:
    """Of workers that exchange something of their own, clients' states are kept."""

    class Quiet(Client):
        def _train(self) -> Any:
            return super()._train()

    class Partial(Client):
        def callback_funcs_for_model_para(self, message: Any) -> None:
            super().callback_funcs_for_model_para(message)

    class Heir(Partial):
        pass

    class Stated(Partial):
        starts_from_download = True

        def callback_funcs_for_evaluate(self, message: Any) -> None:
            super().callback_funcs_for_evaluate(message)

    class Halving(Server):
        def content_for(self, receiver: int, shared: Any) -> Any:
            return super().content_for(receiver, shared)

    replaced = [c.starts_from_download for c in (Quiet, Partial, Heir, Stated, Halving)]
    assert replaced == [True, False, False, True, False]


@pytest.mark.parametrize("kept", ["head", "trainer", "worker", "nothing"])
def test_states_that_are_read_again_go_to_disk(rig: Any, kept: str) -> None:
    head = "local" if kept == "head" else "shared"
    runner = rig.runner("federate.method", "FedAvg", "personalization.head", head)
    if kept == "worker":
        runner.server.starts_from_download = False
    if kept == "trainer":

        class Own(type(runner.clients[1].trainer)):  # type: ignore[misc]
            def update(self, *args: Any, **keywords: Any) -> None:
                super().update(*args, **keywords)

        for client in runner.clients.values():
            client.trainer.__class__ = Own
    runner.store.memory_limit = 1
    runner.run()
    assert bool(runner.store._spilled) is (kept != "nothing")
    runner.close()


def test_a_client_that_never_took_part_has_the_first_state(rig: Any) -> None:
    runner = rig.runner(
        "federate.client_num", 4, "federate.sample_client_num", 1, "data.splitter", "iid",
        "federate.total_round_num", 1,
    )  # fmt: skip
    first = bits(runner.store._initial)
    runner.run()
    (sampled,) = (i for i in runner.clients if runner.store._states[i] and _trained(runner, i))
    for client in set(runner.clients) - {sampled}:
        state = bits(runner.store.state(client))
        local = {
            k for k in state if k not in shared_part(state, runner.cfg.personalization.local_param)
        }
        assert {k: state[k] for k in local} == {k: first[k] for k in local}


def _trained(runner: Any, client: int) -> bool:
    name = next(n for n in runner.store.names if "lora_B" in n)
    return bool(runner.store.state(client)[name].abs().sum() > 0)


class TestOneBackbone:
    def test_all_workers_have_the_same_module(self, rig: Any) -> None:
        runner = rig.runner()
        workers = [runner.server, *runner.clients.values()]
        assert all(worker.model is runner.model for worker in workers)
        assert all(c.trainer.ctx.model is runner.model for c in runner.clients.values())

    def test_storages_do_not_grow_with_clients(self, rig: Any) -> None:
        """Every frozen weight lies in one place, for 2 clients as for 12."""
        counts = []
        for clients in (2, 12):
            runner = rig.runner(
                "federate.client_num", clients, "data.splitter", "iid", "eval.freq", 1,
                "federate.total_round_num", 1, "train.local_update_steps", 1,
            )  # fmt: skip
            seen: set[int] = set()
            models = [runner.server.model, *(c.trainer.ctx.model for c in runner.clients.values())]
            runner.run()
            for model in models:
                seen |= {p.data_ptr() for p in model.parameters() if not p.requires_grad}
            counts.append(len(seen))
            assert len(runner.store.owners) == clients + 1
        assert counts[0] == counts[1]

    def test_a_clients_state_is_its_adapter_and_head(self, rig: Any) -> None:
        runner = rig.runner()
        trainable = sum(p.numel() for p in runner.model.parameters() if p.requires_grad)
        total = sum(p.numel() for p in runner.model.parameters())
        assert runner.store.state_bytes == 4 * trainable < 4 * total / 10

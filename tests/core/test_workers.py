"""Server and client, message by message."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from exchanges import Held, hand_over

from federatedscope.core import combining
from federatedscope.core.callbacks import Callback, Callbacks
from federatedscope.core.communication import StandaloneCommManager, TrafficLedger
from federatedscope.core.message import Message, payload_bytes
from federatedscope.core.workers import BaseClient, BaseServer, Client, Server, Worker


def kinds(runner: Any) -> list[tuple[Any, ...]]:
    return [(m.msg_type, m.sender, m.receivers, m.state) for m in runner.exchange.posted]


class TestHandlers:
    def test_every_message_of_the_contract_has_one(self) -> None:
        server, client = Server.get_msg_handler_dict(), Client.get_msg_handler_dict()
        assert {"join_in", "join_in_info", "model_para", "metrics"} <= set(server)
        assert {
            "assign_client_id", "address", "model_para", "evaluate", "finish", "converged",
        } <= set(client)  # fmt: skip
        assert server["model_para"][0] == "callback_funcs_model_para"
        assert client["model_para"][0] == "callback_funcs_for_model_para"

    def test_what_is_sent_is_received_by_somebody(self) -> None:
        """Whatever a handler announces, the other role handles (or the same, by a second step)."""
        known = {*Server.get_msg_handler_dict(), *Client.get_msg_handler_dict()}
        for _, announced in (
            *Server.get_msg_handler_dict().values(),
            *Client.get_msg_handler_dict().values(),
        ):
            assert {name for name in announced if name is not None} <= known

    def test_registering(self) -> None:
        worker = Worker()
        worker.register_handlers("hello", print, ["bye"])
        assert worker.msg_handlers["hello"] is print
        assert worker.msg_handlers_str["hello"] == ("print", ["bye"])
        assert (BaseServer, BaseClient) == (Server, Client)


class TestTheCourse:
    def test_in_order(self, rig: Any, step: Any) -> None:
        runner = rig.runner("federate.total_round_num", 1, "eval.phases", "['before', 'after']")
        handled = [(m.msg_type, r) for m, r in step(runner) if r >= 0]
        clients = (1, 2, 3)
        assert handled == [
            *(("join_in", 0) for _ in clients),
            *(
                step
                for k in clients
                for step in (
                    ("model_para", k),
                    ("training_report", 0),
                    ("local_metrics", 0),
                    ("model_para", 0),
                )
            ),
            *(step for k in clients for step in (("evaluate", k), ("metrics", 0))),
            *(("finish", k) for k in clients),
        ]
        assert runner.server.is_finish

    def test_nothing_starts_before_everybody_is_there(self, rig: Any) -> None:
        runner = rig.runner(exchange=Held())
        for client in (1, 2):
            hand_over(runner, Message("join_in", client, [0]))
        assert not runner.server.check_client_join_in()
        hand_over(runner, Message("join_in", 3, [0]))
        assert runner.server.check_client_join_in()
        assert not kinds(runner)
        runner.server.begin_round()
        assert kinds(runner) == [("model_para", 0, [1, 2, 3], 0)]

    def test_asking_for_information_first(self, rig: Any, mail: list[Any]) -> None:
        runner = rig.runner("federate.join_in_info", "['num_sample']")
        runner.run()
        assert runner.server.join_in_info == {
            c["id"]: {"num_sample": c["rows"]["train"]}
            for c in rig.prepared("federate.join_in_info", "['num_sample']").run["clients"]
        }
        assert [m.type for m in mail][:4] == [
            "join_in", "join_in", "join_in", "ask_for_join_in_info",
        ]  # fmt: skip
        assert runner.server.state == 2

    def test_a_late_upload_is_dropped(self, rig: Any, caplog: Any) -> None:
        runner = rig.runner()
        runner.run()
        before = {k: v.clone() for k, v in runner.store.state(0).items()}
        runner.server.is_finish = False
        moved = runner.server.callback_funcs_model_para(Message("model_para", 1, [0], 0, (9, {})))
        assert moved is False
        assert all(torch.equal(v, before[k]) for k, v in runner.store.state(0).items())

    def test_nothing_is_taken_after_the_end(self, rig: Any) -> None:
        runner = rig.runner()
        runner.run()
        message = Message("model_para", 1, [0], runner.server.state, (9, {}))
        assert runner.server.callback_funcs_model_para(message) is False
        assert not runner.server.msg_buffer["train"]

    def test_one_broadcast_is_one_message(self, rig: Any, mail: list[Any]) -> None:
        """Contents that are the same object are sent once to all who get it."""
        rig("federate.total_round_num", 1)
        (down,) = [m for m in mail if m.type == "model_para" and not m.sender]
        assert down.receivers == [1, 2, 3]

    def test_each_client_can_get_its_own(self, rig: Any, monkeypatch: Any, mail: list[Any]) -> None:
        """The hook for methods with unequal ranks."""

        def content(self: Any, receiver: int, shared: Any) -> Any:
            return {k: v * receiver for k, v in shared.items()}

        monkeypatch.setattr(Server, "content_for", content)
        done = rig("federate.total_round_num", 1)
        down = [m for m in mail if m.type == "model_para" and not m.sender]
        assert [m.receivers for m in down] == [[1], [2], [3]]
        name = next(iter(down[0].tensors))
        assert torch.equal(down[2].tensors[name], 3 * down[0].tensors[name])
        assert done.of("round")[0]["bytes_down"] == done.of("round")[0]["bytes_up"]

    def test_the_end_brings_the_last_state(self, rig: Any) -> None:
        runner = rig.runner("federate.method", "FedAvg")
        runner.run()
        server = runner.store.state(0)
        for client in (1, 2, 3):
            mine = runner.store.state(client)
            assert all(torch.equal(mine[k], server[k]) for k in server)

    def test_an_address_book(self, rig: Any) -> None:
        client = rig.runner().clients[1]
        client.callback_funcs_for_address(Message("address", 0, [1], content={1: "a", 2: "b"}))
        assert client.comm_manager.get_neighbors() == {2: "b"}
        client.callback_funcs_for_assign_id(Message("assign_client_id", 0, [1], content=5))
        assert client.ID == 5


class TestTheClient:
    @pytest.mark.parametrize(
        ("weights", "expected"), [("rows", 30), ("processed", 16), ("uniform", 30)]
    )
    def test_its_sample_size(self, rig: Any, weights: str, expected: float) -> None:
        runner = rig.runner("aggregator.weights", weights, exchange=Held())
        hand_over(runner, Message("model_para", 0, [1], 0, runner.server.shared_state()))
        (answer,) = runner.exchange.of("model_para")
        assert answer.content[0] == expected

    def test_an_unseen_client_never_trains(self, rig: Any) -> None:
        runner = rig.runner(exchange=Held())
        client = runner.clients[1]
        client.is_unseen_client = True
        before = {k: v.clone() for k, v in runner.store.state(1).items()}
        hand_over(runner, Message("model_para", 0, [1], 0, runner.server.shared_state()))
        (answer,) = runner.exchange.posted
        assert answer.content[0] == 0
        assert all(torch.equal(v, before[k]) for k, v in runner.store.state(1).items())

    def test_what_it_reports(self, rig: Any) -> None:
        events = []

        class Watch:
            def on_train(self, event: dict[str, Any]) -> None:
                events.append(event)

        runner = rig.runner(callbacks=(Watch(),))
        hand_over(runner, Message("model_para", 0, [1], 4, runner.server.shared_state()))
        runner.exchange.drain()
        (event,) = events
        assert (event["round"], event["client"], event["steps"]) == (5, 1, 2)
        assert (event["samples"], event["sample_size"], event["nonfinite"]) == (16, 30, 0)
        assert event["tokens"] > 0
        assert event["seconds"] > 0
        assert {"train_loss", "train_avg_loss", "train_total"} <= set(event["metrics"])


class TestMessages:
    @pytest.mark.parametrize(
        ("content", "size"),
        [
            (None, 0),
            ("text", 0),
            (torch.zeros(3, 2), 24),
            ({"a": torch.zeros(4, dtype=torch.float16), "b": 1}, 8),
            ((7, {"a": torch.zeros(2), "b": [torch.zeros(1, dtype=torch.int64)]}), 16),
            ({}, 0),
        ],
    )
    def test_their_bytes(self, content: Any, size: int) -> None:
        assert payload_bytes(content) == size

    def test_receivers(self) -> None:
        assert Message(receiver=3).receivers == [3]
        assert Message(receiver=[1, 2]).receivers == [1, 2]

    def test_their_order(self) -> None:
        early, late = Message(timestamp=1, state=5), Message(timestamp=2, state=0)
        assert early < late
        assert Message(timestamp=1, state=4) < early

    def test_their_text(self) -> None:
        text = repr(Message("model_para", 1, [0], 2, torch.zeros(4)))
        assert "'model_para'" in text
        assert "16 bytes" in text


class TestTheLedger:
    def test_books(self) -> None:
        ledger = TrafficLedger()
        four = {"x": torch.zeros(1)}
        ledger.record(Message("model_para", 0, [1, 2], content=four))
        ledger.record(Message("model_para", 1, [0], content=(10, four)))
        ledger.record(Message("evaluate", 0, [1], content=four))
        ledger.record(Message("finish", 0, [1, 2], content=four))
        ledger.record(Message("metrics", 1, [0], content={"acc": 1.0}))
        taken = ledger.training.take()
        assert (taken.down, taken.up) == ({1: 4, 2: 4}, {1: 4})
        assert ledger.evaluation.take().down == {1: 4}
        assert ledger.finish.take().down == {1: 4, 2: 4}
        assert taken.encoding > 0
        assert ledger == TrafficLedger()

    def test_neighbours(self) -> None:
        manager = StandaloneCommManager(Held())
        manager.add_neighbors(1, "a")
        manager.add_neighbors(2, "b")
        assert manager.get_neighbors() == {1: "a", 2: "b"}
        assert manager.get_neighbors(2) == "b"
        assert manager.get_neighbors([1]) == {1: "a"}
        assert manager.receive() is None


class TestCallbacks:
    def test_all_are_called_in_order(self) -> None:
        seen: list[Any] = []

        class First(Callback):
            def on_round_start(self, rnd: int, clients: list[int]) -> None:
                seen.append(("first", rnd, clients))

        class Bare:
            def on_round_start(self, rnd: int, clients: list[int]) -> None:
                seen.append(("bare", rnd, clients))

        callbacks = Callbacks([First(), object(), Bare()])
        callbacks.on_round_start(1, [2])
        callbacks.on_run_start({})
        callbacks.on_batch(1, None, None)
        callbacks.on_train({})
        callbacks.on_eval({})
        callbacks.on_round({})
        callbacks.on_run_end({}, "x")
        assert seen == [("first", 1, [2]), ("bare", 1, [2])]

    def test_one_that_fails_at_the_end_does_not_hide_the_run(self, rig: Any, capsys: Any) -> None:
        ended: list[str] = []

        class Broken:
            def on_run_end(self, run: dict[str, Any], outdir: str) -> None:
                raise RuntimeError("cannot draw")

        class Last:
            def on_run_end(self, run: dict[str, Any], outdir: str) -> None:
                ended.append(run["status"])

        done = rig("federate.total_round_num", 1, callbacks=(Broken(), Last()))
        assert done.code == 0
        assert done.run["status"] == "finished"
        assert ended == ["finished"]
        assert "Broken failed at the end of the run" in capsys.readouterr().err


def test_an_aggregator_hears_of_a_round_before_its_clients_do(rig: Any) -> None:
    """A client may change its ranks as it trains; the round's are those it began with."""
    runner = rig.runner()
    order: list[str] = []
    server = runner.server

    def note(name: str, call: Any) -> Any:
        def noted(*args: Any, **kwargs: Any) -> Any:
            order.append(name)
            return call(*args, **kwargs)

        return noted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(server), "_send", note("send", type(server)._send))
        patch.setattr(combining, "begin", note("begin", combining.begin))
        server.begin_round()
    assert order[:2] == ["begin", "send"]
    assert order.count("begin") == 1

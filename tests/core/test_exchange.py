"""Exchange, codec and state: the seams of the course, each with a double."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from exchanges import AnyOrder, Held, Repeating, hand_over

from federatedscope.core.codec import decode, decode_message, encode, encode_message, overhead
from federatedscope.core.errors import UserError
from federatedscope.core.exchange import Inbox, InProcessExchange
from federatedscope.core.message import Message, payload_bytes
from federatedscope_ext.methods import METHODS

RANKED = ("llm.adapter.client_ranks", "[2, 4, 8]", "hetlora.regularization", 100.0)


def same(one: Any, other: Any) -> bool:
    """Equal in types, order and bits."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) or (one != one and other != other)


class TestTheInbox:
    def test_answers_come_in_the_order_of_asking(self) -> None:
        inbox = Inbox()
        inbox.expect(Message("model_para", 0, [3, 1, 2], 0))
        for sender in (1, 2, 3):
            inbox.put(Message("training_report", sender, [0], 0))
            inbox.put(Message("model_para", sender, [0], 0))
        taken = [inbox.take() for _ in range(6)]
        assert [m.sender for m in taken if m] == [3, 3, 1, 1, 2, 2]
        assert inbox.take() is None

    def test_who_was_not_asked_does_not_wait(self) -> None:
        inbox = Inbox()
        inbox.expect(Message("evaluate", 0, [1], 0))
        inbox.put(Message("metrics", 2, [0], 0))
        message = inbox.take()
        assert message is not None and message.sender == 2

    def test_nobody_waits_for_ever_for_one_that_is_silent(self) -> None:
        inbox = Inbox()
        inbox.expect(Message("model_para", 0, [1, 2], 0))
        inbox.put(Message("model_para", 2, [0], 0))
        assert inbox.take() is None
        assert inbox.give_up()
        message = inbox.take()
        assert message is not None and message.sender == 2
        assert not inbox.give_up()

    def test_an_answer_counts_once(self, caplog: Any) -> None:
        inbox = Inbox()
        for _ in range(2):
            inbox.put(Message("model_para", 1, [0], 0))
            inbox.put(Message("note", 1, [0], 0))
        assert [m.msg_type for m in iter(inbox.take, None)] == ["model_para", "note", "note"]
        assert "second time" in caplog.text


class TestTheExchange:
    def test_uploads_are_never_all_in_memory(self, rig: Any) -> None:
        """The server has taken in one client's upload before the next client begins."""
        waiting = []

        class Watched(InProcessExchange):
            def post(self, message: Message) -> None:
                super().post(message)
                waiting.append(sum(m.msg_type == "model_para" for m in self._inbox._arrived))

        runner = rig.runner("federate.method", "FedAvg", exchange=Watched())
        runner.run()
        assert max(waiting) == 1

    @pytest.mark.parametrize("method", ["fedavg", *METHODS])
    def test_neither_order_nor_repetition_changes_a_bit(self, rig: Any, method: str) -> None:
        options = (*RANKED, "federate.method", method, "federate.total_round_num", 3,
                   "slora.rounds", 1 if method in ("slora", "flexlora") else 0)  # fmt: skip
        exchanges = (None, AnyOrder(reversed), AnyOrder(lambda m: m[1:] + m[:1]), Repeating())
        states = []
        for exchange in exchanges:
            runner = rig.runner(*options, exchange=exchange)
            runner.run()
            states.append({k: dict(runner.store.state(k)) for k in (0, 1, 2, 3)})
        assert all(same(states[0], state) for state in states[1:])

    def test_a_round_that_nobody_answers_is_an_error(self, rig: Any) -> None:
        class Silent(InProcessExchange):
            def post(self, message: Message) -> None:
                if message.msg_type != "model_para" or not message.sender:
                    super().post(message)

        runner = rig.runner(exchange=Silent())
        with pytest.raises(UserError, match="No client has answered in round 1"):
            runner.run()

    def test_who_stays_silent_is_not_waited_for(self, rig: Any) -> None:
        class Losing(InProcessExchange):
            def post(self, message: Message) -> None:
                if (message.msg_type, message.sender) != ("model_para", 2):
                    super().post(message)

        events: list[Any] = []

        class Watch:
            def on_round(self, event: dict[str, Any]) -> None:
                events.append(event)

        runner = rig.runner(exchange=Losing(), callbacks=(Watch(),))
        runner.run()
        assert [event["sampled"] for event in events] == [[1, 3]] * 2

    def test_late_evaluations_are_dropped(self, rig: Any) -> None:
        runner = rig.runner()
        runner.run()
        server = runner.server
        assert server.callback_funcs_for_metrics(Message("metrics", 1, [0], 0, {})) is False
        assert not server.msg_buffer["eval"]

    def test_workers_build_no_exchange(self, rig: Any) -> None:
        exchange = Held()
        runner = rig.runner(exchange=exchange)
        workers = [runner.server, *runner.clients.values()]
        assert all(worker.comm_manager.exchange is exchange for worker in workers)


CONTENTS: list[Any] = [
    None,
    "text",
    {"a": 1, "b": [True, None, 0.1], "c": (1, "x")},
    {1: "one", (2, 3): 4.0},
    {"$tensor": 0, "$tuple": [], "nested": {"$pairs": 1}},
    (float("nan"), float("inf"), -0.0),
    {"x": torch.arange(6.0).reshape(2, 3).T, "y": torch.tensor(3), "z": torch.zeros(0, 4)},
    [torch.ones(3, dtype=d) for d in (torch.float16, torch.bfloat16, torch.int64, torch.bool)],
    (7, {"a": torch.zeros(2)}),
]


class TestTheCodec:
    @pytest.mark.parametrize("content", CONTENTS, ids=repr)
    def test_both_ways(self, content: Any) -> None:
        assert same(decode(encode(content)), content)

    def test_slices_of_one_tensor(self) -> None:
        whole = torch.arange(12.0).reshape(3, 4)
        content = {"all": whole, "first": whole[:1], "again": whole}
        back = decode(encode(content))
        assert same(back, content)
        back["all"].zero_()
        assert torch.equal(back["again"], whole)

    def test_numpy(self) -> None:
        back = decode(encode({"n": np.float32(0.5), "i": np.int64(3), "a": np.arange(3)}))
        assert back["n"] == 0.5 and back["i"] == 3
        assert torch.equal(back["a"], torch.arange(3))

    def test_what_cannot_be_sent_is_named(self) -> None:
        with pytest.raises(TypeError, match=r"content\['a'\]\[1\] is a set"):
            encode({"a": [1, {2}]})

    @pytest.mark.parametrize("damage", [lambda d: b"", lambda d: d[:-3], lambda d: b"x" * 40,
                                        lambda d: d.replace(b"$tensor", b"$tenser")])  # fmt: skip
    def test_damaged_bytes_are_refused(self, damage: Any) -> None:
        data = damage(encode({"a": torch.zeros(4), "b": 1}))
        try:
            assert not same(decode(data), {"a": torch.zeros(4), "b": 1})
        except UserError as error:
            assert "cannot be read" in str(error)

    def test_other_content_is_no_message(self) -> None:
        with pytest.raises(UserError, match="no message"):
            decode_message(encode({"a": 1}))

    @pytest.mark.parametrize("content", CONTENTS[-1:] + CONTENTS[:4], ids=repr)
    def test_what_it_adds(self, content: Any) -> None:
        message = Message("model_para", 1, [0], 2, content)
        assert overhead(message) == len(encode_message(message)) - payload_bytes(content)

    @pytest.mark.parametrize("method", ["fedavg", *METHODS])
    def test_every_message_of_every_method(self, rig: Any, method: str) -> None:
        """A course whose messages all travel as bytes is the same course."""
        seen: set[str | None] = set()

        class Wire(InProcessExchange):
            def post(self, message: Message) -> None:
                copy = decode_message(encode_message(message))
                assert vars(copy).keys() == vars(message).keys()
                assert same(copy.content, message.content)
                seen.add(message.msg_type)
                super().post(copy)

        options = (*RANKED, "federate.method", method, "federate.join_in_info", "['num_sample']",
                   "eval.phases", "['before', 'after']", "early_stop.patience", 1,
                   "train.optimizer.lr", 0.0)  # fmt: skip
        plain, wired = rig.runner(*options), rig.runner(*options, exchange=Wire())
        plain.run()
        wired.run()
        for participant in range(4):
            mine = dict(plain.store.state(participant))
            assert same(dict(wired.store.state(participant)), mine)
        assert seen >= {
            "join_in", "join_in_info", "ask_for_join_in_info", "model_para", "training_report",
            "local_metrics", "evaluate", "metrics", "converged", "finish",
        }  # fmt: skip
        assert ("base_update" in seen) is (method in ("flora", "fedex"))


class TestState:
    @pytest.mark.parametrize(
        ("method", "options"),
        [
            *((method, ()) for method in ("fedavg", "local", *METHODS)),
            ("fedopt", ("fedopt.optimizer.type", "Adam", "fedopt.optimizer.lr", 0.01)),
            ("fedavg", ("federate.client_memory_mb", 1, "early_stop.patience", 3)),
            ("flexlora", ("slora.rounds", 2)),
            ("zero_pad", ("llm.adapter.promotion.rank", 8, "llm.adapter.promotion.round", 1,
                          "llm.adapter.promotion.metric", "val_avg_loss",
                          "llm.adapter.client_ranks", "[2, 2, 2]")),
        ],
        ids=str,
    )  # fmt: skip
    def test_two_and_two_rounds_are_four(self, rig: Any, method: str, options: Any) -> None:
        """Bit for bit, through the codec, with client sampling; a new runner goes on."""
        ranked = RANKED if method not in ("fedopt", "local") else ()
        options = (*ranked, "federate.method", method, "federate.total_round_num", 4,
                   "federate.sample_client_num", 2, *options)  # fmt: skip
        whole, first, second = (rig.runner(*options) for _ in range(3))
        kept: list[bytes] = []

        def keep() -> None:
            if first.server.state == 2 and not kept:
                kept.append(encode(first.state_dict()))

        first.course.between_rounds = keep
        whole.run()
        first.run()
        second.load_state_dict(decode(kept[0]))
        second.run()
        assert second.server.state == whole.server.state
        assert same(final(second), final(whole))


def final(runner: Any) -> Any:
    state = runner.state_dict()
    # What a participant that came back from a file or a copy has is in another order.
    return {key: state[key] for key in ("server", "layouts", "store", "clients") if key in state}


def test_a_message_that_is_handed_over_alone(rig: Any) -> None:
    """What tests use to look at one step."""
    runner = rig.runner(exchange=Held())
    hand_over(runner, Message("model_para", 0, [1], 0, runner.server.shared_state()))
    assert [m.msg_type for m in runner.exchange.posted] == ["training_report", "model_para"]

"""The exchange: order, repetition, silence; one upload in memory at a time."""

from __future__ import annotations

from typing import Any

import pytest
from exchanges import AnyOrder, Held, Repeating, hand_over, same

from federatedscope.core.errors import UserError
from federatedscope.core.exchange import Inbox, InProcessExchange
from federatedscope.core.message import Message
from federatedscope_ext.methods import METHODS

RANKED = ("llm.adapter.client_ranks", "[2, 4, 8]", "hetlora.regularization", 100.0)


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


def test_a_message_that_is_handed_over_alone(rig: Any) -> None:
    """What tests use to look at one step."""
    runner = rig.runner(exchange=Held())
    hand_over(runner, Message("model_para", 0, [1], 0, runner.server.shared_state()))
    assert [m.msg_type for m in runner.exchange.posted] == ["training_report", "model_para"]

"""All bytes that were sent are in the records, each with the round it belongs to."""

from __future__ import annotations

from collections import Counter
from textwrap import dedent
from typing import Any

import pytest

from federatedscope.core.communication import TrafficLedger
from federatedscope.core.message import SERVER_ID, Message, payload_bytes

# A server that goes on to the next round by itself, as FederatedScope's do.
GOES_ON = """
from federatedscope.core.workers import Client, Server
from federatedscope.register import register_worker

class Mine(Server):
    def check_and_move_on(self, *args, **kwargs):
        done = super().check_and_move_on(*args, **kwargs)
        if done and self.msg_buffer["train"] == {} and not kwargs.get("check_eval_result"):
            self.eval()
        elif done and kwargs.get("check_eval_result") and not self.is_finish:
            self._start_new_training_round()
        return done

register_worker("mine", lambda m: {"client": Client, "server": Mine} if m == "mine" else None)
"""


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, int, str]]:
    """Bytes of every message: by its type, round index and direction."""
    counted: Counter[tuple[str, int, str]] = Counter()
    record = TrafficLedger.record

    def counting(self: TrafficLedger, message: Message) -> None:
        way = "down" if message.sender == SERVER_ID else "up"
        size = payload_bytes(message.content) * len(message.receivers)
        counted[str(message.msg_type), message.state, way] += size
        record(self, message)

    monkeypatch.setattr(TrafficLedger, "record", counting)
    return counted


def bytes_of(events: list[dict[str, Any]], way: str) -> dict[int, int]:
    """Bytes of some events by their round."""
    return {e["round"]: sum(e.get(f"bytes_{way}", {}).values()) for e in events}


def everything(done: Any) -> int:
    events = [*done.of("round"), *done.of("traffic")]
    return sum(sum(e.get(f"bytes_{way}", {}).values()) for e in events for way in ("up", "down"))


@pytest.mark.parametrize("freq", [1, 2])
def test_each_belongs_to_its_round(rig: Any, sent: Any, freq: int) -> None:
    done = rig("federate.total_round_num", 3, "eval.freq", freq)
    evaluated = bytes_of(done.of("traffic", kind="evaluation"), "down")
    due = [1, 2, 3] if freq == 1 else [2, 3]
    assert evaluated == {rnd: sent["evaluate", rnd - 1, "down"] for rnd in due}
    assert all(evaluated.values())
    assert bytes_of(done.of("traffic", kind="finish"), "down") == {3: sent["finish", 3, "down"]}
    for way in ("up", "down"):
        expected = {rnd + 1: sent["model_para", rnd, way] for rnd in range(3)}
        assert bytes_of(done.of("round"), way) == expected
    assert everything(done) == sent.total()
    # An evaluation's bytes are told after it, before the next round.
    order = [(e["event"], e["round"]) for e in done.events]
    assert order.index(("eval", 2)) < order.index(("traffic", 2)) < order.index(("train", 3))


def test_a_server_that_goes_on_by_itself(outside: Any, sent: Any) -> None:
    done = outside(dedent(GOES_ON), "federate.method", "mine", "federate.total_round_num", 3)
    assert done.code == 0, done.run.get("error")
    evaluated = bytes_of(done.of("traffic", kind="evaluation"), "down")
    assert evaluated == {rnd + 1: sent["evaluate", rnd, "down"] for rnd in range(3)}
    assert everything(done) == sent.total()


def test_a_round_that_is_not_completed(rig: Any, sent: Any) -> None:
    class Stop:
        def on_train(self, event: dict[str, Any]) -> None:
            if (event["round"], event["client"]) == (2, 2):
                raise KeyboardInterrupt

    done = rig(callbacks=(Stop(),), report=True)
    assert done.code == 130
    (left,) = done.of("traffic", kind="training")
    assert left["round"] == 2
    assert sum(left["bytes_down"].values()) == sent["model_para", 1, "down"]
    assert set(left["bytes_up"]) == {"1", "2"}
    assert everything(done) == sent.total()


def test_an_update_after_the_last_round_belongs_to_the_final_state(rig: Any, sent: Any) -> None:
    done = rig("federate.method", "flora", "federate.total_round_num", 2)
    assert not done.of("traffic", kind="training")
    (last,) = done.of("traffic", kind="finish")
    # Round 1's update is a part of round 2, round 2's of the end.
    update = sent["base_update", 1, "down"] + sent["base_update", 2, "down"]
    assert update > 0
    own = sum(last["bytes_down"].values()) - sent["finish", 2, "down"]
    assert 0 < own <= update
    assert everything(done) == sent.total()


def test_nothing_is_told_where_nothing_travels(rig: Any) -> None:
    assert rig("federate.method", "local").of("traffic") == []

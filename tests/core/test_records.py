"""What is written is what is read: one definition of events and of run.json."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from federatedscope.core.records import (
    AdapterInfo,
    ClientInfo,
    EvalEvent,
    Event,
    RecordError,
    RoundEvent,
    RunInfo,
    TrafficEvent,
    TrainEvent,
    event_of,
)

EVENTS = [
    TrainEvent(1, 2, {"train_avg_loss": 0.5}, 3, 24, 99, 1.5, 40.0, 1),
    EvalEvent(1, 2, "before", "global", True, {"val_acc": 0.5}),
    RoundEvent(1, (1, 2), {1: 10, 2: 20}, {1: 5}, {1: 3}, 7, {1: 0.25},
               {"energy": {"8": 1.0, "16": 1.0}}, {2: (4, 8)}, 2.5),
    RoundEvent(2, (1,)),
    TrafficEvent(1, "evaluation", {}, {1: 5}, 3),
]  # fmt: skip


@pytest.mark.parametrize("event", EVENTS)
def test_events_come_back(event: Event) -> None:
    assert event_of(json.loads(json.dumps(event.to_json()))) == event


def test_what_says_nothing_is_not_written() -> None:
    assert set(RoundEvent(2, (1,)).to_json()) == {
        "event", "round", "sampled", "bytes_up", "bytes_down", "bytes_encoding",
        "weights",
    }  # fmt: skip
    assert list(RoundEvent(diagnostics={"energy": {"16": 0.9, "8": 0.5}}).energy) == [8, 16]


def test_a_run_writes_what_the_records_say(rig: Any) -> None:
    """All fields, each where it was, and none that no reader knows."""
    done = rig("eval.phases", "['before', 'after']")
    run = RunInfo.from_json(done.run)
    assert run.to_json() == done.run
    assert list(run.to_json()) == list(done.run)
    for line in done.events:
        event = event_of(line)
        assert event is not None and event.to_json() == line
    assert {line["event"] for line in done.events} == {"train", "eval", "round", "traffic"}
    assert all(math.isfinite(event_of(e).sample_size) for e in done.of("train"))  # type: ignore[union-attr]


def test_gaps_and_later_fields_do_not_stop_reading() -> None:
    assert event_of({"event": "eval", "client": None, "later": 1}) == EvalEvent()
    assert event_of({"event": "of another time"}) is None
    metrics = {"a": None, "b": 2, "c": "text", "d": {"e": 1}}
    event = event_of({"event": "eval", "metrics": metrics})
    assert isinstance(event, EvalEvent)
    assert math.isnan(event.metrics.pop("a")) and event.metrics == {"b": 2.0}
    run = RunInfo.from_json({"format": 1, "later": 3, "parameters": None})
    assert run.raw["later"] == 3 and "later" not in run.to_json()


def test_values_have_the_type_that_they_had() -> None:
    raw = {"rank": [4, 8], "scale": 2.0, "rows": {"train": 3, "val": None}, "labels": {"val": None}}
    client = ClientInfo.from_json(raw)
    assert (client.rank, client.scale) == ((4, 8), 2.0)
    assert (client.rows, client.labels) == ({"train": 3}, {})
    assert AdapterInfo.from_json({"alpha": 16}).to_json()["alpha"] == 16
    assert str(AdapterInfo.from_json({"alpha": 0.5}).alpha) == "0.5"
    assert AdapterInfo.from_json({"target_modules": "all-linear"}).target_modules == "all-linear"


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({"rounds": "many"}, "run.json rounds"),
        ({"clients": {}}, "run.json clients"),
        ({"clients": [3]}, "run.json clients"),
        ({"clients": [{"rows": []}]}, "run.json clients.rows"),
        ({"clients": [{"rows": {"train": "x"}}]}, "run.json clients.rows.train"),
        ({"adapter": "lora"}, "run.json adapter"),
        ({"local_param": "lora_B"}, "run.json local_param"),
    ],
)
def test_a_wrong_type_is_told_with_its_field(raw: dict[str, Any], field: str) -> None:
    with pytest.raises(RecordError) as error:
        RunInfo.from_json({"format": 1, **raw})
    assert error.value.field == field

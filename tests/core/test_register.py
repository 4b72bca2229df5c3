"""The registry."""

from __future__ import annotations

import logging

import pytest

from federatedscope import register

KINDS = (
    *("data", "model", "trainer", "worker", "metric", "splitter", "criterion", "optimizer"),
    *("scheduler", "transform", "regularizer", "config", "auxiliary_data_loader_PIA"),
    *("aggregator", "callback", "exchange", "engine", "preset"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_register_stores_and_a_second_one_replaces(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store: dict[str, object] = {}
    monkeypatch.setattr(register, f"{kind}_dict", store)
    add = getattr(register, f"register_{kind}")
    assert "Called as" in add.__doc__ and "Returns" in add.__doc__

    def first() -> int:
        return 1

    with caplog.at_level(logging.WARNING):
        add("mine", first)
        add("mine", first)
        assert store == {"mine": first} and caplog.text == ""
        add("mine", print)
    assert store == {"mine": print}
    assert "mine" in caplog.text


def test_first_answer_takes_the_first_that_is_not_none() -> None:
    asked: list[str] = []

    def answer(name: str, result: object) -> register.Builder:
        def builder(kind: str, **kwargs: object) -> object:
            asked.append(name)
            return result

        return builder

    builders = {"a": answer("a", None), "b": answer("b", 0), "c": answer("c", 1)}
    assert register.first_answer(builders, "x", extra=1) == 0
    assert asked == ["a", "b"]
    assert register.first_answer({}, "x") is None

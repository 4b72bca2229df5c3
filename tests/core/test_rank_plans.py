"""Extensions that rank clients by a plan of their own, or combine unequal ranks themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch

from federatedscope import register
from federatedscope.core.workers import Server
from federatedscope_ext.methods import METHODS
from federatedscope_ext.methods.registry import workers_of

RANKED = ("federate.method", "flexlora", "federate.client_num", 3, "data.splitter", "iid",
          "federate.total_round_num", 2, "eval.freq", 1)  # fmt: skip


class Plan:
    def __init__(self, first: Any, later: Any = (), revised: Any = None) -> None:
        self.first, self.later, self.revised = first, later, revised

    def rank_of(self, client: int) -> Any:
        return self.first[client - 1]

    def later_ranks(self) -> Any:
        return self.later

    def revise(self, rnd: int, metrics: Any) -> Any:
        return self.revised if rnd == 1 else {}


@pytest.fixture
def planned(rig: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``planned(plan, ...)``: a run in which an extension's plan is asked first."""

    def run(plan: Plan, *options: Any) -> Any:
        builders = {"mine": lambda cfg, modules: plan, **register.ranks_dict}
        monkeypatch.setattr(register, "ranks_dict", builders)
        return rig(*RANKED, *options)

    return run


def test_a_plan_ranks_and_revises(planned: Any) -> None:
    done = planned(Plan([2, None, 3], [6], {1: 6}), "llm.adapter.args",
                   "[{'adapter_method': 'lora', 'r': 4, 'target_modules': ['query']}]")  # fmt: skip
    assert done.code == 0, done.run.get("error")
    assert [client["rank"] for client in done.run["clients"]] == [2, 4, 3]
    assert [e.get("rank_changes") for e in done.of("round")] == [None, {"1": [6]}]


BAD = {
    "negative": (Plan([2, -2, 3]), "rank_of(2) = -2"),
    "zero": (Plan([2, 2, 0]), "rank_of(3) = 0"),
    "half": (Plan([2.5, 2, 2]), "rank_of(1) = 2.5"),
    "text": (Plan(["4", 2, 2]), "rank_of(1) = '4'"),
    "module": (Plan([{"nope": 3}, 2, 2]), "no LoRA module 'nope'"),
    "later": (Plan([2, 2, 2], [0]), "later_ranks() = 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_plans_that_give_no_ranks_are_refused_before_work(
    planned: Any, capsys: Any, case: str
) -> None:
    plan, words = BAD[case]
    assert planned(plan).code == 2
    told = capsys.readouterr().err
    assert words in told and "register_ranks" in told and "Traceback" not in told


@pytest.mark.parametrize(
    ("revised", "words"),
    [({1: 32}, "the server holds rank 8"), ({9: 4}, "clients 1 to 3"), ({2: -1}, "above 0")],
)
def test_revisions_that_cannot_be_done_end_the_run_in_words(
    planned: Any, revised: Any, words: str
) -> None:
    done = planned(Plan([2, 2, 2], [8], revised))
    assert done.code != 0
    assert words in done.run["error"] and "Plan.revise(1" in done.run["error"]


def test_a_plan_has_names_of_its_own_whoever_is_asked_first(
    rig: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mine(cfg: Any, modules: Any) -> Any:
        return Plan([2, 3, 4]) if cfg.llm.adapter.client_ranks == "stairs" else None

    monkeypatch.setattr(register, "ranks_dict", {**register.ranks_dict, "mine": mine})
    done = rig(*RANKED, "llm.adapter.client_ranks", "stairs")
    assert [client["rank"] for client in done.run["clients"]] == [2, 3, 4]
    for named in (True, False):
        if not named:
            monkeypatch.undo()
        assert rig(*RANKED, "llm.adapter.client_ranks", "stars").code == 2
        told = capsys.readouterr().err
        assert "llm.adapter.client_ranks = 'stars'" in told and "a mix" in told


FlexLoraServer = workers_of(METHODS["flexlora"])["server"]


class Collecting(FlexLoraServer):  # type: ignore[misc, valid-type]
    """Looks into the buffer before it aggregates, as FederatedScope's servers do."""

    seen: ClassVar[list[set[int]]] = []

    def _perform_federated_aggregation(self) -> Any:
        uploads = self.msg_buffer["train"][self.state]
        Collecting.seen.append({len(tensors) for _, tensors in uploads.values()})
        return super()._perform_federated_aggregation()


def test_a_server_that_aggregates_itself_finds_the_uploads(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from federatedscope.core.workers import Client

    assert FlexLoraServer.streams_uploads and Server.streams_uploads
    assert not Collecting.streams_uploads
    options = (*RANKED, "llm.adapter.client_ranks", "[2, 4, 8]")
    plain = rig(*options)
    workers = {"client": Client, "server": Collecting}
    builders = {"mine": lambda method: workers if method == "flexlora" else None}
    monkeypatch.setattr(register, "worker_dict", {**builders, **register.worker_dict})
    collected = rig(*options)
    assert collected.code == 0, collected.run.get("error")
    assert len(Collecting.seen) == 2 and all(min(sizes) > 0 for sizes in Collecting.seen)
    assert [e["metrics"] for e in collected.of("eval")] == [e["metrics"] for e in plain.of("eval")]


class NaiveMean:
    def __init__(self, **given: Any) -> None: ...

    def aggregate(self, agg_info: Any) -> Any:
        states = [state for _, state in agg_info["client_feedback"]]
        return {name: torch.stack([s[name] for s in states]).mean(0) for name in states[0]}


def test_a_rule_that_knows_no_ranks_is_named(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    builders = {"mine": lambda method, **given: NaiveMean()}
    monkeypatch.setattr(register, "aggregator_dict", builders)
    options = [*RANKED]
    options[1] = "naive"
    assert rig(*options).code == 0
    done = rig(*options, "llm.adapter.client_ranks", "[2, 4, 8]")
    assert done.code != 0
    for word in ("NaiveMean cannot combine", "unequal rank", "scales"):
        assert word in done.run["error"]

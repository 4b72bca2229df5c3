"""Clients that never train, and evaluation of some clients and rows only."""

from __future__ import annotations

from typing import Any

import pytest

from federatedscope.core.configs.checks_federation import count_unseen
from federatedscope.core.configs.config import global_cfg
from federatedscope.core.data import ClientData
from federatedscope.core.data.participation import limit_rows, note_untrained
from federatedscope.core.errors import ConfigError
from federatedscope.core.participants import unseen_clients


def data_of(rows: dict[int, int]) -> dict[int, Any]:
    cfg = global_cfg.clone()
    return {
        k: ClientData(cfg, train=list(range(n)), val=list(range(20)), test=list(range(3)))
        for k, n in rows.items()
    }


class TestUntrained:
    def test_those_without_rows_are_added(self) -> None:
        cfg = global_cfg.clone()
        cfg.federate.untrained_clients = [3]
        note_untrained(data_of({0: 0, 1: 5, 2: 0, 3: 4}), cfg)
        assert cfg.federate.untrained_clients == [2, 3]

    def test_where_nobody_has_rows_it_is_another_error(self) -> None:
        cfg = global_cfg.clone()
        note_untrained(data_of({1: 0, 2: 0}), cfg)
        assert cfg.federate.untrained_clients == []

    @pytest.mark.parametrize(("named", "problem"), [([4], "no client 4"), ([1, 2], "nobody")])
    def test_mistakes(self, named: list[int], problem: str) -> None:
        cfg = global_cfg.clone()
        cfg.federate.untrained_clients = named
        with pytest.raises(ConfigError, match=problem):
            note_untrained(data_of({1: 5, 2: 5}), cfg)

    def test_in_a_run(self, rig: Any) -> None:
        done = rig("federate.untrained_clients", "[2]", "federate.method", "fedavg")
        assert {e["client"] for e in done.of("train")} == {1, 3}
        assert {e["client"] for e in done.of("eval")} == {1, 2, 3}
        assert [c["weight"] == 0 for c in done.run["clients"]] == [False, True, False]
        assert all(set(e["weights"]) == {"1", "3"} for e in done.of("round"))

    def test_they_count_for_the_clients_of_a_round(self, rig: Any) -> None:
        opts = ("federate.untrained_clients", "[2]", "federate.unseen_clients_rate", 0.4)
        done = rig(*opts, "federate.client_num", 5, "federate.sample_client_num", 3)
        unseen = {c["id"] for c in done.run["clients"] if c["unseen"]}
        assert done.run["sample_client_num"] == 5 - len(unseen | {2})
        assert done.code == 0

    def test_they_are_the_same_whoever_is_sampled(self, rig: Any) -> None:
        done = rig("federate.untrained_clients", "[1]", "federate.sample_client_num", 1,
                   "federate.total_round_num", 6)  # fmt: skip
        assert len(done.of("round")) == 6
        assert 1 not in {c for e in done.of("round") for c in e["sampled"]}


class TestHowManyAreUnseen:
    @pytest.mark.parametrize(
        ("rate", "clients", "unseen"),
        [
            (0.0, 8, 0), (0.3, 8, 2), (0.29, 100, 29), (0.57, 100, 57), (0.1, 3, 1),
            (0.1, 1613, 161), (0.5, 8, 4), (0.9, 10, 9), (0.99, 8, 7), (1e-6, 8, 1),
        ],
    )  # fmt: skip
    def test_the_others_train(self, rate: float, clients: int, unseen: int) -> None:
        """One count for all: who is held out, and how many clients there are for a round."""
        cfg = global_cfg.clone()
        cfg.federate.client_num, cfg.federate.unseen_clients_rate = clients, rate
        cfg.federate.sample_client_rate = 1.0
        cfg.assert_cfg()
        assert count_unseen(rate, clients) == len(unseen_clients(cfg)) == unseen
        assert cfg.federate.sample_client_num == clients - unseen

    @pytest.mark.parametrize(("rate", "number"), [(1.0, -1), (-1.0, 6), (-1.0, -1)])
    def test_all_that_train_in_every_round(self, rig: Any, rate: float, number: int) -> None:
        prepared = rig.prepared(
            "federate.client_num", 8, "federate.unseen_clients_rate", 0.3, "data.splitter", "iid",
            "federate.sample_client_rate", rate, "federate.sample_client_num", number,
        )  # fmt: skip
        assert sum(client["unseen"] for client in prepared.run["clients"]) == 2
        assert prepared.run["sample_client_num"] == 6

    def test_more_than_train(self) -> None:
        cfg = global_cfg.clone()
        cfg.federate.client_num, cfg.federate.unseen_clients_rate = 8, 0.3
        cfg.federate.sample_client_num = 7
        with pytest.raises(ConfigError, match="at most 6"):
            cfg.assert_cfg()


class TestWhoIsEvaluated:
    @pytest.mark.parametrize("choice", ["all", "seen", "unseen"])
    def test_the_choice(self, rig: Any, choice: str) -> None:
        done = rig("eval.clients", choice, "federate.unseen_clients_rate", 0.4,
                   "federate.client_num", 5)  # fmt: skip
        unseen = {c["id"] for c in done.run["clients"] if c["unseen"]}
        everybody = {1, 2, 3, 4, 5}
        expected = {"all": everybody, "seen": everybody - unseen, "unseen": unseen}
        assert done.code == 0 and len(unseen) == 2
        assert {e["client"] for e in done.of("eval")} == expected[choice]
        assert done.run["best_round"] is not None
        assert any("eval.clients" in note for note in done.run["notes"]) == (choice != "all")

    def test_the_unseen_stop_the_course_where_only_they_are_evaluated(self, rig: Any) -> None:
        done = rig(
            "eval.clients", "unseen", "federate.unseen_clients_rate", 0.4, "early_stop.patience", 1,
            "train.optimizer.lr", 0, "federate.total_round_num", 9,
        )  # fmt: skip
        assert done.run["stopped_by"] == "early_stop" and done.run["last_round"] == 2

    @pytest.mark.parametrize(
        "pairs",
        [
            ("eval.clients", "unseen"),
            ("eval.clients", "seen", "federate.make_global_eval", True),
            ("eval.clients", "some"),
            ("eval.max_rows", -1),
        ],
    )
    def test_mistakes(self, rig: Any, pairs: tuple[Any, ...]) -> None:
        assert rig.main("--quiet", *rig.argv(*pairs)) == 2


class TestHowManyRows:
    def test_they_are_drawn_by_the_data_seed(self) -> None:
        cfg = global_cfg.clone()
        cfg.eval.max_rows = 5
        kept = []
        for seed in (1, 1, 2):
            cfg.data.seed = seed
            data = data_of({0: 9, 1: 9, 2: 9})
            limit_rows(data, cfg)
            assert [data[k].rows("val") for k in (0, 1, 2)] == [20, 5, 5]
            assert data[1].rows("test") == 3 and data[1].rows("train") == 9
            assert data[1].val_data == sorted(data[1].val_data)
            kept.append((data[1].val_data, data[2].val_data))
        assert kept[0] == kept[1] != kept[2]
        assert kept[0][0] != kept[0][1]

    def test_training_rows_too(self, rig: Any) -> None:
        done = rig("data.rows_per_client", 7, "data.splitter", "iid")
        assert [c["rows"]["train"] for c in done.run["clients"]] == [7, 7, 7]
        assert [c["rows"]["val"] for c in done.run["clients"]] == [12, 12, 12]

    def test_in_a_run(self, rig: Any) -> None:
        done = rig("eval.max_rows", 4, "data.splitter", "iid")
        assert all(e["metrics"]["val_total"] == 4 for e in done.of("eval"))
        assert any("eval.max_rows" in note for note in done.run["notes"])

"""What is known before weights are read, and what does not grow while a run goes on."""

from __future__ import annotations

import gc
import time
from typing import Any

import pytest
import torch

from federatedscope.core.configs.config import global_cfg
from federatedscope.core.data import ClientData
from federatedscope.core.errors import ConfigError
from federatedscope.core.participants import unseen_clients, untrained_clients
from federatedscope.core.preflight import check_splits, estimate_memory
from federatedscope.core.records import Parameters


class TestSomethingToEvaluate:
    """Rows to evaluate on have to be with the clients that are evaluated."""

    def config(self, choice: str) -> Any:
        cfg = global_cfg.clone()
        cfg.federate.client_num, cfg.federate.unseen_clients_rate = 6, 0.34
        cfg.eval.clients, cfg.eval.split = choice, ["val", "test"]
        cfg.eval.best_res_update_round_wise_key = "val_loss"
        return cfg

    def data(self, cfg: Any, val: set[int], test: set[int]) -> dict[int, Any]:
        return {
            k: ClientData(cfg, train=[1], val=[1] * (k in val), test=[1] * (k in test))
            for k in range(7)
        }

    @pytest.mark.parametrize("choice", ["seen", "unseen"])
    @pytest.mark.parametrize("splits", ["both", "the deciding one"])
    def test_only_others_have_rows(self, choice: str, splits: str) -> None:
        cfg = self.config(choice)
        unseen = set(unseen_clients(cfg))
        assert len(unseen) == 2
        evaluated = unseen if choice == "unseen" else set(range(1, 7)) - unseen
        others = set(range(1, 7)) - evaluated
        data = self.data(cfg, {0, *others}, others if splits == "both" else evaluated)
        with pytest.raises(ConfigError, match="none of the evaluated clients") as caught:
            check_splits(cfg, data)
        assert (caught.value.field, caught.value.value) == ("eval.clients", choice)
        assert "eval.clients: all" in caught.value.remedy
        assert ("val or test" in str(caught.value)) == (splits == "both")
        check_splits(self.config("all"), data)
        check_splits(cfg, self.data(cfg, {min(evaluated)}, set()))

    def test_nobody_has_rows(self) -> None:
        with pytest.raises(ConfigError, match="no participant has rows"):
            check_splits(self.config("unseen"), self.data(global_cfg, set(), set()))

    def test_the_server_is_evaluated(self) -> None:
        cfg = self.config("all")
        cfg.federate.make_global_eval = True
        check_splits(cfg, self.data(cfg, {0}, set()))
        with pytest.raises(ConfigError, match="splits with rows are") as caught:
            check_splits(cfg, self.data(cfg, {1}, {0}))
        assert caught.value.field == "eval.best_res_update_round_wise_key"


class TestNotes:
    def test_small_clients(self, rig: Any) -> None:
        notes = rig.prepared("dataloader.batch_size", 16).run["notes"]
        assert any("1 client(s) have fewer training rows than a batch of 16" in n for n in notes)
        assert not rig.prepared().run["notes"]

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            (("federate.method", "fedsa"), "what is shared and, untrained, what stays on a client "
             "(lora_B, lora_embedding_B"),
            (("federate.method", "fedavg", "personalization.head", "local"),
             "untrained, what stays on a client (modules_to_save"),
            (("federate.method", "local", "federate.untrained_clients", "[2]"),
             "scored with the model as it was at the start"),
            (("federate.method", "fedsa", "finetune.before_eval", True),
             "fine-tuned on their own training rows"),
            (("federate.method", "fedavg", "personalization.head", "shared"), ""),
            (("federate.method", "fedsa", "eval.clients", "seen"), ""),
        ],
    )  # fmt: skip
    def test_what_unseen_clients_are_scored_with(
        self, rig: Any, options: tuple[Any, ...], told: str
    ) -> None:
        prepared = rig.prepared("federate.unseen_clients_rate", 0.34, *options)
        (unseen,) = untrained_clients(prepared.cfg)
        found = [note for note in prepared.run["notes"] if "never train: scored" in note]
        assert [f"Client(s) {unseen} never" in note and told in note for note in found] == (
            [True] if told else []
        )

    def test_evaluation_elsewhere(self, rig: Any) -> None:
        notes = rig.prepared("eval_device", 1).run["notes"]
        assert any("evaluation runs where training runs, cpu" in n for n in notes)

    def test_what_is_evaluated(self, rig: Any) -> None:
        def evaluation(*options: Any) -> Any:
            return rig.prepared(*options).run["evaluation"]

        assert "its own local tensors" in evaluation()["note"]
        assert "same aggregated state" in evaluation("federate.method", "FedAvg")["note"]
        assert evaluation("federate.method", "FedAvg", "federate.make_global_eval", True) == {
            "scope": "global",
            "phases": ["after"],
            "note": "The server evaluates its state on its own rows.",
        }


class TestMemory:
    def test_the_estimate_follows_what_it_is_about(self, rig: Any) -> None:
        small = rig.prepared().run["memory_estimate_bytes"]
        batch = rig.prepared("dataloader.batch_size", 16).run["memory_estimate_bytes"]
        assert batch["activations"] == pytest.approx(2 * small["activations"])
        many = rig.prepared("federate.client_num", 12, "data.splitter", "iid").run
        assert many["memory_estimate_bytes"]["client_state"] > small["client_state"]
        assert many["memory_estimate_bytes"]["backbone"] == small["backbone"]
        assert small["total"] == sum(v for k, v in small.items() if k != "total")

    def test_the_limit_caps_the_clients(self, rig: Any) -> None:
        prepared = rig.prepared()
        counts = Parameters(total=10**9, trainable=10**7, sent=0)
        cfg = prepared.cfg.clone()
        cfg.defrost()
        cfg.federate.client_num = 10**6
        cfg.federate.client_memory_mb = 100
        skeleton = torch.nn.Linear(1, 1)
        estimate = estimate_memory(cfg, skeleton, counts, prepared.precision)
        assert estimate["client_state"] == 100 * 2**20 + 3 * 4 * 10**7

    def test_nothing_grows_over_rounds(self, rig: Any) -> None:
        """The number of live tensors is the same after round 3 and after round 6."""
        counts: list[int] = []

        class Count:
            def on_round(self, event: Any) -> None:
                if event["round"] not in (3, 6):
                    return
                gc.collect()
                counts.append(sum(1 for o in gc.get_objects() if isinstance(o, torch.Tensor)))

        rig(
            "federate.total_round_num", 6, "train.local_update_steps", 1,
            "eval.phases", "['before', 'after']", callbacks=(Count(),),
        )  # fmt: skip
        assert counts[0] == counts[1]

    def test_bookkeeping_does_not_grow_with_rounds_times_clients(self, rig: Any) -> None:
        runner = rig.runner("federate.total_round_num", 4)
        runner.run()
        assert not any("raw" in form for form in runner.server.history_results)
        assert all(not client.history_results for client in runner.clients.values())
        assert runner.server.msg_buffer == {"train": {}, "eval": {}}


def test_a_thousand_clients_start_in_seconds(rig: Any, tmp_path: Any) -> None:
    """1 % of 1000 clients a round: nobody else's state is made for training."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / "data" / "glue" / "sst2"
    folder.mkdir(parents=True)
    for split, rows in (("train", 2000), ("validation", 1000)):
        table = {"sentence": ["good film", "bad film"] * (rows // 2), "label": [1, 0] * (rows // 2)}
        pq.write_table(pa.table(table), folder / f"{split}.parquet")
    started = time.monotonic()
    runner = rig.runner(
        "data.root", tmp_path / "data", "federate.client_num", 1000, "data.splitter", "iid",
        "federate.sample_client_rate", 0.01, "train.local_update_steps", 1,
        "federate.total_round_num", 1,
    )  # fmt: skip
    for client in runner.clients.values():
        client.join_in()
    runner.exchange.drain()
    runner.server.begin_round()
    runner.exchange.drain()
    assert time.monotonic() - started < 30
    assert len(runner.store.owners) == 11

"""The course of a run: who takes part, when it is evaluated and stops, what comes again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from exchanges import hand_over

from federatedscope.core.message import Message
from federatedscope.core.participants import unseen_clients

SIX = ("federate.client_num", 6, "data.splitter", "iid", "train.local_update_steps", 1)


def same(a: Any, b: Any) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


class TestReproducibility:
    def test_same_seed_same_run(self, rig: Any) -> None:
        options = (*SIX, "federate.sample_client_num", 3, "eval.phases", "['before', 'after']")
        first, second = rig(*options), rig(*options)
        assert first.events
        assert first.timeless == second.timeless
        assert first.lines == second.lines

    def test_another_seed_another_run_on_the_same_rows(self, rig: Any) -> None:
        first, second = rig("seed", 1), rig("seed", 2)
        assert first.run["clients"] == second.run["clients"]
        assert first.metrics != second.metrics

    def test_another_data_seed_other_rows(self, rig: Any) -> None:
        first, second = rig("data.seed", 1), rig("data.seed", 2)
        assert first.run["clients"] != second.run["clients"]

    @pytest.mark.parametrize("before", [[], [1], [3, 1]])
    def test_a_clients_training_does_not_depend_on_who_was_before(
        self, rig: Any, before: list[int]
    ) -> None:
        """Neither on others' training nor on evaluations: every client has its own stream."""
        alone, after = rig.runner(), rig.runner()
        state = alone.server.shared_state()
        for other in before:
            hand_over(after, Message("model_para", 0, [other], 0, state))
            hand_over(after, Message("evaluate", 0, [other, 2], 0, state))
        for runner in (alone, after):
            hand_over(runner, Message("model_para", 0, [2], 0, state))
        assert same(alone.store.state(2), after.store.state(2))

    def test_rounds_differ(self, rig: Any) -> None:
        """Another round draws other batches and other dropout."""
        states = []
        for rnd in (0, 1):
            runner = rig.runner("federate.total_round_num", 5)
            hand_over(runner, Message("model_para", 0, [2], rnd, runner.server.shared_state()))
            states.append(runner.store.state(2))
        assert not same(*states)

    def test_evaluation_does_not_change_training(self, rig: Any) -> None:
        """Whatever is evaluated, whenever: the training losses are the same."""
        often = rig("eval.freq", 1, "eval.phases", "['before', 'after']", "eval.batch_size", 5)
        seldom = rig("eval.freq", 2)
        assert [e["metrics"] for e in often.of("train")] == [
            e["metrics"] for e in seldom.of("train")
        ]

    @pytest.mark.parametrize(
        "options",
        [
            ("train.local_update_steps", 3, "eval.metrics", "['accuracy', 'f1']"),
            ("federate.method", "global"),
            ("federate.method", "local", "federate.client_idx_for_local_train", 3),
            (
                "data.type",
                "mnli@glue",
                "eval.metrics",
                "[]",
                "eval.best_res_update_round_wise_key",
                "val_loss",
            ),
        ],
        ids=["metrics", "global", "one of three", "derived"],
    )
    def test_the_saved_configuration_runs_the_same_again(self, rig: Any, options: Any) -> None:
        first = rig(*options)
        assert first.code == 0
        again = rig.folder()
        file = first.outdir / "config.yaml"
        assert rig.main("--quiet", "--cfg", str(file), "--outdir", str(again)) == 0
        assert rig.read(0, again).timeless == first.timeless

    def test_the_settings_of_single_clients_are_saved_too(self, rig: Any) -> None:
        first = rig("client_2.train.local_update_steps", 1, "client_2.train.optimizer.lr", 0.5)
        plain = rig()
        assert [e["steps"] for e in first.of("train", round=1)] == [2, 1, 2]
        assert [e["steps"] for e in plain.of("train", round=1)] == [2, 2, 2]
        assert not (plain.outdir / "client_config.yaml").exists()
        again = rig.folder()
        code = rig.main(
            "--quiet", "--cfg", str(first.outdir / "config.yaml"), "--client_cfg",
            str(first.outdir / "client_config.yaml"), "--outdir", str(again),
        )  # fmt: skip
        assert code == 0
        assert rig.read(0, again).timeless == first.timeless


class TestWhoTakesPart:
    def test_a_rate_of_the_clients(self, rig: Any) -> None:
        done = rig(*SIX, "federate.sample_client_rate", 0.5, "federate.total_round_num", 4)
        rounds = [event["sampled"] for event in done.of("round")]
        assert [len(sampled) for sampled in rounds] == [3, 3, 3, 3]
        assert len({tuple(sampled) for sampled in rounds}) > 1
        for event in done.of("round"):
            trained = {e["client"] for e in done.of("train", round=event["round"])}
            assert trained == set(event["sampled"])
            assert set(event["bytes_up"]) == {str(k) for k in event["sampled"]}
        # Everybody is evaluated, also who did not take part.
        assert len(done.of("eval", round=1)) == 6

    def test_unseen_clients_never_train_and_are_summarised_apart(self, rig: Any) -> None:
        done = rig(*SIX, "federate.unseen_clients_rate", 0.34, "federate.total_round_num", 3)
        assert done.code == 0
        unseen = {c["id"] for c in done.run["clients"] if c["unseen"]}
        assert len(unseen) == 2
        assert {e["client"] for e in done.of("train")} == set(range(1, 7)) - unseen
        assert {e["client"] for e in done.of("eval") if e["unseen"]} == unseen
        assert all(c["weight"] == 0 for c in done.run["clients"] if c["unseen"])
        apart = [line for line in done.lines if "Results_avg_unseen" in line]
        together = [line for line in done.lines if "Results_avg" in line]
        assert len(apart) == len(together) == 3
        for line, other in zip(apart, together, strict=True):
            assert len(line["Results_raw_unseen"]["val_accuracy"]) == 2
            assert len(other["Results_raw"]["val_accuracy"]) == 4
        assert "unseen_client_summarized_avg" in done.lines[-1]["Results_raw"]

    def test_unseen_clients_are_a_draw_of_the_seed(self, rig: Any) -> None:
        cfg = rig.prepared(*SIX, "federate.unseen_clients_rate", 0.5).cfg
        drawn = unseen_clients(cfg)
        assert drawn == unseen_clients(cfg)
        assert len(set(drawn)) == 3
        cfg.defrost()
        others = set()
        for seed in range(8):
            cfg.seed = seed
            others.add(tuple(unseen_clients(cfg)))
        assert len(others) > 1

    def test_a_single_client_of_a_split(self, rig: Any) -> None:
        everybody = rig("federate.method", "local")
        done = rig("federate.method", "local", "federate.client_idx_for_local_train", 3)
        (client,) = done.run["clients"]
        assert client["rows"] == everybody.run["clients"][2]["rows"]

    def test_many_clients_start_in_seconds(self, rig: Any) -> None:
        """State is made when a client first needs it, not at the start."""
        runner = rig.runner(
            "federate.client_num", 90, "data.splitter", "iid", "federate.sample_client_num", 1
        )
        assert runner.store.owners == [0]


class TestEvaluation:
    def test_its_frequency_and_the_last_round(self, rig: Any) -> None:
        done = rig("federate.total_round_num", 5, "eval.freq", 2)
        assert sorted({e["round"] for e in done.of("eval")}) == [2, 4, 5]
        assert [line["Round"] for line in done.lines] == [1, 3, 4, "Final"]
        assert done.run["last_round"] == 5

    def test_both_phases(self, rig: Any) -> None:
        done = rig("eval.phases", "['before', 'after']", "federate.total_round_num", 3,
                   "eval.freq", 2)  # fmt: skip
        seen = [(e["round"], e["phase"]) for e in done.of("eval", client=1)]
        assert sorted(seen) == [(2, "after"), (2, "before"), (3, "after"), (3, "before")]
        before = done.of("eval", phase="before", round=2)
        after = done.of("eval", phase="after", round=2)
        assert [e["metrics"] for e in before] != [e["metrics"] for e in after]
        # Only what clients hold after aggregation is summarised and compared.
        raw = next(line for line in done.lines if line["Round"] == 1)["Results_raw"]
        assert raw["val_accuracy"] == pytest.approx(
            [e["metrics"]["val_accuracy"] for e in after], abs=1e-6
        )

    def test_before_aggregation_is_what_the_client_trained(self, rig: Any) -> None:
        """Without aggregation both phases see the same."""
        done = rig("federate.method", "local", "eval.phases", "['before', 'after']")
        for client in (1, 2, 3):
            before, after = (
                [e["metrics"] for e in done.of("eval", client=client, phase=phase)]
                for phase in ("before", "after")
            )
            assert before == after

    def test_only_before(self, rig: Any) -> None:
        done = rig("eval.phases", "['before']")
        assert done.code == 0
        assert {e["phase"] for e in done.of("eval")} == {"before"}
        assert done.run["best_round"] is None
        assert any("early stopping" in note for note in done.run["notes"])

    def test_no_rounds_is_an_evaluation(self, rig: Any) -> None:
        done = rig("federate.total_round_num", 0)
        assert done.code == 0
        assert not done.of("train")
        assert {e["round"] for e in done.of("eval")} == {0}
        assert len(done.of("eval")) == 3
        assert done.run["status"] == "finished"

    def test_at_the_server(self, rig: Any) -> None:
        done = rig("federate.method", "FedAvg", "federate.make_global_eval", True)
        evaluations = done.of("eval")
        assert [(e["client"], e["scope"], e["phase"]) for e in evaluations] == [
            (0, "global", "after")
        ] * 2
        assert evaluations[0]["metrics"]["val_total"] == 36
        assert done.run["evaluation"]["scope"] == "global"
        assert done.lines[0]["Results_raw"]["val_total"] == 36
        assert "server_global_eval" in done.lines[-1]["Results_raw"]

    def test_at_the_server_without_what_stays_local(self, rig: Any) -> None:
        done = rig("federate.method", "fedsa", "federate.make_global_eval", True)
        assert any("The server is evaluated" in note for note in done.run["notes"])

    def test_one_shared_state_is_global_evaluation(self, rig: Any) -> None:
        assert rig("federate.method", "FedAvg").of("eval")[0]["scope"] == "global"
        assert rig("federate.method", "fedsa").of("eval")[0]["scope"] == "personal"

    def test_the_summaries(self, rig: Any) -> None:
        done = rig()
        for rnd, line in enumerate(done.lines[:-1], start=1):
            figures = [e["metrics"] for e in done.of("eval", round=rnd)]
            accuracy = [f["val_accuracy"] for f in figures]
            rows = [f["val_total"] for f in figures]
            assert line["Results_avg"]["val_accuracy"] == pytest.approx(sum(accuracy) / 3, abs=1e-6)
            assert line["Results_weighted_avg"]["val_accuracy"] == pytest.approx(
                sum(a * n for a, n in zip(accuracy, rows, strict=True)) / sum(rows), abs=1e-6
            )
            assert line["Results_fairness"]["val_accuracy_min"] == pytest.approx(
                min(accuracy), abs=1e-6
            )

    @pytest.mark.parametrize("forms", [["avg"], ["raw"], ["weighted_avg", "fairness"]])
    def test_only_the_chosen_forms_are_written(self, rig: Any, forms: list[str]) -> None:
        """The best round and early stopping do not depend on what is written."""
        done = rig("eval.report", str(forms))
        for line in done.lines[:-1]:
            assert set(line) == {"Role", "Round", *(f"Results_{form}" for form in forms)}
        assert done.run["best_round"] == rig().run["best_round"]

    def test_fine_tuning_before_evaluation_is_forgotten_after_it(self, rig: Any) -> None:
        plain = rig()
        tuned = rig(
            "finetune.before_eval", True, "finetune.local_update_steps", 3,
            "finetune.optimizer.type", "AdamW", "finetune.optimizer.lr", 0.05,
        )  # fmt: skip
        assert tuned.code == 0
        assert [e["metrics"] for e in plain.of("eval")] != [e["metrics"] for e in tuned.of("eval")]
        assert [e["metrics"] for e in plain.of("train")] == [
            e["metrics"] for e in tuned.of("train")
        ]


class TestStopping:
    def test_early(self, rig: Any) -> None:
        done = rig(
            "train.optimizer.lr", 0.0, "early_stop.patience", 2, "federate.total_round_num", 9
        )
        assert done.code == 0
        assert done.run["status"] == "finished"
        assert done.run["stopped_by"] == "early_stop"
        assert done.run["last_round"] == 3
        assert len(done.of("round")) == 3
        assert done.lines[-1]["Round"] == "Final"

    def test_not_early_without_patience(self, rig: Any) -> None:
        done = rig("train.optimizer.lr", 0.0, "federate.total_round_num", 4)
        assert done.run["stopped_by"] == "rounds"
        assert done.run["last_round"] == 4

    def test_the_best_round(self, rig: Any) -> None:
        done = rig("federate.total_round_num", 4, "train.optimizer.lr", 0.05)
        means = [line["Results_avg"]["val_accuracy"] for line in done.lines[:-1]]
        assert done.run["best_round"] == 1 + means.index(max(means))
        best = done.lines[-1]["Results_raw"]["client_summarized_avg"]
        assert best["val_accuracy"] == max(means)

    def test_the_best_round_by_a_loss_is_the_lowest(self, rig: Any) -> None:
        done = rig(
            "federate.total_round_num", 4, "train.optimizer.lr", 0.3,
            "eval.best_res_update_round_wise_key", "val_avg_loss",
        )  # fmt: skip
        means = [line["Results_avg"]["val_avg_loss"] for line in done.lines[:-1]]
        assert len(set(means)) == 4
        assert done.run["larger_is_better"] is False
        assert done.run["best_round"] == 1 + means.index(min(means))


class TestSavedModels:
    def test_checkpoints(self, rig: Any) -> None:
        done = rig(
            "federate.method", "FedAvg", "federate.save_to", "model.ckpt", "federate.save_freq", 2,
            "federate.save_client_model", True, "federate.total_round_num", 3,
        )  # fmt: skip
        folder = done.outdir / "checkpoints"
        names = {file.name for file in folder.iterdir()}
        assert names == {
            "model.ckpt", "final_model.ckpt", "2_model.ckpt",
            *(f"client_{k}_model.ckpt" for k in (1, 2, 3)),
        }  # fmt: skip
        final = torch.load(folder / "final_model.ckpt", weights_only=True)
        assert final["cur_round"] == 3
        best = torch.load(folder / "model.ckpt", weights_only=True)
        assert best["cur_round"] == done.run["best_round"]

    def test_the_final_checkpoint_is_the_servers_state(self, rig: Any, mail: list[Any]) -> None:
        done = rig("federate.method", "FedAvg", "federate.save_to", "m.safetensors")
        from federatedscope.core.checkpoint import load_checkpoint

        state, rounds = load_checkpoint(done.outdir / "checkpoints" / "final_m.safetensors")
        (finish,) = [m for m in mail if m.type == "finish"]
        assert rounds == 2
        assert same(finish.tensors, state)

    @pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
    def test_going_on_from_a_checkpoint(self, rig: Any, mail: list[Any], suffix: str) -> None:
        first = rig("federate.method", "FedAvg", "federate.save_to", f"m.{suffix}")
        saved = first.outdir / "checkpoints" / f"final_m.{suffix}"
        mail.clear()
        second = rig("federate.method", "FedAvg", "federate.restore_from", saved)
        assert second.code == 0
        from federatedscope.core.checkpoint import load_checkpoint

        state, _ = load_checkpoint(saved)
        start = next(m for m in mail if m.type == "model_para" and not m.sender)
        assert same(start.tensors, {k: v for k, v in state.items() if k in start.tensors})

    def test_a_frozen_A_is_restored_too(self, rig: Any) -> None:
        """FFA's B belongs to its A: another seed must not give it another one."""
        first = rig("federate.method", "ffa", "federate.save_to", "m.ckpt", "seed", 1)
        saved = first.outdir / "checkpoints" / "final_m.ckpt"
        state = torch.load(saved, weights_only=True)["model"]
        runner = rig.runner("federate.method", "ffa", "federate.restore_from", saved, "seed", 2)
        factors = {n: p for n, p in runner.model.named_parameters() if "lora_A" in n}
        assert factors
        assert all(torch.equal(p, state[n]) for n, p in factors.items())

    def test_another_adapters_checkpoint_is_refused(self, rig: Any, capsys: Any) -> None:
        first = rig("federate.method", "FedAvg", "federate.save_to", "m.ckpt")
        saved = first.outdir / "checkpoints" / "final_m.ckpt"
        bigger = "[{'adapter_package': 'peft', 'adapter_method': 'lora', 'r': 8, 'lora_alpha': 8}]"
        second = rig(
            "federate.method", "FedAvg", "federate.restore_from", saved, "llm.adapter.args", bigger
        )
        assert second.code != 0
        assert "does not fit this run" in capsys.readouterr().err


class TestSchedule:
    @pytest.mark.parametrize("sampling", [(), ("federate.sample_client_num", 2)])
    def test_warm_up_spans_the_rounds(self, rig: Any, sampling: Any) -> None:
        """Rates of the whole run: up over its first half, then down, for every client alike."""
        rates: dict[tuple[int, int], list[float]] = {}

        class Watch:
            def on_batch(self, client: int, ctx: Any, monitor: Any) -> None:
                if ctx.cur_mode == "train":
                    rate = ctx.optimizer.param_groups[0]["lr"]
                    rates.setdefault((client, ctx.cur_round), []).append(rate)

        done = rig(
            *sampling, "federate.total_round_num", 4, "train.scheduler.type", "linear_warmup",
            "train.scheduler.warmup_ratio", 0.5, "train.optimizer.lr", 0.008,
            callbacks=(Watch(),),
        )  # fmt: skip
        assert done.code == 0
        # 4 rounds of 2 steps; the rate seen after a step is the next step's.
        expected = [0.001 * min(2 * s, 2 * (8 - s)) for s in range(9)]
        assert rates
        for (_, rnd), seen in rates.items():
            assert seen == pytest.approx(expected[2 * rnd + 1 : 2 * rnd + 3])

    def test_vera_has_two_rates(self, rig: Any) -> None:
        rates = []

        class Watch:
            def on_batch(self, client: int, ctx: Any, monitor: Any) -> None:
                if ctx.cur_mode == "train":
                    rates.append([g["lr"] for g in ctx.optimizer.param_groups])

        args = "[{'adapter_package': 'peft', 'adapter_method': 'vera', 'r': 8}]"
        done = rig(
            "llm.adapter.args", args, "train.optimizer.lr", 0.02, "train.vera.lr_c", 0.0005,
            callbacks=(Watch(),),
        )  # fmt: skip
        assert done.code == 0
        assert rates[0] == [0.02, 0.0005]

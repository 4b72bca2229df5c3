"""Modules written by outsiders in the contract's form: registered, named in `extensions`, run."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch

from federatedscope.core import extensions as extension_loader
from federatedscope.core.extensions import contrib_modules


class TestDataAndModel:
    def test_a_world_of_ones_own(self, outside: Any) -> None:
        done = outside("")
        assert done.code == 0
        assert [c["rows"]["train"] for c in done.run["clients"]] == [10, 20, 30]
        assert done.run["task_type"] == "OTHER"
        # Body, norm and head with the norm's buffers travel.
        assert done.run["parameters"]["trainable"] == 6 * 8 + 8 + 16 + 16 + 2
        assert done.of("round")[0]["weights"] == pytest.approx({"1": 1 / 6, "2": 2 / 6, "3": 3 / 6})
        assert done.of("eval")[0]["metrics"]["val_total"] == 8

    def test_it_learns(self, outside: Any) -> None:
        done = outside(
            "", "federate.total_round_num", 6, "train.batch_or_epoch", "epoch",
            "eval.split", "['val', 'test']",
        )  # fmt: skip
        means = [line["Results_avg"]["test_acc"] for line in done.lines[:-1]]
        assert means[-1] > 0.75
        assert means[-1] > means[0]

    def test_at_the_server(self, outside: Any) -> None:
        done = outside("", "federate.make_global_eval", True)
        assert [e["metrics"]["val_total"] for e in done.of("eval", client=0)] == [10, 10]

    def test_parts_can_stay_local(self, outside: Any, mail: list[Any]) -> None:
        done = outside("", "personalization.local_param", "['head', 'norm']")
        assert done.code == 0
        assert {n for m in mail for n in m.tensors} == {"body.weight", "body.bias"}

    def test_a_local_part_that_is_not_there(self, outside: Any, capsys: Any) -> None:
        done = outside("", "personalization.local_param", "['haed']")
        assert done.code == 2
        assert "'head'" in capsys.readouterr().err
        assert not done.outdir.exists()

    def test_the_translator_of_the_contract(self, outside: Any) -> None:
        """One set of rows, spread by a splitter."""
        done = outside(
            """
            from federatedscope.core.data import BaseDataTranslator

            def one_set(config, client_cfgs=None):
                if config.data.type == "oneset":
                    return BaseDataTranslator(config, client_cfgs)(rows(100, 1)), config

            register_data("oneset", one_set)
            """,
            "data.type", "oneset", "data.splitter", "iid", "federate.client_num", 4,
            "data.splits", "[0.8, 0.1, 0.1]",
        )  # fmt: skip
        assert done.code == 0
        rows = [tuple(c["rows"].values()) for c in done.run["clients"]]
        assert rows == [(20, 3, 3), (20, 3, 3), (20, 2, 2), (20, 2, 2)]

    def test_clients_by_number(self, outside: Any) -> None:
        done = outside(
            """
            from federatedscope.core.data import DummyDataTranslator

            def shards(config, client_cfgs=None):
                if config.data.type != "shards":
                    return
                data = {k: {"train": rows(12, k), "val": rows(6, k)} for k in (1, 2)}
                config.merge_from_list(["federate.client_num", len(data)])
                return DummyDataTranslator(config, client_cfgs)(data), config

            register_data("shards", shards)
            """,
            "data.type", "shards",
        )  # fmt: skip
        assert done.code == 0
        assert [c["rows"]["train"] for c in done.run["clients"]] == [12, 12]


class TestSmallerKinds:
    def test_a_metric(self, outside: Any) -> None:
        done = outside(
            """
            from federatedscope.register import register_metric


            def lowest(ctx, y_true, y_pred, y_prob, **kwargs):
                assert y_true.shape == y_pred.shape == (ctx.num_samples, 1)
                return float(y_prob.min()) + 0 * ctx.num_train_data


            def build(types):
                if "lowest" in types:
                    return "lowest", lowest, False


            register_metric("lowest", build)
            """,
            "eval.metrics", "['acc', 'lowest']",
            "eval.best_res_update_round_wise_key", "val_lowest",
        )  # fmt: skip
        assert done.code == 0
        assert all("val_lowest" in e["metrics"] for e in done.of("eval"))
        assert done.run["larger_is_better"] is False
        means = [line["Results_avg"]["val_lowest"] for line in done.lines[:-1]]
        assert done.run["best_round"] == 1 + means.index(min(means))

    def test_a_splitter(self, outside: Any) -> None:
        """Lists of row numbers, as the contract's example gives, for a GLUE task."""
        done = outside(
            """
            from federatedscope.core.splitters import BaseSplitter
            from federatedscope.register import register_splitter


            class Halves(BaseSplitter):
                def __init__(self, client_num, first=0.5, **kwargs):
                    self.first = first
                    super().__init__(client_num, **kwargs)

                def __call__(self, dataset, prior=None, **kwargs):
                    cut = int(len(dataset) * self.first)
                    rest = len(dataset) - cut
                    ends = [cut + rest * i // (self.client_num - 1) for i in range(self.client_num)]
                    return [list(range(a, b)) for a, b in zip([0, *ends], ends)]


            def build(kind, client_num, **kwargs):
                if kind == "halves":
                    return Halves(client_num, **kwargs)


            register_splitter("halves", build)
            """,
            "data.splitter", "halves", "data.splitter_args", "[{'first': 0.75}]", world=False,
        )  # fmt: skip
        assert done.code == 0
        assert [c["rows"]["train"] for c in done.run["clients"]] == [72, 12, 12]
        assert [c["rows"]["val"] for c in done.run["clients"]] == [27, 4, 5]

    def test_loss_optimizer_schedule_and_regularizer(self, outside: Any) -> None:
        done = outside(
            """
            from federatedscope.register import (
                register_criterion, register_optimizer, register_regularizer, register_scheduler)

            asked = {"loss": 0, "optimizer": [], "schedule": [], "penalty": 0}


            def my_loss(type, device):
                def loss(scores, target):
                    asked["loss"] += 1
                    return torch.nn.functional.cross_entropy(scores, target)

                return loss if type == "myloss" else None


            def my_optimizer(model, type, lr, **kwargs):
                if type == "myoptimizer":
                    asked["optimizer"].append((lr, kwargs))
                    return torch.optim.Adam(model.parameters(), lr=lr, **kwargs)


            class Halving:
                def __init__(self, optimizer):
                    self.optimizer = optimizer

                def step(self):
                    for group in self.optimizer.param_groups:
                        group["lr"] /= 2
                    asked["schedule"].append(self.optimizer.param_groups[0]["lr"])


            def my_schedule(optimizer, reg_type, **kwargs):
                return Halving(optimizer) if reg_type == "halving" else None


            class Penalty(torch.nn.Module):
                def forward(self, ctx, **kwargs):
                    asked["penalty"] += 1
                    return sum(p.square().sum() for p in ctx.model.parameters())


            register_criterion("myloss", my_loss)
            register_optimizer("myoptimizer", my_optimizer)
            register_scheduler("halving", my_schedule)
            register_regularizer("mine", lambda type: Penalty if type == "mine" else None)
            """,
            "criterion.type", "myloss", "train.optimizer.type", "myoptimizer",
            "train.optimizer.weight_decay", 0.5, "train.scheduler.type", "halving",
            "regularizer.type", "mine", "regularizer.mu", 0.01,
        )  # fmt: skip
        assert done.code == 0
        asked = done.module.asked
        assert asked["loss"] > 12
        assert asked["penalty"] == 12
        assert (0.1, {"weight_decay": 0.5}) in asked["optimizer"]
        assert asked["schedule"] == pytest.approx([0.05, 0.025] * 6)

    def test_an_aggregator(self, outside: Any, mail: list[Any]) -> None:
        done = outside(
            """
            from federatedscope.core.aggregators import Aggregator
            from federatedscope.register import register_aggregator


            class Coordinatewise(Aggregator):
                def aggregate(self, agg_info):
                    states = [state for _, state in agg_info["client_feedback"]]
                    return {k: torch.stack([s[k].float() for s in states]).amax(0)
                            .to(states[0][k].dtype) for k in states[0]}


            def build(method, model=None, device=None, config=None):
                if method == "largest":
                    return Coordinatewise(model, device, config)


            register_aggregator("largest", build)
            """,
            "federate.method", "Largest",
        )  # fmt: skip
        assert done.code == 0
        (evaluate,) = [m for m in mail if m.type == "evaluate" and m.state == 0]
        sent = [m.tensors for m in mail if m.type == "model_para" and m.sender and m.state == 0]
        for name, tensor in evaluate.tensors.items():
            assert torch.equal(tensor, torch.stack([s[name] for s in sent]).amax(0)), name

    def test_keys_of_ones_own_with_a_check(self, outside: Any, capsys: Any) -> None:
        source = """
        from federatedscope.core.configs.config import CN
        from federatedscope.register import register_config


        def keys(cfg):
            cfg.mine = CN()
            cfg.mine.strength = 0.5
            cfg.register_cfg_check_fun(check)


        def check(cfg):
            if cfg.mine.strength > 1:
                raise ValueError("mine.strength is at most 1")


        register_config("mine", keys)
        """
        done = outside(source, "mine.strength", 0.75)
        assert done.code == 0
        assert "strength: 0.75" in (done.outdir / "config.yaml").read_text()
        assert outside(source, "mine.strenght", 0.75).code == 2
        assert "mine.strength" in capsys.readouterr().err
        assert outside(source, "mine.strength", "much").code == 2
        assert "0.5" in capsys.readouterr().err
        assert outside(source, "mine.strength", 2.0).code == 2
        assert capsys.readouterr().err == "Error: mine.strength is at most 1\n"

    def test_a_callback(self, outside: Any) -> None:
        done = outside(
            """
            from federatedscope.register import register_callback

            seen = []


            class Watch:
                def on_run_start(self, run):
                    seen.append(("start", run["method"]))

                def on_round(self, event):
                    seen.append(("round", event["round"]))

                def on_run_end(self, run, outdir):
                    seen.append(("end", run["status"], outdir))


            register_callback("watch", lambda cfg: Watch())
            """
        )
        assert done.module.seen == [
            ("start", "fedavg"), ("round", 1), ("round", 2), ("end", "finished", str(done.outdir)),
        ]  # fmt: skip

    def test_a_file_dropped_into_contrib(
        self, rig: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: None
    ) -> None:
        package = types.ModuleType("dropped_contrib")
        package.__path__ = [str(tmp_path / "dropped_contrib")]
        monkeypatch.setitem(sys.modules, "dropped_contrib", package)
        monkeypatch.syspath_prepend(str(tmp_path))
        found = lambda: contrib_modules(package)  # noqa: E731
        monkeypatch.setattr(extension_loader, "contrib_modules", found)
        folder = tmp_path / "dropped_contrib" / "trainer"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        (folder / "dropped.py").write_text(
            dedent(
                """
                from federatedscope.core.trainers.torch_trainer import GeneralTorchTrainer
                from federatedscope.register import register_trainer
                from federatedscope_ext.trainers import GlueTrainer

                built = []


                class Dropped(GlueTrainer):
                    def __init__(self, *args, **kwargs):
                        built.append(1)
                        super().__init__(*args, **kwargs)


                def build(trainer_type):
                    if trainer_type == "dropped":
                        return Dropped


                register_trainer("dropped", build)
                """
            )
        )
        done = rig("trainer.type", "dropped")
        assert done.code == 0
        module = importlib.import_module("dropped_contrib.trainer.dropped")
        assert len(module.built) == 3
        assert done.metrics == rig().metrics

"""Trainers written by outsiders in the contract's form: registered, named in `extensions`, run."""

from __future__ import annotations

from typing import Any

import pytest
import torch


class TestTrainers:
    def test_a_subclass_with_its_own_steps(self, outside: Any) -> None:
        done = outside(
            """
            from federatedscope.core.trainers import GeneralTorchTrainer
            from federatedscope.core.trainers.context import CtxVar
            from federatedscope.core.trainers.enums import LIFECYCLE, MODE
            from federatedscope.register import register_trainer

            calls = []


            class Mine(GeneralTorchTrainer):
                def __init__(self, model, data, device, config, only_for_eval=False, monitor=None):
                    super().__init__(model, data, device, config, only_for_eval, monitor)
                    self.register_hook_in_train(self._note, "on_batch_end")
                    self.register_hook_in_eval(self._note, "on_fit_start", insert_pos=0)

                def _note(self, ctx):
                    calls.append((ctx.cur_mode, ctx.cur_split))

                def _hook_on_batch_forward(self, ctx):
                    x, y = [part.to(ctx.device) for part in ctx.data_batch]
                    scores = ctx.model(x)
                    ctx.y_true = CtxVar(y, LIFECYCLE.BATCH)
                    ctx.y_prob = CtxVar(scores, LIFECYCLE.BATCH)
                    ctx.loss_batch = CtxVar(2 * ctx.criterion(scores, y), LIFECYCLE.BATCH)
                    ctx.batch_size = CtxVar(len(y), LIFECYCLE.BATCH)

                def _hook_on_fit_end(self, ctx):
                    super()._hook_on_fit_end(ctx)
                    if ctx.cur_mode != MODE.TRAIN:
                        ctx.eval_metrics = {**ctx.eval_metrics, f"{ctx.cur_split}_mine": 0.25}


            register_trainer("mine", lambda kind: Mine if kind == "mine" else None)
            """,
            "trainer.type", "mine",
        )  # fmt: skip
        assert done.code == 0
        assert all(e["metrics"]["val_mine"] == 0.25 for e in done.of("eval"))
        assert done.lines[0]["Results_avg"]["val_mine"] == 0.25
        assert done.module.calls.count(("train", "train")) == 2 * 3 * 2
        assert done.module.calls.count(("test", "val")) == 2 * 3
        plain = outside("")
        first, second = (d.of("train", round=1, client=1)[0]["metrics"] for d in (done, plain))
        # Twice the loss on the first batch, another path after it.
        assert 1.4 < first["train_loss"] / second["train_loss"] < 2.4

    @pytest.mark.parametrize("weights", ["rows", "processed"])
    def test_one_written_from_scratch(self, outside: Any, mail: list[Any], weights: str) -> None:
        done = outside(
            """
            from federatedscope.core.trainers import BaseTrainer
            from federatedscope.register import register_trainer


            class Scratch(BaseTrainer):
                def __init__(self, model, data, device, **kwargs):
                    self.model, self.data, self.device = model, data, device
                    self.config = kwargs["config"]
                    self.loss = torch.nn.CrossEntropyLoss()

                def train(self):
                    optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
                    self.model.to(self.device)
                    self.model.train()
                    total = count = 0
                    for x, y in self.data["train"]:
                        loss = self.loss(self.model(x), y)
                        optimizer.zero_grad()
                        loss.backward()
                        optimizer.step()
                        total, count = total + loss.item() * len(y), count + len(y)
                        break
                    metrics = {"loss_total": total, "avg_loss": total / count}
                    return count, self.model.cpu().state_dict(), metrics

                def evaluate(self, target_data_split_name="test"):
                    self.model.eval()
                    total = count = 0
                    with torch.no_grad():
                        for x, y in self.data[target_data_split_name]:
                            total += self.loss(self.model(x), y).item() * len(y)
                            count += len(y)
                    split = target_data_split_name
                    return {
                        f"{split}_loss": total,
                        f"{split}_total": count,
                        f"{split}_avg_loss": total / count,
                    }

                def update(self, model_parameters, strict=False):
                    self.model.load_state_dict(model_parameters, strict)

                def get_model_para(self):
                    return self.model.cpu().state_dict()


            register_trainer("scratch", lambda kind: Scratch if kind == "scratch" else None)
            """,
            "trainer.type", "scratch", "eval.metrics", "[]", "aggregator.weights", weights,
            "eval.best_res_update_round_wise_key", "val_avg_loss", "train.optimizer.lr", 0.1,
            "federate.total_round_num", 4,
        )  # fmt: skip
        assert done.code == 0
        losses = [line["Results_weighted_avg"]["val_avg_loss"] for line in done.lines[:-1]]
        assert losses[-1] < losses[0]
        expected = {"rows": [1 / 6, 2 / 6, 3 / 6], "processed": [1 / 3] * 3}[weights]
        assert list(done.of("round")[0]["weights"].values()) == pytest.approx(expected)
        sent = next(m for m in mail if m.type == "model_para" and m.sender == 1)
        assert "norm.running_mean" in sent.tensors
        states = {
            m.sender: m.tensors["body.weight"]
            for m in mail
            if m.type == "model_para" and m.sender and m.state == 0
        }
        assert not torch.equal(states[1], states[2])

    def test_a_scratch_trainer_that_replaces_parameters(self, outside: Any, rig: Any) -> None:
        """``param.data = ...`` instead of writing in place: still private, still kept."""
        done = outside(
            """
            from federatedscope.core.trainers import GeneralTorchTrainer
            from federatedscope.register import register_trainer


            class Replaces(GeneralTorchTrainer):
                def train(self, *args, **kwargs):
                    for parameter in self.ctx.model.parameters():
                        parameter.data = parameter.data.clone()
                    return super().train(*args, **kwargs)


            register_trainer("replaces", lambda kind: Replaces if kind == "replaces" else None)
            """,
            "trainer.type", "replaces", "personalization.local_param", "['head', 'norm']",
        )  # fmt: skip
        plain = outside("", "personalization.local_param", "['head', 'norm']")
        assert done.code == 0
        assert done.metrics == plain.metrics

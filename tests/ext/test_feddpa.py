"""FedDPA: a private adapter beside the common one, and the two ways to train them."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from federatedscope_ext.methods.feddpa import weighted


class TestPrivateAdapter:
    def test_it_is_trained_and_never_sent(self, rig: Any, mail: Any, step: Any) -> None:
        runner = rig.runner("federate.method", "feddpa")
        start = {n: t.clone() for n, t in runner.store.state(0).items() if ".private." in n}
        for _ in step(runner):
            pass
        assert start
        states = [runner.store.state(k) for k in (1, 2, 3)]
        for name in start:
            if "lora_B" in name:
                assert not any(torch.equal(state[name], start[name]) for state in states)
                assert not torch.equal(states[0][name], states[1][name])
        assert not [n for m in mail for n in m.tensors if ".private." in n]
        common = [n for n in states[0] if ".default." in n and "lora_" in n]
        assert common and all(torch.equal(states[0][n], states[1][n]) for n in common)

    def test_both_adapters_count(self, rig: Any) -> None:
        runner = rig.runner("federate.method", "feddpa")
        model = runner.model
        runner.store.activate(1)
        batch = {"input_ids": torch.tensor([[2, 5, 7, 3]])}
        model.eval()
        with torch.no_grad():
            before = model(**batch).logits
            for name, parameter in model.named_parameters():
                if "lora_B.private" in name:
                    parameter.normal_()
            assert not torch.allclose(model(**batch).logits, before)


class TestFedDpasSchedule:
    OPTIONS = ("federate.method", "feddpa", "feddpa.schedule", "alternate",
               "eval.phases", "['before', 'after']")  # fmt: skip

    def test_first_the_private_adapter_then_the_common_one(self, rig: Any) -> None:
        """With halves, then alone; what is evaluated has halves."""
        runner = rig.runner(*self.OPTIONS)
        seen: list[tuple[str, float, float, set[str]]] = []
        layer = next(m for m in runner.model.modules() if isinstance(m, LoraLayer))
        nominal = dict(layer.scaling)

        def look(ctx: Any) -> None:
            u, v = (layer.scaling[k] / nominal[k] for k in ("default", "private"))
            trained = {n.split(".lora_")[1][2:9] for n, p in ctx.model.named_parameters()
                       if p.requires_grad and ".lora_" in n}  # fmt: skip
            seen.append((ctx.cur_mode, u, v, trained if ctx.cur_mode == "train" else set()))

        trainer = runner.clients[1].trainer
        trainer.register_hook_in_train(look, "on_fit_start")
        trainer.register_hook_in_eval(look, "on_fit_start")
        runner.run()
        steps = [("train", 0.5, 0.5, {"private"}), ("train", 1.0, 0.0, {"default"})]
        halves = ("test", 0.5, 0.5, set())
        assert seen[:4] == [*steps, halves, halves]
        assert len(seen) % 4 == 0 and seen == seen[:4] * (len(seen) // 4)
        assert dict(layer.scaling) == nominal

    def test_by_hand(self, rig: Any, mail: Any, step: Any) -> None:
        """One step a phase: gradients of the model written out, one after the other."""
        runner = rig.runner(
            *self.OPTIONS, "eval.phases", "['after']", "federate.total_round_num", 1,
            "train.optimizer.type", "SGD", "train.optimizer.lr", 0.1,
            "train.local_update_steps", 1,
        )  # fmt: skip
        model, batches = runner.model, []
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        start = {name: t.clone() for name, t in runner.store.state(1).items()}
        runner.clients[1].trainer.register_hook_in_train(
            lambda ctx: batches.append(dict(ctx.data_batch)), "on_batch_end"
        )
        for _ in step(runner):
            pass
        upload = next(m for m in mail if m.type == "model_para" and m.sender == 1)
        private = {n: t for n, t in runner.store.state(1).items() if ".private." in n}
        found = {**private, **upload.tensors}
        runner.store.activate(1)
        named = {n: p for n, p in model.named_parameters() if p.requires_grad}
        assert found.keys() == named.keys() and len(batches) == 2
        for name, parameter in named.items():
            parameter.data.copy_(start[name])
        for batch, own, *weights in zip(
            batches, (True, False), (0.5, 1.0), (0.5, 0.0), strict=True
        ):
            with weighted(model, *weights):
                model(**batch).loss.backward()
            for name, parameter in named.items():
                if (".private." in name) is own:
                    parameter.data -= 0.1 * parameter.grad
                parameter.grad = None
        for name, parameter in named.items():
            torch.testing.assert_close(found[name], parameter.data, rtol=1e-4, atol=1e-6)
            moved = not torch.equal(parameter.data, start[name])
            assert moved or "lora_A" in name  # B is zero, so A has no gradient yet

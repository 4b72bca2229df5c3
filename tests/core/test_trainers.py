"""Trainers: the routine, what is shared, and numbers against plain PyTorch."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import nn
from toy_trainer import ROWS, Net, build, config, rows, state

from federatedscope.core.data import ClientData
from federatedscope.core.errors import UserError
from federatedscope.core.trainers import BaseTrainer
from federatedscope.core.trainers.torch_trainer import ReIterator
from federatedscope.core.trainers.utils import (
    calculate_batch_epoch_num,
    filter_by_specified_keywords,
    shared_part,
)


class TestTheRoutine:
    def test_training_equals_plain_pytorch(self) -> None:
        """Same batches, same steps: the same weights, bit for bit."""
        trainer = build()
        torch.manual_seed(0)
        twin = Net()
        torch.manual_seed(42)
        samples, shared, metrics = trainer.train()
        torch.manual_seed(42)
        loader = torch.utils.data.DataLoader(rows(ROWS["train"]), batch_size=4, shuffle=True)
        optimizer = torch.optim.SGD([p for p in twin.parameters() if p.requires_grad], lr=0.1)
        total, batches = 0.0, iter(loader)
        for _ in range(3):
            x, y = next(batches)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(twin(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(y)
        assert samples == metrics["train_total"] == 12
        assert metrics["train_loss"] == pytest.approx(total)
        for name, parameter in twin.named_parameters():
            assert torch.equal(parameter, state(trainer)[name]), name
        assert set(shared) == {n for n, p in twin.named_parameters() if p.requires_grad}

    def test_evaluation_equals_plain_pytorch(self) -> None:
        trainer = build("eval.batch_size", 3)
        metrics = trainer.evaluate("val")
        x, y = (torch.stack(part) for part in zip(*rows(ROWS["val"], 1), strict=True))
        with torch.no_grad():
            logits = trainer.ctx.model(x)
        assert metrics["val_total"] == 10
        assert metrics["val_acc"] == pytest.approx(float((logits.argmax(1) == y).float().mean()))
        expected = float(nn.functional.cross_entropy(logits, y))
        assert metrics["val_avg_loss"] == pytest.approx(expected, rel=1e-6)
        assert metrics["val_loss"] == pytest.approx(10 * expected, rel=1e-6)

    def test_evaluating_trains_nothing_and_needs_no_gradients(self) -> None:
        trainer = build()
        before = state(trainer)
        flags = []
        trainer.register_hook_in_eval(
            lambda ctx: flags.append((torch.is_grad_enabled(), ctx.model.training)),
            "on_batch_start",
        )
        trainer.evaluate("val")
        assert set(flags) == {(False, False)}
        assert all(torch.equal(v, before[k]) for k, v in state(trainer).items())

    def test_a_split_without_rows_gives_no_metrics(self) -> None:
        assert build().evaluate("test") == {}

    def test_training_without_rows_is_refused(self) -> None:
        cfg = config()
        trainer = build(data=ClientData(cfg, val=rows(5)))
        with pytest.raises(ValueError, match="no rows in its split 'train'"):
            trainer.train()

    @pytest.mark.parametrize(
        ("unit", "steps", "count", "drop", "expected"),
        [
            # rows 22, batch 4: 6 batches, the last one of 2 rows
            ("batch", 3, 1, False, (3, 12)),
            ("batch", 6, 1, False, (6, 22)),
            ("batch", 8, 1, False, (8, 30)),
            ("batch", 8, 1, True, (8, 32)),
            ("epoch", 1, 1, False, (6, 22)),
            ("epoch", 2, 1, True, (10, 40)),
            ("batch", 2, 3, False, (6, 22)),
            ("epoch", 2, 4, False, (12, 44)),
        ],
    )
    def test_steps_and_samples(
        self, unit: str, steps: int, count: int, drop: bool, expected: tuple[int, int]
    ) -> None:
        trainer = build(
            "train.batch_or_epoch", unit, "train.local_update_steps", steps,
            "grad.grad_accum_count", count, "dataloader.drop_last", drop,
        )  # fmt: skip
        samples, _, metrics = trainer.train()
        assert (trainer.ctx.monitor.steps, samples) == expected
        assert metrics["train_total"] == expected[1]

    @pytest.mark.parametrize("steps", [2, 4, 5])
    def test_accumulation_gives_every_step_its_batches(self, steps: int) -> None:
        """Also where epochs end in the middle of a step: 6 batches a epoch, 4 a step."""
        trainer = build("train.local_update_steps", steps, "grad.grad_accum_count", 4)
        taken: list[int] = []
        real = torch.optim.SGD.step

        def step(self: Any, *args: Any) -> Any:
            taken.append(trainer.ctx.accumulated)
            return real(self, *args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.optim.SGD, "step", step)
            trainer.train()
        assert taken == [4 * (i + 1) for i in range(steps)]

    def test_the_last_step_of_an_epoch_has_the_batches_that_are_left(self) -> None:
        """22 rows in 11 batches of 2, 4 a step: steps of 8, 8 and 6 rows, none is lost."""
        common = ("train.batch_or_epoch", "epoch", "train.local_update_steps", 1)
        common = (*common, "dataloader.shuffle", False, "dataloader.drop_last", False)
        whole = build(*common, "dataloader.batch_size", 8)
        parts = build(*common, "dataloader.batch_size", 2, "grad.grad_accum_count", 4)
        assert whole.train()[0] == parts.train()[0] == 22
        for name, tensor in state(whole).items():
            assert torch.allclose(tensor, state(parts)[name], atol=1e-6), name

    def test_accumulation_is_one_larger_batch(self) -> None:
        """Two batches of 2 are one of 4 (means of equal sizes)."""
        options = ("train.local_update_steps", 2, "dataloader.shuffle", False)
        whole, halves = (
            build(*options),
            build(*options, "dataloader.batch_size", 2, "grad.grad_accum_count", 2),
        )
        whole.train()
        halves.train()
        for name, tensor in state(whole).items():
            assert torch.allclose(tensor, state(halves)[name], atol=1e-6), name

    def test_gradients_are_clipped(self) -> None:
        """One step of SGD at rate 1 moves by the clipped norm."""
        trainer = build(
            "train.local_update_steps", 1, "grad.grad_clip", 0.01, "train.optimizer.lr", 1.0
        )
        before = state(trainer)
        trainer.train()
        moved = sum(float((v - before[k]).square().sum()) for k, v in state(trainer).items())
        assert moved**0.5 == pytest.approx(0.01, rel=1e-3)

    def test_only_trainable_parameters_move(self) -> None:
        trainer = build()
        before = state(trainer)
        trainer.train()
        after = state(trainer)
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved == {n for n, p in trainer.ctx.model.named_parameters() if p.requires_grad}

    def test_the_optimizer_is_new_in_every_routine(self) -> None:
        trainer = build("train.optimizer.type", "Adam")
        used: list[Any] = []
        trainer.register_hook_in_train(lambda ctx: used.append(ctx.optimizer), "on_fit_end")
        trainer.train()
        trainer.train()
        first, second = used
        assert first is not second
        assert {float(s["step"]) for s in second.state.values()} == {3.0}

    def test_no_optimizer_outlives_its_routine(self) -> None:
        trainer = build("train.optimizer.type", "Adam")
        used: list[Any] = []
        trainer.register_hook_in_train(
            lambda ctx: used.append(weakref.ref(ctx.optimizer)), "on_fit_end"
        )
        trainer.train()
        gc.collect()
        assert used[0]() is None

    def test_a_regularizer_is_added_with_its_factor(self, monkeypatch: Any) -> None:
        from federatedscope import register

        monkeypatch.setitem(
            register.regularizer_dict,
            "ridge",
            lambda t: (
                (lambda ctx: sum(p.square().sum() for p in ctx.model.head.parameters()))
                if t == "ridge"
                else None
            ),
        )
        plain, ridge = (
            build("train.optimizer.lr", 0.05),
            build("train.optimizer.lr", 0.05, "regularizer.type", "ridge", "regularizer.mu", 5.0),
        )
        plain.train()
        _, _, metrics = ridge.train()

        def size(trainer: Any) -> float:
            return float(state(trainer)["head.weight"].square().sum())

        assert size(ridge) < 0.5 * size(plain)
        assert "train_loss" in metrics

    def test_errors_leave_the_context_clean(self) -> None:
        trainer = build()

        def fail(ctx: Any) -> None:
            raise RuntimeError("in a hook")

        trainer.register_hook_in_train(fail, "on_batch_end")
        with pytest.raises(RuntimeError, match="in a hook"):
            trainer.train()
        assert trainer.ctx.cur_mode is None
        assert trainer.ctx.mode_stack == trainer.ctx.split_stack == []
        assert trainer.evaluate("val")["val_total"] == 10


class TestSharing:
    def test_local_names_are_neither_sent_nor_overwritten(self) -> None:
        trainer = build("personalization.local_param", ["head"])
        shared = trainer.get_model_para()
        assert set(shared) == {"lora_A.weight", "lora_A.bias"}
        before = state(trainer)
        trainer.update({name: torch.ones_like(t) for name, t in before.items()})
        after = state(trainer)
        assert bool((after["lora_A.weight"] == 1).all())
        assert torch.equal(after["head.weight"], before["head.weight"])
        assert torch.equal(after["base.weight"], before["base.weight"])

    def test_what_is_sent_is_a_copy(self) -> None:
        trainer = build()
        sent = trainer.get_model_para()
        kept = {name: t.clone() for name, t in sent.items()}
        trainer.train()
        assert all(torch.equal(t, kept[name]) for name, t in sent.items())

    def test_receiving_copies(self) -> None:
        trainer = build()
        received = trainer.get_model_para()
        trainer.update(received)
        trainer.train()
        assert not torch.equal(received["head.weight"], state(trainer)["head.weight"])

    def test_unknown_names(self) -> None:
        trainer = build()
        trainer.update({"other.weight": torch.zeros(2)})
        with pytest.raises(UserError, match="Received the tensor other"):
            trainer.update({"other.weight": torch.zeros(2)}, strict=True)

    def test_non_trainable_parameters_on_request(self) -> None:
        trainer = build("personalization.share_non_trainable_para", True)
        assert "base.weight" in trainer.get_model_para()
        trainer.update({"base.weight": torch.ones(8, 6)})
        assert bool((state(trainer)["base.weight"] == 1).all())

    @pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
    def test_saving_and_loading(self, tmp_path: Any, suffix: str) -> None:
        trainer = build()
        trainer.train()
        trainer.save_model(tmp_path / f"m.{suffix}", 7)
        other = build()
        assert other.load_model(tmp_path / f"m.{suffix}") == 7
        assert all(torch.equal(v, state(trainer)[k]) for k, v in state(other).items())


class TestData:
    @pytest.mark.parametrize("kind", ["ClientData", "mapping", "loaders", "arrays"])
    def test_forms_of_data(self, kind: str) -> None:
        train, val = rows(ROWS["train"]), rows(ROWS["val"], 1)
        data: Any = {"train": train, "val": val}
        if kind == "ClientData":
            data = ClientData(config(), train=train, val=val)
        elif kind == "loaders":
            data = {k: torch.utils.data.DataLoader(v, batch_size=4) for k, v in data.items()}
        elif kind == "arrays":
            data = {
                k: {"x": torch.stack([r[0] for r in v]), "y": torch.stack([r[1] for r in v])}
                for k, v in data.items()
            }
        trainer = build(data=data)
        assert trainer.ctx.num_train_data == ROWS["train"]
        assert trainer.train()[0] == 12
        assert trainer.evaluate("val")["val_total"] == 10
        assert trainer.train()[0] == 12

    def test_every_epoch_sees_every_row_once(self) -> None:
        trainer = build("train.batch_or_epoch", "epoch", "train.local_update_steps", 2)
        seen: list[bytes] = []
        trainer.register_hook_in_train(
            lambda ctx: seen.extend(x.numpy().tobytes() for x in ctx.data_batch[0]),
            "on_batch_forward",
        )
        trainer.train()
        first, second = seen[:22], seen[22:]
        assert len(set(first)) == 22
        assert set(first) == set(second)
        assert first != second

    def test_a_new_configuration(self) -> None:
        trainer = build()
        trainer.cfg = config("dataloader.batch_size", 11, "train.local_update_steps", 1)
        assert trainer.ctx.cfg is trainer.cfg
        assert trainer.train()[0] == 11


class TestSmallParts:
    @pytest.mark.parametrize(
        ("steps", "unit", "count", "size", "drop", "expected"),
        [
            (10, "batch", 100, 10, False, (10, 10, 1, 10)),
            (10, "batch", 95, 10, True, (9, 1, 2, 10)),
            (10, "batch", 95, 10, False, (10, 10, 1, 10)),
            (25, "batch", 100, 10, False, (10, 5, 3, 25)),
            (20, "batch", 100, 10, False, (10, 10, 2, 20)),
            (3, "epoch", 95, 10, False, (10, 10, 3, 30)),
            (3, "epoch", 95, 10, True, (9, 9, 3, 27)),
        ],
    )
    def test_batches_and_epochs(
        self, steps: int, unit: str, count: int, size: int, drop: bool, expected: Any
    ) -> None:
        assert calculate_batch_epoch_num(steps, unit, count, size, drop) == expected

    @pytest.mark.parametrize(("count", "drop"), [(0, False), (9, True)])
    def test_no_batch_at_all(self, count: int, drop: bool) -> None:
        with pytest.raises(ValueError, match=f"{count} rows make no batch of 10"):
            calculate_batch_epoch_num(1, "batch", count, 10, drop)

    def test_keywords_are_substrings(self) -> None:
        assert filter_by_specified_keywords("a.lora_A.weight", ["lora_B", "head"])
        assert not filter_by_specified_keywords("a.lora_B.weight", ["lora_B", "head"])
        assert shared_part({"a.lora_A": 1, "head.w": 2}, ["head"]) == {"a.lora_A": 1}
        assert shared_part({"a": 1}, []) == {"a": 1}

    def test_a_loader_starts_again(self) -> None:
        loader = ReIterator([1, 2, 3])
        assert [next(loader), next(loader)] == [1, 2]
        loader.reset()
        assert next(loader) == 1
        assert list(loader) == [1, 2, 3]
        assert len(loader) == 3

    def test_the_interface_must_be_filled(self) -> None:
        with pytest.raises(TypeError, match="abstract"):
            BaseTrainer(None, None, "cpu")  # type: ignore[abstract]

    def test_predictions_are_kept_as_scores(self) -> None:
        trainer = build()
        kept: list[Any] = []
        trainer.register_hook_in_eval(
            lambda ctx: kept.append((ctx.ys_true.shape, ctx.ys_prob.shape)), "on_fit_end"
        )
        trainer.evaluate("val")
        assert kept == [((10,), (10, 2))]

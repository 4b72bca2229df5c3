"""Hooks and the context that they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from toy_trainer import Net, build, config, state

from federatedscope.core.trainers import Context
from federatedscope.core.trainers.context import CtxVar
from federatedscope.core.trainers.enums import LIFECYCLE, MODE, TRIGGER


class TestHooks:
    def test_triggers_in_order(self) -> None:
        trainer = build("train.batch_or_epoch", "epoch", "dataloader.batch_size", 11)
        seen: list[str] = []
        for trigger in TRIGGER.ALL:
            trainer.register_hook_in_train(lambda ctx, t=trigger: seen.append(t), trigger)
        trainer.train()
        one = ["on_batch_start", "on_batch_forward", "on_batch_backward", "on_batch_end"]
        epoch = ["on_epoch_start", *one, *one, "on_epoch_end"]
        times = config().train.local_update_steps
        assert seen == ["on_fit_start", *epoch * times, "on_fit_end"]

    def test_positions(self) -> None:
        trainer = build()
        names: list[str] = []

        def hook(name: str) -> Callable[[Any], None]:
            def run(ctx: Any) -> None:
                names.append(name)

            run.__name__ = name
            return run

        first, last = hook("first"), hook("last")
        trainer.reset_hook_in_eval("on_epoch_end")
        trainer.register_hook_in_eval(last, "on_epoch_end")
        trainer.register_hook_in_eval(first, "on_epoch_end", insert_pos=0)
        trainer.register_hook_in_eval(hook("before"), "on_epoch_end", base_hook=last)
        trainer.register_hook_in_eval(
            hook("after"), "on_epoch_end", base_hook=first, insert_mode="after"
        )
        trainer.evaluate("val")
        assert names == ["first", "after", "before", "last"]
        trainer.replace_hook_in_eval(hook("new"), "on_epoch_end", "before")
        trainer.reset_hook_in_eval("on_epoch_end", "first")
        names.clear()
        trainer.evaluate("val")
        assert names == ["after", "new", "last"]

    def test_a_default_step_can_be_replaced(self) -> None:
        trainer = build()
        trainer.replace_hook_in_train(
            lambda ctx: None, "on_batch_backward", "_hook_on_batch_backward"
        )
        before = state(trainer)
        trainer.train()
        assert all(torch.equal(v, before[k]) for k, v in state(trainer).items())

    @pytest.mark.parametrize(
        ("arguments", "word"),
        [
            ({"trigger": "on_bath_end"}, "on_bath_end"),
            ({"trigger": "on_batch_end", "insert_pos": 99}, "insert_pos 99"),
            ({"trigger": "on_batch_end", "insert_mode": "beside"}, "beside"),
        ],
    )
    def test_mistakes(self, arguments: dict[str, Any], word: str) -> None:
        with pytest.raises(ValueError, match=word):
            build().register_hook_in_train(lambda ctx: None, **arguments)

    def test_removing_what_is_not_there(self, caplog: Any) -> None:
        assert build().reset_hook_in_train("on_batch_end", "nothing") is None

    def test_fine_tuning_has_hooks_of_its_own(self) -> None:
        trainer = build(
            "finetune.before_eval", True, "finetune.local_update_steps", 3,
            "finetune.optimizer.lr", 0.1,
        )  # fmt: skip
        modes = set()
        trainer.register_hook_in_ft(lambda ctx: modes.add(ctx.cur_mode), "on_batch_end")
        before = state(trainer)
        trainer.finetune()
        assert modes == {MODE.FINETUNE}
        assert not torch.equal(state(trainer)["head.weight"], before["head.weight"])


class TestContext:
    def test_lifetimes(self) -> None:
        trainer = build()
        seen: dict[str, list[Any]] = {"batch": [], "epoch": [], "routine": []}

        def look(ctx: Any) -> None:
            for name, found in seen.items():
                found.append(ctx.get(name, None))
            ctx.batch = CtxVar(1, LIFECYCLE.BATCH)
            ctx.epoch = CtxVar(1, LIFECYCLE.EPOCH)
            ctx.routine = CtxVar(1, LIFECYCLE.ROUTINE)
            ctx.forever = 1

        trainer.cfg = config(
            "train.batch_or_epoch", "epoch", "train.local_update_steps", 2,
            "dataloader.batch_size", 11,
        )  # fmt: skip
        trainer.register_hook_in_train(look, "on_batch_start")
        trainer.train()
        assert seen["batch"] == [None] * 4
        assert seen["epoch"] == [None, 1, None, 1]
        assert seen["routine"] == [None, 1, 1, 1]
        assert trainer.ctx.forever == 1
        assert "routine" not in trainer.ctx

    def test_an_unknown_lifetime(self) -> None:
        with pytest.raises(ValueError, match="'forever'"):
            CtxVar(1, "forever")

    def test_a_missing_variable(self) -> None:
        ctx = Context(Net(), config())
        with pytest.raises(AttributeError, match="no 'something'"):
            _ = ctx.something
        assert ctx.get("something", 3) == 3
        assert not hasattr(ctx, "something")

    def test_modes_and_splits_nest(self) -> None:
        ctx = Context(Net(), config())
        ctx.track_mode(MODE.TRAIN)
        ctx.track_split("train")
        assert ctx.model.training
        ctx.track_mode(MODE.TEST)
        ctx.track_split("val")
        assert (ctx.cur_mode, ctx.cur_split, ctx.model.training) == ("test", "val", False)
        ctx.reset_mode()
        ctx.reset_split()
        assert (ctx.cur_mode, ctx.cur_split, ctx.model.training) == ("train", "train", True)

    def test_an_extension_decides_the_number_of_batches(self) -> None:
        trainer = build()
        trainer.ctx.num_train_batch = trainer.ctx.num_train_batch_last_epoch = 2
        trainer.ctx.num_train_epoch = 3
        trainer.train()
        assert trainer.ctx.monitor.steps == 6

    def test_trainable_names(self) -> None:
        assert build().ctx.trainable_para_names == [
            "lora_A.weight", "lora_A.bias", "head.weight", "head.bias",
        ]  # fmt: skip

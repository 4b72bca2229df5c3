"""The training and evaluation routine: epochs, batches and the hooks between them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from federatedscope.core.engine import TorchEngine
from federatedscope.core.errors import UserError
from federatedscope.core.monitors.monitor import Monitor
from federatedscope.core.seeding import RandomStream
from federatedscope.core.trainers.base_trainer import BaseTrainer
from federatedscope.core.trainers.context import Context, CtxVar
from federatedscope.core.trainers.enums import LIFECYCLE, MODE
from federatedscope.core.trainers.hooks import HookRegistry, HookSet
from federatedscope.core.trainers.routine import Routine
from federatedscope.core.trainers.utils import shared_part


class TrainingDivergedError(UserError):
    """The loss stayed NaN or infinite."""


class Trainer(HookRegistry, BaseTrainer):
    """Runs hooks over the batches of a split.

    ``data`` are the worker's splits: a mapping of datasets or loaders, or a ``ClientData``. With
    ``only_for_eval`` no training hooks are registered; without a ``monitor`` it has one of its own.
    """

    def __init__(
        self,
        model: Any,
        data: Any,
        device: Any,
        config: Any,
        only_for_eval: bool = False,
        monitor: Any = None,
    ) -> None:
        HookRegistry.__init__(self)
        self._cfg = config
        #: the machinery of a step, see :mod:`federatedscope.core.engine`
        self._engine = TorchEngine()
        self.routine: Routine | None = None
        self.ctx = Context(model, config, data, device)
        self.ctx.merge_from_dict(self._read_data(data))
        self.ctx.monitor = monitor if monitor is not None else Monitor(config)
        self.model_nums = 1
        self.ctx.models = [model]
        self.ctx.nonfinite_streak = 0
        if not only_for_eval:
            self.register_default_hooks_train()
            if config.finetune.before_eval:
                self.register_default_hooks_ft()
        self.register_default_hooks_eval()

    @property
    def cfg(self) -> Any:
        """The worker's configuration."""
        return self._cfg

    @cfg.setter
    def cfg(self, new_cfg: Any) -> None:
        self._cfg = new_cfg
        self.ctx.cfg = new_cfg
        self.ctx.merge_from_dict(self._read_data(self.ctx.data))

    def _read_data(self, data: Any) -> Mapping[str, Any]:
        self.setup_data(self.ctx)
        return self.parse_data(data)

    def setup_data(self, ctx: Context) -> None:
        """Prepare ``ctx.data``; called before :meth:`parse_data`."""

    def parse_data(self, data: Any) -> Mapping[str, Any]:
        """``{split}_data``, ``{split}_loader`` and ``num_{split}_data`` of every split."""
        raise NotImplementedError

    def register_default_hooks_train(self) -> None:
        """Register what a training step does."""

    def register_default_hooks_eval(self) -> None:
        """Register what an evaluation step does."""

    def register_default_hooks_ft(self) -> None:
        """Register what a fine-tuning step does."""

    def train(
        self, target_data_split_name: str = "train", hooks_set: HookSet | None = None
    ) -> tuple[int, dict[str, torch.Tensor], dict[str, Any]]:
        """Run the training routine: samples processed, copies of what is shared, metrics."""
        hooks = self.hooks_in_train if hooks_set is None else hooks_set
        num_samples = self._run_routine(MODE.TRAIN, hooks, target_data_split_name)
        return num_samples, self.get_model_para(), self.ctx.eval_metrics

    def evaluate(
        self, target_data_split_name: str = "test", hooks_set: HookSet | None = None
    ) -> dict[str, Any]:
        """Run the evaluation routine; an absent split gives no metrics."""
        if not self.ctx.check_split(target_data_split_name, skip=True):
            self.ctx.eval_metrics = {}
            return {}
        hooks = self.hooks_in_eval if hooks_set is None else hooks_set
        with torch.no_grad():
            self._run_routine(MODE.TEST, hooks, target_data_split_name)
        return self.ctx.eval_metrics

    def finetune(
        self, target_data_split_name: str = "train", hooks_set: HookSet | None = None
    ) -> None:
        """Run the fine-tuning routine (``finetune.before_eval``)."""
        hooks = self.hooks_in_ft if hooks_set is None else hooks_set
        self._run_routine(MODE.FINETUNE, hooks, target_data_split_name)

    def open_routine(
        self,
        mode: str,
        split: str,
        hooks_set: HookSet | None = None,
        stream: RandomStream | None = None,
    ) -> Routine:
        """Open a training or an evaluation, to be stepped and closed: see
        :class:`~federatedscope.core.trainers.routine.Routine`.

        ``hooks_set`` are other hooks than the trainer's own of this mode. A split without data is a
        :class:`ValueError`, another routine that is still open a :class:`RuntimeError`.
        """
        own = {MODE.TRAIN: self.hooks_in_train, MODE.FINETUNE: self.hooks_in_ft}
        hooks = own.get(mode, self.hooks_in_eval) if hooks_set is None else hooks_set
        self.ctx.check_split(split)
        if self.routine is not None and self.routine.is_open:
            raise RuntimeError(
                f"this trainer has an open routine ({self.routine.mode}); close it before another "
                "one begins"
            )
        self.routine = Routine(self, mode, split, hooks, stream)
        return self.routine

    def call_hooks(self, hooks: HookSet, trigger: str) -> None:
        """Run the hooks of a trigger, in order."""
        for hook in hooks[trigger]:
            hook(self.ctx)

    @property
    def _is_training(self) -> bool:
        return self.ctx.cur_mode in (MODE.TRAIN, MODE.FINETUNE)

    # FederatedScope's names of a routine and its parts. A subclass that overrides one of the parts
    # does it in one go: an open routine of its then has one step.

    def _run_routine(self, mode: str, hooks_set: HookSet, dataset_name: str | None = None) -> int:
        return self.open_routine(mode, dataset_name or mode, hooks_set).run()

    def _run_epoch(self, hooks_set: HookSet, run_step: int = -1) -> None:
        for _ in self._epochs(hooks_set, run_step):
            pass

    def _run_batch(self, hooks_set: HookSet, run_step: int = -1) -> None:
        for _ in self._batches(hooks_set, run_step):
            pass

    def batches(self, hooks: HookSet) -> Iterator[None]:
        """Run the epochs of the open routine; yields after each batch."""
        if type(self)._run_epoch is Trainer._run_epoch:
            yield from self._epochs(hooks)
        else:
            self._run_epoch(hooks)
            yield

    def _epochs(self, hooks: HookSet, count: int = -1) -> Iterator[None]:
        if count == -1:
            count = self.ctx.num_train_epoch if self._is_training else 1
        for epoch in range(count):
            self.ctx.cur_epoch_i = CtxVar(epoch, LIFECYCLE.EPOCH)
            self.call_hooks(hooks, "on_epoch_start")
            if type(self)._run_batch is Trainer._run_batch:
                yield from self._batches(hooks)
            else:
                self._run_batch(hooks)
                yield
            self.call_hooks(hooks, "on_epoch_end")
            self.ctx.clear(LIFECYCLE.EPOCH)

    def _batches(self, hooks: HookSet, count: int = -1) -> Iterator[None]:
        for step in range(self._num_batches() if count == -1 else count):
            self.ctx.cur_batch_i = CtxVar(step, LIFECYCLE.BATCH)
            self._run_step(hooks)
            self.ctx.monitor.on_batch(self.ctx)
            self.ctx.clear(LIFECYCLE.BATCH)
            yield

    def _num_batches(self) -> int:
        """Batches of the current epoch."""
        ctx = self.ctx
        if self._is_training:
            last = ctx.cur_epoch_i == ctx.num_train_epoch - 1
            return ctx.num_train_batch_last_epoch if last else ctx.num_train_batch
        loader: Any = ctx.get(f"{ctx.cur_split}_loader")
        if hasattr(loader, "__len__"):
            return len(loader)
        return int(getattr(ctx, f"num_{ctx.cur_split}_batch"))

    def _run_step(self, hooks: HookSet) -> None:
        self.call_hooks(hooks, "on_batch_start")
        with self._autocast():
            self.call_hooks(hooks, "on_batch_forward")
        self._check_loss()
        if not self.ctx.get("skip_this_batch", False):
            self.call_hooks(hooks, "on_batch_backward")
        self.call_hooks(hooks, "on_batch_end")

    def _autocast(self) -> Any:
        return self._engine.precision(self.cfg.train.get("half_dtype", "fp32"), self.ctx.device)

    def _check_loss(self) -> None:
        """Skip a batch whose loss is not finite; stop when that does not pass."""
        ctx = self.ctx
        loss = ctx.get("loss_batch")
        if loss is None or not self._is_training:
            return
        if math.isfinite(float(loss.detach())):
            ctx.nonfinite_streak = 0
            return
        ctx.skip_this_batch = CtxVar(True, LIFECYCLE.BATCH)
        ctx.nonfinite_streak += 1
        ctx.monitor.nonfinite_steps += 1
        limit = self.cfg.train.get("max_nonfinite_steps", 10)
        if ctx.nonfinite_streak >= limit:
            raise TrainingDivergedError(_divergence_diagnosis(ctx, limit))

    def state_dict(self) -> dict[str, Any]:
        """What later routines depend on beside the tensors."""
        generator = getattr(self.ctx.data, "generator", None)
        return {
            "nonfinite_streak": self.ctx.nonfinite_streak,
            "generator": None if generator is None else generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`state_dict`."""
        self.ctx.nonfinite_streak = int(state["nonfinite_streak"])
        if state["generator"] is not None:
            self.ctx.data.generator.set_state(state["generator"])

    def update(self, model_parameters: Mapping[str, Any], strict: bool = False) -> None:
        """Take over received parameters, except those that stay with the client."""
        raise NotImplementedError

    def get_model_para(self) -> dict[str, torch.Tensor]:
        """The state dict to share."""
        raise NotImplementedError

    def _param_filter(
        self, state_dict: Mapping[str, Any], filter_keywords: list[str] | None = None
    ) -> dict[str, Any]:
        kept = self.cfg.personalization.local_param if filter_keywords is None else filter_keywords
        return shared_part(state_dict, kept)


def _divergence_diagnosis(ctx: Context, limit: int) -> str:
    cfg, trained = ctx.cfg, ((n, p) for n, p in ctx.model.named_parameters() if p.requires_grad)
    bad = [name for name, p in trained if not bool(torch.isfinite(p).all())]
    where = (
        f"{len(bad)} trainable tensors are not finite any more, the first is {bad[0]}"
        if bad
        else "all trainable tensors are still finite, so the forward pass overflows"
    )
    return (
        f"The loss was NaN or infinite in {limit} steps in a row (round index {ctx.cur_round}, "
        f"split {ctx.cur_split!r}): {where}. Precision is "
        f"{cfg.train.get('half_dtype', 'fp32')}, train.optimizer.lr is {cfg.train.optimizer.lr}. "
        "Lower train.optimizer.lr, set grad.grad_clip 1.0, or train.is_enable_half False; "
        "train.max_nonfinite_steps is how many such steps are skipped before stopping."
    )

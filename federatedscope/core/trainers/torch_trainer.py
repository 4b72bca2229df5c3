"""The general PyTorch trainer, the base of every built-in and registered one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader

from federatedscope.core.auxiliaries.dataloader_builder import get_dataloader
from federatedscope.core.auxiliaries.optimizer_builder import get_model_optimizer
from federatedscope.core.auxiliaries.scheduler_builder import get_scheduler
from federatedscope.core.checkpoint import load_checkpoint, save_checkpoint
from federatedscope.core.client_store import checkpoint_tensors, owned_tensors
from federatedscope.core.data.base_data import SPLITS
from federatedscope.core.data.wrap_dataset import WrapDataset
from federatedscope.core.errors import UserError
from federatedscope.core.trainers.context import Context, CtxVar
from federatedscope.core.trainers.enums import LIFECYCLE, MODE
from federatedscope.core.trainers.trainer import Trainer


class ReIterator:
    """A loader that starts again when it is exhausted or reset."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self._iterator: Iterator[Any] | None = None

    def reset(self) -> None:
        """Begin anew at the next batch."""
        self._iterator = None

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> ReIterator:
        self.reset()
        return self

    def __next__(self) -> Any:
        if self._iterator is None:
            self._iterator = iter(self.loader)
        return next(self._iterator)


class GeneralTorchTrainer(Trainer):
    """Trains any ``torch.nn.Module`` on batches of ``(features, labels)``.

    Extensions override single hooks (``_hook_on_batch_forward`` above all) or register more.
    The optimizer and the scheduler are built anew in every routine; of the model only
    parameters with ``requires_grad`` are trained and shared.
    """

    def parse_data(self, data: Any) -> dict[str, Any]:
        """Read the splits of a mapping of datasets, loaders, or a ``ClientData``."""
        parsed: dict[str, Any] = {}
        if data is None:
            return parsed
        if hasattr(data, "setup"):
            data.setup(self.cfg)
        for split in SPLITS:
            own = hasattr(data, f"{split}_data")
            dataset = getattr(data, f"{split}_data") if own else data.get(split)
            loader = None
            if isinstance(dataset, DataLoader):
                loader, dataset = dataset, cast(Any, dataset.dataset)
            elif isinstance(dataset, Mapping) and "y" in dataset:
                dataset = WrapDataset(dataset)
            parsed |= {f"{split}_data": dataset, f"{split}_loader": loader}
            parsed[f"num_{split}_data"] = 0 if dataset is None else len(dataset)
        return parsed

    def update(self, model_parameters: Mapping[str, Any], strict: bool = False) -> None:
        """Copy received tensors or arrays into the parameters of their names.

        Names that match ``personalization.local_param`` are left alone, and those that the model
        does not have; with ``strict`` the latter are refused.
        """
        mine = self._tensors()
        for name, value in self._param_filter(model_parameters).items():
            if name in mine:
                mine[name].data.copy_(torch.as_tensor(value))
            elif strict:
                raise UserError(
                    f"Received the tensor {name}, which the local model does not have. Server and "
                    "clients must build the same model: compare model.type and llm.adapter.args on "
                    "both sides."
                )

    def get_model_para(self) -> dict[str, torch.Tensor]:
        """Copies of the tensors that are shared."""
        shared = self._param_filter(self._tensors())
        return {name: tensor.detach().clone() for name, tensor in shared.items()}

    def _tensors(self) -> dict[str, torch.Tensor]:
        if self.cfg.personalization.share_non_trainable_para:
            return dict(self.ctx.model.state_dict(keep_vars=True))
        return owned_tensors(self.ctx.model)

    def register_default_hooks_train(self) -> None:
        """Register the steps of training."""
        self._register_steps(self.register_hook_in_train, training=True)

    def register_default_hooks_ft(self) -> None:
        """Register the steps of fine-tuning, those of training."""
        self._register_steps(self.register_hook_in_ft, training=True)

    def register_default_hooks_eval(self) -> None:
        """Register the steps of evaluation."""
        self._register_steps(self.register_hook_in_eval, training=False)

    def _register_steps(self, register: Any, training: bool) -> None:
        register(self._hook_on_fit_start_numerical_precision, "on_fit_start")
        register(self._hook_on_fit_start_init, "on_fit_start")
        if training:
            register(self._hook_on_fit_start_remember_global, "on_fit_start")
        register(self._hook_on_epoch_start, "on_epoch_start")
        register(self._hook_on_batch_start_init, "on_batch_start")
        register(self._hook_on_batch_forward, "on_batch_forward")
        if training:
            register(self._hook_on_batch_forward_regularizer, "on_batch_forward")
            register(self._hook_on_batch_backward, "on_batch_backward")
        register(self._hook_on_batch_end, "on_batch_end")
        register(self._hook_on_fit_end, "on_fit_end")

    def _hook_on_fit_start_numerical_precision(self, ctx: Context) -> None:
        """Nothing to convert: the frozen base is in half precision already, adapters stay fp32."""

    def _hook_on_fit_start_init(self, ctx: Context) -> None:
        """New optimizer and scheduler, statistics at zero."""
        self._engine.prepare(ctx.model, ctx.device)
        if ctx.cur_mode in (MODE.TRAIN, MODE.FINETUNE):
            settings = ctx.cfg[ctx.cur_mode]
            optimizer = get_model_optimizer(ctx.model, ctx.cfg, **settings.optimizer)
            optimizer.zero_grad()
            scheduler = get_scheduler(optimizer, **self._schedule(settings))
            # An optimizer's state is as large as the adapter or twice that: every client's would
            # stay in memory if it outlived the routine.
            ctx.optimizer = CtxVar(optimizer, LIFECYCLE.ROUTINE)
            ctx.scheduler = CtxVar(scheduler, LIFECYCLE.ROUTINE)
            scaler = self._engine.scaler(self.cfg.train.get("half_dtype", "fp32"), ctx.device)
            ctx.scaler = CtxVar(scaler, LIFECYCLE.ROUTINE)
        statistics = {"loss_batch_total": 0.0, "loss_regular_total": 0.0, "num_samples": 0}
        for name, start in {**statistics, "ys_true": [], "ys_prob": []}.items():
            setattr(ctx, name, CtxVar(start, LIFECYCLE.ROUTINE))

    def _autocast(self) -> Any:
        mine = type(self)._hook_on_fit_start_numerical_precision
        if mine is not GeneralTorchTrainer._hook_on_fit_start_numerical_precision:
            # A trainer that converts the model itself computes in what it converted to.
            return nullcontext()
        return super()._autocast()

    def _schedule(self, settings: Any) -> dict[str, Any]:
        """Arguments of the scheduler; schedules with a warm-up span all rounds of the run."""
        schedule = dict(settings.scheduler)
        kind = schedule.get("type", "")
        if "warmup" in kind or kind == "cosine":
            steps = -(-self.ctx.num_total_train_batch // self.cfg.grad.grad_accum_count)
            schedule["total_steps"] = steps * self.cfg.federate.total_round_num
            schedule["done_steps"] = steps * self.ctx.cur_round
        else:
            schedule.pop("warmup_ratio", None)
        return schedule

    def _hook_on_fit_start_remember_global(self, ctx: Context) -> None:
        """FedProx pulls towards the state that training starts from."""
        if ctx.cfg.fedprox.use:
            shared = self._param_filter(dict(ctx.model.named_parameters()))
            start = {n: p.detach().clone() for n, p in shared.items() if p.requires_grad}
            ctx.weight_init = CtxVar(start, LIFECYCLE.ROUTINE)

    def _hook_on_epoch_start(self, ctx: Context) -> None:
        """A fresh pass over the split."""
        name = f"{ctx.cur_split}_loader"
        loader = ctx.get(name)
        if isinstance(loader, ReIterator):
            loader.reset()
        elif loader is None:
            loader = get_dataloader(ctx[f"{ctx.cur_split}_data"], self.cfg, ctx.cur_split)
            setattr(ctx, name, CtxVar(ReIterator(loader), LIFECYCLE.ROUTINE))
        else:
            ctx[name] = ReIterator(loader)

    def _hook_on_batch_start_init(self, ctx: Context) -> None:
        """Fetch the batch."""
        ctx.data_batch = CtxVar(next(ctx[f"{ctx.cur_split}_loader"]), LIFECYCLE.BATCH)

    def _hook_on_batch_forward(self, ctx: Context) -> None:
        """Predictions and loss of a batch ``(features, labels)``."""
        features, label = (part.to(ctx.device) for part in ctx.data_batch)
        prediction = ctx.model(features)
        if label.dim() == 0:
            label = label.unsqueeze(0)
        ctx.y_true = CtxVar(label, LIFECYCLE.BATCH)
        ctx.y_prob = CtxVar(prediction, LIFECYCLE.BATCH)
        ctx.loss_batch = CtxVar(ctx.criterion(prediction, label), LIFECYCLE.BATCH)
        ctx.batch_size = CtxVar(len(label), LIFECYCLE.BATCH)

    def _hook_on_batch_forward_regularizer(self, ctx: Context) -> None:
        """``loss_task = loss_batch + mu * regularizer``, FedProx's term among them."""
        regular: Any = 0.0
        if self.cfg.regularizer.type:
            regular = self.cfg.regularizer.mu * ctx.regularizer(ctx)
        ctx.loss_regular = CtxVar(regular, LIFECYCLE.BATCH)
        ctx.loss_task = CtxVar(ctx.loss_batch + regular, LIFECYCLE.BATCH)

    def _hook_on_batch_backward(self, ctx: Context) -> None:
        """Gradients; an optimizer step every ``grad.grad_accum_count`` batches."""
        count = self.cfg.grad.grad_accum_count
        done = ctx.get("accumulated", 0)
        # Over the whole routine, not per epoch: a step has `count` batches wherever epochs end;
        # the last step of a number of epochs has those that are left.
        first = done - done % count
        size = min(count, max(1, ctx.num_total_train_batch - first)) if count > 1 else 1
        loss = ctx.loss_task / size if size > 1 else ctx.loss_task
        scaler = ctx.get("scaler")
        self._engine.backward(loss, scaler)
        ctx.accumulated = CtxVar(done + 1, LIFECYCLE.ROUTINE)
        if done + 1 - first < size:
            return
        if ctx.grad_clip > 0 and ctx.get("clipped") is None:
            trained = [p for p in ctx.model.parameters() if p.requires_grad]
            ctx.clipped = CtxVar(trained, LIFECYCLE.ROUTINE)
        self._engine.step(ctx.optimizer, scaler, ctx.get("clipped") or (), ctx.grad_clip)
        if ctx.scheduler is not None:
            ctx.scheduler.step()

    def _hook_on_batch_end(self, ctx: Context) -> None:
        """Add the batch to the statistics."""
        if ctx.get("skip_this_batch", False):
            return
        ctx.num_samples += ctx.batch_size
        ctx.loss_batch_total += ctx.loss_batch.item() * ctx.batch_size
        ctx.loss_regular_total += float(torch.as_tensor(ctx.get("loss_regular", 0.0)).detach())
        if ctx.get("y_true") is not None and ctx.get("y_prob") is not None:
            ctx.ys_true.append(ctx.y_true.detach().cpu().numpy())
            ctx.ys_prob.append(ctx.y_prob.detach().float().cpu().numpy())

    def _hook_on_fit_end(self, ctx: Context) -> None:
        """Metrics over the whole split."""
        for name in ("ys_true", "ys_prob"):
            if isinstance(parts := ctx[name], list):
                # It lives as long as the list did.
                ctx[name] = np.concatenate(parts) if parts else None
        ctx.eval_metrics = ctx.monitor.eval(ctx)

    def save_model(self, path: str | os.PathLike[str], cur_round: int = -1) -> None:
        """Write the worker's own tensors and the round, atomically."""
        state = {name: t.detach() for name, t in checkpoint_tensors(self.ctx.model).items()}
        save_checkpoint(Path(path), state, cur_round)

    def load_model(self, path: str | os.PathLike[str]) -> int:
        """Read a checkpoint of :meth:`save_model` or of FederatedScope; returns its round."""
        state, cur_round = load_checkpoint(Path(path))
        model = self.ctx.model
        mine = {**dict(model.named_parameters()), **owned_tensors(model)}
        for name in checkpoint_tensors(model).keys() & state.keys():
            mine[name].data.copy_(state[name])
        return cur_round

    def discharge_model(self) -> None:
        """Nothing to do: the model is shared and stays on its device."""

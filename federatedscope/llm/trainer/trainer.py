"""``trainer.type: llmtrainer``: causal language models on instruction data."""

from __future__ import annotations

import logging
from typing import Any

import torch

from federatedscope.core.monitors.metric_calculator import needs_predictions
from federatedscope.core.trainers.context import Context, CtxVar
from federatedscope.core.trainers.enums import LIFECYCLE, MODE
from federatedscope.core.trainers.torch_trainer import GeneralTorchTrainer

logger = logging.getLogger(__name__)

# Metrics that need generated text; the others come from the loss.
GENERATED = ("acc",)


class LLMTrainer(GeneralTorchTrainer):
    """Fine-tunes on batches of ``input_ids``, ``labels`` (-100 ignored) and ``attention_mask``.

    The loss is the mean over the answer's tokens. ``acc`` in ``eval.metrics`` is the share of
    rows whose generated answer ends in the right number (GSM8K); it is computed in evaluation
    only.
    """

    def _hook_on_batch_forward(self, ctx: Context) -> None:
        batch = {
            name: ctx.data_batch[name].to(ctx.device)
            for name in ("input_ids", "labels", "attention_mask")
        }
        output = ctx.model(**batch)
        if ctx.cur_mode != MODE.TEST and not torch.isfinite(output.loss.detach()):
            ctx.skip_this_batch = CtxVar(True, LIFECYCLE.BATCH)
        ctx.loss_batch = CtxVar(output.loss, LIFECYCLE.BATCH)
        ctx.batch_size = CtxVar(len(batch["labels"]), LIFECYCLE.BATCH)

    def _hook_on_fit_end(self, ctx: Context) -> None:
        total = ctx.num_samples
        results: dict[str, Any] = {
            f"{ctx.cur_split}_loss": ctx.loss_batch_total,
            f"{ctx.cur_split}_total": total,
            f"{ctx.cur_split}_avg_loss": ctx.loss_batch_total / total if total else float("nan"),
        }
        if ctx.cur_mode == MODE.TEST:
            for metric in GENERATED:
                if metric in ctx.cfg.eval.metrics:
                    results[f"{ctx.cur_split}_{metric}"] = self._generated_accuracy(ctx)
        for name, (function, _) in ctx.monitor.metric_calculator.eval_metric.items():
            key = f"{ctx.cur_split}_{name}"
            if key not in results and not needs_predictions(function):
                results[key] = function(ctx=ctx, y_true=None, y_pred=None, y_prob=None, metric=name)
        ctx.eval_metrics = results

    def _generated_accuracy(self, ctx: Context) -> float:
        from federatedscope.llm.generation import exact_match

        return exact_match(ctx.model, ctx[f"{ctx.cur_split}_data"], ctx.cfg, ctx.device)

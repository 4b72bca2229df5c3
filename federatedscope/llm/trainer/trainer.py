"""``trainer.type: llmtrainer``: causal language models on instruction data."""

from __future__ import annotations

import logging
from typing import Any

import torch

from federatedscope.core.data.utils import rows_of
from federatedscope.core.monitors.metric_calculator import needs_predictions, text_kind
from federatedscope.core.trainers.context import Context, CtxVar
from federatedscope.core.trainers.enums import LIFECYCLE, MODE
from federatedscope.core.trainers.torch_trainer import GeneralTorchTrainer

logger = logging.getLogger(__name__)

# The built-in metric of generated text; registered ones say so by their attribute `text`.
NUMBER_MATCH = "acc"


class LLMTrainer(GeneralTorchTrainer):
    """Fine-tunes on batches of ``input_ids``, ``labels`` (-100 ignored) and ``attention_mask``.

    The loss is the mean over the answer's tokens. Metrics of text are computed in evaluation
    only: ``acc`` is the share of rows whose generated answer ends in the right number (GSM8K);
    a registered metric whose function has the attribute ``text`` is called with
    ``y_pred``, the answers as a list of str, and ``y_true``, for each of them the list of its
    references. ``text = "generated"`` is what the model writes by itself (once for all metrics),
    ``text = "forced"`` the likeliest token at each place given the reference up to there.
    """

    def _hook_on_batch_forward(self, ctx: Context) -> None:
        batch = {
            name: ctx.data_batch[name].to(ctx.device)
            for name in ("input_ids", "labels", "attention_mask")
        }
        output = ctx.model(**batch)
        if ctx.cur_mode != MODE.TEST and not torch.isfinite(output.loss.detach()):
            ctx.skip_this_batch = CtxVar(True, LIFECYCLE.BATCH)
        if ctx.cur_mode == MODE.TEST and self._text_metrics(ctx, "forced"):
            self._keep_forced(ctx, output.logits, batch["labels"])
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
            results |= self._of_text(ctx)
        for name, (function, _) in ctx.monitor.metric_calculator.eval_metric.items():
            key = f"{ctx.cur_split}_{name}"
            if key not in results and not needs_predictions(function) and not text_kind(function):
                results[key] = function(ctx=ctx, y_true=None, y_pred=None, y_prob=None, metric=name)
        ctx.eval_metrics = results

    @staticmethod
    def _text_metrics(ctx: Context, kind: str) -> dict[str, Any]:
        """Names and functions of the metrics that compare this kind of text."""
        wanted = ctx.monitor.metric_calculator.eval_metric
        return {name: f for name, (f, _) in wanted.items() if text_kind(f) == kind}

    def _of_text(self, ctx: Context) -> dict[str, float]:
        """The metrics of text, from one generation for all of them."""
        from federatedscope.llm.generation import generated_answers, number_match

        results: dict[str, float] = {}
        wanted = self._text_metrics(ctx, "generated")
        if wanted or NUMBER_MATCH in ctx.cfg.eval.metrics:
            answers = generated_answers(
                ctx.model, ctx[f"{ctx.cur_split}_data"], ctx.cfg, ctx.device
            )
            results |= _scores(ctx, wanted, answers)
            if NUMBER_MATCH in ctx.cfg.eval.metrics:
                results[f"{ctx.cur_split}_{NUMBER_MATCH}"] = number_match(answers)
        return results | _scores(ctx, self._text_metrics(ctx, "forced"), ctx.get("forced") or [])

    @staticmethod
    def _keep_forced(ctx: Context, logits: torch.Tensor, labels: torch.Tensor) -> None:
        from federatedscope.llm.generation import forced_answers

        tokenizer = rows_of(ctx[f"{ctx.cur_split}_data"])[0].tokenizer
        if ctx.get("forced") is None:
            ctx.forced = CtxVar([], LIFECYCLE.ROUTINE)
        ctx.forced.extend(forced_answers(logits, labels, tokenizer))


def _scores(ctx: Context, metrics: dict[str, Any], answers: list[Any]) -> dict[str, float]:
    """Each metric over the answers."""
    texts, references = [a.text for a in answers], [a.references for a in answers]
    return {
        f"{ctx.cur_split}_{name}": function(
            ctx=ctx, y_true=references, y_pred=texts, y_prob=None, metric=name
        )
        for name, function in metrics.items()
    }

"""``trainer.type: llmtrainer``: causal language models on instruction data."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch

from federatedscope.core.data.utils import rows_of
from federatedscope.core.monitors.metric_calculator import needs_predictions, text_kind
from federatedscope.core.trainers.context import Context, CtxVar
from federatedscope.core.trainers.enums import LIFECYCLE, MODE
from federatedscope.core.trainers.torch_trainer import GeneralTorchTrainer
from federatedscope.llm.dataset.instruction_rows import IGNORE_INDEX

logger = logging.getLogger(__name__)

# The built-in metric of generated text; registered ones say so by their attribute `text`.
NUMBER_MATCH = "acc"


class LLMTrainer(GeneralTorchTrainer):
    """Fine-tunes on batches of ``input_ids``, ``labels`` (-100 ignored) and ``attention_mask``.

    The loss of a batch is the mean over its answers' tokens, and training goes by it. In evaluation
    ``avg_loss`` is the mean over all answer tokens of the split, whatever the batches, and ``loss``
    is that times the rows (``total``), which FederatedScope's identity ``avg_loss = loss / total``
    asks for. A batch without an answer token adds nothing to either and is not trained on.

    Metrics of text are computed in evaluation only: ``acc`` is the share of rows whose generated
    answer ends in the right number (GSM8K); a registered metric whose function has the attribute
    ``text`` is called with ``y_pred``, the answers as a list of str, and ``y_true``, for each of
    them the list of its references. ``text = "generated"`` is what the model writes by itself (once
    for all metrics), ``text = "forced"`` the likeliest token at each place given the reference up
    to there.
    """

    def _hook_on_batch_forward(self, ctx: Context) -> None:
        batch = {
            name: ctx.data_batch[name].to(ctx.device)
            for name in ("input_ids", "labels", "attention_mask")
        }
        output = ctx.model(**batch)
        # Nothing predicts a row's first token.
        tokens = int((batch["labels"][:, 1:] != IGNORE_INDEX).sum())
        # Without an answer token the model's mean is NaN, and nothing is wrong with the weights.
        loss = output.loss if tokens else output.logits.new_zeros((), dtype=torch.float32)
        if ctx.cur_mode != MODE.TEST and not (tokens and torch.isfinite(loss.detach())):
            ctx.skip_this_batch = CtxVar(True, LIFECYCLE.BATCH)
        if ctx.cur_mode == MODE.TEST and self._text_metrics(ctx, "forced"):
            self._keep_forced(ctx, output.logits, batch["labels"])
        ctx.loss_batch = CtxVar(loss, LIFECYCLE.BATCH)
        ctx.answer_tokens = CtxVar(tokens, LIFECYCLE.BATCH)
        ctx.batch_size = CtxVar(len(batch["labels"]), LIFECYCLE.BATCH)

    def _hook_on_batch_end(self, ctx: Context) -> None:
        super()._hook_on_batch_end(ctx)
        tokens = ctx.get("answer_tokens")
        if ctx.cur_mode == MODE.TEST and tokens is not None:
            self._keep(ctx, "answer_losses", [(float(ctx.loss_batch) * tokens, tokens)])

    def _hook_on_fit_end(self, ctx: Context) -> None:
        total = ctx.num_samples
        if kept := ctx.get("answer_losses"):
            # An exact sum, so that the order of batches moves no bit of it.
            sums, tokens = (math.fsum(part) for part in zip(*kept, strict=True))
            ctx.loss_batch_total = total * sums / tokens if tokens else math.nan
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
        LLMTrainer._keep(ctx, "forced", forced_answers(logits, labels, tokenizer))

    @staticmethod
    def _keep(ctx: Context, name: str, items: list[Any]) -> None:
        """Add to what a routine collects over its batches."""
        if ctx.get(name) is None:
            setattr(ctx, name, CtxVar([], LIFECYCLE.ROUTINE))
        ctx[name].extend(items)


def _scores(ctx: Context, metrics: dict[str, Any], answers: list[Any]) -> dict[str, float]:
    """Each metric over the answers."""
    texts, references = [a.text for a in answers], [a.references for a in answers]
    return {
        f"{ctx.cur_split}_{name}": function(
            ctx=ctx, y_true=references, y_pred=texts, y_prob=None, metric=name
        )
        for name, function in metrics.items()
    }

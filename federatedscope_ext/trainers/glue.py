"""``trainer.type: gluetrainer``: sequence classification and regression with Hugging Face models.

Works on batches of ``input_ids``, ``attention_mask``, optionally ``token_type_ids``, and
``labels``. Predictions are kept as logits, so every metric of ``eval.metrics`` can be computed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from federatedscope.core.trainers import GeneralTorchTrainer
from federatedscope.core.trainers.context import CtxVar
from federatedscope.core.trainers.enums import LIFECYCLE, MODE
from federatedscope.register import register_config, register_trainer
from federatedscope_ext.errors import ExtensionError

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class GlueTrainer(GeneralTorchTrainer):
    """Fine-tunes a sequence classifier (labels are class indices, or floats for regression)."""

    def _hook_on_batch_forward(self, ctx: Any) -> None:
        batch = ctx.data_batch
        labels = batch["labels"].to(ctx.device)
        names = accepted_inputs(ctx.model)
        inputs = {name: batch[name].to(ctx.device) for name in names if name in batch}
        output = ctx.model(**inputs, labels=labels)
        loss = output.loss
        if ctx.cur_mode != MODE.TEST and not torch.isfinite(loss.detach()):
            # Never trained on; the runtime counts such batches. In evaluation it shows in the loss.
            ctx.skip_this_batch = CtxVar(True, LIFECYCLE.BATCH)
        ctx.y_true = CtxVar(labels, LIFECYCLE.BATCH)
        ctx.y_prob = CtxVar(output.logits, LIFECYCLE.BATCH)
        ctx.loss_batch = CtxVar(loss, LIFECYCLE.BATCH)
        ctx.batch_size = CtxVar(len(labels), LIFECYCLE.BATCH)


def accepted_inputs(model: Any) -> tuple[str, ...]:
    """What of a batch the model takes: DistilBERT, for one, knows no ``token_type_ids``.

    A tokenizer may make them all the same, as BERT's does that DistilBERT is used with.
    """
    base = getattr(model, "get_base_model", lambda: model)()
    return _accepted_by(type(base).forward)


@lru_cache(maxsize=32)
def _accepted_by(forward: Callable[..., Any]) -> tuple[str, ...]:
    parameters = inspect.signature(forward).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = tuple(name for name in _INPUTS if name in parameters)
    return named or (_INPUTS if takes_any else ())


def build_glue_trainer(trainer_type: str) -> type[GlueTrainer] | None:
    """Answer to ``gluetrainer``."""
    return GlueTrainer if trainer_type.lower() == "gluetrainer" else None


def check_trainer(cfg: Any) -> None:
    """Refuse instruction data, whose batches have no class to predict."""
    if cfg.trainer.type.lower() == "gluetrainer" and cfg.data.type.lower().endswith("@llm"):
        raise ExtensionError(
            "trainer.type",
            cfg.trainer.type,
            f"it classifies, and {cfg.data.type} has answers to write",
            "Write trainer.type: llmtrainer, or a data.type that ends in @glue or @text",
        )


def add_check(cfg: Any) -> None:
    """Hook the check into a configuration."""
    cfg.register_cfg_check_fun(check_trainer)


register_trainer("gluetrainer", build_glue_trainer)
register_config("gluetrainer", add_check)

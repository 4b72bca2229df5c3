"""Does everything that a configuration names exist? Asked before data and weights are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from federatedscope import register
from federatedscope.core.auxiliaries.criterion_builder import get_criterion
from federatedscope.core.auxiliaries.metric_builder import get_metric
from federatedscope.core.auxiliaries.model_builder import unknown_model
from federatedscope.core.auxiliaries.optimizer_builder import SERVER, check_optimizer
from federatedscope.core.auxiliaries.regularizer_builder import get_regularizer
from federatedscope.core.auxiliaries.scheduler_builder import check_scheduler
from federatedscope.core.auxiliaries.trainer_builder import get_trainer_cls
from federatedscope.core.checkpoint import load_checkpoint
from federatedscope.core.configs.config import CN
from federatedscope.core.configs.loading import client_config
from federatedscope.core.errors import ConfigError, within
from federatedscope.core.monitors.metric_calculator import needs_predictions, text_kind
from federatedscope.core.monitors.trackers import check_trackers
from federatedscope.core.task import CAUSAL_LM, split_model_type, task_type
from fedfiles.readers import FORMATS, format_of, places, saved_splits


def check_components(cfg: Any) -> None:
    """Refuse names that nothing answers to, and arguments that it does not take: of model,
    optimizers, schedules, loss, regularizer and trackers the first that is wrong, with the nearest
    known name.
    """
    hub = split_model_type(cfg.model.type)[1]
    if hub:
        register.hub_dict[hub].check(cfg)
    elif not register.model_dict:
        raise unknown_model(cfg)
    check_trackers(cfg)
    _check_training(cfg)
    if cfg.federate.restore_from:
        load_checkpoint(cfg.federate.restore_from)
    if cfg.fedopt.use or cfg.federate.method.lower() == "fedopt":
        check_optimizer(SERVER, **cfg.fedopt.optimizer)


def check_client_components(cfg: Any, client_cfgs: CN | None) -> None:
    """The same for what single clients have of their own; the key starts with ``client_N.``."""
    for name in client_cfgs or ():
        with within(name):
            twin = client_config(cfg, client_cfgs, int(name.split("_")[1]))
            _check_training(twin)
            get_trainer_cls(twin.trainer.type)


def _check_training(cfg: Any) -> None:
    """What a client trains and is evaluated with."""
    check_optimizer("train.optimizer", **cfg.train.optimizer)
    check_scheduler("train.scheduler", **cfg.train.scheduler)
    if cfg.finetune.before_eval:
        check_optimizer("finetune.optimizer", **cfg.finetune.optimizer)
        check_scheduler("finetune.scheduler", **cfg.finetune.scheduler)
    get_criterion(cfg.criterion.type, "cpu")
    get_regularizer(cfg.regularizer.type)
    if task_type(cfg) == CAUSAL_LM and cfg.data.type.lower().endswith("@llm"):
        check_causal_metrics(cfg)
    elif cfg.trainer.type.lower() != "llmtrainer":
        check_text_metrics(cfg)


def check_text_metrics(cfg: Any) -> None:
    """Metrics of answers need a trainer that lets a model answer."""
    for name, (function, _) in get_metric(cfg.eval.metrics).items():
        if text_kind(function):
            problem = f"{name} compares answers, and trainer.type {cfg.trainer.type} has none"
            remedy = f"Leave {name} out, or use trainer.type: llmtrainer with a data.type that"
            raise ConfigError(
                "eval.metrics", list(cfg.eval.metrics), problem, f"{remedy} ends in @llm"
            )


def check_causal_metrics(cfg: Any) -> None:
    """A language model gives losses and text: no classes, no numbers to compare.

    ``acc`` is the share of generated answers with the right final number; only GSM8K and own
    files have answers that end in one.
    """
    data = cfg.data.type.rpartition("@")[0]
    own_file = format_of(Path(data)) in FORMATS or any(
        map(saved_splits, places(cfg.data.root, data))
    )
    for name, (function, _) in get_metric(cfg.eval.metrics).items():
        has_number = own_file or cfg.data.type.lower().startswith("gsm8k")
        if name == "acc" and has_number:
            continue
        if needs_predictions(function):
            remedy = f"Write eval.metrics: {['loss', 'acc'] if has_number else ['loss']}"
            problem = f"{name} is not a metric of {cfg.data.type}, whose answers are text"
            raise ConfigError("eval.metrics", list(cfg.eval.metrics), problem, remedy)

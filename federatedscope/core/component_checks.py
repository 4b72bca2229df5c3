"""Does everything that a configuration names exist? Asked before data and weights are read."""

from __future__ import annotations

from typing import Any

from federatedscope import register
from federatedscope.core.auxiliaries.criterion_builder import get_criterion
from federatedscope.core.auxiliaries.model_builder import unknown_model
from federatedscope.core.auxiliaries.optimizer_builder import check_optimizer
from federatedscope.core.auxiliaries.regularizer_builder import get_regularizer
from federatedscope.core.auxiliaries.scheduler_builder import check_scheduler
from federatedscope.core.monitors.trackers import check_trackers
from federatedscope.llm.hub import check_model_source
from federatedscope.llm.task import split_model_type


def check_components(cfg: Any) -> None:
    """Refuse names that nothing answers to, and arguments that it does not take.

    Parameters
    ----------
    cfg : CN
        The run's configuration: model, optimizers, schedules, loss, regularizer, trackers.

    Raises
    ------
    ConfigError
        The first that is wrong, with the nearest known name.
    """
    name, hub = split_model_type(cfg.model.type)
    if hub == "huggingface_llm":
        check_model_source("model.type", name, cfg.llm.cache.model, cfg.model.get("revision"))
    elif not hub and not register.model_dict:
        raise unknown_model(cfg)
    check_trackers(cfg)
    check_optimizer("train.optimizer", **cfg.train.optimizer)
    check_scheduler("train.scheduler", **cfg.train.scheduler)
    if cfg.finetune.before_eval:
        check_optimizer("finetune.optimizer", **cfg.finetune.optimizer)
        check_scheduler("finetune.scheduler", **cfg.finetune.scheduler)
    if cfg.fedopt.use or cfg.federate.method.lower() == "fedopt":
        check_optimizer("fedopt.optimizer", **cfg.fedopt.optimizer)
    get_criterion(cfg.criterion.type, "cpu")
    get_regularizer(cfg.regularizer.type)

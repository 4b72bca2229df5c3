"""The registry: how datasets, models, trainers, methods and the rest are added from outside.

``register_KIND(key, builder)`` stores a builder in ``KIND_dict``. When something of that kind is
needed, the builders are asked in the order of registration and the first answer that is not
``None`` is used; the built-in ones are asked last. Registering a key again replaces the builder
and logs a warning.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

__all__ = [
    "aggregator_dict",
    "auxiliary_data_loader_PIA_dict",
    "callback_dict",
    "config_dict",
    "criterion_dict",
    "data_dict",
    "first_answer",
    "hub_dict",
    "larger_is_better",
    "metric_dict",
    "model_dict",
    "optimizer_dict",
    "preset_dict",
    "ranks_dict",
    "register",
    "register_aggregator",
    "register_auxiliary_data_loader_PIA",
    "register_callback",
    "register_config",
    "register_criterion",
    "register_data",
    "register_hub",
    "register_metric",
    "register_model",
    "register_optimizer",
    "register_preset",
    "register_ranks",
    "register_regularizer",
    "register_scheduler",
    "register_splitter",
    "register_trainer",
    "register_transform",
    "register_worker",
    "regularizer_dict",
    "scheduler_dict",
    "splitter_dict",
    "trainer_dict",
    "transform_dict",
    "worker_dict",
]

logger = logging.getLogger(__name__)

Builder = Callable[..., Any]


class Builders(dict[str, Builder]):
    """The builders of one kind by key.

    Attributes
    ----------
    built_in : dict
        Those that the runtime itself brings along, asked after all registered ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self.built_in: dict[str, Builder] = {}


def register(key: str, module: Builder, module_dict: dict[str, Builder]) -> None:
    """Store ``module`` under ``key`` in ``module_dict``; a key that is taken is replaced.

    Parameters
    ----------
    key : str
        Name of the builder, unique within its kind.
    module : callable
        The builder.
    module_dict : dict
        The dictionary of the kind, for example ``model_dict``.
    """
    if key in module_dict and module_dict[key] is not module:
        logger.warning("The key %r was registered before; the new builder replaces it.", key)
    module_dict[key] = module


def first_answer(module_dict: dict[str, Builder], *args: Any, **kwargs: Any) -> Any:
    """Ask the builders of one kind in order; the first answer that is not ``None``, or ``None``."""
    built_in = getattr(module_dict, "built_in", {})
    for builder in (*module_dict.values(), *built_in.values()):
        answer = builder(*args, **kwargs)
        if answer is not None:
            return answer
    return None


def answers_itself(module_dict: dict[str, Builder], *args: Any, **kwargs: Any) -> bool:
    """Whether a registered builder takes these arguments, asked with a stand-in for the model.

    A builder that looks for parameters of its own finds none in the stand-in. Whatever it raises
    then, it was meant; its errors belong to the call with the real model, except those made for
    the user.
    """
    try:
        return first_answer(module_dict, *args, **kwargs) is not None
    except Exception as error:
        if getattr(error, "is_user_error", False):
            raise
        logger.debug("A registered builder on a stand-in: %r", error)
        return True


data_dict = Builders()


def register_data(key: str, module: Builder) -> None:
    """Register a dataset builder.

    Called as ``f(config, client_cfgs)``.
    Returns ``({0: server data, 1..N: ClientData}, config)``, or ``None`` when the
    configured ``data.type`` is not this builder's.
    """
    register(key, module, data_dict)


model_dict = Builders()


def register_model(key: str, module: Builder) -> None:
    """Register a model builder.

    Called as ``f(model_config, input_shape)``.
    Returns a :class:`torch.nn.Module`, or ``None`` when ``model_config.type`` is not
    this builder's.
    """
    register(key, module, model_dict)


trainer_dict = Builders()


def register_trainer(key: str, module: Builder) -> None:
    """Register a trainer.

    Called as ``f(cfg.trainer.type)``.
    Returns a trainer class called as ``cls(model, data, device, config,
    only_for_eval, monitor)``, or ``None``.
    """
    register(key, module, trainer_dict)


worker_dict = Builders()


def register_worker(key: str, module: Builder) -> None:
    """Register the workers of a federated method.

    Called as ``f(cfg.federate.method.lower())``.
    Returns ``{'client': ClientClass, 'server': ServerClass}``, or ``None``.
    """
    register(key, module, worker_dict)


metric_dict = Builders()

_SMALLER_IS_BETTER = ("loss", "perplexity", "ppl", "error", "mse", "mae", "std")


def larger_is_better(figure: str) -> bool:
    """Whether larger values of a figure are better, as its name tells (``val_avg_loss``: no).

    What :func:`register_metric` is told about a metric comes before this.
    """
    return not any(word in figure.lower() for word in _SMALLER_IS_BETTER)


def register_metric(key: str, module: Builder) -> None:
    """Register an evaluation metric.

    Called as ``f(cfg.eval.metrics)``.
    Returns ``(name, fn(ctx, **kwargs), larger_is_better)``, or ``None`` when
    the metric is not among those asked for.
    """
    register(key, module, metric_dict)


splitter_dict = Builders()


def register_splitter(key: str, module: Builder) -> None:
    """Register a data splitter.

    Called as ``f(data.splitter, client_num, **splitter_args)``.
    Returns an object called as ``splitter(dataset, prior)``
    that gives one part per client, or ``None``.
    """
    register(key, module, splitter_dict)


criterion_dict = Builders()


def register_criterion(key: str, module: Builder) -> None:
    """Register a loss.

    Called as ``f(criterion.type, device)``.
    Returns a callable ``(prediction, target) -> loss``, or ``None``.
    """
    register(key, module, criterion_dict)


optimizer_dict = Builders()


def register_optimizer(key: str, module: Builder) -> None:
    """Register an optimizer.

    Called as ``f(model, type, lr, **kwargs)``.
    Returns a :class:`torch.optim.Optimizer`, or ``None``.
    """
    register(key, module, optimizer_dict)


scheduler_dict = Builders()


def register_scheduler(key: str, module: Builder) -> None:
    """Register a learning-rate scheduler.

    Called as ``f(optimizer, type, **kwargs)``.
    Returns a scheduler object with ``step()``, or ``None``.
    """
    register(key, module, scheduler_dict)


transform_dict = Builders()


def register_transform(key: str, module: Builder) -> None:
    """Register a data transform.

    Called as ``f(type)``.
    Returns a callable applied to one example, or ``None``.
    """
    register(key, module, transform_dict)


ranks_dict = Builders()


def register_ranks(key: str, module: Builder) -> None:
    """Register a plan of who has which LoRA rank.

    Called as ``f(config, modules)`` with the names of the LoRA modules.
    Returns an object with ``rank_of(client) -> int | {module: rank} | None`` (``None``: the rank
    of ``llm.adapter.args``), ``later_ranks() -> iterable`` of ranks that clients may be given
    while the run goes on, and ``revise(round, {client: metrics}) -> {client: ranks}``, which is
    asked only where there are later ranks; or ``None`` when the configuration asks for nothing of
    this kind.
    """
    register(key, module, ranks_dict)


regularizer_dict = Builders()


def register_regularizer(key: str, module: Builder) -> None:
    """Register a regularizer.

    Called as ``f(regularizer.type)``.
    Returns a callable ``(ctx, **kwargs) -> penalty`` (a scalar tensor), or ``None``.
    """
    register(key, module, regularizer_dict)


config_dict = Builders()


def register_config(key: str, module: Builder) -> None:
    """Register a function that adds configuration keys.

    Called as ``f(cfg)``.
    Returns nothing; it sets new keys on ``cfg`` and may call
    ``cfg.register_cfg_check_fun``.
    """
    register(key, module, config_dict)


auxiliary_data_loader_PIA_dict = Builders()


def register_auxiliary_data_loader_PIA(key: str, module: Builder) -> None:
    """Register an auxiliary data loader (kept for extensions written against the contract;
    nothing here asks for it).

    Called as ``f(dataset name, ctx)``.
    Returns a data loader, or ``None``.
    """
    register(key, module, auxiliary_data_loader_PIA_dict)


hub_dict: dict[str, Any] = {}


def register_hub(key: str, hub: Any) -> None:
    """Register where models of ``model.type: NAME@KEY`` come from.

    Called as ``hub.check(cfg)``, which refuses what cannot be had; ``hub.skeleton(cfg)``, the
    model without storage; ``hub.build(cfg, base_dtype)``, the model.
    """
    hub_dict[key] = hub


aggregator_dict = Builders()


def register_aggregator(key: str, module: Builder) -> None:
    """Register an aggregator.

    Called as ``f(cfg.federate.method.lower(), model=..., device=..., config=...)``.
    Returns an aggregator object, or
    ``None`` when the method is not this builder's.
    """
    register(key, module, aggregator_dict)


callback_dict = Builders()


def register_callback(key: str, module: Builder) -> None:
    """Register a run callback.

    Called as ``f(cfg)``.
    Returns an object with any of ``on_run_start, on_round_start, on_batch, on_train, on_eval,
    on_round, on_run_end``, or ``None`` when it is switched off.
    """
    register(key, module, callback_dict)


preset_dict = Builders()


def register_preset(key: str, module: Builder) -> None:
    """Register a preset, turned on by the command-line flag ``--KEY``.

    Called as ``f(cfg, given)``.
    Returns a list of dicts ``{'field', 'was', 'now', 'why'}``, one
    for each key it changed; ``given`` is the set of dotted keys that the user set.
    """
    register(key, module, preset_dict)

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
    """Store the builder ``module`` under ``key`` in the dictionary of its kind, for example
    ``model_dict``; a key that is taken is replaced.
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


def _kind(kind: str, call: str, returns: str) -> tuple[Builders, Callable[[str, Builder], None]]:
    """``KIND_dict`` and ``register_KIND``: how its builders are called, and what they return."""

    def register_kind(key: str, module: Builder) -> None:
        register(key, module, globals()[f"{kind}_dict"])

    register_kind.__name__ = register_kind.__qualname__ = f"register_{kind}"
    register_kind.__doc__ = f"Register a builder.\n\nCalled as ``{call}``.\nReturns {returns}."
    return Builders(), register_kind


data_dict, register_data = _kind(
    "data", "f(config, client_cfgs)",
    "``({0: server data, 1..N: ClientData}, config)``, or ``None`` where the configured "
    "``data.type`` is not this builder's",
)  # fmt: skip
model_dict, register_model = _kind(
    "model", "f(model_config, input_shape)",
    "a :class:`torch.nn.Module`, or ``None`` where ``model_config.type`` is not this builder's",
)  # fmt: skip
trainer_dict, register_trainer = _kind(
    "trainer", "f(cfg.trainer.type)",
    "a trainer class called as ``cls(model, data, device, config, only_for_eval, monitor)``, or "
    "``None``",
)  # fmt: skip
worker_dict, register_worker = _kind(
    "worker", "f(cfg.federate.method.lower())",
    "``{'client': ClientClass, 'server': ServerClass}``, or ``None``",
)  # fmt: skip
metric_dict, register_metric = _kind(
    "metric", "f(cfg.eval.metrics)",
    "``(name, fn(ctx, **kwargs), larger_is_better)``, or ``None`` where the metric is not among "
    "those asked for",
)  # fmt: skip
splitter_dict, register_splitter = _kind(
    "splitter", "f(data.splitter, client_num, **splitter_args)",
    "an object called as ``splitter(dataset, prior)`` that gives one part per client, or ``None``",
)  # fmt: skip
criterion_dict, register_criterion = _kind(
    "criterion", "f(criterion.type, device)",
    "a callable ``(prediction, target) -> loss``, or ``None``",
)  # fmt: skip
optimizer_dict, register_optimizer = _kind(
    "optimizer", "f(model, type, lr, **kwargs)", "a :class:`torch.optim.Optimizer`, or ``None``"
)
scheduler_dict, register_scheduler = _kind(
    "scheduler", "f(optimizer, type, **kwargs)", "an object with ``step()``, or ``None``"
)
transform_dict, register_transform = _kind(
    "transform", "f(type)", "a callable applied to one example, or ``None``"
)
ranks_dict, register_ranks = _kind(
    "ranks", "f(config, modules)`` with the names of the LoRA ``modules",
    "a plan of who has which rank: an object with ``rank_of(client) -> int | {module: rank} | "
    "None`` (``None``: the rank of ``llm.adapter.args``), ``later_ranks() -> iterable`` of ranks "
    "that clients may be given while the run goes on, and ``revise(round, {client: metrics}) -> "
    "{client: ranks}``, which is asked only where there are later ranks; or ``None`` where the "
    "configuration asks for nothing of this kind",
)  # fmt: skip
regularizer_dict, register_regularizer = _kind(
    "regularizer", "f(regularizer.type)",
    "a callable ``(ctx, **kwargs) -> penalty`` (a scalar tensor), or ``None``",
)  # fmt: skip
config_dict, register_config = _kind(
    "config", "f(cfg)",
    "nothing; it sets new keys on ``cfg`` and may call ``cfg.register_cfg_check_fun``",
)  # fmt: skip
# Kept for extensions written against the contract; nothing here asks for it.
auxiliary_data_loader_PIA_dict, register_auxiliary_data_loader_PIA = _kind(
    "auxiliary_data_loader_PIA", "f(dataset name, ctx)", "a data loader, or ``None``"
)
aggregator_dict, register_aggregator = _kind(
    "aggregator", "f(cfg.federate.method.lower(), model=..., device=..., config=...)",
    "an aggregator object, or ``None`` where the method is not this builder's",
)  # fmt: skip
callback_dict, register_callback = _kind(
    "callback", "f(cfg)",
    "an object with any of ``on_run_start, on_round_start, on_batch, on_train, on_eval, on_round, "
    "on_traffic, on_run_end``, or ``None`` where it is switched off",
)  # fmt: skip
exchange_dict, register_exchange = _kind(
    "exchange", "f(cfg)",
    "a new :class:`federatedscope.core.exchange.Exchange`, which carries the run's messages, or "
    "``None`` where it is not wanted",
)  # fmt: skip
engine_dict, register_engine = _kind(
    "engine", "f(cfg)",
    "a new :class:`federatedscope.core.engine.TorchEngine`, which computes the run's steps, or "
    "``None`` where it is not wanted",
)  # fmt: skip
# Turned on by the command-line flag `--KEY`; `given` is the set of dotted keys that the user set.
preset_dict, register_preset = _kind(
    "preset", "f(cfg, given)",
    "a list of dicts ``{'field', 'was', 'now', 'why'}``, one for each key it changed",
)  # fmt: skip

hub_dict: dict[str, Any] = {}


def register_hub(key: str, hub: Any) -> None:
    """Register where models of ``model.type: NAME@KEY`` come from.

    Called as ``hub.check(cfg)``, which refuses what cannot be had; ``hub.skeleton(cfg)``, the
    model without storage; ``hub.check_rows(cfg, skeleton, data)``, which refuses rows that the
    model cannot take; ``hub.build(cfg, base_dtype)``, the model.
    """
    hub_dict[key] = hub


_SMALLER_IS_BETTER = ("loss", "perplexity", "ppl", "error", "mse", "mae", "std")


def larger_is_better(figure: str) -> bool:
    """Whether larger values of a figure are better, as its name tells (``val_avg_loss``: no).

    What :func:`register_metric` is told about a metric comes before this.
    """
    return not any(word in figure.lower() for word in _SMALLER_IS_BETTER)

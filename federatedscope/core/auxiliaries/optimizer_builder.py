"""Optimizers by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from federatedscope import register
from federatedscope.core.auxiliaries.resolve import build, classes_of, own_arguments, resolve
from federatedscope.core.auxiliaries.server_optimizers import SERVER_OPTIMIZERS
from federatedscope.core.configs.ranges import adapter_method
from federatedscope.core.configs.values import is_number
from federatedscope.core.errors import ConfigError, UserError

ParameterGroups = list[dict[str, Any]]

#: the server's section
SERVER = "fedopt.optimizer"

# What training here does not offer them.
_NOT_USABLE = {
    "LBFGS": "it needs the loss several times per step, which training here does not offer",
    "SparseAdam": "it takes sparse gradients only, and those of an adapter are dense",
}


def get_optimizer(
    model: nn.Module | Iterable[Any], type: str, lr: float, **kwargs: Any
) -> torch.optim.Optimizer:
    """Build an optimizer over the trainable parameters.

    Parameters
    ----------
    model : torch.nn.Module, or iterable of parameters or of parameter groups
        What to optimize. Parameters that need no gradient are left out, so they cost no state.
    type, lr, kwargs
        A registered name, or a class of ``torch.optim``; its learning rate and own arguments, e.g.
        ``momentum``, ``weight_decay``, ``betas``.

    Raises
    ------
    ConfigError
        An unknown type or argument, or a value that the class refuses.
    UserError
        There is nothing to train.
    """
    return _resolve(model, model, type, lr, kwargs)


def get_model_optimizer(
    model: nn.Module, cfg: Any, type: str, lr: float, **kwargs: Any
) -> torch.optim.Optimizer:
    """The optimizer of a client's model: a registered one over the model, else one of torch's over
    :func:`parameter_groups`. The other arguments are those of :func:`get_optimizer`.
    """
    return _resolve(model, parameter_groups(model, cfg), type, lr, kwargs)


def get_server_optimizer(
    model: nn.Module, type: str, lr: float, **kwargs: Any
) -> torch.optim.Optimizer:
    """The optimizer of a server (``fedopt.optimizer``): one of :mod:`server_optimizers
    <federatedscope.core.auxiliaries.server_optimizers>`, or as :func:`get_optimizer`.
    """
    return _resolve(model, model, type, lr, kwargs, SERVER)


def _resolve(
    model: Any,
    parameters: Any,
    type: str,
    lr: float,
    section: dict[str, Any],
    field: str = "optimizer",
) -> torch.optim.Optimizer:
    own = own_arguments(section)

    def built_in() -> torch.optim.Optimizer:
        return _of_torch(field, parameters, type, lr, own)

    built: torch.optim.Optimizer = resolve("optimizer", built_in, model, type, lr, **own)
    return built


def check_optimizer(field: str, type: str, lr: float, **kwargs: Any) -> None:
    """Refuse an optimizer section before a model is loaded; error messages name it as ``field``
    (for example ``train.optimizer``). The other arguments are those of :func:`get_optimizer`.
    """
    own, probe = own_arguments(kwargs), nn.Linear(2, 2, bias=False)
    if not register.answers_itself(register.optimizer_dict, probe, type, lr, **own):
        _of_torch(field, probe, type, lr, own)


def _of_torch(
    field: str, parameters: Any, type: str, lr: float, own: dict[str, Any]
) -> torch.optim.Optimizer:
    """A class of ``torch.optim`` (or of the server's) over those parameters that are trained."""
    if type in _NOT_USABLE:
        raise ConfigError(f"{field}.type", type, _NOT_USABLE[type], "write for example AdamW")
    if not is_number(lr):
        raise ConfigError(f"{field}.lr", lr, "no number", "write for example lr: 0.001")
    known = classes_of(torch.optim, torch.optim.Optimizer, *_NOT_USABLE)
    known |= SERVER_OPTIMIZERS if field == SERVER else {}
    built: torch.optim.Optimizer = build(
        "optimizer", field, type, known, trainable(parameters), {"lr": lr, **own}
    )
    return built


def trainable(model: nn.Module | Iterable[Any]) -> list[Any]:
    """Parameters (or groups of them) that need gradients; a :class:`UserError` without any."""
    kept: list[Any] = []
    for item in model.parameters() if isinstance(model, nn.Module) else model:
        if isinstance(item, Mapping):
            listed = item["params"]
            listed = [listed] if isinstance(listed, torch.Tensor) else listed
            parameters = [p for p in listed if p.requires_grad]
            kept += [{**item, "params": parameters}] if parameters else []
        elif item.requires_grad:
            kept.append(item)
    if not kept:
        raise UserError(
            "There is nothing to train: no parameter needs a gradient. Check llm.adapter.use, "
            "llm.adapter.args and federate.freeze_A."
        )
    return kept


def parameter_groups(model: nn.Module, cfg: Any) -> nn.Module | ParameterGroups:
    """The model itself, or the parameter groups (adapter, head) of a VeRA model.

    VeRA's scaling vectors take a learning rate of another order than the classification head:
    ``train.optimizer.lr`` for the vectors, ``train.vera.lr_c`` for the rest. Groups without
    parameters are left out.
    """
    if not cfg.llm.adapter.use or adapter_method(cfg) != "vera":
        return model
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    adapter, head = ([p for n, p in trained if ("vera_" in n) == own] for own in (True, False))
    groups = [{"params": adapter}, {"params": head, "lr": cfg.train.vera.lr_c}]
    return [group for group in groups if group["params"]]

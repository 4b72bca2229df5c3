"""Optimizers by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from federatedscope import register
from federatedscope.core.errors import ConfigError, UserError

ParameterGroups = list[dict[str, Any]]

# Bookkeeping entries of upstream's configuration nodes; no argument of an optimizer.
CONFIG_INTERNALS = ("__help_info__", "__cfg_check_funcs__", "is_ready_for_run")
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
    type : str
        A registered name, or a class of ``torch.optim``.
    lr : float
        Learning rate.
    kwargs
        The class's own arguments, e.g. ``momentum``, ``weight_decay``, ``betas``.

    Returns
    -------
    torch.optim.Optimizer

    Raises
    ------
    ConfigError
        An unknown type or argument, or a value that the class refuses.
    UserError
        There is nothing to train.
    """
    arguments = {k: v for k, v in kwargs.items() if k not in CONFIG_INTERNALS}
    registered = register.first_answer(register.optimizer_dict, model, type, lr, **arguments)
    if registered is not None:
        answer: torch.optim.Optimizer = registered
        return answer
    return _build("optimizer", trainable(model), type, lr, arguments)


def get_model_optimizer(
    model: nn.Module, cfg: Any, type: str, lr: float, **kwargs: Any
) -> torch.optim.Optimizer:
    """The optimizer of a routine: a registered one over the model, else one of torch's over
    :func:`parameter_groups`.

    Parameters
    ----------
    model : torch.nn.Module
        The client's model.
    cfg : CN
        See :func:`parameter_groups`.
    type, lr, kwargs
        See :func:`get_optimizer`.
    """
    arguments = {k: v for k, v in kwargs.items() if k not in CONFIG_INTERNALS}
    answer = register.first_answer(register.optimizer_dict, model, type, lr, **arguments)
    if answer is not None:
        registered: torch.optim.Optimizer = answer
        return registered
    return _build("optimizer", trainable(parameter_groups(model, cfg)), type, lr, arguments)


def check_optimizer(field: str, type: str, lr: float, **kwargs: Any) -> None:
    """Refuse an optimizer section before a model is loaded.

    Parameters
    ----------
    field : str
        The section, e.g. ``train.optimizer``; error messages name it.
    type, lr, kwargs
        See :func:`get_optimizer`.
    """
    arguments = {k: v for k, v in kwargs.items() if k not in CONFIG_INTERNALS}
    probe = nn.Linear(2, 2, bias=False)
    if not register.answers_itself(register.optimizer_dict, probe, type, lr, **arguments):
        _build(field, trainable(probe), type, lr, arguments)


def _build(
    field: str, parameters: list[Any], type: str, lr: float, arguments: Mapping[str, Any]
) -> torch.optim.Optimizer:
    optimizer_class = _optimizer_class(field, type)
    accepted = inspect.signature(optimizer_class).parameters.keys() - {"params", "lr"}
    check_arguments(field, type, arguments, accepted)
    if isinstance(lr, bool) or not isinstance(lr, int | float):
        raise ConfigError(f"{field}.lr", lr, "no number", "write for example lr: 0.001")
    try:
        built: torch.optim.Optimizer = optimizer_class(parameters, lr=lr, **arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            field,
            {"type": type, "lr": lr, **arguments},
            f"{type} refuses it: {error}",
            f"change what it names; these are the arguments of torch.optim.{type}",
        ) from error
    return built


def _optimizer_class(field: str, type: str) -> Any:
    known = {
        name
        for name, value in vars(torch.optim).items()
        if inspect.isclass(value)
        and issubclass(value, torch.optim.Optimizer)
        and value is not torch.optim.Optimizer
        and name not in _NOT_USABLE
    }
    if type in known:
        return getattr(torch.optim, type)
    problem = _NOT_USABLE.get(type, "no optimizer of torch.optim or of an extension has this name")
    raise ConfigError(f"{field}.type", type, problem, suggest(type, known))


def suggest(given: object, known: Iterable[str]) -> str:
    """``did you mean X?`` for the nearest known name, or the list of them."""
    names = sorted(known)
    folded = {name.lower(): name for name in names}
    near = difflib.get_close_matches(str(given).lower(), folded, n=1)
    return f"did you mean {folded[near[0]]!r}?" if near else f"write one of {', '.join(names)}"


def check_arguments(
    field: str, type: str, arguments: Mapping[str, Any], accepted: Iterable[str]
) -> None:
    """Refuse arguments that a class does not take."""
    names = set(accepted)
    for key, value in arguments.items():
        if key not in names:
            raise ConfigError(
                f"{field}.{key}", value, f"{type} has no such argument", suggest(key, names)
            )


def trainable(model: nn.Module | Iterable[Any]) -> list[Any]:
    """Parameters (or groups of them) that need gradients.

    Raises
    ------
    UserError
        There are none.
    """
    source = model.parameters() if isinstance(model, nn.Module) else model
    kept: list[Any] = []
    for item in source:
        if isinstance(item, Mapping):
            parameters = [p for p in _listed(item["params"]) if p.requires_grad]
            kept += [{**item, "params": parameters}] if parameters else []
        elif item.requires_grad:
            kept.append(item)
    if not kept:
        raise UserError(
            "There is nothing to train: no parameter needs a gradient. Check llm.adapter.use, "
            "llm.adapter.args and federate.freeze_A."
        )
    return kept


def _listed(parameters: Any) -> list[Any]:
    return [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)


def parameter_groups(model: nn.Module, cfg: Any) -> nn.Module | ParameterGroups:
    """What a trainer hands to :func:`get_optimizer`: the model, or groups for VeRA.

    VeRA's scaling vectors take a learning rate of another order than the classification head:
    ``train.optimizer.lr`` for the vectors, ``train.vera.lr_c`` for the rest.

    Parameters
    ----------
    model : torch.nn.Module
        The model with its adapter.
    cfg : CN
        Reads ``llm.adapter`` and ``train.vera.lr_c``.

    Returns
    -------
    torch.nn.Module or list of dict
        ``model`` itself, or the groups (adapter, head); groups without parameters are left out.
    """
    if not _uses_vera(cfg):
        return model
    adapter: list[nn.Parameter] = []
    head: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (adapter if "vera_" in name else head).append(parameter)
    groups = [{"params": adapter}, {"params": head, "lr": cfg.train.vera.lr_c}]
    return [group for group in groups if group["params"]]


def _uses_vera(cfg: Any) -> bool:
    args = cfg.llm.adapter.args
    return bool(
        cfg.llm.adapter.use and args and str(args[0].get("adapter_method", "")).lower() == "vera"
    )

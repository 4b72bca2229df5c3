"""Where PEFT puts an adapter in a model, and whether that is where the user wants it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from federatedscope.core.errors import ConfigError
from federatedscope.core.task import ADAPTER_FIELD as FIELD
from federatedscope.core.task import SEQ_CLS
from fedlora.heads import HEAD_MODULES
from fedlora.names import matches

__all__ = ["check_experts", "check_placed", "linear_names", "place", "refused"]

_ALL_LINEAR = "all-linear"


def place(model: torch.nn.Module, config: Any, task: str) -> None:
    """Settle in PEFT's configuration what depends on the model.

    Modules that are trained whole get no adapter, under whichever name they are found;
    ``all-linear`` becomes the names of all other linear layers except the output.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Without an adapter.
    config : peft.PeftConfig
        Changed in place.
    task : str
        PEFT's task type.

    Raises
    ------
    ConfigError
        A name in a list, or an excluded pattern, that the model has no module of.
    """
    names = [name for name, _ in model.named_modules() if name]
    saved = [*(config.modules_to_save or ()), *(HEAD_MODULES if task == SEQ_CLS else ())]
    whole = [name for name in names if saved and name.endswith(tuple(saved))]
    # PEFT saves what ends in a name (pre_classifier), and spares what has it as a component.
    last = {name.rsplit(".", 1)[-1] for name in whole} - set(saved)
    if last:
        config.modules_to_save = [*(config.modules_to_save or ()), *sorted(last)]
    _check_lists(config, names, model)
    target = getattr(config, "target_modules", None)
    if isinstance(target, str) and target.lower() == _ALL_LINEAR:
        output = model.get_output_embeddings()  # type: ignore[operator]
        config.target_modules = {
            name
            for name, module in _linear_layers(model)
            if module is not output and not any(f"{name}.".startswith(f"{w}.") for w in whole)
        }


def _linear_layers(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    from transformers.pytorch_utils import Conv1D

    for name, module in model.named_modules():
        if isinstance(module, (torch.nn.Linear, Conv1D)):
            yield name, module


def _check_lists(config: Any, names: list[str], model: torch.nn.Module) -> None:
    parameters = [name for name, _ in model.named_parameters()]
    for field, known in (
        ("target_modules", names),
        ("exclude_modules", names),
        ("target_parameters", parameters),
    ):
        wanted = getattr(config, field, None) or ()
        for one in () if isinstance(wanted, str) else wanted:
            if not any(f".{name}".endswith(f".{one}") for name in known):
                raise _no_module(field, one, linear_names(model) if known is names else known)
    excluded = getattr(config, "exclude_modules", None)
    if isinstance(excluded, str) and not any(re.fullmatch(excluded, name) for name in names):
        raise _no_module("exclude_modules", excluded, names, "no module's whole name matches it")


def check_placed(model: torch.nn.Module, arguments: Mapping[str, Any]) -> None:
    """Everything that names modules with an adapter has met one, as PEFT matches.

    Raises
    ------
    ConfigError
        A name in ``modules_to_save``, a layer, or a pattern that meets nothing.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    names = [name for name, _ in model.named_modules() if name]
    for wanted in arguments.get("modules_to_save") or ():
        if not any(wanted in name.split(".") or name.endswith(wanted) for name in names):
            raise _no_module("modules_to_save", wanted, names)
    adapted = [name for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)]
    layers = arguments.get("layers_to_transform")
    for layer in [layers] if isinstance(layers, int) else layers or ():
        if not any(str(layer) in name.split(".") for name in adapted):
            raise _no_layer(arguments, f"there is no adapter in layer {layer}")
    for field in ("rank_pattern", "alpha_pattern"):
        for pattern in arguments.get(field) or {}:
            if adapted and not any(matches(pattern, name) for name in adapted):
                raise _no_module(field, pattern, adapted, "no module with an adapter has this name")


def check_experts(config: Any, named: set[str], arguments: Mapping[str, Any]) -> None:
    """Refuse experts that PEFT adapts under names that nobody gave.

    Where experts became one parameter, PEFT turns the names of their former layers into
    ``target_parameters``, of another rank.

    Raises
    ------
    ConfigError
        It did so.
    """
    experts = sorted(set(getattr(config, "target_parameters", None) or ()) - named)
    if experts:
        raise ConfigError(
            f"{FIELD}.target_modules",
            arguments.get("target_modules"),
            f"PEFT adapts the parameters {', '.join(experts)} of all experts in their place",
            f"Leave out what names experts, or name them: 'target_parameters': {experts}",
        )


def _no_module(
    field: str, wanted: str, names: Iterable[str], problem: str = "the model has no such module"
) -> ConfigError:
    last = list(dict.fromkeys(n.rsplit(".", 1)[-1] for n in names))
    last = [name for name in last if not name.isdigit()]
    near = difflib.get_close_matches(wanted, last, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(map(repr, last))}"
    return ConfigError(f"{FIELD}.{field}", wanted, problem, hint)


def _no_layer(arguments: Mapping[str, Any], problem: str) -> ConfigError:
    return ConfigError(
        f"{FIELD}.layers_to_transform",
        arguments["layers_to_transform"],
        problem,
        "name layers that the model has, counted from 0, or leave it out for all",
    )


def linear_names(model: torch.nn.Module) -> list[str]:
    """Names of linear layers: first those that PEFT takes by itself, then the model's others."""
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN

    kind = getattr(getattr(model, "config", None), "model_type", "")
    first, own = KNOWN.get(kind, ()), [name.rsplit(".", 1)[-1] for name, _ in _linear_layers(model)]
    return list(dict.fromkeys([*(name for name in own if name in first), *own]))


def refused(arguments: Mapping[str, Any], linear: list[str], error: Exception) -> ConfigError:
    """What PEFT says when it wraps a model, with the field that it is about.

    Parameters
    ----------
    arguments : mapping
        Of the adapter, as the user wrote them.
    linear : list of str
        The model's :func:`linear_names`.
    error : Exception
        PEFT's.
    """
    text = str(error)
    if arguments.get("layers_to_transform") is not None:
        return _no_layer(arguments, f"PEFT cannot place the adapter ({error})")
    if "target" not in text.lower():
        # The field whose name PEFT says last is the one that it cannot take.
        field = next((key for key in arguments if len(key) > 1 and key in text), "")
        value, where = (arguments[field], f"{FIELD}.{field}") if field else (arguments, FIELD)
        remedy = "change it or leave it out" if field else "change or leave out what it names"
        return ConfigError(where, value, f"PEFT refuses it: {error}", remedy)
    target = arguments.get("target_modules")
    problem = f"PEFT cannot place the adapter in this architecture ({error})"
    if isinstance(target, str) and target.lower() != _ALL_LINEAR:
        problem = "as text it is a regular expression of whole names, and no layer has such a name"
    remedy = f"name some of its linear layers, e.g. target_modules: {linear[:2]}"
    if linear[2:]:
        remedy += f" (there are also {', '.join(map(repr, linear[2:]))})"
    return ConfigError(f"{FIELD}.target_modules", target, problem, f"{remedy}, or 'all-linear'")

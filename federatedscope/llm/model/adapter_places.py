"""Where PEFT puts an adapter in a model, and whether that is where the user wants it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch

from federatedscope.core.errors import ConfigError
from federatedscope.core.task import ADAPTER_FIELD as FIELD
from fedlora.layers import lora_modules
from fedlora.names import matches

__all__ = [
    "check_experts",
    "check_placed",
    "check_prompt",
    "linear_names",
    "not_taken",
    "place",
    "refused",
]

_ALL_LINEAR = "all-linear"
_TABLE = "TARGET_MODULES_MAPPING"
# BigBird's attention asks for values, so that no trial without storage tells.
_PREFIXES_LOST = "its encoder hands on something else than hidden states"


def place(model: torch.nn.Module, config: Any) -> None:
    """Settle in PEFT's configuration what depends on the model.

    Modules that are trained whole get no adapter, under whichever name they are found;
    ``all-linear`` becomes the names of all other linear layers except the output.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Without an adapter.
    config : peft.PeftConfig
        With the head among ``modules_to_save``; changed in place.

    Raises
    ------
    ConfigError
        A name in a list, an excluded pattern or a token that the model has nothing of; no default
        for the architecture.
    """
    names = [name for name, _ in model.named_modules() if name]
    saved = config.modules_to_save or ()
    _check_saved(saved, names)
    whole = [name for name in names if saved and name.endswith(tuple(saved))]
    # PEFT saves what ends in a name (pre_classifier), and spares what has it as a component.
    more = [n for n in whole if not any(f".{one}." in f".{n}." for one in saved)]
    if more:
        config.modules_to_save = [*saved, *more]
    _settle_default(model, config)
    _check_lists(config, names, model)
    _check_tokens(model, getattr(config, "trainable_token_indices", None))
    _check_replication(model, getattr(config, "layer_replication", None))
    if config.is_prompt_learning:
        _settle_prompt(model, config)
    target = getattr(config, "target_modules", None)
    if isinstance(target, str) and target.lower() == _ALL_LINEAR:
        config.target_modules = {
            name
            for name in _adaptable(model, config)
            if not any(f"{name}.".startswith(f"{w}.") for w in whole)
        }


def _settle_default(model: torch.nn.Module, config: Any) -> None:
    """PEFT's own choice for the architecture; where experts are merged it forgets it."""
    targets = getattr(config, "target_modules", ()), getattr(config, "target_parameters", None)
    if targets[0] is not None or targets[1]:
        return
    from peft.utils import constants

    kind = _architecture(model)
    tables = (
        getattr(constants, f"TRANSFORMERS_MODELS_TO_{config.peft_type.value}_{_TABLE}"),
        getattr(constants, f"TRANSFORMERS_MODELS_TO_LORA_{_TABLE}"),
    )
    own = next((table[kind] for table in tables if kind in table), None)
    if own is None:
        raise _no_target(None, linear_names(model, config), f"PEFT has no default for {kind}")
    config.target_modules = own if isinstance(own, str) else set(own)


def _settle_prompt(model: Any, config: Any) -> None:
    """Widths that PEFT looks up under names that not every family has: those of the embedding for
    virtual tokens, which go in beside it, and of the hidden states for prefixes.
    """
    own = model.config.get_text_config()
    config.token_dim = own.hidden_size
    if config.peft_type != "PREFIX_TUNING":
        config.token_dim = model.get_input_embeddings().weight.shape[1]
    config.num_attention_heads = getattr(own, "num_attention_heads", 1)


def check_prompt(model: Any, arguments: Mapping[str, Any]) -> None:
    """Can the model compute behind virtual tokens or prefixes? Tried without storage.

    Parameters
    ----------
    model : peft.PeftModel
        With an adapter of prompts, on the meta device.
    arguments : mapping
        Of the adapter, as the user wrote them.

    Raises
    ------
    ConfigError
        It cannot.
    """
    prefix = arguments.get("adapter_method") == "prefix"
    known = [_PREFIXES_LOST] if prefix and _architecture(model) == "big_bird" else []
    for error in known or _trials(model):
        # Some look at values, which are not there, and some fail on this device without it too.
        if "meta" in error.lower() or error in _trials(model.get_base_model()):
            continue
        raise ConfigError(
            f"{FIELD}.adapter_method",
            arguments.get("adapter_method"),
            f"transformers' {_architecture(model)} cannot compute with it ({error.rstrip('.')})",
            "Write 'lora', or use another model",
        )


def _trials(model: torch.nn.Module) -> list[str]:
    """Errors of forward passes without storage, with a mask and without one."""
    tokens, errors = torch.zeros(2, 8, dtype=torch.long, device="meta"), []
    for mask in (None, torch.ones_like(tokens)):
        try:
            with torch.no_grad():
                model(input_ids=tokens, attention_mask=mask)
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            errors.append((str(error) or type(error).__name__).splitlines()[0])
    return errors


def _architecture(model: torch.nn.Module) -> str:
    return str(getattr(getattr(model, "config", None), "model_type", type(model).__name__))


def _adaptable(model: torch.nn.Module, config: Any) -> Iterator[str]:
    """Linear layers except the output, and except those that PEFT refuses (of state-space models,
    whose mixers read the weights of some layers themselves).
    """
    from peft.tuners.tuners_utils import _check_lora_target_modules_mamba as check
    from transformers.pytorch_utils import Conv1D

    output = model.get_output_embeddings()  # type: ignore[operator]
    for name, module in model.named_modules():
        if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not output:
            with suppress(ValueError):
                check(config, model, name.rpartition(".")[2])
                yield name


def _check_saved(saved: Iterable[str], names: list[str]) -> None:
    """Every name is one of a module, and of no other one within it."""
    for wanted in saved:
        if not any(wanted in name.split(".") or name.endswith(wanted) for name in names):
            raise _no_module("modules_to_save", wanted, _last(names))
        found = [name for name in names if name.endswith(wanted)]
        inner = [one for one in found if any(one.startswith(f"{name}.") for name in found)]
        if inner:
            problem = f"it is the end of {found[0]} and of {inner[0]} within it"
            remedy = f"write the whole name: {found[0]!r}"
            raise ConfigError(f"{FIELD}.modules_to_save", wanted, problem, remedy)


def _check_lists(config: Any, names: list[str], model: torch.nn.Module) -> None:
    parameters = [name for name, _ in model.named_parameters()]
    experts = [".".join(n.split(".")[-2:]) for n, p in model.named_parameters() if p.dim() == 3]
    linear = linear_names(model, config)
    for field, known, offered in (
        ("target_modules", names, linear),
        ("exclude_modules", names, linear),
        ("target_parameters", parameters, experts),
    ):
        wanted = getattr(config, field, None) or ()
        for one in () if isinstance(wanted, str) else sorted(wanted):
            if not any(f".{name}".endswith(f".{one}") for name in known):
                if one.lower() == _ALL_LINEAR:
                    problem, remedy = "it stands for a list", f"write it as text: '{_ALL_LINEAR}'"
                    raise ConfigError(f"{FIELD}.{field}", [one], problem, remedy)
                error = _no_module(field, one, offered)
                if field == "target_modules" and experts:
                    error.remedy += f", and for experts target_parameters: {sorted(set(experts))}"
                raise error
    excluded = getattr(config, "exclude_modules", None)
    if isinstance(excluded, str) and not any(re.fullmatch(excluded, name) for name in names):
        problem = "no module's whole name matches this regular expression"
        error = _no_module("exclude_modules", excluded, linear, problem)
        if excluded in _last(names):
            error.remedy = f"write the list [{excluded!r}]"
        raise error


def _check_tokens(model: Any, indices: Any) -> None:
    """The embedding has every token that is to be trained."""
    field = f"{FIELD}.trainable_token_indices"
    by_name = indices if isinstance(indices, Mapping) else {"": indices or ()}
    for wanted, tokens in by_name.items():
        found = [m for n, m in model.named_modules() if f".{n}".endswith(f".{wanted}")]
        found = found if wanted else [model.get_input_embeddings()]
        if not found or not hasattr(found[0], "weight"):
            remedy = "write the list of tokens alone, for the model's input embedding"
            raise ConfigError(field, wanted, "the model has no such embedding", remedy)
        size = len(found[0].weight)
        outside = [token for token in tokens if not 0 <= token < size]
        if outside:
            problem, remedy = "it has no such tokens", f"write tokens from 0 to {size - 1}"
            raise ConfigError(field, outside, problem, remedy)


def _check_replication(model: Any, ranges: Any) -> None:
    """Every range of layers lies in the model."""
    layers = getattr(model.config, "num_hidden_layers", None)
    if ranges and getattr(model.config, "layer_types", None):
        problem = f"layers of a {_architecture(model)} are of kinds that its configuration counts"
        raise ConfigError(f"{FIELD}.layer_replication", ranges, problem, "leave it out")
    for start, end in ranges or ():
        if layers is not None and not 0 <= start < end <= layers:
            problem, remedy = f"the model has layers 0 to {layers - 1}", "write [first, last + 1]"
            raise ConfigError(f"{FIELD}.layer_replication", [start, end], problem, remedy)


def check_placed(model: torch.nn.Module, arguments: Mapping[str, Any]) -> None:
    """Everything that names modules with an adapter has met one, as PEFT matches.

    Raises
    ------
    ConfigError
        A layer or a pattern that meets nothing, or factors of another shape than asked for.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [name for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)]
    layers = arguments.get("layers_to_transform")
    for layer in [layers] if isinstance(layers, int) else layers or ():
        if not any(str(layer) in name.split(".") for name in adapted):
            raise _no_layer(arguments, f"there is no adapter in layer {layer}")
    for field in ("rank_pattern", "alpha_pattern"):
        for pattern in arguments.get(field) or {}:
            if adapted and not any(matches(pattern, name) for name in adapted):
                problem = "no module with an adapter has this name"
                raise _no_module(field, pattern, _last(adapted), problem)
    _check_start(model, arguments)


def _check_start(model: torch.nn.Module, arguments: Mapping[str, Any]) -> None:
    """A start that decomposes weights has given factors of the rank that was asked for."""
    start = arguments.get("init_lora_weights", True)
    for name, layer in lora_modules(model) if isinstance(start, str) else ():
        factor = getattr(layer, "lora_A", {})
        for adapter, rank in layer.r.items():
            if adapter in factor and not hasattr(layer, "parameter_name"):
                have, want = tuple(factor[adapter].weight.shape), (rank, layer.in_features)
                if have != want:
                    problem = f"it makes A of {name} {have} where {want} is wanted"
                    remedy = "Leave it out, or write a rank up to the layer's smaller side"
                    raise ConfigError(f"{FIELD}.init_lora_weights", start, problem, remedy)


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
    offered = list(dict.fromkeys(names))
    near = difflib.get_close_matches(wanted, offered, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(map(repr, offered))}"
    hint = hint if offered else f"leave {field} out"
    return ConfigError(f"{FIELD}.{field}", wanted, problem, hint)


def _last(names: Iterable[str]) -> list[str]:
    """Last components of names; not those that count."""
    last = dict.fromkeys(name.rsplit(".", 1)[-1] for name in names)
    return [name for name in last if not name.isdigit()]


def _no_layer(arguments: Mapping[str, Any], problem: str) -> ConfigError:
    return ConfigError(
        f"{FIELD}.layers_to_transform",
        arguments["layers_to_transform"],
        problem,
        "name layers that the model has, counted from 0, or leave it out for all",
    )


def linear_names(model: torch.nn.Module, config: Any) -> list[str]:
    """Last names of the linear layers that may have an adapter: first those that PEFT takes by
    itself, then the model's others.
    """
    from peft.utils import constants

    whole = config.modules_to_save or ()
    own = _last(_adaptable(model, config))
    first = getattr(constants, f"TRANSFORMERS_MODELS_TO_LORA_{_TABLE}").get(
        _architecture(model), ()
    )
    return sorted((name for name in own if name not in whole), key=lambda name: name not in first)


def not_taken(arguments: Mapping[str, Any], error: Exception) -> ConfigError:
    """What PEFT says about a field, if it names one."""
    field = next((key for key in arguments if len(key) > 1 and key in str(error)), "")
    if not field:
        remedy = "change or leave out the argument that it names"
        return ConfigError(FIELD, dict(arguments), f"PEFT refuses it: {error}", remedy)
    problem, remedy = f"PEFT refuses it: {error}", "change it or leave it out"
    return ConfigError(f"{FIELD}.{field}", arguments[field], problem, remedy)


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
    if "target modules" not in text.lower() and "targeted" not in text and "target_" not in text:
        return not_taken(arguments, error)
    problem = f"PEFT cannot place the adapter in this architecture ({error})"
    return _no_target(arguments.get("target_modules"), linear, problem)


def _no_target(target: Any, linear: list[str], problem: str) -> ConfigError:
    if isinstance(target, str) and target.lower() != _ALL_LINEAR:
        problem = "as text it is a regular expression of whole names, and no layer has such a name"
        meant = re.split(r"[\s,]+", target)
        linear = sorted(linear, key=lambda name: name not in meant)
    remedy = f"name some of its linear layers, e.g. target_modules: {linear[:2]}"
    if linear[2:]:
        remedy += f" (there are also {', '.join(map(repr, linear[2:]))})"
    return ConfigError(f"{FIELD}.target_modules", target, problem, f"{remedy}, or 'all-linear'")

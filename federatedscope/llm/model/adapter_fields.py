"""Fields of PEFT's configuration classes in ``llm.adapter.args``: types, ranges, what is refused.

PEFT itself checks hardly any value; a wrong one surfaces as a traceback, or not at all.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Literal, Union

from federatedscope.core.configs.values import KeyInfo, coerce, literal
from federatedscope.core.errors import ConfigError
from federatedscope.core.task import ADAPTER_FIELD as FIELD

__all__ = ["build", "settled"]

# What PEFT's annotations say less of than its code.
_HINTS: dict[str, Any] = {
    "lora_alpha": int | float,
    "rank_pattern": dict[str, int] | None,
    "alpha_pattern": dict[str, int | float] | None,
    "init_lora_weights": bool | str,
}
_VERA_HINTS: dict[str, Any] = {"bias": Literal["none", "all", "vera_only"]}

_FOLLOWS = {
    "task_type": "data.type and trainer.type",
    "peft_type": "adapter_method",
    "auto_mapping": "model.type",
    "base_model_name_or_path": "model.type",
    "revision": "model.revision",
    "peft_version": "the installed PEFT",
    "token_dim": "the model",
    "num_transformer_submodules": "the model",
    "num_attention_heads": "the model",
    "num_layers": "the model",
}
_PATTERNS = {"rank_pattern", "alpha_pattern"}
_DATA_STARTS = ("eva", "corda", "lora_ga")
_STARTS = ("gaussian", "orthogonal", "olora", "pissa", "pissa_niter_4")
_UNSUPPORTED = {
    "inference_mode": "PEFT then freezes the adapter, and nothing would be trained",
    "megatron_config": "it is for layers of Megatron",
    "use_qalora": "it is for bases quantised by GPTQ",
    "use_bdlora": "its factors are made of blocks, which no federate.method here combines",
    "arrow_config": "it routes between adapters that were trained before",
    "velora_config": "its compressed gradients depend on each client's first batch",
    "kasa_config": "it cuts the base weights, and its loss has terms that trainers here lack",
    "monteclora_config": "its loss has terms that trainers here lack",
    "alora_invocation_tokens": "the adapter acts only after these tokens, which no prompt here has",
    "loftq_config": "loftq quantises the base weights, which are kept here as they are",
    "eva_config": "eva starts from the clients' rows, which nobody shows to PEFT here",
    "corda_config": "corda starts from the clients' rows, which nobody shows to PEFT here",
    "lora_ga_config": "lora_ga starts from the clients' rows, which nobody shows to PEFT here",
}
_Range = tuple[Callable[[Any], bool], str, str]
_FROM_1: _Range = (lambda v: v >= 1, "a whole number from 1", "8")
_SHARE: _Range = (lambda v: 0 <= v < 1, "a probability from 0 to less than 1", "0.05")
_POSITIVE: _Range = (lambda v: v > 0, "the scale is lora_alpha / r, which has to be positive", "16")
_RANGES: dict[str, _Range] = {
    **dict.fromkeys(
        ("r", "rank_pattern", "num_virtual_tokens", "encoder_hidden_size", "encoder_num_layers"),
        _FROM_1,
    ),
    **dict.fromkeys(("lora_dropout", "vera_dropout", "encoder_dropout"), _SHARE),
    **dict.fromkeys(("lora_alpha", "alpha_pattern"), _POSITIVE),
}


def settled(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given fields in their types, as plain values.

    Text that spells a number or a switch becomes one, as for other keys of the configuration.

    Parameters
    ----------
    kind : type
        PEFT's configuration class.
    given : mapping
        Values by field; all fields are the class's.

    Raises
    ------
    ConfigError
        A value of another type than PEFT's annotation, out of range, a pattern that is no regular
        expression, or a field that cannot work here.
    """
    hints = {**typing.get_type_hints(kind), **_HINTS}
    if kind.__name__ == "VeraConfig":
        hints |= _VERA_HINTS
    fields = {field.name: field for field in dataclasses.fields(kind)}
    out = {}
    for name, value in given.items():
        _refuse_field(name, value)
        try:
            out[name] = _fitted(value, hints[name])
        except ValueError as error:
            remedy = "Leave it out"
            default = fields[name].default
            if isinstance(default, (bool, int, float, str)):
                remedy += f" (PEFT's default is {getattr(default, 'value', default)!r})"
            if isinstance(value, str) and _takes_texts(hints[name]):
                remedy = f"Write {[value]!r}"
            problem = f"it has to be {_words(hints[name])}{error}"
            raise ConfigError(f"{FIELD}.{name}", value, problem, remedy) from error
        _check_range(name, out[name])
    for name in _PATTERNS & out.keys():
        out[name] = out[name] or {}  # PEFT annotates None, and fails on it
    _check_patterns(out)
    if "init_lora_weights" in out:
        out["init_lora_weights"] = _start(out["init_lora_weights"], out)
    return out


def build(kind: type, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as PEFT's class takes them: mappings become the objects that it annotates."""
    hints = typing.get_type_hints(kind)
    return {name: _object(value, hints[name]) for name, value in fields.items()}


def _object(value: Any, hint: Any) -> Any:
    kinds = (hint, *typing.get_args(hint))
    nested: Any = next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)
    return nested(**value) if nested and isinstance(value, Mapping) and value else value


def _fitted(value: Any, hint: Any) -> Any:
    """A value as its annotation wants it; ``ValueError`` where it cannot be."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or hint is types.NoneType:
        return _nothing(value) if hint is types.NoneType else value
    if value is None and origin not in (Union, types.UnionType):
        raise ValueError
    if origin in (Union, types.UnionType):
        return _first_fitted(value, inner)
    if origin is Literal or isinstance(hint, enum.EnumMeta):
        return _chosen(value, inner or [member.value for member in hint])
    if origin in (list, tuple, set):
        return _fitted_list(value, inner, fixed=origin is tuple and ... not in inner)
    if dataclasses.is_dataclass(hint):
        return _fitted_object(value, hint)
    if hint is dict or origin is dict:
        value = _mapping(value)
        of = inner[1] if inner else Any
        return {str(key): _fitted(item, of) for key, item in value.items()}
    try:
        fitted = coerce("", value, KeyInfo(types=(hint,), declared=True), None)
    except ConfigError as error:
        raise ValueError from error
    if isinstance(fitted, float) and not math.isfinite(fitted):
        raise ValueError
    return fitted


def _nothing(value: Any) -> None:
    if value is not None:
        raise ValueError


def _first_fitted(value: Any, kinds: tuple[Any, ...]) -> Any:
    """As the first of the kinds that it can be; text and what is read like text come last."""
    if any(isinstance(kind, enum.EnumMeta) for kind in kinds):
        kinds = tuple(kind for kind in kinds if kind is not str)
    if any(dataclasses.is_dataclass(kind) for kind in kinds):
        kinds = tuple(kind for kind in kinds if kind is not dict)
    message = ""
    for kind in sorted(kinds, key=lambda kind: (kind is str, type(value) is not kind)):
        try:
            return _fitted(value, kind)
        except ValueError as error:
            message = message or str(error)
    raise ValueError(message)


def _chosen(value: Any, choices: Any) -> Any:
    for choice in choices:
        if choice == value or (isinstance(value, str) and value.lower() == str(choice).lower()):
            return choice
    raise ValueError


def _fitted_list(value: Any, inner: tuple[Any, ...], fixed: bool) -> list[Any]:
    value = literal(value) if isinstance(value, str) else value
    if not isinstance(value, (list, tuple)) or (fixed and len(value) != len(inner)):
        raise ValueError
    kinds = inner if fixed else (inner[0] if inner else Any,) * len(value)
    if "" in value:
        raise ValueError
    return [_fitted(item, kind) for item, kind in zip(value, kinds, strict=True)]


def _mapping(value: Any) -> Mapping[str, Any]:
    value = literal(value) if isinstance(value, str) else value
    if not isinstance(value, Mapping):
        raise ValueError
    return value


def _fitted_object(value: Any, kind: Any) -> dict[str, Any]:
    hints = {f.name: typing.get_type_hints(kind)[f.name] for f in dataclasses.fields(kind)}
    out = {}
    for name, item in _mapping(value).items():
        if name not in hints:
            raise ValueError(f" (there is no {name!r})")
        try:
            out[name] = _fitted(item, hints[name])
        except ValueError as error:
            raise ValueError(f" ({name} is {_words(hints[name])})") from error
    return out


def _takes_texts(hint: Any) -> bool:
    return any(kind == list[str] for kind in (hint, *typing.get_args(hint)))


def _words(hint: Any) -> str:
    """An annotation in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    known = {bool: "True or False", int: "a whole number", float: "a number", str: "text",
             types.NoneType: "null", dict: "a mapping"}  # fmt: skip
    if hint in known:
        return known[hint]
    if origin in (Union, types.UnionType):
        if any(isinstance(kind, enum.EnumMeta) for kind in inner):
            inner = tuple(kind for kind in inner if kind is not str)
        return " or ".join(dict.fromkeys(_words(k) for k in inner if k is not types.NoneType))
    if origin is Literal or isinstance(hint, enum.EnumMeta):
        return " or ".join(repr(choice) for choice in inner or [m.value for m in hint])
    if origin in (list, tuple, set):
        many = {str: "texts", int: "whole numbers"}
        return f"a list of {many.get(inner[0]) or _words(inner[0])}" if inner else "a list"
    if origin is dict:
        return f"a mapping of names, each to {_words(inner[1])}"
    if dataclasses.is_dataclass(hint):
        return f"a mapping of {', '.join(field.name for field in dataclasses.fields(hint))}"
    return str(hint)


def _refuse_field(name: str, value: Any) -> None:
    if name in _FOLLOWS and value is not None:
        problem, remedy = f"it follows from {_FOLLOWS[name]}", f"Leave {name} out"
        raise ConfigError(f"{FIELD}.{name}", value, problem, remedy)
    value = literal(value) if isinstance(value, str) else value
    if (
        name in _UNSUPPORTED
        and value not in (None, False)
        and (name, value) != ("loftq_config", {})
    ):
        raise ConfigError(f"{FIELD}.{name}", value, _UNSUPPORTED[name], f"Leave {name} out")


def _check_range(name: str, value: Any) -> None:
    if name not in _RANGES or value is None:
        return
    fits, problem, example = _RANGES[name]
    for number in value.values() if isinstance(value, Mapping) else [value]:
        if not fits(number):
            shown = f"{{'query': {example}}}" if isinstance(value, Mapping) else example
            remedy = f"Write for example '{name}': {shown}"
            raise ConfigError(f"{FIELD}.{name}", value, problem, remedy)


def _check_patterns(fields: Mapping[str, Any]) -> None:
    """Every pattern is a regular expression; entries of lists are names."""
    for name in ("target_modules", "exclude_modules", "layers_pattern"):
        value = fields.get(name)
        listed = value if name == "layers_pattern" and isinstance(value, list) else [value]
        for text in listed:
            if isinstance(text, str):
                _check_pattern(name, text, "Write the names as a list: ['query', 'value']")
    for name in sorted(_PATTERNS):
        for text in fields.get(name) or {}:
            _check_pattern(name, text, "Write the end of a module's name, e.g. {'query': 8}")


def _check_pattern(name: str, text: str, remedy: str) -> None:
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        problem = f"no regular expression ({error})"
        raise ConfigError(f"{FIELD}.{name}", text, problem, remedy) from error


def _start(value: Any, fields: Mapping[str, Any]) -> Any:
    """The start of the factors, if it can be had here."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = _fitted(value, bool)
    if isinstance(value, bool):
        return value
    value = value.lower()
    problem, remedy = "", f"Write True, False or one of {', '.join(_STARTS)}"
    if value in _DATA_STARTS:
        problem = "it starts from the clients' rows, which nobody shows to PEFT here"
    elif value == "mica":
        problem = "it freezes B, while federate.method says here what is trained"
    elif value == "loftq":
        problem = "it quantises the base weights, and shapes are checked here before they are read"
    elif value == "orthogonal" and _odd_ranks(fields):
        problem, remedy = "it needs even ranks", "Write an even r, or leave it out"
    elif value not in _STARTS and not re.fullmatch(r"pissa_niter_\d+", value):
        problem = "no such start"
    elif value not in ("gaussian", "orthogonal") and fields.get("target_parameters"):
        problem = "it decomposes the weights of layers, and target_parameters names others"
        remedy = "Leave it out"
    if problem:
        raise ConfigError(f"{FIELD}.init_lora_weights", value, problem, remedy)
    return value


def _odd_ranks(fields: Mapping[str, Any]) -> bool:
    ranks = [fields.get("r", 8), *(fields.get("rank_pattern") or {}).values()]
    return any(rank % 2 for rank in ranks)

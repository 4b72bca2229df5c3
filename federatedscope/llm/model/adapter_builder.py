"""PEFT adapters from ``llm.adapter.args``."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable
from typing import Any

from federatedscope.core.errors import ConfigError
from federatedscope.core.task import ADAPTER_FIELD as FIELD
from federatedscope.core.task import adapter_arguments, adapter_method
from federatedscope.llm.model.adapter_fields import build, settled
from federatedscope.llm.model.adapter_places import (
    check_experts,
    check_placed,
    check_prompt,
    linear_names,
    not_taken,
    place,
    refused,
)
from fedlora.names import base_name

_OURS = ("adapter_package", "adapter_method")


def _config_classes() -> dict[str, Any]:
    import peft

    return {
        "lora": peft.LoraConfig,
        "vera": peft.VeraConfig,
        "prefix": peft.PrefixTuningConfig,
        "prompt": peft.PromptTuningConfig,
        "p-tuning": peft.PromptEncoderConfig,
    }


def settle_adapter(cfg: Any) -> None:
    """Write the fields of ``llm.adapter.args`` in their types into a mutable configuration.

    Raises
    ------
    ConfigError
        See :func:`peft_config`.
    """
    if cfg.llm.adapter.use:
        kind, own = _own_fields(cfg)
        ours = {key: value for key, value in adapter_arguments(cfg).items() if key in _OURS}
        cfg.llm.adapter.args = [{**ours, **settled(kind, own)}]


def _own_fields(cfg: Any) -> tuple[Any, dict[str, Any]]:
    """PEFT's configuration class, and the values given for its fields."""
    args, method, classes = adapter_arguments(cfg), adapter_method(cfg), _config_classes()
    package = args.get("adapter_package", "peft")
    if package != "peft":
        problem = "only PEFT's adapters are supported"
        raise ConfigError(f"{FIELD}.adapter_package", package, problem, "write 'peft'")
    if method not in classes:
        remedy = f"use one of {', '.join(classes)}"
        raise ConfigError(f"{FIELD}.adapter_method", method, "no such adapter", remedy)
    own = {key: value for key, value in args.items() if key not in _OURS}
    kind = classes[method]
    known = {field.name for field in dataclasses.fields(kind)}
    for key in (key for key in own if key not in known):
        hint = _hint(key, known, f"see the fields of {kind.__name__}")
        raise ConfigError(f"{FIELD}.{key}", own[key], f"{kind.__name__} has no such field", hint)
    return kind, own


def peft_config(cfg: Any, task: str) -> Any:
    """Build PEFT's configuration; its own fields are passed through.

    Parameters
    ----------
    cfg : CN
        Reads ``llm.adapter.args``: ``adapter_package`` (``peft``), ``adapter_method`` (``lora``,
        ``vera``, ``prefix``, ``prompt``, ``p-tuning``) and any field of PEFT's configuration
        class, e.g. ``r``, ``lora_alpha``, ``use_rslora``, ``target_modules``, ``rank_pattern``.
    task : str
        PEFT's task type, ``SEQ_CLS`` or ``CAUSAL_LM``.

    Raises
    ------
    ConfigError
        An unknown package, method or field, a value of a wrong type
        (:func:`federatedscope.llm.model.adapter_fields.settled`), or one that PEFT refuses.
    """
    kind, own = _own_fields(cfg)
    own = settled(kind, own)
    try:
        return kind(task_type=task, **build(kind, own))
    except (TypeError, ValueError, ImportError) as error:
        raise not_taken(own, error) from error


def _hint(name: str, known: Iterable[str], otherwise: str) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else otherwise


def add_adapter(
    model: Any, cfg: Any, task: str, meta: bool = False, head: Iterable[str] = ()
) -> Any:
    """Wrap a model with its adapter and freeze the rest.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The base model.
    cfg : CN
        See :func:`peft_config`. ``federate.freeze_A`` freezes A at its common random start.
    task : str
        PEFT's task type.
    meta : bool
        The model has no storage yet (shapes and names only).
    head : iterable of str
        Modules that are trained whole beside the adapter.

    Raises
    ------
    ConfigError
        ``target_modules`` match nothing, or PEFT has no default for the architecture; an embedding
        among them with ``freeze_A``.
    """
    from peft import get_peft_model

    config, arguments = peft_config(cfg, task), adapter_arguments(cfg)
    if saved := [*dict.fromkeys([*(config.modules_to_save or ()), *head])]:
        config.modules_to_save = saved
    place(model, config)
    linear = linear_names(model, config)
    named = set(getattr(config, "target_parameters", None) or ())
    try:
        wrapped = get_peft_model(model, config, low_cpu_mem_usage=meta)
    except OSError as error:
        # A prompt that starts as a text reads a tokenizer.
        name, problem = arguments.get("tokenizer_name_or_path"), str(error).splitlines()[0]
        remedy = "give a folder in Hugging Face format"
        raise ConfigError(f"{FIELD}.tokenizer_name_or_path", name, problem, remedy) from error
    except (ValueError, TypeError, NotImplementedError, AttributeError, IndexError) as error:
        raise refused(arguments, linear, error) from error
    if meta and getattr(config, "ensure_weight_tying", False):
        _tie_saved(wrapped)
    if meta and config.is_prompt_learning:
        check_prompt(wrapped, arguments)
    check_placed(model, arguments)
    check_experts(config, named, arguments)
    if cfg.federate.freeze_A:
        _freeze_a(wrapped)
    return wrapped


def _tie_saved(model: Any) -> None:
    """Tie the trained copies of tied weights, as PEFT does with storage only."""
    first: dict[int, Any] = {}
    for wrapper in model.modules():
        weight = getattr(getattr(wrapper, "original_module", None), "weight", None)
        if weight is not None:
            copy = wrapper.modules_to_save["default"]
            copy.weight = first.setdefault(id(weight), copy.weight)


def _freeze_a(model: Any) -> None:
    for name, parameter in model.named_parameters():
        if "lora_embedding_A" in name:
            raise ConfigError(
                f"{FIELD}.target_modules",
                base_name(name.split(".lora_embedding_A")[0]),
                "the A of an embedding starts at zero, and a frozen A stays as it starts",
                "Name linear layers only, write federate.freeze_A: False, or use another "
                "federate.method than ffa",
            )
        if "lora_A" in name:
            parameter.requires_grad_(False)

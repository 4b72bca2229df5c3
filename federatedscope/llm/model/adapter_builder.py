"""PEFT adapters from ``llm.adapter.args``."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable
from typing import Any

from federatedscope.core.errors import ConfigError
from federatedscope.core.task import ADAPTER_FIELD as FIELD
from federatedscope.core.task import adapter_arguments, adapter_method
from fedlora.names import base_name, matches

_REMEDY = "change or leave out the argument that it names"
_OURS = ("adapter_package", "adapter_method")
# What PEFT adds to modules_to_save by itself.
_PEFTS_HEADS = ("classifier", "score")


def _config_classes() -> dict[str, Any]:
    import peft

    return {
        "lora": peft.LoraConfig,
        "vera": peft.VeraConfig,
        "prefix": peft.PrefixTuningConfig,
        "prompt": peft.PromptTuningConfig,
        "p-tuning": peft.PromptEncoderConfig,
    }


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
        An unknown package, method or field, or a value that PEFT refuses.
    """
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
    try:
        return kind(task_type=task, **own)
    except (TypeError, ValueError) as error:
        raise ConfigError(FIELD, own, f"PEFT refuses it: {error}", _REMEDY) from error


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

    config = peft_config(cfg, task)
    if more := [name for name in head if name not in _PEFTS_HEADS]:
        config.modules_to_save = [*(config.modules_to_save or []), *more]
    try:
        wrapped = get_peft_model(model, config, low_cpu_mem_usage=meta)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise _refused(cfg, error) from error
    _check_names(model, adapter_arguments(cfg))
    if cfg.federate.freeze_A:
        _freeze_a(wrapped)
    return wrapped


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


def _check_names(model: Any, arguments: dict[str, Any]) -> None:
    """Names of modules in ``modules_to_save`` and the patterns match something, as PEFT matches."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    names = [name for name, _ in model.named_modules() if name]
    saved = arguments.get("modules_to_save") or []
    for wanted in [saved] if isinstance(saved, str) else saved:
        if not any(wanted in name.split(".") or name.endswith(wanted) for name in names):
            raise _no_module("modules_to_save", wanted, names)
    adapted = [name for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)]
    for field in ("rank_pattern", "alpha_pattern"):
        for pattern in arguments.get(field) or {}:
            if adapted and not any(matches(pattern, name) for name in adapted):
                raise _no_module(field, pattern, adapted, "no module with an adapter has this name")


def _no_module(
    field: str, wanted: str, names: list[str], problem: str = "the model has no such module"
) -> ConfigError:
    last = sorted({name.rsplit(".", 1)[-1] for name in names} - set(map(str, range(1000))))
    hint = _hint(wanted, last, f"the modules are {', '.join(last)}")
    return ConfigError(f"{FIELD}.{field}", wanted, problem, hint)


def _refused(cfg: Any, error: Exception) -> ConfigError:
    """What PEFT says when it wraps a model, with the field that it is about."""
    arguments = adapter_arguments(cfg)
    if arguments.get("layers_to_transform") is not None:
        return ConfigError(
            f"{FIELD}.layers_to_transform",
            arguments["layers_to_transform"],
            f"PEFT cannot place the adapter ({error})",
            "name layers that the model has, counted from 0, or leave it out for all",
        )
    if "target" not in str(error).lower():
        return ConfigError(FIELD, arguments, f"PEFT refuses it: {error}", _REMEDY)
    return ConfigError(
        f"{FIELD}.target_modules",
        arguments.get("target_modules"),
        f"PEFT cannot place the adapter in this architecture ({error})",
        "name existing linear layers, e.g. target_modules: ['query', 'value'] for BERT and "
        "RoBERTa or ['q_proj', 'v_proj'] for LLaMA, or 'all-linear'",
    )

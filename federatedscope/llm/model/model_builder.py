"""Hugging Face models, with or without an adapter, from ``model.type``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError

from federatedscope.core.auxiliaries.worker_builder import get_server_cls
from federatedscope.core.errors import ConfigError
from federatedscope.core.precision import join_types
from federatedscope.core.task import SEQ_CLS, split_model_type, task_type
from federatedscope.llm.model.adapter_builder import add_adapter
from federatedscope.llm.model_files import modelscope
from fedfiles.hub import from_pretrained
from fedlora.heads import is_head


def load_config(cfg: Any) -> Any:
    """Hugging Face's configuration of the model, with the task's number of labels."""
    from transformers import AutoConfig

    name, _ = split_model_type(cfg.model.type)
    extra: dict[str, Any] = {}
    if task_type(cfg) == SEQ_CLS:
        kind = "regression" if cfg.data.num_labels == 1 else "single_label_classification"
        extra = {"num_labels": cfg.data.num_labels, "problem_type": kind}
    with _loading(cfg, "configuration", "check the name, or give a local folder in Hugging Face "
                  "format"):  # fmt: skip
        config = from_pretrained(AutoConfig, name, **_where(cfg), **extra)
    if getattr(config, "pad_token_id", None) is None:
        # Decoders that classify pool at the last token that is no padding.
        eos = getattr(config, "eos_token_id", None)
        config.pad_token_id = eos[0] if isinstance(eos, list) else eos
    return config


def _where(cfg: Any) -> dict[str, Any]:
    """The cache, and the version on the hub."""
    return {
        "cache_dir": cfg.llm.cache.model or None,
        "revision": cfg.model.get("revision") or None,
    }


@contextmanager
def _loading(cfg: Any, what: str, remedy: str) -> Iterator[None]:
    """Say what of the model cannot be loaded, and why."""
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        problem = f"its {what} cannot be loaded ({str(error).splitlines()[0]})"
        raise ConfigError("model.type", cfg.model.type, problem, remedy) from error


def _auto_class(task: str) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    return AutoModelForSequenceClassification if task == SEQ_CLS else AutoModelForCausalLM


def _check_decoder(config: Any, cfg: Any) -> None:
    """Refuse encoders for text generation: their tokens see the ones that come after them."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    kind = str(getattr(config, "model_type", ""))
    is_decoder = getattr(config, "is_decoder", False) or config.is_encoder_decoder
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not is_decoder:
        raise ConfigError(
            "model.type",
            cfg.model.type,
            f"a {kind} is an encoder, whose tokens see the answer that they are to generate",
            "give a decoder (LLaMA, Qwen, GPT, ...), or a classification task (data.type: "
            "TASK@glue)",
        )


def build_skeleton(cfg: Any) -> torch.nn.Module:
    """The model without storage: names, shapes and what is trainable, in a fraction of a second.

    Used to check ``target_modules``, ``personalization.local_param`` and memory before any
    weights are read.
    """
    config = load_config(cfg)
    if task_type(cfg) != SEQ_CLS:
        _check_decoder(config, cfg)
    with torch.device("meta"):
        model = _auto_class(task_type(cfg)).from_config(config)
    if cfg.llm.adapter.use:
        return _prepared(add_adapter(model, cfg, task_type(cfg), meta=True), cfg)
    return model


def _prepared(model: torch.nn.Module, cfg: Any) -> torch.nn.Module:
    """The model as head rule and method want it."""
    get_server_cls(cfg).prepare_model(model, cfg)
    if cfg.personalization.head == "frozen":
        for name, parameter in model.named_parameters():
            if is_head(name):
                parameter.requires_grad_(False)
    return model


def get_llm(cfg: Any, base_dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """Load the model and add its adapter.

    Parameters
    ----------
    cfg : CN
        ``model.type`` (``NAME_OR_PATH@huggingface_llm``), ``llm.adapter``, ``data.num_labels``.
    base_dtype : torch.dtype
        Of the frozen base. Trainable parameters are float32 in any case.

    Returns
    -------
    torch.nn.Module
        A ``PeftModel``, or the bare model without an adapter.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    task = task_type(cfg)
    name, hub = split_model_type(cfg.model.type)
    auto_class = _auto_class(task)
    if hub == "modelscope_llm":
        name = modelscope(cfg.model.type).snapshot_download(name)
    dtype = base_dtype if cfg.llm.adapter.use else torch.float32
    config = load_config(cfg)
    with _loading(cfg, "weights", "give a complete folder in Hugging Face format, or fetch the "
                  "model again"):  # fmt: skip
        model = from_pretrained(auto_class, name, config=config, dtype=dtype, **_where(cfg))
    if not cfg.llm.adapter.use:
        return model
    model = _prepared(add_adapter(model, cfg, task), cfg)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    join_types(model, base_dtype)
    return model

"""What a run is about, read from the configuration: task, adapter, whether clients exchange."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from federatedscope import register

SEQ_CLS = "SEQ_CLS"
CAUSAL_LM = "CAUSAL_LM"
OTHER = "OTHER"

ADAPTER_FIELD = "llm.adapter.args"

#: methods without communication: every client is a course of its own
ISOLATED_METHODS = ("local", "global")


def is_isolated(cfg: Any) -> bool:
    """Whether clients exchange nothing."""
    return str(cfg.federate.method).lower() in ISOLATED_METHODS


def split_model_type(model_type: str) -> tuple[str, str]:
    """``NAME_OR_PATH@huggingface_llm`` into name and hub; the hub is ``""`` for other models."""
    name, separator, hub = model_type.rpartition("@")
    if separator and hub in register.hub_dict:
        return name, hub
    return model_type, ""


def task_type(cfg: Any) -> str:
    """``SEQ_CLS`` when the data set has labels to classify, else ``CAUSAL_LM``.

    ``data.num_labels`` is set by the data builder (1 for regression); ``OTHER`` for models that
    are no Hugging Face models.
    """
    if not split_model_type(cfg.model.type)[1]:
        return OTHER
    if cfg.trainer.type.lower() == "llmtrainer":
        return CAUSAL_LM
    return SEQ_CLS if cfg.data.num_labels > 0 else CAUSAL_LM


def adapter_arguments(cfg: Any) -> dict[str, Any]:
    """The first entry of ``llm.adapter.args`` as a plain dict."""
    args = cfg.llm.adapter.args
    entry = args[0] if args else {}
    return {key: _plain(value) for key, value in dict(entry).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def adapter_method(cfg: Any) -> str:
    """``lora``, ``vera``, ... or ``""`` without an adapter."""
    if not cfg.llm.adapter.use:
        return ""
    return str(adapter_arguments(cfg).get("adapter_method", "lora")).lower()

"""What a model is built for, read from the configuration."""

from __future__ import annotations

from typing import Any

SEQ_CLS = "SEQ_CLS"
CAUSAL_LM = "CAUSAL_LM"
OTHER = "OTHER"

HUBS = ("huggingface_llm", "modelscope_llm")


def split_model_type(model_type: str) -> tuple[str, str]:
    """``NAME_OR_PATH@huggingface_llm`` into name and hub; the hub is ``""`` for other models."""
    name, separator, hub = model_type.rpartition("@")
    if separator and hub in HUBS:
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

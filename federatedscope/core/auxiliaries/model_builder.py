"""Which model a run trains."""

from __future__ import annotations

from typing import Any

import torch

from federatedscope import register
from federatedscope.core.errors import ConfigError
from federatedscope.llm.task import split_model_type


def get_model(
    cfg: Any, local_data: Any = None, base_dtype: torch.dtype = torch.float32
) -> torch.nn.Module:
    """Build the model: registered builders first, then Hugging Face models.

    Parameters
    ----------
    cfg : CN
        The run's configuration.
    local_data : object, optional
        A participant's data; its input shape is passed on to registered builders.
    base_dtype : torch.dtype
        Of a frozen Hugging Face base.

    Raises
    ------
    ConfigError
        Nobody builds ``model.type``.
    """
    for builder in register.model_dict.values():
        model = builder(cfg.model, input_shape(local_data))
        if model is not None:
            return model
    if split_model_type(cfg.model.type)[1]:
        from federatedscope.llm.model.model_builder import get_llm

        return get_llm(cfg, base_dtype)
    raise unknown_model(cfg)


def unknown_model(cfg: Any) -> ConfigError:
    """The error for a ``model.type`` that nobody builds."""
    known = ", ".join(sorted(register.model_dict)) or "none"
    return ConfigError(
        "model.type",
        cfg.model.type,
        "no model of this name is registered",
        "Use NAME_OR_PATH@huggingface_llm for Hugging Face models, or register a builder with "
        f"federatedscope.register.register_model (registered: {known})",
    )


def input_shape(local_data: Any) -> tuple[int, ...] | None:
    """Shape of one row's features, where rows are ``(features, label)`` pairs of tensors."""
    dataset = getattr(local_data, "train_data", None)
    if dataset is None or not len(dataset):
        return None
    row = dataset[0]
    if isinstance(row, tuple | list) and hasattr(row[0], "shape"):
        return tuple(row[0].shape)
    return None

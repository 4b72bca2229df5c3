"""Which model a run trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from federatedscope import register
from federatedscope.core.data.utils import isolated_rng
from federatedscope.core.errors import ConfigError
from federatedscope.core.task import split_model_type


def get_model(
    cfg: Any, local_data: Any = None, base_dtype: torch.dtype = torch.float32
) -> torch.nn.Module:
    """Build the model: registered builders first, then Hugging Face models.

    Parameters
    ----------
    cfg : CN
        The run's configuration; a :class:`ConfigError` where nobody builds ``model.type``.
    local_data : object, optional
        A participant's data; its input shape is passed on to registered builders.
    base_dtype : torch.dtype
        Of a frozen Hugging Face base.
    """
    for builder in register.model_dict.values():
        model = builder(cfg.model, input_shape(local_data))
        if model is not None:
            return model
    hub = split_model_type(cfg.model.type)[1]
    if not hub:
        raise unknown_model(cfg)
    built: torch.nn.Module = register.hub_dict[hub].build(cfg, base_dtype)
    return built


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


def input_shape(local_data: Any) -> Any:
    """What registered builders are told about the features that the model will see, from a
    participant's splits.

    Returns
    -------
    tuple of int, int or None
        Of datasets with ``(features, label)`` rows the shape of one row's features; of loaders
        that of a batch's, ``(rows, ...)``; of arrays ``{'x', 'y'}`` that of ``x``, ``(rows, ...)``,
        or 1 where ``x`` has one axis. The last axes are the same in all of them. ``None`` where
        features have no shape.

    Notes
    -----
    A builder that counts axes from the end (``input_shape[-1]``) suits every kind of data.
    """
    split = _representative(local_data)
    if isinstance(split, Mapping) and "x" in split:
        shape = np.shape(split["x"])
        return 1 if len(shape) == 1 else shape
    if isinstance(split, DataLoader):
        return _shape_of(_first_batch(split))
    if not hasattr(split, "__getitem__") or isinstance(split, Mapping) or not len(split):
        return None
    return _shape_of(split[0])


def _representative(local_data: Any) -> Any:
    """The split that stands for all: the training rows, of loose splits the test rows first."""
    if hasattr(local_data, "train_data"):
        return local_data.train_data
    if not isinstance(local_data, Mapping):
        return None
    present = [name for name in ("test", "val", "train") if local_data.get(name) is not None]
    return local_data[present[0]] if present else None


def _first_batch(loader: Any) -> Any:
    """A batch, drawn without moving the random numbers of the run or of the loader."""
    own = getattr(loader, "generator", None)
    state = None if own is None else own.get_state()
    with isolated_rng(0):
        batch = next(iter(loader), None)
    if own is not None:
        own.set_state(state)
    return batch


def _shape_of(pair: Any) -> tuple[int, ...] | None:
    """Of the features in ``(features, label)``; of several features the first one's."""
    if not isinstance(pair, tuple | list) or not pair:
        return None
    features = pair[0][0] if isinstance(pair[0], list) and pair[0] else pair[0]
    return tuple(features.shape) if hasattr(features, "shape") else None

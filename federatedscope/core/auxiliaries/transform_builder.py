"""Data transforms by name, from an extension or from a package's ``transforms``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from federatedscope import register
from federatedscope.core.errors import ConfigError

Transforms = dict[str, Any]
_NAMES = ("transform", "target_transform", "pre_transform")


def get_transform(config: Any, package: str) -> tuple[Transforms, Transforms, Transforms]:
    """Build the transforms of the three splits.

    Parameters
    ----------
    config : CN
        Reads ``data.transform``, ``data.target_transform``, ``data.pre_transform`` and the same
        with ``val_`` and ``test_`` before it: lists ``[[type, {arguments}], ...]``.
    package : str
        Where types that no extension registered are looked up, e.g. ``torchvision``.

    Returns
    -------
    tuple of dict
        For training, validation and test; the last two take training's where they have none.

    Raises
    ------
    ConfigError
        The package is not installed or has no such transform.
    """
    train = _split_transforms(config, package, "")
    val = _split_transforms(config, package, "val_")
    test = _split_transforms(config, package, "test_")
    return train, val or train, test or train


def _split_transforms(config: Any, package: str, prefix: str) -> Transforms:
    return {
        name: _convert(f"data.{prefix}{name}", config.data[prefix + name], package)
        for name in _NAMES
        if config.data[prefix + name]
    }


def _convert(field: str, entry: list[Any], package: str) -> Any:
    if not isinstance(entry[0], str):
        steps = [_convert(field, step, package) for step in entry]
        compose = getattr(_transforms_of(field, package), "Compose", None)
        return compose(steps) if compose is not None else steps
    kind, arguments = entry[0], dict(entry[1]) if len(entry) > 1 else {}
    registered = register.first_answer(register.transform_dict, kind, arguments)
    if registered is not None:
        return registered
    transform = getattr(_transforms_of(field, package), kind, None)
    if transform is None:
        raise ConfigError(
            field, kind, f"{package}.transforms has no such transform", "correct the name"
        )
    return transform(**arguments)


def _transforms_of(field: str, package: str) -> Any:
    try:
        return import_module(f"{package}.transforms")
    except ImportError as error:
        raise ConfigError(
            field, package, f"{package} is not installed", f"Install it: pip install {package}"
        ) from error

"""Data transforms by name, from an extension or from a package's ``transforms``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from federatedscope.core.auxiliaries.resolve import look_up, resolve
from federatedscope.core.errors import ConfigError

Transforms = dict[str, Any]
_NAMES = ("transform", "target_transform", "pre_transform")


def get_transform(config: Any, package: str) -> tuple[Transforms, Transforms, Transforms]:
    """Build the transforms of the three splits.

    Reads ``data.transform``, ``data.target_transform``, ``data.pre_transform`` and the same with
    ``val_`` and ``test_`` before it: lists ``[[type, {arguments}], ...]``. Types that no extension
    registered are looked up in a ``package``, e.g. ``torchvision``. Validation and test take
    training's where they have none. A :class:`ConfigError` where the package is not installed or
    has no such transform.
    """
    train, val, test = (
        {
            name: _convert(f"data.{prefix}{name}", config.data[prefix + name], package)
            for name in _NAMES
            if config.data[prefix + name]
        }
        for prefix in ("", "val_", "test_")
    )
    return train, val or train, test or train


def _convert(field: str, entry: list[Any], package: str) -> Any:
    if not isinstance(entry[0], str):
        steps = [_convert(field, step, package) for step in entry]
        compose = getattr(_transforms_of(field, package), "Compose", None)
        return compose(steps) if compose is not None else steps
    kind, arguments = entry[0], dict(entry[1]) if len(entry) > 1 else {}

    def of_package() -> Any:
        known = vars(_transforms_of(field, package))
        return look_up("transform", field, kind, known)(**arguments)

    return resolve("transform", of_package, kind, arguments)


def _transforms_of(field: str, package: str) -> Any:
    try:
        return import_module(f"{package}.transforms")
    except ImportError as error:
        problem = f"{package} is not installed"
        raise ConfigError(field, package, problem, f"Install it: pip install {package}") from error

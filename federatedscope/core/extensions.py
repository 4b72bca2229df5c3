"""Importing extensions: modules that ``extensions`` names, and the files under ``contrib``."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from federatedscope import contrib
from federatedscope.core.errors import ConfigError, UserError

__all__ = ["contrib_modules", "load_extensions"]


def load_extensions(names: Iterable[str]) -> list[ModuleType]:
    """Import every contrib file, then the named modules (``["federatedscope_ext"]``) in the given
    order; returns the latter.

    A package's sub-package ``tools`` is imported after it, where there is one: what stands above
    the package and registers something, such as a callback. Importing a module twice has no effect,
    so the call can be repeated.

    Raises
    ------
    ConfigError
        A named module, or one that it imports, does not exist.
    UserError
        A contrib file cannot be imported; names the file.
    """
    for name, file in contrib_modules():
        _import_contrib(name, file)
    return [_import_extension(name) for name in names]


def contrib_modules(package: ModuleType = contrib) -> list[tuple[str, Path]]:
    """``(module name, file)`` of every file under ``package``'s folders, in alphabetical order.

    Files whose name starts with an underscore are left out.
    """
    return [
        (f"{package.__name__}.{file.parent.name}.{file.stem}", file)
        for root in sorted(package.__path__)
        for file in sorted(Path(root).glob("*/*.py"))
        if not file.name.startswith("_")
    ]


def _import_contrib(name: str, file: Path) -> None:
    """Import one contrib file."""
    try:
        importlib.import_module(name)
    except (ImportError, SyntaxError) as error:
        raise UserError(
            f"{file}: the file cannot be imported ({error}). Every Python file in that folder is"
            " imported at the start: repair it, move it away, or let its name start with '_'."
        ) from error


def _import_extension(name: str) -> ModuleType:
    """Import one module of ``extensions``, and what stands above it."""
    module = _import_named(name)
    tools = f"{name}.tools"
    if hasattr(module, "__path__") and find_spec(tools) is not None:
        _import_named(tools)
    return module


def _import_named(name: str) -> ModuleType:
    """Import one module of ``extensions``."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            problem = "no such module"
            remedy = "Start from the folder that contains it, put that folder on PYTHONPATH, or "
            remedy += "take the name out of 'extensions'"
        elif missing.startswith(f"{name}."):
            problem = f"its part {missing} is missing"
            remedy = "The package is incomplete: install it again, or take it out of 'extensions'"
        else:
            problem = f"it imports {missing}, which is not installed"
            remedy = f"Install {missing}, or take {name} out of 'extensions'"
        raise ConfigError("extensions", name, problem, remedy) from error
    except (ImportError, SyntaxError) as error:
        problem = f"it cannot be imported ({error})"
        remedy = "Repair the module, or take the name out of 'extensions'"
        raise ConfigError("extensions", name, problem, remedy) from error

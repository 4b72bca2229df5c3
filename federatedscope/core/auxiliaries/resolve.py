"""From a name in the configuration to what it stands for: where all builders look."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, TypeVar

from federatedscope import register
from federatedscope.core.configs.node import BOOKKEEPING
from federatedscope.core.errors import ConfigError

__all__ = ["build", "check_arguments", "classes_of", "look_up", "own_arguments", "resolve"]

T = TypeVar("T")


def resolve(kind: str, built_in: Callable[[], Any], /, *asked: Any, **arguments: Any) -> Any:
    """The first answer of the builders of ``register_KIND``, which are called with ``asked`` and
    ``arguments``; that of ``built_in()`` where they have none.
    """
    answer = register.first_answer(getattr(register, f"{kind}_dict"), *asked, **arguments)
    return built_in() if answer is None else answer


_NOUNS = {"criterion": "loss", "scheduler": "schedule"}
"""What users call a kind, where it is not the registry's word."""


def look_up(kind: str, field: str, name: Any, known: Mapping[str, T]) -> T:
    """What ``name``, the value of the key ``field``, stands for among the built-in ones of a kind.
    Where there is none, a :class:`ConfigError` with the nearest that is built in or registered.
    """
    if name in known:
        return known[name]
    problem = f"no {_NOUNS.get(kind, kind)} of this name is built in or registered"
    builders = getattr(register, f"{kind}_dict")
    names = {*known, *builders, *getattr(builders, "built_in", ())}
    more = ", or name the module that registers it in extensions"
    raise ConfigError(field, name, problem, _suggest(name, names, more))


def classes_of(module: ModuleType, base: type, *without: str) -> dict[str, Any]:
    """The public subclasses of ``base`` that a module has, but for some."""
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, base) and value is not base
        if not name.startswith("_") and name not in without
    }


def own_arguments(section: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments in a section of the configuration, without upstream's bookkeeping."""
    return {key: value for key, value in section.items() if key not in BOOKKEEPING}


def build(
    kind: str,
    field: str,
    type: str,
    known: Mapping[str, Callable[..., Any]],
    first: Any,
    arguments: Mapping[str, Any],
) -> Any:
    """The class that the section ``field`` names with its ``type``, called with ``first`` and the
    section's arguments; what it refuses is an error of the section.
    """
    cls = look_up(kind, f"{field}.type", type, known)
    check_arguments(field, type, arguments, list(inspect.signature(cls).parameters)[1:])
    try:
        return cls(first, **arguments)
    except (TypeError, ValueError) as error:
        remedy = f"change what it names; these are the arguments of the class {type}"
        given = {"type": type, **arguments}
        raise ConfigError(field, given, f"{type} refuses it: {error}", remedy) from error


def check_arguments(
    field: str, type: str, arguments: Mapping[str, Any], accepted: Iterable[str]
) -> None:
    """Refuse arguments that a class does not take."""
    names = set(accepted)
    for key, value in arguments.items():
        if key not in names:
            problem = f"{type} has no such argument"
            raise ConfigError(f"{field}.{key}", value, problem, _suggest(key, names))


def _suggest(given: object, known: Iterable[str], more: str = "") -> str:
    """``did you mean X?`` for the nearest known name, or the list of them and what else helps."""
    names = sorted(known)
    folded = {name.lower(): name for name in names}
    near = difflib.get_close_matches(str(given).lower(), folded, n=1)
    listed = f"write one of {', '.join(names)}{more}"
    return f"did you mean {folded[near[0]]!r}?" if near else listed

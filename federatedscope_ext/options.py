"""Configuration keys of the extension: those of all methods, and their checks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from federatedscope import register
from federatedscope.core.configs.config import CN, global_cfg
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.methods.method import METHODS, Option

__all__ = ["add_options", "add_options_late", "check_options"]

#: keys that concern every rule of this extension
GENERAL = (
    Option(
        "aggregator",
        "diagnostics",
        True,
        "Record in every round the effective rank of the aggregated update, the energy that each"
        " rank keeps, and the errors of factor means and of the method; costs an SVD per module.",
    ),
)
# FederatedScope itself has built its configuration by the time that it imports extensions.
_IS_LATE = not hasattr(register, "register_ranks")


def _options() -> list[Option]:
    return [*GENERAL, *(option for method in METHODS.values() for option in method.options)]


def add_options(cfg: Any) -> None:
    """Add the keys of all methods to a configuration tree, and the check of their values."""
    _add(cfg, _options())
    cfg.register_cfg_check_fun(check_options)


def add_options_late(options: Iterable[Option]) -> None:
    """Add a method's keys to a configuration that has been built already."""
    if _IS_LATE:
        _add(global_cfg, options)


def _add(cfg: Any, options: Iterable[Option]) -> None:
    ours = {(o.section, o.name) for o in _options()}
    for option in options:
        if option.section not in cfg:
            cfg[option.section] = CN()
        section = cfg[option.section]
        taken = not isinstance(section, CN) or option.name in section
        if taken and ((option.section, option.name) not in ours or not isinstance(section, CN)):
            field = f"{option.section}.{option.name}"
            raise ExtensionError(field, option.default, "the key is taken", "Choose another name")
        section[option.name] = option.default
        # FederatedScope's own tree has no descriptions.
        if hasattr(section, "describe"):
            section.describe(option.name, option.help, option.choices, option.of_client)


def check_options(cfg: Any) -> None:
    """Refuse values that are out of range, and what a method says it cannot be combined with.

    Raises
    ------
    ExtensionError
        With the bounds.
    """
    for option in _options():
        value = cfg[option.section][option.name]
        problem = ""
        if option.choices and value not in option.choices:
            problem, remedy = "not one of the possible values", f"Write {option.choices}"
        elif isinstance(value, int | float) and not option.low <= value <= option.high:
            problem, remedy = "out of range", f"Write {option.low:g} to {option.high:g}"
        if problem:
            raise ExtensionError(f"{option.section}.{option.name}", value, problem, remedy)
    _check_server_rules(cfg)
    for method in METHODS.values():
        if method.check is not None:
            method.check(cfg)


def _check_server_rules(cfg: Any) -> None:
    """A method that combines uploads in its own way leaves nothing to another server rule."""
    method = METHODS.get(cfg.federate.method.lower())
    if method is None or method.rule is None:
        return
    for field, value, off in (
        ("aggregator.robust_rule", cfg.aggregator.robust_rule, "fedavg"),
        ("fedopt.use", cfg.fedopt.use, False),
    ):
        if value != off:
            raise ExtensionError(
                field,
                value,
                f"federate.method {method.key} combines uploads in its own way",
                f"Write {field}: {off}, or federate.method: FedAvg",
            )


register.register_config("federatedscope_ext.options", add_options)
if _IS_LATE:
    _add(global_cfg, GENERAL)
    global_cfg.register_cfg_check_fun(check_options)

"""The switches that change what a method does, and that its name does not tell."""

from __future__ import annotations

from typing import Any

from federatedscope.core.configs.ranges import value_of
from federatedscope.core.sharing import settled

__all__ = ["method_options"]

# What a method may turn on by itself; such a switch is a part of its name.
_SWITCHES = ("fedopt.use", "fedprox.use", "federate.freeze_A")


def method_options(cfg: Any) -> dict[str, Any]:
    """What is on beside the method.

    Parameters
    ----------
    cfg : CN
        The settled configuration.

    Returns
    -------
    dict
        Any of ``fedopt`` (``{'optimizer', 'lr'}``), ``fedprox`` (``{'mu'}``), ``robust_rule`` (its
        name), ``finetune``, ``freeze_A`` and ``shared_module`` (``True``).
    """
    implied = _implied_by_method(cfg)
    options: dict[str, Any] = {}
    if cfg.fedopt.use and "fedopt.use" not in implied:
        optimizer = cfg.fedopt.optimizer
        options["fedopt"] = {"optimizer": optimizer.type, "lr": optimizer.lr}
    if cfg.fedprox.use and "fedprox.use" not in implied:
        options["fedprox"] = {"mu": cfg.fedprox.mu}
    if cfg.aggregator.robust_rule.lower() != "fedavg":
        options["robust_rule"] = cfg.aggregator.robust_rule
    if cfg.finetune.before_eval:
        options["finetune"] = True
    if cfg.federate.freeze_A and "federate.freeze_A" not in implied:
        options["freeze_A"] = True
    if cfg.federate.shared_module:
        options["shared_module"] = True
    return options


def _implied_by_method(cfg: Any) -> frozenset[str]:
    """The switches that settling the method turns on when the user left all of them off."""
    bare = cfg.clone()
    bare.defrost()
    bare.merge_from_list([part for switch in _SWITCHES for part in (switch, False)])
    try:
        bare = settled(bare)
    except ValueError:
        # The method asks for a switch instead of setting it.
        return frozenset()
    return frozenset(switch for switch in _SWITCHES if value_of(bare, switch))

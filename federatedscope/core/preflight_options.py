"""The switches that change what a method does, and that its name does not tell."""

from __future__ import annotations

from typing import Any

from federatedscope.core.configs.ranges import value_of
from federatedscope.core.sharing import settled

__all__ = ["method_options"]

# What a method may turn on by itself; such a switch is a part of its name.
_SWITCHES = ("fedopt.use", "fedprox.use", "federate.freeze_A")


def method_options(cfg: Any) -> dict[str, Any]:
    """What the settled configuration has on beside the method: any of ``fedopt`` (``{'optimizer',
    'lr'}``), ``fedprox`` (``{'mu'}``), ``robust_rule`` (its name), ``finetune``, ``freeze_A`` and
    ``shared_module`` (``True``).
    """
    chosen = {s for s in _SWITCHES if value_of(cfg, s)} - _implied_by_method(cfg)
    optimizer, rule = cfg.fedopt.optimizer, cfg.aggregator.robust_rule
    options = {
        "fedopt": "fedopt.use" in chosen and {"optimizer": optimizer.type, "lr": optimizer.lr},
        "fedprox": "fedprox.use" in chosen and {"mu": cfg.fedprox.mu},
        "robust_rule": rule.lower() != "fedavg" and rule,
        "finetune": bool(cfg.finetune.before_eval),
        "freeze_A": "federate.freeze_A" in chosen,
        "shared_module": bool(cfg.federate.shared_module),
    }
    return {name: value for name, value in options.items() if value}


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

"""Configuration keys of the extension's methods.

Each key has its default, a line of help and, where only some values make sense, the choices.
Checks of the values are in :func:`check_options`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from federatedscope import register
from federatedscope.core.configs.config import CN, global_cfg
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.methods import METHODS

__all__ = ["OPTIONS", "Option", "add_options", "check_options"]


@dataclass(frozen=True)
class Option:
    """One key.

    Attributes
    ----------
    section, name : str
        ``section.name`` is the dotted key.
    default : object
        Its type is the accepted one.
    help : str
        One line.
    choices : tuple of str
        Accepted values; empty for any.
    low, high : float
        Bounds of a number, both allowed.
    """

    section: str
    name: str
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    low: float = float("-inf")
    high: float = float("inf")


# fmt: off
OPTIONS = (
    Option("aggregator", "diagnostics", True, "Record in every round the effective rank of the"
           " aggregated update, the energy that each rank keeps, and the errors of factor means and"
           " of the method; costs an SVD per module."),
    Option("flexlora", "dtype", "float32", "Precision of FlexLoRA's and FedSVD's decomposition.",
           ("float32", "float64")),
    Option("flexlora", "path", "auto", "How it decomposes: stacked factors, the dense matrix, or"
           " the cheaper of the two.", ("auto", "stacked", "dense")),
    Option("fedrot", "strength", 1.0, "How far FedRot turns factors towards the server's: 0 not at"
           " all, 1 all the way.", low=0.0, high=1.0),
    Option("hetlora", "gamma", 0.99, "HetLoRA's self-pruning: the share of its rank that a client"
           " keeps when it pays; 1 prunes nothing.", low=0.0, high=1.0),
    Option("hetlora", "regularization", 0.005, "HetLoRA's penalty on the norm of the last ranks.",
           low=0.0),
    Option("slora", "rounds", 0, "SLoRA's first stage: so many rounds train a sparse update of the"
           " frozen weights, whose SVD starts the adapters. 0 leaves it out; federate.method slora"
           " takes a tenth.", low=0),
    Option("slora", "density", 0.0, "Share of a weight matrix that the first stage trains; 0 for as"
           " many numbers as the LoRA factors of the module have.", low=0.0, high=1.0),
)
# fmt: on


def add_options(cfg: Any) -> None:
    """Add the keys to a configuration tree, and the check of their values."""
    for option in OPTIONS:
        if option.section not in cfg:
            cfg[option.section] = CN()
        section = cfg[option.section]
        section[option.name] = option.default
        # FederatedScope's own tree has no descriptions.
        if hasattr(section, "describe"):
            section.describe(option.name, option.help, option.choices)
    cfg.register_cfg_check_fun(check_options)


def check_options(cfg: Any) -> None:
    """Refuse values that are out of range.

    Raises
    ------
    ExtensionError
        With the bounds.
    """
    for option in OPTIONS:
        value = cfg[option.section][option.name]
        problem = ""
        if option.choices and value not in option.choices:
            problem, remedy = "not one of the possible values", f"Write {option.choices}"
        elif isinstance(value, int | float) and not option.low <= value <= option.high:
            problem, remedy = "out of range", f"Write {option.low:g} to {option.high:g}"
        if problem:
            raise ExtensionError(f"{option.section}.{option.name}", value, problem, remedy)
    _check_server_rules(cfg)
    rounds, every = cfg.slora.rounds, cfg.federate.total_round_num
    if rounds and rounds >= every:
        problem = f"of {every} rounds none is left for the adapters"
        raise ExtensionError("slora.rounds", rounds, problem, "Write fewer")


def _check_server_rules(cfg: Any) -> None:
    """A method that combines uploads in its own way leaves nothing to another server rule."""
    method = cfg.federate.method.lower()
    if cfg.fedopt.use and (cfg.slora.rounds or method == "slora"):
        raise ExtensionError(
            "fedopt.use",
            True,
            "SLoRA's two stages send different tensors, which a server's optimizer cannot follow",
            "Write fedopt.use: False",
        )
    if method not in METHODS or method in ("fedsa", "ffa", "slora", "feddpa"):
        return
    for field, value, off in (
        ("aggregator.robust_rule", cfg.aggregator.robust_rule, "fedavg"),
        ("fedopt.use", cfg.fedopt.use, False),
    ):
        if value != off:
            raise ExtensionError(
                field,
                value,
                f"federate.method {method} combines uploads in its own way",
                f"Write {field}: {off}, or federate.method: FedAvg",
            )


register.register_config("federatedscope_ext.options", add_options)
if not hasattr(register, "register_ranks"):
    # FederatedScope itself has built its configuration by the time that it imports extensions.
    add_options(global_cfg)

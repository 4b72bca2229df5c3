"""What this version does not run, and what to write instead.

A configuration that merely mentions such a feature loads; :func:`check_runnable` refuses one that
turns it on, by name and before anything else starts. It asks the registry first, so a method,
trainer, model or data set that an extension brings is accepted; call it after the extensions
were imported.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from federatedscope import register
from federatedscope.core.configs.foreign import (
    FOREIGN_DATA,
    FOREIGN_DATA_PACKAGES,
    FOREIGN_MODELS,
    FOREIGN_SPLITTERS,
    FOREIGN_TRAINERS,
)
from federatedscope.core.configs.node import CN
from federatedscope.core.configs.ranges import method_of, value_of
from federatedscope.core.configs.refusal_table import (
    OTHER_METHODS,
    OTHER_WORDS,
    OUTSIDE,
    REFUSALS,
    Refusal,
)
from federatedscope.core.errors import ConfigError

__all__ = ["BUILT_IN_METHODS", "REFUSALS", "Refusal", "check_runnable", "known_methods"]

BUILT_IN_METHODS = ("fedavg", "fedopt", "fedprox", "local", "global")
"""Methods the runtime has itself; extensions register more."""

_BUILT_IN_TRAINERS = ("general", "llmtrainer")


def known_methods() -> list[str]:
    """Names of ``federate.method`` that run: the built-in ones, and those that an extension has.

    Builders are asked about the names in the project's tables and about their own keys.
    """
    rules = {key.lower() for key in register.aggregator_dict}
    candidates = {*rules, *map(str.lower, register.worker_dict), *OTHER_METHODS}
    workers = {n for n in candidates if register.first_answer(register.worker_dict, n) is not None}
    return sorted({*BUILT_IN_METHODS, *rules, *workers})


def check_runnable(cfg: CN) -> None:
    """Refuse what this version does not run.

    Parameters
    ----------
    cfg : CN
        The merged configuration; extensions are imported already.

    Raises
    ------
    ConfigError
        Naming the key, the feature, and what to write instead.
    """
    _check_switches(cfg)
    _check_method(cfg)
    _check_trainer(cfg)
    _check_data_type(cfg)
    _check_splitter(cfg)
    _check_model_type(cfg)


def _check_switches(cfg: CN) -> None:
    """The features that a key alone turns on; the error explains the first and names the rest."""
    found = [r for r in REFUSALS if r.applies(value_of(cfg, r.field))]
    if found:
        field, problem = found[0].field, f"{found[0].feature} {found[0].reason}"
        also = f". Also refused: {', '.join(r.field for r in found[1:])}" if found[1:] else ""
        raise ConfigError(field, value_of(cfg, field), problem, f"{found[0].remedy}{also}")


def _check_method(cfg: CN) -> None:
    """The method is built in, or a registered worker or aggregator answers for it."""
    method = method_of(cfg)
    if (
        method in BUILT_IN_METHODS
        or register.first_answer(register.worker_dict, method)
        or method in {key.lower() for key in register.aggregator_dict}
        or register.first_answer(
            register.aggregator_dict, method, model=None, device="cpu", config=cfg
        )
        is not None
    ):
        return
    here = f"Methods here: {', '.join(known_methods())}"
    problem = "unknown method"
    if method in OTHER_METHODS:
        problem, remedy = f"{OTHER_METHODS[method]} {OUTSIDE}", here
    elif method in OTHER_WORDS:
        problem, remedy = "not a name of a method here", OTHER_WORDS[method]
    else:
        remedy = f"{_near(method, known_methods())}{here}; others need a module that registers them"
        remedy += f" in 'extensions', which has {list(cfg.extensions)}"
    raise ConfigError("federate.method", cfg.federate.method, problem, remedy)


def _near(name: str, known: Iterable[str]) -> str:
    """A question for the nearest known name, or an empty text."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"Did you mean {near[0]}? " if near else ""


def _check_trainer(cfg: CN) -> None:
    """The trainer is built in or registered."""
    kind = cfg.trainer.type
    if kind.lower() in _BUILT_IN_TRAINERS or (
        register.first_answer(register.trainer_dict, kind) is not None
    ):
        return
    names = sorted({*_BUILT_IN_TRAINERS, *register.trainer_dict})
    domain = FOREIGN_TRAINERS.get(kind.lower())
    problem = f"the trainer for {domain} {OUTSIDE}" if domain else "unknown trainer"
    hint = "" if domain else _near(kind.lower(), names)
    raise ConfigError("trainer.type", kind, problem, f"{hint}Trainers here: {', '.join(names)}")


def _registered(name: str, keys: Iterable[str]) -> bool:
    """Whether a builder carries this name (builders cannot be asked without building)."""
    parts = {name.lower(), *name.lower().split("@")}
    return any(key.lower() in parts for key in keys)


def _check_data_type(cfg: CN) -> None:
    """The data set does not belong to another domain."""
    kind = cfg.data.type
    if _registered(kind, register.data_dict):
        return
    name, _, package = kind.lower().partition("@")
    domain = FOREIGN_DATA_PACKAGES.get(package) if package else FOREIGN_DATA.get(name)
    if domain is None and not package:
        domain = next((d for n, d in FOREIGN_DATA.items() if name.startswith(f"{n}_")), None)
    if domain is None and kind:
        return
    no_choice = kind in ("", "toy")
    problem = "no data set is chosen" if no_choice else f"data of {domain} are outside this project"
    remedy = "Write for example sst2@glue, gsm8k@llm, FILE.jsonl@llm, or the name of a registered"
    raise ConfigError("data.type", kind, problem, f"{remedy} data set")


def _check_splitter(cfg: CN) -> None:
    """The splitter does not belong to another domain."""
    kind = cfg.data.splitter
    if kind in FOREIGN_SPLITTERS and not _registered(kind, register.splitter_dict):
        problem = f"the splitter for {FOREIGN_SPLITTERS[kind]} {OUTSIDE}"
        raise ConfigError("data.splitter", kind, problem, "Write iid, lda or meta")


def _check_model_type(cfg: CN) -> None:
    """The model does not belong to another domain."""
    kind = cfg.model.type
    if _registered(kind, register.model_dict):
        return
    name, _, package = kind.lower().partition("@")
    domain = FOREIGN_MODELS.get("gcn" if name.startswith("gnn_") else name)
    remedy = "Write NAME_OR_PATH@huggingface_llm, or the name of a registered model"
    if package == "transformers":
        remedy = f"Write {kind.split('@')[0]}@huggingface_llm"
        domain = "FederatedScope's older text tasks"
    elif package and not name.startswith("gnn_"):
        domain = None
    if domain is not None or not kind:
        no_choice = kind in ("", "lr")
        problem = "no model is chosen" if no_choice else f"the model for {domain} {OUTSIDE}"
        raise ConfigError("model.type", kind, problem, remedy)

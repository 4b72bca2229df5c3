"""Checks of a complete configuration: ranges, contradictions, and values derived from others.

They run in :meth:`~federatedscope.core.configs.node.CN.assert_cfg` and
:meth:`~federatedscope.core.configs.node.CN.freeze`, before data or a model are touched. Each may
run any number of times on the same tree.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from federatedscope import register
from federatedscope.core.configs.cfg_data import MOVED
from federatedscope.core.configs.checks_federation import (
    PERSONALIZATION,
    check_clients,
    check_evaluation_scope,
    check_robust_rule,
)
from federatedscope.core.configs.node import CN
from federatedscope.core.configs.ranges import (
    RANGES,
    Check,
    adapter_method,
    method_of,
    refuse,
    value_of,
)
from federatedscope.core.configs.values import is_number
from federatedscope.core.errors import ConfigError

__all__ = ["check_configuration"]

logger = logging.getLogger(__name__)

_SUBSETS = {
    "eval.split": ("train", "val", "test"),
    "eval.phases": ("before", "after"),
    "eval.report": ("weighted_avg", "avg", "fairness", "raw"),
}

# Data sets that come divided into clients; without a data.splitter they stay so.
_WITH_CLIENTS = ("natural_instructions@llm",)


def check_configuration(cfg: CN) -> None:
    """Everything, in the order in which values follow from others."""
    _move_old_loader_keys(cfg)
    for bounds in RANGES:
        bounds.check(value_of(cfg, bounds.field))
    _check_lists(cfg)
    check_clients(cfg)
    check_evaluation_scope(cfg)
    refuse(cfg, *_BEST_KEY, *_DATA, *_TRAINING)
    _inherit_training(cfg)
    _check_adapter(cfg)
    refuse(cfg, *PERSONALIZATION)
    check_robust_rule(cfg)
    refuse(cfg, *_FILES)


def _move_old_loader_keys(cfg: CN) -> None:
    """Take ``data.batch_size`` and its like over to ``dataloader``, where they live now."""
    for old, (new, default) in MOVED.items():
        value, current = cfg.data[old], cfg.dataloader[new]
        if value == default:
            continue
        if current not in (cfg.dataloader.info(new).default, value):
            problem = f"dataloader.{new} says {current!r} and data.{old}, its older name,"
            remedy = f"Keep dataloader.{new} and delete data.{old}"
            raise ConfigError(f"data.{old}", value, f"{problem} says otherwise", remedy)
        logger.warning("data.%s is the older name of dataloader.%s; taken over.", old, new)
        cfg.dataloader[new] = value
        cfg.data[old] = default


def _check_lists(cfg: CN) -> None:
    """Lists that may only hold certain words."""
    for field, words in _SUBSETS.items():
        value = value_of(cfg, field)
        strange = [item for item in value if item not in words]
        if strange or not value:
            problem = f"{strange[0]!r} is not possible" if strange else "the list is empty"
            raise ConfigError(field, value, problem, f"Choose among {', '.join(words)}")


def _inherit_training(cfg: CN) -> None:
    """Values that a personal model takes from the common ones."""
    if cfg.fedprox.use and cfg.fedprox.mu == 0:
        logger.warning("fedprox.use is on with fedprox.mu 0: the same as FedAvg.")
    personal = cfg.personalization
    if personal.local_update_steps == -1:
        personal.local_update_steps = cfg.train.local_update_steps
    if personal.lr <= 0:
        personal.lr = cfg.train.optimizer.lr


def _has_classes(cfg: CN) -> bool:
    """Whether the data are texts with classes."""
    return bool(cfg.data.type.lower().endswith(("@glue", "@text")))


def _unknown_split(cfg: CN) -> str:
    """A better key where the best round's key does not start with a split."""
    split, _, metric = cfg.eval.best_res_update_round_wise_key.partition("_")
    known = split in cfg.eval.split and metric
    return "" if known else f"{cfg.eval.split[0]}_{metric or 'loss'}"


def _uncomputed_metric(cfg: CN) -> str:
    """The metric of the best round's key where evaluation does not produce it."""
    metric = cfg.eval.best_res_update_round_wise_key.partition("_")[2]
    wanted = list(cfg.eval.metrics)
    if not wanted and _has_classes(cfg):
        return ""  # the task brings its own metrics; asked again once it has
    answers = (builder(wanted) for builder in list(register.metric_dict.values()))
    known = [str(answer[0]) for answer in answers if answer is not None]
    # `rouge@l` is reported under a name of its own making, `rouge_l`.
    families = tuple(name.split("@")[0] for name in map(str, wanted) if name.find("@") > 0)
    if metric in ("loss", "avg_loss", "total", *known, *map(str, wanted)):
        return ""
    return "" if metric.startswith(families) else metric


def _bad_splits(cfg: CN) -> bool:
    """Whether ``data.splits`` are not three shares."""
    splits = cfg.data.splits
    shares = [s for s in splits if isinstance(s, (int, float)) and 0 <= s <= 1]
    return len(shares) != len(splits) or len(splits) != 3 or sum(shares) > 1 + 1e-6 or not shares[0]


def _to_divide(cfg: CN) -> str:
    """The data set in lower case where it has to be spread over clients."""
    kind: str = cfg.data.type.lower()
    has_own_clients = kind in _WITH_CLIENTS and not cfg.data.splitter
    return kind if kind.endswith(("@glue", "@llm")) and not has_own_clients else ""


def _without_clients(cfg: CN) -> str:
    """Why the number of clients has to be given."""
    kind = _to_divide(cfg)
    if not kind or cfg.federate.client_num:
        return ""
    if kind in _WITH_CLIENTS:
        return f"data.splitter {cfg.data.splitter} pools the rows and divides them anew"
    return f"{cfg.data.type} has no clients of its own"


def _not_mappings(field: str) -> Check:
    """The rule that an argument list holds mappings."""
    return Check(
        field,
        lambda c: not all(isinstance(item, dict) for item in value_of(c, field)),
        "the entries must be mappings",
        "Write for example [{{'alpha': 0.5}}]",
    )


# fmt: off
_BEST_KEY = (
    Check("eval.best_res_update_round_wise_key", _unknown_split,
         "does not start with a split of eval.split {c.eval.split}",
         "Write for example {found}, or add the split to eval.split"),
    Check("eval.best_res_update_round_wise_key", _uncomputed_metric,
         "the metric {found!r} is not computed: eval.metrics is {c.eval.metrics}",
         "Add {found!r} to eval.metrics, or write {c.eval.split[0]}_loss"),
)
_DATA = (
    Check("data.splits", _bad_splits,
         "must be three shares for training, validation and test that add up to at most 1, the"
         " first one positive",
         "Write for example data.splits: [0.8, 0.1, 0.1]"),
    _not_mappings("data.args"),
    _not_mappings("data.splitter_args"),
    Check("federate.client_num", _without_clients, "{found}",
         "Write the number of clients, for example federate.client_num: 3"),
    Check("data.splitter", lambda c: _to_divide(c) and not c.data.splitter,
         "{c.data.type} has to be spread over the clients",
         "Write iid, lda (with splitter_args: [{{'alpha': 0.5}}]) or meta"),
)
_TRAINING = (
    Check("trainer.type", lambda c: c.trainer.type.lower() == "llmtrainer" and _has_classes(c),
         "it trains on answers to write, and {c.data.type} has classes",
         "Write trainer.type: gluetrainer, or a data.type that ends in @llm"),
    Check("finetune.local_update_steps",
         lambda c: c.finetune.before_eval and c.finetune.local_update_steps <= 0,
         "finetune.before_eval is on and would train for nothing",
         "Write a positive number of steps, or finetune.before_eval: False"),
    Check("fedprox.mu", lambda c: method_of(c) == "fedprox" and c.fedprox.mu == 0,
         "without a pull towards the received state FedProx is FedAvg",
         "Write for example fedprox.mu: 0.01, or federate.method: FedAvg"),
)
_FILES = (
    Check("federate.restore_from",
         lambda c: c.federate.restore_from and not Path(c.federate.restore_from).exists(),
         "no such file", "Give an existing checkpoint, or leave it empty to start anew"),
    Check("federate.save_to", lambda c: c.federate.save_to and Path(c.federate.save_to).is_dir(),
         "is a folder", "Give the path of a file in it"),
    Check("federate.save_freq", lambda c: c.federate.save_freq == 0 or c.federate.save_freq < -1,
         "out of range", "Write -1 or a positive number"),
    Check("outdir", lambda c: not c.outdir, "the run needs a folder",
         "Write for example outdir: exp"),
)

_ARGS = "llm.adapter.args"
_PROMPTS = ("prefix", "prompt", "p-tuning")
_METHODS = ("lora", "vera", *_PROMPTS)
_SIZES: tuple[tuple[str, str, Callable[[float], bool], str], ...] = (
    ("r", "the rank is a whole number from 1", lambda v: isinstance(v, int) and v >= 1, "8"),
    ("lora_alpha", "the adapter's scale is lora_alpha / r, which has to be positive",
     lambda v: v > 0, "16"),
    ("lora_dropout", "a probability from 0 to less than 1", lambda v: 0 <= v < 1, "0.05"),
)
# fmt: on


def _check_adapter(cfg: CN) -> None:
    """The adapter's package, method and sizes."""
    args = cfg.llm.adapter.args
    refuse(cfg, _not_mappings(_ARGS))
    if not cfg.llm.adapter.use:
        return
    if len(args) > 1:
        remedy = "Write one mapping: [{'adapter_method': 'lora'}]"
        raise ConfigError(_ARGS, args, "more than one adapter", remedy)
    entry = args[0] if args else {}
    for value, problem, remedy in _adapter_mistakes(entry, adapter_method(cfg)):
        raise ConfigError(_ARGS, value, problem, remedy)


def _adapter_mistakes(entry: Mapping[str, Any], method: str) -> Iterator[tuple[Any, str, str]]:
    """``(value, problem, remedy)`` of everything that is wrong with the adapter's arguments."""
    package = entry.get("adapter_package", "peft")
    if package != "peft":
        yield package, "unknown adapter_package", "Write 'adapter_package': 'peft'"
    if method not in _METHODS:
        yield method, "unknown adapter_method", f"Write one of {', '.join(_METHODS)}"
    for name, problem, fits, example in _SIZES:
        value = entry.get(name)
        if value is not None and not (is_number(value) and fits(value)):
            yield {name: value}, problem, f"Write for example '{name}': {example}"
    for name, kinds in (("rank_pattern", int), ("alpha_pattern", (int, float))):
        patterns = entry.get(name) or {}
        if not isinstance(patterns, Mapping) or not all(
            is_number(v) and isinstance(v, kinds) and v > 0 for v in patterns.values()
        ):
            problem = "not a mapping of module names to positive numbers"
            yield {name: patterns}, problem, f"Write for example '{name}': {{'query': 8}}"
    tokens = entry.get("num_virtual_tokens")
    if method in _PROMPTS and not (isinstance(tokens, int) and tokens > 0):
        problem = f"the adapter_method {method} trains so many tokens"
        yield {"num_virtual_tokens": tokens}, problem, "Write for example 'num_virtual_tokens': 20"
    if "task_type" in entry:
        given = {"task_type": entry["task_type"]}
        yield given, "the task follows from data.type and trainer.type", "Leave task_type out"

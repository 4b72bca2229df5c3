"""Checks of a complete configuration: ranges, contradictions, and values derived from others.

They run in :meth:`~federatedscope.core.configs.node.CN.assert_cfg` and
:meth:`~federatedscope.core.configs.node.CN.freeze`, before data or a model are touched. Each may
run any number of times on the same tree.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from federatedscope import register
from federatedscope.core.configs.checks_federation import (
    check_clients,
    check_evaluation_scope,
    check_personalization,
    check_robust_rule,
    check_weights,
)
from federatedscope.core.configs.node import CN
from federatedscope.core.configs.ranges import RANGES, adapter_method, method_of, value_of
from federatedscope.core.errors import ConfigError

__all__ = ["register_checks"]

logger = logging.getLogger(__name__)

_SUBSETS = {
    "eval.split": ("train", "val", "test"),
    "eval.phases": ("before", "after"),
    "eval.report": ("weighted_avg", "avg", "fairness", "raw"),
}

# Data sets that come divided into clients; without a data.splitter they stay so.
_WITH_CLIENTS = ("natural_instructions@llm",)

_OLD_LOADER_KEYS = {
    "loader": "type",
    "batch_size": "batch_size",
    "shuffle": "shuffle",
    "num_workers": "num_workers",
    "drop_last": "drop_last",
    "walk_length": "walk_length",
    "num_steps": "num_steps",
    "sizes": "sizes",
}


def register_checks(cfg: CN) -> None:
    """Register every check of this module on ``cfg``, in the order they must run."""
    for check in (
        move_old_loader_keys,
        check_ranges,
        check_lists,
        check_clients,
        check_evaluation_scope,
        check_best_key,
        check_data,
        check_training,
        check_adapter,
        check_personalization,
        check_weights,
        check_robust_rule,
        check_files,
    ):
        cfg.register_cfg_check_fun(check)


def move_old_loader_keys(cfg: CN) -> None:
    """Take ``data.batch_size`` and its like over to ``dataloader``, where they live now."""
    for old, new in _OLD_LOADER_KEYS.items():
        value, default = cfg.data[old], cfg.data.info(old).default
        if value == default:
            continue
        current = cfg.dataloader[new]
        if current not in (cfg.dataloader.info(new).default, value):
            raise ConfigError(
                f"data.{old}",
                value,
                f"dataloader.{new} says {current!r} and data.{old}, its older name, says otherwise",
                f"Keep dataloader.{new} and delete data.{old}",
            )
        logger.warning("data.%s is the older name of dataloader.%s; taken over.", old, new)
        cfg.dataloader[new] = value
        cfg.data[old] = default


def check_ranges(cfg: CN) -> None:
    """Numbers within their bounds."""
    for bounds in RANGES:
        value = value_of(cfg, bounds.field)
        if isinstance(value, (int, float)) and not bounds.holds(value):
            raise ConfigError(bounds.field, value, "out of range", f"Write a number {bounds}")


def check_lists(cfg: CN) -> None:
    """Lists that may only hold certain words."""
    for field, words in _SUBSETS.items():
        value = value_of(cfg, field)
        strange = [item for item in value if item not in words]
        if strange or not value:
            raise ConfigError(
                field,
                value,
                f"{strange[0]!r} is not possible" if strange else "the list is empty",
                f"Choose among {', '.join(words)}",
            )


def check_best_key(cfg: CN) -> None:
    """The value that decides the best round is one that evaluation produces."""
    field = "eval.best_res_update_round_wise_key"
    key = str(cfg.eval.best_res_update_round_wise_key)
    split, _, metric = key.partition("_")
    first = cfg.eval.split[0]
    if split not in cfg.eval.split or not metric:
        raise ConfigError(
            field,
            key,
            f"does not start with a split of eval.split {list(cfg.eval.split)}",
            f"Write for example {first}_{metric or 'loss'}, or add the split to eval.split",
        )
    wanted = [str(name) for name in cfg.eval.metrics]
    if not wanted and cfg.data.type.lower().endswith(("@glue", "@text")):
        return  # the task brings its own metrics; asked again once it has
    # `rouge@l` is reported under a name of its own making, `rouge_l`.
    families = [name.split("@")[0] for name in wanted if "@" in name]
    if metric not in _metric_names(cfg) and not any(metric.startswith(f) for f in families if f):
        raise ConfigError(
            field,
            key,
            f"the metric {metric!r} is not computed: eval.metrics is {list(cfg.eval.metrics)}",
            f"Add {metric!r} to eval.metrics, or write {first}_loss",
        )


def _metric_names(cfg: CN) -> list[str]:
    """Names under which metrics are reported."""
    wanted = list(cfg.eval.metrics)
    answers = (builder(wanted) for builder in list(register.metric_dict.values()))
    registered = [str(answer[0]) for answer in answers if answer is not None]
    return ["loss", "avg_loss", "total", *registered, *map(str, wanted)]


def check_data(cfg: CN) -> None:
    """Splits, and what a data set that is split here needs."""
    splits = cfg.data.splits
    shares = [s for s in splits if isinstance(s, (int, float)) and 0 <= s <= 1]
    if len(shares) != len(splits) or len(splits) != 3 or sum(shares) > 1 + 1e-6 or shares[0] <= 0:
        raise ConfigError(
            "data.splits",
            splits,
            "must be three shares for training, validation and test that add up to at most 1, the"
            " first one positive",
            "Write for example data.splits: [0.8, 0.1, 0.1]",
        )
    for field in ("data.args", "data.splitter_args"):
        _check_list_of_mappings(field, value_of(cfg, field))
    kind = cfg.data.type.lower()
    has_own_clients = kind in _WITH_CLIENTS and not cfg.data.splitter
    if kind.endswith(("@glue", "@llm")) and not has_own_clients:
        if cfg.federate.client_num == 0:
            raise ConfigError(
                "federate.client_num",
                0,
                f"data.splitter {cfg.data.splitter} pools the rows and divides them anew"
                if kind in _WITH_CLIENTS
                else f"{cfg.data.type} has no clients of its own",
                "Write the number of clients, for example federate.client_num: 3",
            )
        if not cfg.data.splitter:
            raise ConfigError(
                "data.splitter",
                "",
                f"{cfg.data.type} has to be spread over the clients",
                "Write iid, lda (with splitter_args: [{'alpha': 0.5}]) or meta",
            )


def _check_list_of_mappings(field: str, value: Any) -> None:
    """Argument lists hold mappings."""
    if not all(isinstance(item, dict) for item in value):
        raise ConfigError(
            field, value, "the entries must be mappings", "Write for example [{'alpha': 0.5}]"
        )


def check_training(cfg: CN) -> None:
    """Local training, fine-tuning, and the values a personal model inherits."""
    if cfg.trainer.type.lower() == "llmtrainer" and cfg.data.type.lower().endswith(
        ("@glue", "@text")
    ):
        raise ConfigError(
            "trainer.type",
            cfg.trainer.type,
            f"it trains on answers to write, and {cfg.data.type} has classes",
            "Write trainer.type: gluetrainer, or a data.type that ends in @llm",
        )
    if cfg.finetune.before_eval and cfg.finetune.local_update_steps <= 0:
        raise ConfigError(
            "finetune.local_update_steps",
            cfg.finetune.local_update_steps,
            "finetune.before_eval is on and would train for nothing",
            "Write a positive number of steps, or finetune.before_eval: False",
        )
    if method_of(cfg) == "fedprox" and cfg.fedprox.mu == 0:
        raise ConfigError(
            "fedprox.mu",
            cfg.fedprox.mu,
            "without a pull towards the received state FedProx is FedAvg",
            "Write for example fedprox.mu: 0.01, or federate.method: FedAvg",
        )
    if cfg.fedprox.use and cfg.fedprox.mu == 0:
        logger.warning("fedprox.use is on with fedprox.mu 0: the same as FedAvg.")
    personal = cfg.personalization
    if personal.local_update_steps == -1:
        personal.local_update_steps = cfg.train.local_update_steps
    if personal.lr <= 0:
        personal.lr = cfg.train.optimizer.lr


_PROMPTS = ("prefix", "prompt", "p-tuning")
_ADAPTER_METHODS = ("lora", "vera", *_PROMPTS)


_ADAPTER_SIZES: tuple[tuple[str, str, Callable[[float], bool], str], ...] = (
    (
        "r",
        "the rank is a whole number from 1",
        lambda v: isinstance(v, int) and v >= 1,
        "Write for example 'r': 8",
    ),
    (
        "lora_alpha",
        "the adapter's scale is lora_alpha / r, which has to be positive",
        lambda v: v > 0,
        "Write for example 'lora_alpha': 16",
    ),
    (
        "lora_dropout",
        "a probability from 0 to less than 1",
        lambda v: 0 <= v < 1,
        "Write for example 'lora_dropout': 0.05",
    ),
)


def check_adapter(cfg: CN) -> None:
    """The adapter's package, method and sizes."""
    args = cfg.llm.adapter.args
    field = "llm.adapter.args"
    _check_list_of_mappings(field, args)
    if not cfg.llm.adapter.use:
        return
    if len(args) > 1:
        raise ConfigError(
            field, args, "more than one adapter", "Write one mapping: [{'adapter_method': 'lora'}]"
        )
    entry = args[0] if args else {}
    package = entry.get("adapter_package", "peft")
    if package != "peft":
        raise ConfigError(
            field, package, "unknown adapter_package", "Write 'adapter_package': 'peft'"
        )
    method = adapter_method(cfg)
    if method not in _ADAPTER_METHODS:
        names = ", ".join(_ADAPTER_METHODS)
        raise ConfigError(field, method, "unknown adapter_method", f"Write one of {names}")
    for name, problem, fits, remedy in _ADAPTER_SIZES:
        value = entry.get(name)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (is_number and fits(value)):
            raise ConfigError(field, {name: value}, problem, remedy)
    _check_patterns(field, entry)
    tokens = entry.get("num_virtual_tokens")
    if method in _PROMPTS and not (isinstance(tokens, int) and tokens > 0):
        raise ConfigError(
            field,
            {"num_virtual_tokens": tokens},
            f"the adapter_method {method} trains so many tokens",
            "Write for example 'num_virtual_tokens': 20",
        )
    if "task_type" in entry:
        raise ConfigError(
            field,
            {"task_type": entry["task_type"]},
            "the task follows from data.type and trainer.type",
            "Leave task_type out",
        )


def _check_patterns(field: str, entry: Mapping[str, Any]) -> None:
    """Ranks and alphas of single modules are positive."""
    for name, kinds in (("rank_pattern", int), ("alpha_pattern", (int, float))):
        patterns = entry.get(name) or {}
        good = isinstance(patterns, Mapping) and all(
            isinstance(v, kinds) and not isinstance(v, bool) and v > 0 for v in patterns.values()
        )
        if not good:
            raise ConfigError(
                field,
                {name: patterns},
                "not a mapping of module names to positive numbers",
                f"Write for example '{name}': {{'query': 8}}",
            )


def check_files(cfg: CN) -> None:
    """Paths to read exist; paths to write can be files."""
    fed = cfg.federate
    if fed.restore_from and not Path(fed.restore_from).exists():
        raise ConfigError(
            "federate.restore_from",
            fed.restore_from,
            "no such file",
            "Give an existing checkpoint, or leave it empty to start anew",
        )
    if fed.save_to and Path(fed.save_to).is_dir():
        raise ConfigError(
            "federate.save_to", fed.save_to, "is a folder", "Give the path of a file in it"
        )
    if fed.save_freq == 0 or fed.save_freq < -1:
        raise ConfigError(
            "federate.save_freq", fed.save_freq, "out of range", "Write -1 or a positive number"
        )
    if not cfg.outdir:
        raise ConfigError("outdir", "", "the run needs a folder", "Write for example outdir: exp")

"""Bounds of the configuration's numbers, tables of what is refused, and small readers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from federatedscope.core.configs.node import CN
from federatedscope.core.errors import ConfigError

__all__ = ["RANGES", "Check", "Range", "adapter_method", "method_of", "refuse", "value_of"]


@dataclass(frozen=True)
class Range:
    """Bounds of one number; ``open_low``/``open_high`` exclude the bound itself."""

    field: str = ""
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def holds(self, value: float) -> bool:
        """Whether ``value`` is within the bounds (NaN is not)."""
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def __str__(self) -> str:
        parts = []
        if self.low != -math.inf:
            parts.append(f"{'greater than' if self.open_low else 'at least'} {self.low:g}")
        if self.high != math.inf:
            parts.append(f"{'less than' if self.open_high else 'at most'} {self.high:g}")
        return " and ".join(parts)

    def check(self, value: object) -> None:
        """Refuse a value out of the bounds."""
        if not (isinstance(value, (int, float)) and self.holds(value)):
            raise ConfigError(self.field, value, "out of range", f"Write a number {self}")


# fmt: off
RANGES = tuple(replace(bounds, field=field) for bounds, fields in (
    (Range(low=0), "federate.client_num federate.total_round_num early_stop.patience"
        " federate.client_idx_for_local_train dataloader.num_workers early_stop.delta verbose"
        " eval.batch_size eval.max_rows data.rows_per_client eval.max_generated_rows fedprox.mu"
        " llm.chat.max_history_len aggregator.byzantine_node_num regularizer.mu"),
    (Range(low=1), "federate.client_memory_mb dataloader.batch_size train.local_update_steps"
        " train.max_nonfinite_steps grad.grad_accum_count eval.freq eval.max_new_tokens"
        " llm.tok_len llm.chat.max_len fedopt.annealing_step_size"),
    (Range(low=-1), "device eval_device"),
    (Range(low=0, high=1, open_high=True), "federate.unseen_clients_rate"),
    (Range(high=1), "federate.sample_client_rate"),
    (Range(low=0, high=1, open_low=True), "data.subsample fedopt.annealing_gamma"),
    (Range(low=0, high=1), "train.scheduler.warmup_ratio"),
    (Range(low=0, high=1e6), "train.optimizer.lr train.vera.lr_c finetune.optimizer.lr"),
    (Range(low=0, high=1e6, open_low=True), "fedopt.optimizer.lr"),
    (Range(low=0, high=16), "print_decimal_digits"),
    (Range(low=0, high=2**32 - 1), "seed data.seed"),
) for field in fields.split())
# fmt: on


@dataclass(frozen=True)
class Check:
    """One combination of values that cannot run.

    Attributes
    ----------
    field : str
        Dotted key that the message names, with its value.
    wrong : callable
        ``wrong(cfg)``: anything true where the combination is there.
    problem, remedy : str
        The message; ``{c.section.key}`` stands for a value and ``{found}`` for what ``wrong`` gave.
    """

    field: str
    wrong: Callable[[CN], object]
    problem: str
    remedy: str


def refuse(cfg: CN, *rules: Check) -> None:
    """Raise the :class:`ConfigError` of the first rule that applies."""
    for rule in rules:
        if found := rule.wrong(cfg):
            problem, remedy = (t.format(c=cfg, found=found) for t in (rule.problem, rule.remedy))
            raise ConfigError(rule.field, value_of(cfg, rule.field), problem, remedy)


def value_of(cfg: CN, dotted: str) -> Any:
    """The value of a dotted key."""
    node: Any = cfg
    for part in dotted.split("."):
        node = node[part]
    return node


def method_of(cfg: CN) -> str:
    """``federate.method`` in lower case."""
    return str(cfg.federate.method).lower()


def adapter_method(cfg: CN) -> str:
    """The adapter's method in lower case, ``lora`` where none is named."""
    args = cfg.llm.adapter.args
    entry = args[0] if args and isinstance(args[0], dict) else {}
    return str(entry.get("adapter_method", "lora")).lower()

"""Bounds of the configuration's numbers, and small readers that the checks share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from federatedscope.core.configs.node import CN

__all__ = ["RANGES", "Range", "adapter_method", "method_of", "value_of"]


@dataclass(frozen=True)
class Range:
    """Bounds of one number; ``open_low``/``open_high`` exclude the bound itself."""

    field: str
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


RANGES = (
    Range("federate.client_num", low=0),
    Range("federate.total_round_num", low=0),
    Range("federate.client_idx_for_local_train", low=0),
    Range("federate.unseen_clients_rate", low=0, high=1, open_high=True),
    Range("federate.sample_client_rate", high=1),
    Range("federate.client_memory_mb", low=1),
    Range("data.subsample", low=0, high=1, open_low=True),
    Range("dataloader.batch_size", low=1),
    Range("dataloader.num_workers", low=0),
    Range("train.local_update_steps", low=1),
    Range("train.max_nonfinite_steps", low=1),
    Range("train.optimizer.lr", low=0, high=1e6),
    Range("train.scheduler.warmup_ratio", low=0, high=1),
    Range("train.vera.lr_c", low=0, high=1e6),
    Range("finetune.optimizer.lr", low=0, high=1e6),
    Range("grad.grad_accum_count", low=1),
    Range("early_stop.patience", low=0),
    Range("early_stop.delta", low=0),
    Range("eval.freq", low=1),
    Range("eval.batch_size", low=0),
    Range("eval.max_rows", low=0),
    Range("data.rows_per_client", low=0),
    Range("eval.max_new_tokens", low=1),
    Range("eval.max_generated_rows", low=0),
    Range("llm.tok_len", low=1),
    Range("llm.chat.max_len", low=1),
    Range("llm.chat.max_history_len", low=0),
    Range("aggregator.byzantine_node_num", low=0),
    Range("fedprox.mu", low=0),
    Range("regularizer.mu", low=0),
    Range("fedopt.optimizer.lr", low=0, high=1e6, open_low=True),
    Range("fedopt.annealing_step_size", low=1),
    Range("fedopt.annealing_gamma", low=0, high=1, open_low=True),
    Range("device", low=-1),
    Range("eval_device", low=-1),
    Range("print_decimal_digits", low=0, high=16),
    Range("verbose", low=0),
    Range("seed", low=0, high=2**32 - 1),
    Range("data.seed", low=0, high=2**32 - 1),
)


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

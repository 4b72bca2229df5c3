"""Uploads of unequal ranks and scales, and a dense float64 oracle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from federatedscope_ext.aggregators import LoraRule
from federatedscope_ext.methods import METHODS

RULES: dict[str, type[LoraRule]] = {key: m.rule for key, m in METHODS.items() if m.rule is not None}

State = dict[str, Tensor]
Matrix = np.ndarray

#: (d_out, d_in), none square; `tiny` is smaller than the largest rank
LAYERS = {"m.q": (40, 24), "m.v": (18, 30), "m.tiny": (5, 3)}
#: ranks differ per client and per module; client 9's q is the largest, client 7's v
RANKS: dict[int, dict[str, int]] = {
    4: {"m.q": 2, "m.v": 3, "m.tiny": 2},
    7: {"m.q": 2, "m.v": 8, "m.tiny": 4},
    8: {"m.q": 5, "m.v": 3, "m.tiny": 6},
    9: {"m.q": 8, "m.v": 5, "m.tiny": 2},
}
SIZES = {4: 100.0, 7: 37.0, 8: 410.0, 9: 55.0}
SERVER = {module: max(r[module] for r in RANKS.values()) for module in LAYERS}
SERVER_SCALES = {"m.q": 2.0, "m.v": 0.75, "m.tiny": 3.0}
EXACT = ("flora", "fedex")


def names(module: str) -> tuple[str, str]:
    return f"{module}.lora_A.default.weight", f"{module}.lora_B.default.weight"


def state(ranks: Mapping[str, int], seed: int, dtype: torch.dtype = torch.float32) -> State:
    generator = torch.Generator().manual_seed(seed)
    made: State = {}
    for module, rank in ranks.items():
        d_out, d_in = LAYERS[module]
        a, b = names(module)
        made[a] = torch.randn(rank, d_in, generator=generator).to(dtype)
        made[b] = torch.randn(d_out, rank, generator=generator).to(dtype)
    made["m.head.weight"] = torch.randn(3, 4, generator=generator).to(dtype)
    made["m.counter"] = torch.tensor(seed)
    return made


def scales_of(client: int) -> dict[str, float]:
    """Unequal per client and per module, not a function of the rank alone."""
    return {m: (1 + 0.25 * client) * 4.0 / rank for m, rank in RANKS[client].items()}


@dataclass
class Case:
    """A round: who reports what, and what the server had."""

    uploads: dict[int, State]
    current: State | None
    sizes: dict[int, float]
    scales: dict[int, dict[str, float]]

    @property
    def info(self) -> dict[str, Any]:
        info: dict[str, Any] = {
            "client_feedback": [(self.sizes[k], s) for k, s in self.uploads.items()],
            "recover_fun": None,
            "staleness": [(k, 0) for k in self.uploads],
            "scales": self.scales,
            "server_scales": SERVER_SCALES,
            "ranks": {m: sorted({r[m] for r in RANKS.values()}) for m in LAYERS},
            "round": 3,
        }
        if self.current is not None:
            info["current"] = self.current
        return info

    def weights(self) -> dict[int, float]:
        total = sum(self.sizes[k] for k in self.uploads)
        return {k: self.sizes[k] / total for k in self.uploads}

    def update(self, client: int, module: str) -> Matrix:
        return self.scales[client][module] * product(self.uploads[client], module)

    def mean(self, module: str) -> Matrix:
        """The exact mean of the applied updates."""
        return sum(p * self.update(k, module) for k, p in self.weights().items())


def case(
    clients: Sequence[int] = (4, 7, 8, 9),
    dtype: torch.dtype = torch.float32,
    current: bool = True,
    server: Mapping[str, int] | None = None,
) -> Case:
    uploads = {k: state(RANKS[k], k, dtype) for k in clients}
    before = state(server or SERVER, 1000, dtype) if current else None
    return Case(uploads, before, dict(SIZES), {k: scales_of(k) for k in clients})


def product(given: Mapping[str, Tensor], module: str, rank: int | None = None) -> Matrix:
    """``B A`` of the first ``rank`` rows, in float64."""
    a, b = names(module)
    return wide(given[b])[:, :rank] @ wide(given[a])[:rank]


def wide(tensor: Tensor) -> Matrix:
    return tensor.to(torch.float64).numpy()


def aggregate(key: str, given: Case, **settings: Any) -> tuple[LoraRule, State]:
    rule = RULES[key](**settings)
    return rule, rule.aggregate(given.info)


def received(
    rule: LoraRule, result: Mapping[str, Tensor], module: str, rank: int | None = None
) -> Matrix:
    """What a client of that rank applies: its slice, and what went into the frozen weight."""
    total = SERVER_SCALES[module] * product(result, module, rank)
    if module in rule.base_update:
        pair = rule.base_update[module]
        total = total + pair.scale * wide(pair.B) @ wide(pair.A)
    return total


def assert_close(actual: Matrix, expected: Matrix, tolerance: float = 2e-6) -> None:
    """Relative to the norm of what is expected."""
    assert actual.shape == expected.shape
    error = float(np.linalg.norm(actual - expected))
    assert error <= tolerance * max(float(np.linalg.norm(expected)), 1e-30), error


def best_approximation(matrix: Matrix, rank: int) -> Matrix:
    u, s, vh = np.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vh[:rank]


def padded(matrix: Matrix, rank: int) -> Matrix:
    """Rows of zeros up to ``rank``."""
    return np.concatenate([matrix, np.zeros((rank - len(matrix), matrix.shape[1]))])

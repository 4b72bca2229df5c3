"""A run with clients of unequal rank, message by message, and the dense weights in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from federatedscope_ext.workers.merging import MergedBase
from fedlora.names import pair_names

# The last rank is larger than a side of every layer (32 and 48).
RANKS = [2, 5, 40]
OPTIONS = (
    "llm.adapter.args",
    "[{'adapter_package': 'peft', 'adapter_method': 'lora', 'r': 4, 'lora_alpha': 8,"
    " 'target_modules': ['query', 'intermediate.dense']}]",
    "llm.adapter.client_ranks", str(RANKS), "hetlora.gamma", 1.0,
    "data.splitter_args", "[{'alpha': 1.0}]", "aggregator.diagnostics", False,
)  # fmt: skip
Dense = dict[str, torch.Tensor]


class Course:
    """A run message by message, with the dense weights that everybody computes with.

    After :meth:`until_evaluated`, ``weights[k]`` is what client k applies in each module, frozen
    weight and adapter together, as float64.
    """

    def __init__(self, rig: Any, mail: Any, step: Any, *options: Any) -> None:
        self.runner = rig.runner(*OPTIONS, *options)
        self.mail = mail
        self.messages = step(self.runner)
        self.base = {m: self._frozen(m) for m in self._modules()}
        self.weights: dict[int, Dense] = {}

    def _modules(self) -> list[str]:
        return list(self.runner.layouts.server.ranks)

    def _frozen(self, module: str) -> torch.Tensor:
        layer = self.runner.model.get_submodule(module)
        weight = layer.get_base_layer().weight.detach().double().clone()
        merged = getattr(self.runner.model, "method_state", None)
        rest = merged.rest.get(module) if isinstance(merged, MergedBase) else None
        return weight if rest is None else weight + rest.double()

    def applied(self, client: int) -> Dense:
        """What the active client's adapters add, by PEFT's own account of its scale."""
        named = dict(self.runner.model.named_parameters())
        out = {}
        for module, (a, b) in pair_names(named).items():
            scale = self.runner.model.get_submodule(module).scaling["default"]
            out[module] = scale * (named[b].detach().double() @ named[a].detach().double())
        return out

    def until_evaluated(self, rnd: int) -> None:
        """Run until all clients have evaluated the state after round ``rnd``."""
        self.weights = {}
        for message, receiver in self.messages:
            if message.msg_type == "evaluate" and receiver > 0 and message.state == rnd:
                update = self.applied(receiver)
                self.weights[receiver] = {m: self._frozen(m) + update[m] for m in update}
                if len(self.weights) == len(RANKS):
                    return

    def rounds(self, count: int) -> Iterator[tuple[int, Dense]]:
        """Run so many rounds; each with the frozen weights that it began with."""
        for rnd in range(count):
            # A method that merges has changed them in the round before.
            before = {module: self._frozen(module) for module in self._modules()}
            self.until_evaluated(rnd)
            yield rnd, before

    def uploads(self, rnd: int) -> dict[int, tuple[float, Dense]]:
        """Of each client that reported: rows, and what it sent."""
        return {
            m.sender: (float(m.content[0]), m.tensors)
            for m in self.mail
            if m.type == "model_para" and m.sender and m.state == rnd
        }

    def received(self, rnd: int, client: int) -> Dense:
        """What a client was sent to train on."""
        (message,) = [
            m
            for m in self.mail
            if m.type == "model_para" and not m.sender and m.state == rnd and client in m.receivers
        ]
        return dict(message.tensors)

    def pairs(self, rnd: int) -> dict[int, dict[str, tuple[torch.Tensor, torch.Tensor]]]:
        """After local training, of each client: A and ``s B`` of each module in float64."""
        out = {}
        for client, (_, sent) in self.uploads(rnd).items():
            whole = {**self.received(rnd, client), **sent}
            scales = self.runner.layouts.of(client).scales
            out[client] = {
                module: (whole[a].double(), scales[module] * whole[b].double())
                for module, (a, b) in pair_names(whole).items()
            }
        return out

    def shares(self, rnd: int) -> dict[int, float]:
        """``p_k``."""
        rows = {client: n for client, (n, _) in self.uploads(rnd).items()}
        return {client: n / sum(rows.values()) for client, n in rows.items()}

    def mean(self, rnd: int) -> Dense:
        """``sum_k p_k s_k B_k A_k`` of each module."""
        pairs, share = self.pairs(rnd), self.shares(rnd)
        return {
            module: sum(share[k] * pairs[k][module][1] @ pairs[k][module][0] for k in pairs)
            for module in self._modules()
        }


def truncated(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return (left[:, :rank] * values[:rank]) @ right[:rank]


def close(actual: torch.Tensor, oracle: torch.Tensor, frozen: torch.Tensor) -> None:
    """Equal to float32 rounding of the weights that they are part of."""
    size = float(oracle.norm() + frozen.norm())
    np.testing.assert_allclose(actual, oracle + frozen, atol=2e-6 * size, rtol=0)


def padded_means(
    pairs: Mapping[int, Any], share: Mapping[int, float], module: str, owners_only: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Factor means row by row: over everybody, or over the owners of the row."""
    most = max(pairs[k][module][0].shape[0] for k in pairs)
    some = next(iter(pairs.values()))[module]
    a = torch.zeros(most, some[0].shape[1], dtype=torch.float64)
    b = torch.zeros(some[1].shape[0], most, dtype=torch.float64)
    for row in range(most):
        owners = [k for k in pairs if pairs[k][module][0].shape[0] > row]
        total = sum(share[k] for k in (owners if owners_only else pairs))
        a[row] = sum(share[k] / total * pairs[k][module][0][row] for k in owners)
        b[:, row] = sum(share[k] / total * pairs[k][module][1][:, row] for k in owners)
    return a, b


def close_to_means(
    run: Course, pairs: Mapping[int, Any], share: Mapping[int, float], module: str, **how: bool
) -> None:
    """Everybody applies the first rows of the factor means."""
    a, b = padded_means(pairs, share, module, how.get("owners_only", False))
    for client, rank in enumerate(RANKS, 1):
        close(run.weights[client][module], b[:, :rank] @ a[:rank], run.base[module])

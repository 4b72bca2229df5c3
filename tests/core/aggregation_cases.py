"""Uploads, configurations and a float64 oracle for the tests of the server rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from federatedscope.core.auxiliaries.aggregator_builder import get_aggregator
from federatedscope.core.configs.config import CN, global_cfg

# Non-square layers, a vector, a scalar, an empty tensor.
SHAPES = {
    "q.lora_A.default.weight": (4, 24),
    "q.lora_B.default.weight": (40, 4),
    "head.bias": (3,),
    "temperature": (),
    "unused": (0, 5),
}
RULES = ("fedavg", "krum", "median", "trimmedmean", "bulyan", "normbounding")
ALL = (*RULES, "online", "fedopt")
State = dict[str, Tensor]


def config(rule: str = "fedavg", **sections: Any) -> CN:
    cfg = global_cfg.clone()
    cfg.defrost()
    cfg.aggregator.robust_rule = rule if rule in RULES else "fedavg"
    cfg.aggregator.byzantine_node_num = 1 if rule in ("krum", "median", "bulyan") else 0
    if rule == "normbounding":
        cfg.aggregator.BFT_args.normbounding_norm_bound = 1e6
    if rule == "trimmedmean":
        cfg.aggregator.BFT_args.trimmedmean_excluded_ratio = 0.2
    if rule == "fedopt":
        cfg.fedopt.use = True
        cfg.fedopt.optimizer.lr = 1.0
    for dotted, value in sections.items():
        node, *path = cfg, *dotted.split("__")
        for part in path[:-1]:
            node = node[part]
        node[path[-1]] = value
    return cfg


def states(count: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[State]:
    generator = torch.Generator().manual_seed(seed)
    return [
        {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in SHAPES.items()}
        for _ in range(count)
    ]


def round_of(
    uploads: list[State], sizes: list[float] | None = None, current: State | None = None
) -> dict[str, Any]:
    sizes = sizes if sizes is not None else [1.0] * len(uploads)
    info: dict[str, Any] = {
        "client_feedback": list(zip(sizes, uploads, strict=True)),
        "recover_fun": None,
        "staleness": [(10 + i, 0) for i in range(len(uploads))],
    }
    if current is not None:
        info["current"] = current
    return info


def zeros_like(state: State) -> State:
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


def run(rule: str, info: dict[str, Any], cfg: CN | None = None) -> State:
    """Aggregate by the rule of that name; the server's state before is zero unless given."""
    if "current" not in info:
        info = {**info, "current": zeros_like(info["client_feedback"][0][1])}
    aggregator = get_aggregator(
        "fedavg", device="cpu", online=rule == "online", config=cfg or config(rule)
    )
    if rule == "online":
        for content, (client_id, _) in zip(info["client_feedback"], info["staleness"], strict=True):
            aggregator.inc(content, client_id)
    result: State = aggregator.aggregate(info)
    return result


def dense(uploads: list[State], name: str) -> np.ndarray:
    return np.stack([u[name].to(torch.float64).numpy() for u in uploads])


def oracle_mean(uploads: list[State], weights: list[float]) -> dict[str, np.ndarray]:
    total = sum(weights)
    return {
        name: sum(w / total * x for w, x in zip(weights, dense(uploads, name), strict=True))
        for name in uploads[0]
    }


def flat(uploads: list[State]) -> np.ndarray:
    return np.stack(
        [np.concatenate([u[n].double().numpy().ravel() for n in SHAPES]) for u in uploads]
    )


def assert_close(result: State, expected: dict[str, np.ndarray], tolerance: float = 1e-6) -> None:
    assert result.keys() == expected.keys()
    for name, tensor in result.items():
        np.testing.assert_allclose(
            tensor.double().numpy(), expected[name], rtol=tolerance, atol=tolerance, err_msg=name
        )

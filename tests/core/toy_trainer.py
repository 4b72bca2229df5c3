"""A trainer of a small network on generated rows, for the tests of trainers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from federatedscope.core.configs.config import global_cfg
from federatedscope.core.data import ClientData
from federatedscope.core.trainers import GeneralTorchTrainer

ROWS = {"train": 22, "val": 10}


def rows(count: int, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 6, generator=generator)
    return [(row, (row.sum() > 0).long()) for row in x]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(6, 8)
        self.base.requires_grad_(False)
        self.lora_A = nn.Linear(8, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.lora_A(self.base(x)).tanh())
        return result


def config(*pairs: Any) -> Any:
    cfg = global_cfg.clone()
    cfg.merge_from_list([
        "federate.client_num", 1, "dataloader.batch_size", 4, "dataloader.drop_last", False,
        "criterion.type", "CrossEntropyLoss", "train.optimizer.type", "SGD",
        "train.optimizer.lr", 0.1, "train.local_update_steps", 3, "train.batch_or_epoch", "batch",
        "grad.grad_clip", -1.0, "eval.metrics", ["acc"], *pairs,
    ])  # fmt: skip
    return cfg


def build(
    *pairs: Any, cls: type[Any] = GeneralTorchTrainer, data: Any = None, model: Any = None
) -> Any:
    torch.manual_seed(0)
    cfg = config(*pairs)
    data = data or ClientData(cfg, train=rows(ROWS["train"]), val=rows(ROWS["val"], 1))
    return cls(model or Net(), data, "cpu", cfg)


def state(trainer: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in trainer.ctx.model.named_parameters()}

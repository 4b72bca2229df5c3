"""Modules of outsiders, written to a folder and named in `extensions`."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

# Rows, a model and nothing of Hugging Face: what a first extension brings.
WORLD = """
import torch
from federatedscope.core.data import ClientData
from federatedscope.register import register_data, register_model


def rows(count, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 6, generator=generator)
    return [(row, (row.sum() > 0).long()) for row in x]


def toy_rows(config, client_cfgs=None):
    if config.data.type != "toyrows":
        return None
    data = {0: ClientData(config, train=rows(8, 0), val=rows(10, 90), test=rows(10, 91))}
    for client in range(1, 4):
        data[client] = ClientData(
            config, train=rows(10 * client, client), val=rows(8, 10 + client), test=rows(8, 20)
        )
    config.merge_from_list(["federate.client_num", 3])
    return data, config


class ToyNet(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = torch.nn.Linear(width, 8)
        self.norm = torch.nn.BatchNorm1d(8)
        self.head = torch.nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.norm(self.body(x)).tanh())


def toy_net(model_config, input_shape):
    if model_config.type == "toynet":
        return ToyNet(input_shape[0])


register_data("toyrows", toy_rows)
register_model("toynet", toy_net)
"""
TOY = (
    "data.type", "toyrows", "model.type", "toynet", "trainer.type", "general",
    "federate.client_num", 0, "data.splitter", "", "llm.adapter.use", False,
    "federate.method", "FedAvg", "eval.metrics", "['acc']",
    "eval.best_res_update_round_wise_key", "val_acc", "train.optimizer.type", "SGD",
    "train.optimizer.lr", 0.1,
)  # fmt: skip
_names = (f"outsider_{i}" for i in itertools.count())


@pytest.fixture
def outside(rig: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: None) -> Any:
    """``outside(source, options)``: a run with a module of that source among the extensions."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(source: str, *options: Any, world: bool = True, **keywords: Any) -> Any:
        name = next(_names)
        (tmp_path / f"{name}.py").write_text((WORLD if world else "") + dedent(source))
        base = TOY if world else ()
        done = rig(*base, "extensions", f"['federatedscope_ext', '{name}']", *options, **keywords)
        done.module = sys.modules.get(name)
        return done

    return run

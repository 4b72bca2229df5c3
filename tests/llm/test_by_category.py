"""Dolly-15K by category: ``data.splitter: meta``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from federatedscope.core.auxiliaries.data_builder import get_data
from federatedscope.core.cmd_args import parse_args
from federatedscope.core.configs.loading import build_config
from federatedscope.core.data.utils import labels_of
from federatedscope.core.errors import ConfigError

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def dolly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of eight categories, most of them in the first."""
    root = tmp_path_factory.mktemp("dolly")
    categories = [f"kind{min(i % 16, 7)}" for i in range(320)]
    with (root / "databricks-dolly-15k.jsonl").open("w") as stream:
        for i, category in enumerate(categories):
            row = {"instruction": f"say w{i % 40}", "context": "", "response": "fine good"}
            stream.write(json.dumps({**row, "category": category}) + "\n")
    return root


def build(rig: Any, model: Path, root: Path, clients: int, **other: Any) -> Any:
    pairs: dict[str, Any] = {
        "data.type": "dolly-15k@llm", "model.type": f"{model}@huggingface_llm",
        "trainer.type": "llmtrainer", "data.root": root, "data.splitter": "meta",
        "data.splitter_args": "[]", "federate.client_num": clients, "llm.tok_len": 100,
        "eval.metrics": "['rougeL']", "eval.best_res_update_round_wise_key": "val_rougeL", **other,
    }  # fmt: skip
    argv = rig.argv(*(part for pair in pairs.items() for part in pair))
    return get_data(build_config(parse_args(argv)).cfg)


def categories_of(data: Any, clients: int, split: str) -> list[set[str]]:
    return [set(labels_of(data[k].dataset(split))) for k in range(1, clients + 1)]


@pytest.mark.parametrize("clients", [1, 2, 3, 5, 8])
def test_every_category_is_with_one_client(
    rig: Any, tiny_llama: Path, dolly: Path, clients: int
) -> None:
    data, _ = build(rig, tiny_llama, dolly, clients)
    train = categories_of(data, clients, "train")
    assert sorted(c for mine in train for c in mine) == [f"kind{i}" for i in range(8)]
    assert max(map(len, train)) - min(map(len, train)) <= 1
    for split in ("val", "test"):
        for mine, known in zip(categories_of(data, clients, split), train, strict=True):
            assert mine <= known
    for split, rows in zip(SPLITS, (256, 32, 32), strict=True):
        assert sum(data[k].rows(split) for k in range(1, clients + 1)) == rows


def test_more_clients_than_categories(rig: Any, tiny_llama: Path, dolly: Path) -> None:
    with pytest.raises(ConfigError, match="client_num: 8 or fewer"):
        build(rig, tiny_llama, dolly, 9)


def test_the_real_rows(rig: Any, tiny_llama: Path) -> None:
    root = Path(os.environ.get("FEDERATEDSCOPE_TEST_DATA", "")) / "data"
    if not (root / "dolly_15k").is_dir():
        pytest.skip("set FEDERATEDSCOPE_TEST_DATA to a folder with data/dolly_15k")
    for clients in (8, 3):
        data, _ = build(rig, tiny_llama, root, clients)
        train = categories_of(data, clients, "train")
        assert len({c for mine in train for c in mine}) == sum(map(len, train)) == 8
        rows = np.sum([[data[k].rows(s) for s in SPLITS] for k in range(1, clients + 1)], axis=0)
        assert rows.sum() == 15011 and rows[0] == 12008
        assert all(data[k].rows("val") for k in range(1, clients + 1))

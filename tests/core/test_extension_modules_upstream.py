"""Modules that import the names FederatedScope's own examples import, and use them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from federatedscope.core.auxiliaries.logging import update_logger
from federatedscope.core.auxiliaries.ReIterator import ReIterator
from federatedscope.core.auxiliaries.utils import (
    merge_dict_of_results,
    merge_param_dict,
    param2tensor,
)
from federatedscope.core.configs.config import global_cfg
from federatedscope.core.data.utils import collate_of, convert_data_mode, labels_of, lengths_of
from federatedscope.core.errors import ConfigError
from federatedscope.core.logging_setup import stop_logging_to_folder
from federatedscope.llm.dataloader import (
    LLMDataCollator,
    get_tokenizer,
    load_json,
    load_jsonl,
    load_llm_dataset,
)
from federatedscope.llm.dataset.llm_dataset import DefaultToken, LLMDataset

# A data file and a server as a contributor's folder would hold them.
FROM_FILE = """
import os

import numpy as np

from federatedscope.core.auxiliaries.sampler_builder import get_sampler
from federatedscope.core.auxiliaries.utils import setup_seed
from federatedscope.core.data.utils import convert_data_mode
from federatedscope.core.workers import Client, Server
from federatedscope.core.workers.base_client import BaseClient
from federatedscope.core.workers.base_server import BaseServer
from federatedscope.register import register_worker

built = []


def load_arrays(config, client_cfgs=None):
    path = os.path.join(config.data.root, "arrays.npz")
    if not os.path.exists(path):
        raise ValueError(f"The file {path} does not exist.")
    with np.load(path) as file:
        data = {
            client: {
                split: {"x": file[f"{client}/{split}/x"], "y": file[f"{client}/{split}/y"]}
                for split in ("train", "val", "test")
            }
            for client in (1, 2, 3)
        }
    data = convert_data_mode(data, config)
    setup_seed(config.seed)
    config.federate.client_num = 3
    return data, config


def call(config, client_cfgs):
    if config.data.type == "arrays":
        return load_arrays(config, client_cfgs)


class FileServer(Server):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        built.append((isinstance(self, BaseServer), get_sampler("uniform", client_num=3)))


class FileClient(Client):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        built.append((isinstance(self, BaseClient), None))


def workers(method):
    if method == "fromfile":
        return {"client": FileClient, "server": FileServer}


register_data("arrays", call)
register_worker("fromfile", workers)


class Line(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.head = torch.nn.Linear(width, 1)

    def forward(self, x):
        return self.head(x)[:, 0]


register_model("line", lambda config, shape: Line(shape[-1]) if config.type == "line" else None)
"""


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """Rows of three clients of a regression in one file; 11, 22 and 33 training rows."""
    import numpy as np

    rng, content = np.random.RandomState(0), {}
    for client in (1, 2, 3):
        for split, rows in (("train", 11 * client), ("val", 6), ("test", 6)):
            x = rng.randn(rows, 5)
            content[f"{client}/{split}/x"], content[f"{client}/{split}/y"] = x, x.sum(1)
    np.savez(tmp_path / "arrays.npz", **content)
    return tmp_path


def test_a_data_file_with_workers(outside: Any, arrays: Path) -> None:
    done = outside(
        FROM_FILE,
        "data.type", "arrays", "data.root", arrays, "model.type", "line",
        "federate.method", "fromfile", "criterion.type", "MSELoss", "eval.metrics", "['mse']",
        "eval.best_res_update_round_wise_key", "val_mse", "federate.total_round_num", 4,
        "train.batch_or_epoch", "epoch",
    )  # fmt: skip
    assert done.code == 0
    assert [c["rows"] for c in done.run["clients"]] == [
        {"train": 11 * client, "val": 6, "test": 6} for client in (1, 2, 3)
    ]
    assert done.of("round")[0]["weights"] == pytest.approx({"1": 1 / 6, "2": 2 / 6, "3": 3 / 6})
    assert [kind for kind, _ in done.module.built] == [True] * 4
    means = [line["Results_avg"]["val_mse"] for line in done.lines[:-1]]
    assert means[-1] < means[0]


def test_data_of_a_distributed_run() -> None:
    cfg = global_cfg.clone()
    data = {1: {}, 2: {}}
    assert convert_data_mode(data, cfg) is data
    cfg.federate.mode = "distributed"
    with pytest.raises(ConfigError, match=r"federate\.mode: standalone"):
        convert_data_mode(data, cfg)


class TestHelpers:
    def test_results_of_many(self) -> None:
        merged: dict[str, Any] = {}
        for value in (1.0, 2.0):
            merge_dict_of_results(merged, {"acc": value, "raw": {"loss": -value}})
        assert merged == {"acc": [1.0, 2.0], "raw": {"loss": [-1.0, -2.0]}}

    def test_parameters(self) -> None:
        raw = {"a": 1, "b": 2}
        assert merge_param_dict(raw, {"b": 3}) is raw
        assert raw == {"a": 1, "b": 3}

    def test_tensors(self) -> None:
        assert param2tensor([[1, 2], [3, 4]]).tolist() == [[1.0, 2.0], [3.0, 4.0]]
        assert param2tensor(3).dtype == torch.int64
        assert param2tensor(0.5).dtype == torch.float32
        tensor = torch.ones(2)
        assert param2tensor(tensor) is tensor
        with pytest.raises(TypeError, match="never read"):
            param2tensor("gASVBAAAAAAAAABLAS4=")

    def test_a_loader_without_an_end(self) -> None:
        endless = ReIterator([1, 2, 3])
        assert [next(endless) for _ in range(7)] == [1, 2, 3, 1, 2, 3, 1]
        endless.reset()
        assert next(endless) == 1
        with pytest.raises(StopIteration):
            next(ReIterator([]))

    def test_a_scripts_log(self, tmp_path: Path) -> None:
        import logging

        cfg = global_cfg.clone()
        cfg.outdir, cfg.expname = str(tmp_path), "mine"
        root = logging.getLogger("federatedscope")
        before = list(root.handlers)
        update_logger(cfg)
        logging.getLogger("federatedscope.anything").info("a line")
        for handler in set(root.handlers) - set(before):
            if isinstance(handler, logging.FileHandler):
                stop_logging_to_folder(handler)
        assert cfg.outdir == str(tmp_path / "mine")
        assert "a line" in (tmp_path / "mine" / "exp_print.log").read_text()
        update_logger(cfg, clear_before_add=True, rank=1)
        assert cfg.outdir == str(tmp_path / "mine")


class TestInstructions:
    @pytest.fixture
    def tokenizer(self, tiny_llama: Path) -> Any:
        return get_tokenizer(str(tiny_llama), None, 64)[0]

    def test_rows(self, tokenizer: Any) -> None:
        records = [
            {"instruction": "a b", "input": "", "output": "c", "category": "two"},
            {"instruction": "a b", "input": "d", "output": "c e f", "category": "one"},
            {"instruction": "a", "output": "c"},
        ]
        data = LLMDataset(records, tokenizer, "{instruction} {input}", "{instruction}")
        assert len(data) == 3
        assert data.categories == [1, 0, -1]
        short, long = data[0], data[1]
        ignored = DefaultToken.IGNORE_INDEX.value
        prompt = len(tokenizer("a b", verbose=False)["input_ids"])
        assert short["labels"][:prompt].tolist() == [ignored] * prompt
        assert torch.equal(short["labels"][prompt:], short["input_ids"][prompt:])
        assert short["input_ids"][-1] == tokenizer.eos_token_id
        assert len(long["input_ids"]) > len(short["input_ids"])
        assert list(labels_of(data)) == data.categories  # type: ignore[call-overload]
        assert list(lengths_of(data)) == [len(row) for row in data.input_ids]  # type: ignore[call-overload]
        batch = LLMDataCollator(tokenizer)([data[0], data[1]])
        assert batch["attention_mask"].sum(1).tolist() == [len(r) for r in data.input_ids[:2]]
        assert (batch["labels"][0, len(short["labels"]) :] == ignored).all()
        assert collate_of(data) is not None

    def test_a_long_prompt_leaves_room_for_the_answer(self, tokenizer: Any) -> None:
        (row,) = LLMDataset([{"instruction": "a b " * 100, "output": "c d"}], tokenizer)
        assert len(row["input_ids"]) == 64
        assert (row["labels"] != -100).any()

    def test_files(self, tmp_path: Path) -> None:
        rows = [{"q": "1", "output": "2"}, {"q": "3"}]
        (tmp_path / "a.json").write_text(json.dumps(rows))
        (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
        records = load_json(tmp_path / "a.json", instruction="q")
        assert records == load_jsonl(str(tmp_path / "a.jsonl"), instruction="q")
        assert records[1] == {"instruction": "3", "input": None, "output": None, "category": None}

    def test_a_run_with_records_of_ones_own(
        self, outside: Any, tiny_llama: Path, tmp_path: Path
    ) -> None:
        assert callable(load_llm_dataset)
        done = outside(
            """
            from federatedscope.core.data import BaseDataTranslator
            from federatedscope.llm.dataloader import get_tokenizer
            from federatedscope.llm.dataset.llm_dataset import LLMDataset
            from federatedscope.register import register_data


            def sums(config, client_cfgs=None):
                if config.data.type != "sums":
                    return
                name, hub = config.model.type.split("@")
                tokenizer, _ = get_tokenizer(name, config.data.root, config.llm.tok_len, hub)
                rows = [{"instruction": f"{i} + {i}", "output": str(2 * i), "category": str(i % 2)}
                        for i in range(40)]
                return BaseDataTranslator(config, client_cfgs)(LLMDataset(rows, tokenizer)), config


            register_data("sums", sums)
            """,
            "data.type", "sums", "model.type", f"{tiny_llama}@huggingface_llm", "data.root",
            tmp_path, "trainer.type", "llmtrainer", "eval.metrics", "['loss']",
            "eval.best_res_update_round_wise_key", "val_loss", "federate.client_num", 2,
            "data.splitter", "meta", "data.splits", "[0.8, 0.2, 0.0]", "llm.tok_len", 48,
            "llm.adapter.args", "[{'adapter_method': 'lora', 'r': 2}]",
            world=False,
        )  # fmt: skip
        assert done.code == 0
        assert [len(c["labels"]["train"]) for c in done.run["clients"]] == [1, 1]

"""Data of a configuration, with a tokenizer of two words."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import federatedscope_ext.data  # noqa: F401  registers the builders
from federatedscope.core.auxiliaries.data_builder import get_data
from federatedscope.core.configs.config import global_cfg


@pytest.fixture(scope="session")
def word_model(tmp_path_factory):
    core = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "a": 2, "b": 3}, "[UNK]"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = tmp_path_factory.mktemp("model")
    PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="[UNK]", pad_token="[PAD]"
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def load(tmp_path, word_model, monkeypatch):
    """Load the data of a configuration; its paragraph where it is refused."""
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")

    def run(data_type="sst2@glue", **keys):
        cfg = global_cfg.clone()
        pairs = {
            "data.root": str(tmp_path),
            "data.type": data_type,
            "data.splitter": "iid",
            "data.cache_dir": str(tmp_path / "cache"),
            "federate.client_num": 2,
            "model.type": f"{word_model}@huggingface_llm",
        }
        pairs |= {key.replace("__", "."): value for key, value in keys.items()}
        cfg.merge_from_list([item for pair in pairs.items() for item in pair])
        return get_data(cfg)

    return run

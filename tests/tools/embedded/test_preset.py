"""What ``--embedded`` swaps, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from federatedscope.core.configs.config import global_cfg
from federatedscope.register import preset_dict
from federatedscope_ext.tools.embedded import cache, preset
from federatedscope_ext.tools.embedded.preset import own_names, rename_modules, swaps

LORA = {"adapter_package": "peft", "adapter_method": "lora", "r": 8, "lora_alpha": 16}


@pytest.fixture(autouse=True)
def folders(monkeypatch, tmp_path):
    """Nothing is built, and there is no GPU."""
    monkeypatch.setattr(cache, "ensure", lambda part: tmp_path / part)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return tmp_path


def config(**changes):
    cfg = global_cfg.clone()
    settings = {
        "data.type": "mnli@glue",
        "model.type": "FacebookAI/roberta-large@huggingface_llm",
        "federate.client_num": 3,
        "federate.total_round_num": 1000,
        "dataloader.batch_size": 128,
        "train.local_update_steps": 10,
        "train.optimizer.type": "SGD",
        "train.optimizer.lr": 0.02,
        "llm.adapter.use": True,
        "llm.adapter.args": [dict(LORA)],
    }
    settings.update(changes)
    for key, value in settings.items():
        cfg.merge_from_list([key, value])
    return cfg


def test_the_flag_is_registered():
    assert preset_dict["embedded"] is swaps
    assert swaps.__doc__.splitlines()[0].endswith("no download.")


@pytest.mark.parametrize(
    ("data_type", "model", "data_type_now"),
    [
        ("mnli@glue", "encoder", "mnli@glue"),
        ("sst2@glue", "encoder", "sst2@glue"),
        ("dbpedia_14@text", "encoder", "dbpedia_14@text"),
        ("reviews.csv@text", "encoder", "ag_news@text"),
        ("gsm8k@llm", "llama", "gsm8k@llm"),
        ("dolly-15k@llm", "llama", "dolly-15k@llm"),
        ("code_search_net@llm", "llama", "code_search_net@llm"),
        ("mine.jsonl@llm", "llama", "alpaca_data.json@llm"),
        ("natural_instructions@llm", "llama", "natural_instructions@llm"),
        ("flan@llm", "llama", "dolly-15k@llm"),
    ],
)
def test_model_and_data_fit_the_task(folders, data_type, model, data_type_now):
    cfg = config(**{"data.type": data_type})

    swaps(cfg, set())

    assert cfg.model.type == f"{folders / model}@huggingface_llm"
    assert cfg.data.root == str(folders / "data")
    assert cfg.data.type == data_type_now


@pytest.mark.parametrize(
    ("key", "was", "now"),
    [
        ("federate.total_round_num", 1000, 30),
        ("federate.total_round_num", 7, 7),
        ("federate.client_num", 1613, 100),
        ("federate.client_num", 100, 100),
        ("train.local_update_steps", 30, 10),
        ("dataloader.batch_size", 128, 32),
        ("dataloader.batch_size", 16, 16),
        ("dataloader.batch_size", 1, 32),
        ("train.optimizer.type", "SGD", "AdamW"),
        ("train.optimizer.type", "adam", "adam"),
        ("train.optimizer.lr", 0.02, 3e-3),
        ("eval.freq", 50, 5),
        ("eval.freq", 1, 1),
        ("train.is_enable_half", True, False),
        ("use_gpu", True, False),
        ("device", 0, -1),
        ("eval_device", 1, -1),
        ("llm.deepspeed.use", True, False),
        ("llm.tok_len", 1000, 64),
        ("personalization.local_param", ["lora_B", "score"], ["lora_B", "classifier"]),
        ("personalization.local_param", ["lora_B"], ["lora_B"]),
    ],
)
def test_a_yaml_that_would_not_train_is_changed(key, was, now):
    cfg = config(**{key: was})
    listed = {swap["field"]: swap for swap in swaps(cfg, set())}

    assert preset.read(cfg, key) == now
    if was == now:
        assert key not in listed
    else:
        assert (listed[key]["was"], listed[key]["now"]) == (was, now)
        assert len(listed[key]["why"]) > 10


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.type", "/m@huggingface_llm"),
        ("data.root", "/somewhere"),
        ("federate.total_round_num", 200),
        ("dataloader.batch_size", 4),
        ("train.optimizer.type", "SGD"),
        ("train.optimizer.lr", 0.5),
        ("eval.freq", 100),
        ("device", 0),
        ("llm.adapter.args", [{**LORA, "target_modules": ["q_proj"]}]),
    ],
)
def test_what_is_given_wins(key, value):
    cfg = config(**{key: value})

    listed = swaps(cfg, {key})

    assert preset.read(cfg, key) == value
    assert key not in {swap["field"] for swap in listed}


@pytest.mark.parametrize(
    ("clients", "rate", "clients_now", "rate_now"),
    [(0, 0.05, 0, 0.2), (1613, 0.05, 40, 0.2), (20, 0.5, 20, 0.5), (4, 0.5, 4, 1.0),
     (20, -1.0, 20, -1.0)],
)  # fmt: skip
def test_clients_of_natural_instructions(folders, clients, rate, clients_now, rate_now):
    cfg = config(**{
        "data.type": "natural_instructions@llm", "federate.client_num": clients,
        "federate.sample_client_rate": rate, "early_stop.patience": 3,
    })  # fmt: skip

    swaps(cfg, set())

    assert cfg.federate.client_num == clients_now
    assert cfg.federate.sample_client_rate == rate_now
    assert cfg.early_stop.patience == 0


def test_a_good_learning_rate_is_kept():
    cfg = config(**{"train.optimizer.type": "AdamW", "train.optimizer.lr": 0.002})
    swaps(cfg, set())
    assert cfg.train.optimizer.lr == 0.002


def test_options_that_only_sgd_has_go_with_it():
    cfg = config(**{"train.optimizer.momentum": 0.9, "train.optimizer.weight_decay": 0.1})
    swaps(cfg, set())
    assert "momentum" not in cfg.train.optimizer
    assert cfg.train.optimizer.weight_decay == 0.1


def test_epochs_become_batches():
    cfg = config(**{"train.batch_or_epoch": "epoch", "train.local_update_steps": 1})
    swaps(cfg, set())
    assert (cfg.train.batch_or_epoch, cfg.train.local_update_steps) == ("batch", 10)


def test_vera_keeps_its_own_learning_rates():
    vera = [{"adapter_package": "peft", "adapter_method": "vera", "r": 256}]
    changes = {"llm.adapter.args": vera, "train.optimizer.type": "AdamW"}
    cfg = config(**changes, **{"train.optimizer.lr": 0.02, "train.vera.lr_c": 1e-4})
    swaps(cfg, set())
    assert (cfg.train.optimizer.lr, cfg.train.vera.lr_c) == (0.02, preset.VERA_HEAD)


def test_generation_is_short():
    cfg = config(**{"data.type": "gsm8k@llm", "llm.tok_len": 1000, "eval.max_new_tokens": 256})
    swaps(cfg, set())
    assert cfg.eval.max_generated_rows == preset.GENERATED_ROWS
    assert cfg.eval.max_new_tokens == preset.NEW_TOKENS
    assert cfg.llm.tok_len == 192


def test_a_saved_configuration_runs_again_as_it_was(folders, monkeypatch, tmp_path):
    cfg = config()
    first = swaps(cfg, set())
    cfg.train.optimizer.lr = 0.5
    cfg.federate.total_round_num = 77
    monkeypatch.setattr(cache, "ensure", lambda part: tmp_path / "moved" / part)

    second = swaps(cfg, set())

    moved = tmp_path / "moved"
    assert cfg.model.type == f"{moved / 'encoder'}@huggingface_llm"
    assert cfg.data.root == str(moved / "data")
    assert (cfg.train.optimizer.lr, cfg.federate.total_round_num) == (0.5, 77)
    assert [swap["field"] for swap in second] == [swap["field"] for swap in first]
    assert second == cfg.embedded.swaps


def test_the_configuration_knows_its_swaps():
    cfg = config()
    listed = swaps(cfg, set())
    assert cfg.embedded.use is True
    assert cfg.embedded.swaps == listed
    assert all(set(swap) == {"field", "was", "now", "why"} for swap in listed)


@pytest.mark.parametrize(
    ("target", "encoder", "llama"),
    [
        ("q_proj", ["query"], ["q_proj"]),
        ("query", ["query"], ["q_proj"]),
        ("q_lin", ["query"], ["q_proj"]),
        ("v_proj", ["value"], ["v_proj"]),
        ("o_proj", ["attention.output.dense"], ["o_proj"]),
        ("query_key_value", ["query", "key", "value"], ["q_proj", "k_proj", "v_proj"]),
        ("up_proj", ["intermediate.dense"], ["up_proj"]),
        ("down_proj", ["0.output.dense", "1.output.dense", "2.output.dense"], ["down_proj"]),
        ("unheard_of", ["unheard_of"], ["unheard_of"]),
    ],
)
def test_target_modules_are_renamed(target, encoder, llama):
    assert list(own_names(target, "encoder")) == encoder
    assert list(own_names(target, "llama")) == llama


def test_renaming_keeps_the_rest_and_merges_doubles():
    args = {
        **LORA,
        "target_modules": ["q_proj", "q_lin", "gate_proj", "up_proj"],
        "rank_pattern": {"q_proj": 4},
        "modules_to_save": ["score"],
        "layers_to_transform": [0, 1, 31],
    }
    assert rename_modules(args, "encoder") == {
        **LORA,
        "target_modules": ["query", "intermediate.dense"],
        "rank_pattern": {"query": 4},
        "modules_to_save": ["classifier"],
        "layers_to_transform": [0, 1, 2],
    }
    assert rename_modules({**LORA, "target_modules": "all-linear"}, "llama") == {
        **LORA,
        "target_modules": "all-linear",
    }


@pytest.mark.parametrize("kind", ["encoder", "llama"])
def test_every_role_names_modules_that_exist(kind):
    from federatedscope_ext.tools.embedded import models

    model = models.encoder(50) if kind == "encoder" else models.llama(50)
    roles = models.ENCODER_ROLES if kind == "encoder" else models.LLAMA_ROLES
    modules = [name for name, _ in model.named_modules()]
    for names in roles.values():
        for name in names:
            assert any(module.endswith(f".{name}") for module in modules), name


def test_paths_are_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDERATEDSCOPE_CACHE", "relative")
    assert cache.cache_root().is_absolute()
    monkeypatch.delenv("FEDERATEDSCOPE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_root() == Path(tmp_path) / "federatedscope/embedded" / cache.digest()

"""What is refused, what is not, and that the registry is asked first."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from federatedscope import register
from federatedscope.core.configs.config import CN, global_cfg
from federatedscope.core.configs.ranges import value_of
from federatedscope.core.configs.refusal_table import OTHER_METHODS, OTHER_WORDS
from federatedscope.core.configs.refusals import REFUSALS, check_runnable, known_methods
from federatedscope.core.errors import ConfigError

BASE = """
use_gpu: True
device: 0
early_stop: {patience: 0}
federate:
  mode: standalone
  client_num: 3
  total_round_num: 500
  save_to: "out_30*500.ckpt"
  save_freq: 100
  share_local_model: True
  online_aggr: False
data: {root: data/, type: 'gsm8k@llm', splits: [0.998, 0.001, 0.001], splitter: 'iid'}
llm:
  tok_len: 1000
  chat: {max_len: 1000}
  adapter:
    use: True
    mv_to_cpu: True
    args: [{'adapter_package': 'peft', 'adapter_method': 'lora', 'r': 8, 'lora_alpha': 16,
            'lora_dropout': 0.05}]
dataloader: {batch_size: 1}
model: {type: 'somebody/llama@huggingface_llm'}
train:
  local_update_steps: 30
  batch_or_epoch: batch
  optimizer: {lr: 2e-2, weight_decay: 0.0}
  is_enable_half: True
criterion: {type: CrossEntropyLoss}
trainer: {type: llmtrainer}
eval: {freq: 50, metrics: ['loss'], best_res_update_round_wise_key: val_loss, count_flops: False}
"""


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("worker", "aggregator", "trainer", "data", "model", "splitter", "metric"):
        monkeypatch.setattr(register, f"{kind}_dict", {})


def base(*texts: str) -> CN:
    cfg = global_cfg.clone()
    for text in (BASE, *texts):
        cfg.merge_from_other_cfg(yaml.safe_load(text) or {})
    return cfg


def verdict(cfg: CN) -> str | None:
    """``None`` when the configuration can run, else the reason why not."""
    twin = cfg.clone()
    try:
        check_runnable(twin)
        twin.assert_cfg()
    except ConfigError as error:
        return str(error)
    return None


VOCABULARY = [
    "",
    "federate: {client_idx_for_local_train: 2}",
    "data: {type: 'dolly-15k@llm', splitter: lda, splitter_args: [{'alpha': 0.05}]}",
    "data: {type: 'dolly-15k@llm', splitter: meta}",
    "data: {type: 'code_search_net@llm', splitter: meta}",
    "data: {type: 'rosetta_alpaca@llm', splitter: meta, splits: [0.89, 0.1, 0.01]}",
    "data: {type: 'mine.jsonl@llm'}",
    "model: {type: 'somebody/llama@modelscope_llm'}",
    "llm: {adapter: {use: False}}",
    "eval_device: 1\nfederate: {freeze_A: False}\n"
    "personalization: {local_param: ['lora_B']}\n"
    "eval: {metrics: ['acc'], best_res_update_round_wise_key: val_acc}",
    "data: {type: 'mnli@glue', matched: True, splitter: lda}\ntrainer: {type: general}\n"
    "eval: {metrics: ['accuracy'], best_res_update_round_wise_key: 'val_accuracy'}",
    "vertical: {use: False, algo: xgb}\nattack: {freq: 3, attacker_id: [1, 2]}\n"
    "hpo: {init_cand_num: 3}\nasyn: {use: False, time_budget: 4}\nnbafl: {mu: 0.1}\n"
    "fedsageplus: {a: 2}\nquantization: {method: None, nbits: 16}",
    "federate: {method: FEDAVG}",
    "federate: {method: local}",
    "federate: {method: fedopt}\nfedopt: {use: True}",
]


@pytest.mark.parametrize("text", VOCABULARY)
def test_the_vocabulary_of_existing_yamls_runs(text: str) -> None:
    if "quantization" in text:
        text = text.replace("method: None", "method: 'None'")
    cfg = base(text)
    before = cfg.to_dict()
    assert verdict(cfg) is None
    assert cfg.to_dict() == before


ON: dict[str, Any] = {
    "backend": "tensorflow",
    "federate.mode": "distributed",
    "federate.process_num": 2,
    "federate.sampler": "group",
    "federate.resource_info_file": "devices.json",
    "federate.atc_load_from": "x",
    "train.data_para_dids": [0, 1],
    "attack.attack_method": "backdoor",
    "quantization.method": "uniform",
    "feat_engr.type": "woe",
    "data.hetero_data_name": ["imdb"],
    "data.num_of_client_for_data": [1],
    "data.loader": "graphsaint-rw",
    "dataloader.type": "pyg",
    "model.stage": "assign",
    "model.pretrain_tasks": ["mlm"],
    "model.downstream_tasks": ["imdb"],
    "model.model_num_per_trainer": 2,
    "hpo.ss": "space.yaml",
    "hpo.scheduler": "sha",
}


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda r: r.field)
def test_each_feature_is_refused_by_name(refusal: Any) -> None:
    cfg = base()
    assert not refusal.applies(value_of(cfg, refusal.field))
    cfg.merge_from_list([refusal.field, ON.get(refusal.field, True)])
    with pytest.raises(ConfigError) as caught:
        check_runnable(cfg)
    assert caught.value.field == refusal.field
    assert refusal.feature in caught.value.problem
    assert caught.value.remedy.startswith(refusal.remedy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", ["federate.mode", "distribute.use", "llm.deepspeed.use"])
def test_planned_features_say_so_and_what_to_set(field: str) -> None:
    cfg = base()
    cfg.merge_from_list([field, ON.get(field, True)])
    reason = verdict(cfg) or ""
    assert "planned and not in this version" in reason
    assert "standalone" in reason or "llm.deepspeed.use: False" in reason


def test_all_refused_features_are_named() -> None:
    cfg = base(
        "federate: {mode: distributed}\ndistribute: {use: True}\nllm: {deepspeed: {use: on}}"
    )
    reason = verdict(cfg) or ""
    assert reason.startswith("federate.mode")
    assert "Also refused: distribute.use, llm.deepspeed.use" in reason


METHODS = [
    # Of an extension that is not loaded.
    ("flexlora", "'extensions'"),
    *((method, "outside this project") for method in OTHER_METHODS),
    *((method, "Write federate.method") for method in OTHER_WORDS),
    ("fedavgg", "Did you mean fedavg?"),
    ("my_method", "a module that registers them"),
]


@pytest.mark.parametrize(("method", "word"), METHODS)
def test_methods_are_refused_unless_registered(method: str, word: str) -> None:
    cfg = base()
    cfg.federate.method = method.upper()
    reason = verdict(cfg) or ""
    assert reason.startswith("federate.method") and word in reason

    def worker(name: str) -> dict[str, type] | None:
        return {"client": object, "server": object} if name == method else None

    register.register_worker("mine", worker)
    assert verdict(cfg) is None


def test_known_methods_are_names_and_not_keys_of_builders() -> None:
    workers = {"client": object, "server": object}
    register.register_worker("package", lambda m: workers if m in ("ditto", "fedem") else None)
    register.register_worker("own", lambda m: workers if m == "own" else None)
    built_in = ["fedavg", "fedopt", "fedprox", "global", "local"]
    assert known_methods() == sorted([*built_in, "ditto", "fedem", "own"])


def test_a_registered_aggregator_makes_a_method_known() -> None:
    cfg = base()
    cfg.federate.method = "flexlora"

    def build(method: str, **kwargs: Any) -> object | None:
        return object() if method == "flexlora" else None

    register.register_aggregator("other", build)
    assert verdict(cfg) is None


NAMES = [
    # section, value, word of the refusal
    ("trainer", "cvtrainer", "images"),
    ("trainer", "gluetrainr", "unknown trainer"),
    ("trainer", "llmtrainr", "Did you mean llmtrainer?"),
    ("data", "toy", "no data set is chosen"),
    ("data", "femnist", "images"),
    ("data", "CIFAR10@torchvision", "images"),
    ("data", "graph_multi_domain_mix", None),
    ("data", "cora", "graphs"),
    ("data", "my_own_data", None),
    ("model", "lr", "no model is chosen"),
    ("model", "gin", "graphs"),
    ("model", "gnn_gin", "graphs"),
    ("model", "google/bert@transformers", "google/bert@huggingface_llm"),
    ("model", "my_own_model", None),
]


@pytest.mark.parametrize(("section", "name", "word"), NAMES)
def test_names_of_other_domains(section: str, name: str, word: str | None) -> None:
    cfg = base()
    cfg[section].type = name
    reason = verdict(cfg)
    if word is None:
        assert reason is None
        return
    assert reason is not None and reason.startswith(f"{section}.type") and word in reason
    builder: Any = (lambda kind: object) if section == "trainer" else (lambda *args: None)
    getattr(register, f"register_{section}")(name, builder)
    assert verdict(cfg) is None


def test_graph_splitters() -> None:
    assert "graphs" in (verdict(base("data: {splitter: louvain}")) or "")
    assert verdict(base("data: {splitter: mine}")) is None


def _upstream_yamls() -> list[Path]:
    root = os.environ.get("FEDERATEDSCOPE_UPSTREAM", "")
    files = sorted(Path(root).rglob("*.yaml")) if root else []
    return [f for f in files if {"llm", "glue"} & set(f.parts)]


@pytest.mark.skipif(not _upstream_yamls(), reason="FEDERATEDSCOPE_UPSTREAM is not set")
def test_every_upstream_llm_yaml_loads_and_gets_a_verdict() -> None:
    register.register_trainer("gluetrainer", lambda kind: object if kind == "gluetrainer" else None)
    for file in _upstream_yamls():
        cfg = global_cfg.clone()
        cfg.merge_from_file(file)
        reason = verdict(cfg)
        refused = cfg.federate.mode == "distributed" or cfg.llm.deepspeed.use
        refused = refused or cfg.llm.offsite_tuning.use
        assert (reason is not None) == refused, (file, reason)
        assert reason is None or "version" in reason or "outside this project" in reason

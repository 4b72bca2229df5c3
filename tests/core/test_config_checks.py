"""Contradictions and derived values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from federatedscope import register
from federatedscope.core.configs import checks, checks_federation
from federatedscope.core.configs.config import CN, global_cfg
from federatedscope.core.configs.ranges import RANGES, Check, value_of
from federatedscope.core.errors import ConfigError

LORA = ["llm.adapter.use", True, "llm.adapter.args", [{"adapter_method": "lora", "r": 8}]]


def merged(*pairs: Any) -> CN:
    cfg = global_cfg.clone()
    cfg.merge_from_list(["federate.client_num", 4, *pairs])
    return cfg


CONTRADICTIONS = [
    # settings, field of the error, word in the remedy or problem
    (["federate.sample_client_num", 5], "federate.sample_client_num", "at most 4"),
    (["federate.sample_client_num", 4, "federate.unseen_clients_rate", 0.5],
     "federate.sample_client_num", "at most 2"),
    (["federate.sample_client_rate", 1.5], "federate.sample_client_rate", "at most 1"),
    (["federate.unseen_clients_rate", 1.0], "federate.unseen_clients_rate", "less than 1"),
    (["federate.client_idx_for_local_train", 5], "federate.client_idx_for_local_train", "1 to 4"),
    (["federate.total_round_num", -1], "federate.total_round_num", "at least 0"),
    (["federate.save_freq", 0], "federate.save_freq", "-1"),
    (["federate.restore_from", "no/such.ckpt"], "federate.restore_from", "no such file"),
    (["federate.save_to", "."], "federate.save_to", "folder"),
    (["federate.merge_val_data", True], "federate.merge_val_data", "merge_test_data"),
    (["outdir", ""], "outdir", "exp"),
    (["eval.freq", 0], "eval.freq", "at least 1"),
    (["eval.split", ["dev"]], "eval.split", "val"),
    (["eval.split", []], "eval.split", "empty"),
    (["eval.split", ["test"]], "eval.best_res_update_round_wise_key", "test_loss"),
    (["eval.best_res_update_round_wise_key", "val_f1"], "eval.best_res_update_round_wise_key",
     "eval.metrics"),
    (["eval.best_res_update_round_wise_key", "loss"], "eval.best_res_update_round_wise_key",
     "test_loss"),
    (["eval.phases", ["during"]], "eval.phases", "before"),
    (["eval.report", ["avg", "median"]], "eval.report", "fairness"),
    (["early_stop.patience", -1], "early_stop.patience", "at least 0"),
    (["dataloader.batch_size", 0], "dataloader.batch_size", "at least 1"),
    (["data.batch_size", 8, "dataloader.batch_size", 16], "data.batch_size", "delete"),
    (["train.local_update_steps", 0], "train.local_update_steps", "at least 1"),
    (["train.optimizer.lr", -0.1], "train.optimizer.lr", "at least 0"),
    (["train.optimizer.lr", float("nan")], "train.optimizer.lr", "at least 0"),
    (["grad.grad_accum_count", 0], "grad.grad_accum_count", "at least 1"),
    (["data.splits", [0.9, 0.1, 0.1]], "data.splits", "at most 1"),
    (["data.splits", [0.9, 0.1]], "data.splits", "three"),
    (["data.splits", [0.0, 0.5, 0.5]], "data.splits", "positive"),
    (["data.splits", [1.1, -0.1, 0.0]], "data.splits", "three"),
    (["data.subsample", 0.0], "data.subsample", "greater than 0"),
    (["data.splitter_args", [0.5]], "data.splitter_args", "alpha"),
    (["data.type", "sst2@glue"], "data.splitter", "iid"),
    (["data.type", "x.jsonl@llm", "data.splitter", "iid", "federate.client_num", 0],
     "federate.client_num", "federate.client_num: 3"),
    (["finetune.before_eval", True, "finetune.local_update_steps", 0],
     "finetune.local_update_steps", "positive"),
    (["federate.freeze_A", True], "federate.freeze_A", "llm.adapter.use"),
    (["federate.freeze_A", True, "llm.adapter.use", True, "llm.adapter.args",
      [{"adapter_method": "vera"}]], "federate.freeze_A", "lora"),
    ([*LORA, "federate.freeze_A", True, "federate.method", "FedSA"], "federate.freeze_A", "ffa"),
    ([*LORA, "federate.freeze_A", True, "personalization.local_param", ["lora_B"]],
     "personalization.local_param", "freeze_A"),
    (["federate.method", "ffa", "personalization.local_param", ["lora"]],
     "personalization.local_param", "lora_B"),
    (["federate.method", "fedsa", "personalization.local_param", ["lora_A"]],
     "personalization.local_param", "fedsa"),
    (["personalization.local_param", [""]], "personalization.local_param", "not empty"),
    (["personalization.head", "shared", "personalization.local_param", ["lora_B", "classifier"]],
     "personalization.head", "classifier"),
    (["personalization.head", "shared", "federate.method", "local"], "personalization.head",
     "auto"),
    (["federate.ignore_weight", True, "aggregator.weights", "processed"], "aggregator.weights",
     "uniform"),
    (["aggregator.robust_rule", "krum", "aggregator.byzantine_node_num", 1],
     "aggregator.byzantine_node_num", "2f + 3 = 5"),
    (["aggregator.robust_rule", "bulyan", "aggregator.byzantine_node_num", 1],
     "aggregator.byzantine_node_num", "4f + 3 = 7"),
    (["aggregator.robust_rule", "trimmedmean", "aggregator.byzantine_node_num", 2],
     "aggregator.byzantine_node_num", "2f + 1 = 5"),
    (["aggregator.robust_rule", "median", "fedopt.use", True], "aggregator.robust_rule",
     "fedavg"),
    (["aggregator.robust_rule", "median", "federate.method", "local"], "aggregator.robust_rule",
     "FedAvg"),
    (["aggregator.robust_rule", "normbounding", "aggregator.BFT_args.normbounding_norm_bound", 0],
     "aggregator.BFT_args.normbounding_norm_bound", "greater than 0"),
    (["fedopt.optimizer.lr", 0.0], "fedopt.optimizer.lr", "greater than 0"),
    (["fedopt.annealing_gamma", 1.5], "fedopt.annealing_gamma", "at most 1"),
    (["fedprox.mu", -1.0], "fedprox.mu", "at least 0"),
    (["llm.adapter.use", True, "llm.adapter.args", [{"r": 0}]], "llm.adapter.args", "whole"),
    (["llm.adapter.use", True, "llm.adapter.args", [{"r": "8a"}]], "llm.adapter.args", "whole"),
    (["llm.adapter.use", True, "llm.adapter.args", [{"lora_dropout": 1.0}]], "llm.adapter.args",
     "less than 1"),
    (["llm.adapter.use", True, "llm.adapter.args", [{"adapter_package": "adapterhub"}]],
     "llm.adapter.args", "peft"),
    (["llm.adapter.use", True, "llm.adapter.args", [{"adapter_method": "loar"}]],
     "llm.adapter.args", "lora"),
    (["llm.adapter.use", True, "llm.adapter.args", [{"r": 8}, {"r": 4}]], "llm.adapter.args",
     "one mapping"),
    (["llm.adapter.args", ["lora"]], "llm.adapter.args", "mappings"),
]  # fmt: skip


@pytest.mark.parametrize(("pairs", "field", "word"), CONTRADICTIONS)
def test_contradictions_are_refused(pairs: list[Any], field: str, word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        merged(*pairs).assert_cfg()
    assert caught.value.field == field
    assert word in str(caught.value)
    assert caught.value.remedy


HARMLESS: list[list[Any]] = [
    [],
    ["eval.split", ["test"], "eval.best_res_update_round_wise_key", "test_acc", "eval.metrics",
     ["acc"]],
    ["eval.metrics", ["rouge@l"], "eval.best_res_update_round_wise_key", "val_rouge_l"],
    ["eval.best_res_update_round_wise_key", "test_avg_loss"],
    ["data.splits", [0.998, 0.001, 0.001]],
    ["data.splits", [0.99, 0.0, 0.01]],
    ["federate.total_round_num", 0],
    ["early_stop.patience", 0],
    [*LORA, "federate.freeze_A", True, "personalization.local_param", ["classifier"]],
    ["federate.method", "fedsa", "personalization.local_param", ["lora_B", "classifier"]],
    ["personalization.head", "shared", "personalization.local_param", ["lora_B"]],
    ["federate.ignore_weight", True],
    ["federate.client_num", 5, "aggregator.robust_rule", "krum",
     "aggregator.byzantine_node_num", 1],
    ["federate.share_local_model", True, "federate.online_aggr", True],
]  # fmt: skip


@pytest.mark.parametrize("pairs", HARMLESS)
def test_sound_configurations_pass_any_number_of_times(pairs: list[Any]) -> None:
    cfg = merged(*pairs)
    cfg.assert_cfg()
    once = cfg.to_dict()
    cfg.assert_cfg()
    assert cfg.to_dict() == once
    cfg.freeze()


SAMPLING = [
    # client_num, sample_client_num, rate, unseen rate, expected clients per round
    (3, -1, -1.0, 0.0, 3),
    (3, 0, -1.0, 0.0, 3),
    (3, 2, -1.0, 0.0, 2),
    (100, -1, 0.3, 0.0, 30),
    (100, 7, 0.29, 0.0, 29),
    (10, -1, 0.01, 0.0, 1),
    (10, -1, 0.5, 0.2, 4),
    (10, -1, -1.0, 0.2, 8),
    (1, -1, -1.0, 0.9, 1),
    (0, 5, -1.0, 0.0, 5),
]


@pytest.mark.parametrize(("clients", "number", "rate", "unseen", "expected"), SAMPLING)
def test_clients_per_round(
    clients: int, number: int, rate: float, unseen: float, expected: int
) -> None:
    cfg = merged(
        "federate.client_num", clients, "federate.sample_client_num", number,
        "federate.sample_client_rate", rate, "federate.unseen_clients_rate", unseen,
    )  # fmt: skip
    for _ in range(2):
        cfg.assert_cfg()
        assert cfg.federate.sample_client_num == expected


def test_rate_wins_over_number_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    cfg = merged("federate.sample_client_num", 1, "federate.sample_client_rate", 0.5)
    cfg.assert_cfg()
    cfg.assert_cfg()
    assert cfg.federate.sample_client_num == 2
    assert caplog.text.count("sample_client_rate") == 1


@pytest.mark.parametrize("method", ["local", "Global"])
def test_methods_without_exchange_use_all_clients(method: str) -> None:
    cfg = merged(
        "federate.method", method, "federate.sample_client_num", 2,
        "federate.unseen_clients_rate", 0.5, "federate.make_global_eval", True,
    )  # fmt: skip
    cfg.assert_cfg()
    assert cfg.federate.sample_client_num == 4
    assert cfg.federate.unseen_clients_rate == 0.0
    assert cfg.federate.make_global_eval is (method == "local")


def test_one_client_of_several() -> None:
    cfg = merged("federate.client_idx_for_local_train", 3)
    cfg.assert_cfg()
    assert cfg.federate.sample_client_num == 1
    cfg.federate.client_num = 1  # what the run does once the data are split
    cfg.assert_cfg()
    assert cfg.federate.sample_client_num == 1


def test_inherited_values() -> None:
    cfg = merged("train.optimizer.lr", 0.02, "train.local_update_steps", 7)
    cfg.assert_cfg()
    assert (cfg.personalization.lr, cfg.personalization.local_update_steps) == (0.02, 7)
    cfg = merged("federate.merge_test_data", True)
    cfg.assert_cfg()
    assert cfg.federate.make_global_eval is True


def test_a_registered_metric_may_decide_the_best_round(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(types: list[str]) -> tuple[str, Any, bool] | None:
        return ("pearson", len, True) if "glue_stsb" in types else None

    monkeypatch.setattr(register, "metric_dict", {"mine": build})
    pairs = ["eval.best_res_update_round_wise_key", "val_pearson"]
    with pytest.raises(ConfigError, match="not computed"):
        merged(*pairs, "eval.metrics", ["mse"]).assert_cfg()
    merged(*pairs, "eval.metrics", ["glue_stsb"]).assert_cfg()


def test_old_loader_keys_move() -> None:
    cfg = merged("data.batch_size", 8, "data.shuffle", False, "data.drop_last", True)
    cfg.assert_cfg()
    loader = cfg.dataloader
    assert (loader.batch_size, loader.shuffle, loader.drop_last) == (8, False, True)
    assert (cfg.data.batch_size, cfg.data.shuffle, cfg.data.drop_last) == (64, True, False)
    cfg.merge_from_list(["dataloader.batch_size", "16"])
    cfg.assert_cfg()
    assert cfg.dataloader.batch_size == 16


def test_restore_from_an_existing_file(tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    file.write_bytes(b"")
    merged("federate.restore_from", str(file)).assert_cfg()


@pytest.mark.parametrize("bounds", RANGES, ids=lambda bounds: bounds.field)
def test_ranges_name_real_keys_whose_defaults_hold(bounds: Any) -> None:
    assert bounds.holds(value_of(global_cfg, bounds.field))
    assert str(bounds)


RULES = [
    rule
    for module in (checks, checks_federation)
    for table in vars(module).values()
    for rule in (table if isinstance(table, tuple) else (table,))
    if isinstance(rule, Check)
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.field}: {rule.problem[:30]}")
def test_rules_name_real_keys_and_have_whole_messages(rule: Check) -> None:
    value_of(global_cfg, rule.field)
    for text in (rule.problem, rule.remedy):
        assert text.format(c=global_cfg, found=["x"])

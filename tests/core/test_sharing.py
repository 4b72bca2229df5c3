"""What a method and a head rule mean, written out before a run."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from federatedscope.core.configs.config import global_cfg
from federatedscope.core.errors import ConfigError
from federatedscope.core.preflight import check_sharing, expected_weight, majority_baseline
from federatedscope.core.sharing import head_rule, names_head, settled

HEAD = "modules_to_save"


def config(*pairs: Any) -> Any:
    import federatedscope_ext  # noqa: F401  (registers fedsa and ffa)

    cfg = global_cfg.clone()
    cfg.merge_from_list([
        "federate.method", "FedAvg", "federate.client_num", 4, "data.num_labels", 2,
        "model.type", "x@huggingface_llm", "trainer.type", "gluetrainer",
        "llm.adapter.use", True, "llm.adapter.args", [{"adapter_method": "lora"}], *pairs,
    ])  # fmt: skip
    return cfg


@pytest.mark.parametrize(
    ("keyword", "expected"),
    [
        ("classifier", True), ("score", True), ("modules_to_save", True), ("class", True),
        ("lora_B", False), ("layer.3", False), ("", False),
    ],
)  # fmt: skip
def test_keywords_of_the_head(keyword: str, expected: bool) -> None:
    assert names_head(keyword) is expected


@pytest.mark.parametrize(
    ("pairs", "rule"),
    [
        ([], "shared"),
        (["federate.method", "local"], "local"),
        (["personalization.head", "local"], "local"),
        (["personalization.local_param", ["lora_B", "classifier"]], "local"),
        (["personalization.local_param", ["lora_B"]], "shared"),
        (["data.num_labels", 0], "none"),
        (["trainer.type", "llmtrainer"], "none"),
        (["model.type", "mynet"], "none"),
    ],
)
def test_the_rule(pairs: list[Any], rule: str) -> None:
    assert head_rule(config(*pairs)) == rule


@pytest.mark.parametrize(
    ("pairs", "local"),
    [
        (["federate.method", "fedsa"], ["lora_B", "lora_embedding_B", HEAD]),
        (["federate.method", "fedsa", "personalization.head", "shared"],
         ["lora_B", "lora_embedding_B"]),
        (["personalization.local_param", ["lora_B", "classifier"]],
         ["lora_B", "classifier", HEAD]),
        ([], []),
        (["personalization.head", "local"], [HEAD]),
        (["federate.method", "ffa"], []),
        (["federate.method", "ffa", "personalization.head", "local"], [HEAD]),
        (["llm.adapter.use", False, "personalization.head", "local"],
         ["classifier", "score", "classification_head"]),
        (["federate.method", "fedsa", "trainer.type", "llmtrainer", "data.num_labels", 0],
         ["lora_B", "lora_embedding_B"]),
    ],
)  # fmt: skip
def test_what_stays(pairs: list[Any], local: list[str]) -> None:
    cfg = config(*pairs)
    before = cfg.clone()
    run = settled(cfg)
    assert list(run.personalization.local_param) == local
    assert cfg == before
    assert settled(run) == run


def test_server_optimizer_and_proximal_term() -> None:
    assert settled(config("federate.method", "fedopt")).fedopt.use
    run = settled(config("fedprox.use", True, "fedprox.mu", 0.3))
    assert (run.regularizer.type, run.regularizer.mu) == ("proximal_regularizer", 0.3)
    assert not settled(config()).regularizer.type


def test_unseen_clients_are_not_sampled() -> None:
    cfg = config("federate.unseen_clients_rate", 0.5)
    cfg.assert_cfg()
    assert settled(cfg).federate.sample_client_num == 2


def test_a_contradiction() -> None:
    cfg = config("personalization.head", "shared", "personalization.local_param", ["classifier"])
    with pytest.raises(ConfigError, match=r"personalization\.head"):
        settled(cfg)


SHAPES = {
    "m.lora_A.default.weight": torch.Size((4, 8)),
    "m.lora_B.default.weight": torch.Size((8, 4)),
    f"m.classifier.{HEAD}.default.weight": torch.Size((2, 8)),
}


class TestChecks:
    def test_declared_keywords_must_match(self) -> None:
        check_sharing(config(), SHAPES, ["lora_B", "classifier"])
        with pytest.raises(ConfigError, match=r"lora_A") as caught:
            check_sharing(config(), SHAPES, ["lora_B", "lora_a"])
        assert caught.value.value == "lora_a"

    def test_keywords_that_a_method_adds_need_not(self) -> None:
        cfg = config("personalization.local_param", ["lora_B", "lora_embedding_B"])
        check_sharing(cfg, SHAPES)

    def test_something_must_be_left(self) -> None:
        cfg = config("personalization.local_param", ["lora", "classifier"])
        with pytest.raises(ConfigError, match="exchange nothing"):
            check_sharing(cfg, SHAPES)
        cfg.federate.method = "local"
        check_sharing(cfg, SHAPES)


@pytest.mark.parametrize(
    ("pairs", "rows", "weight"),
    [
        ([], 30, 30),
        (["aggregator.weights", "uniform"], 30, 1),
        (["federate.ignore_weight", True], 30, 1),
        (["aggregator.weights", "processed"], 100, 40),
        (["aggregator.weights", "processed"], 30, 38),
        (["aggregator.weights", "processed"], 3, 15),
        (["aggregator.weights", "processed", "train.batch_or_epoch", "epoch"], 30, 150),
        (["aggregator.weights", "processed", "dataloader.drop_last", True], 30, 40),
        (["aggregator.weights", "processed", "grad.grad_accum_count", 2], 100, 80),
    ],
)
def test_the_expected_weight(pairs: list[Any], rows: int, weight: float) -> None:
    cfg = config(
        "dataloader.batch_size", 8, "dataloader.drop_last", False, "train.local_update_steps", 5,
        *pairs,
    )  # fmt: skip
    assert expected_weight(cfg, rows) == weight


@pytest.mark.parametrize(
    ("histograms", "expected"),
    [
        ({"train": {"0": 3, "1": 7}, "val": {"0": 1, "1": 3}},
         {"label": "1", "val": 0.75, "test": None}),
        ({"train": {"0": 3, "1": 7}, "val": {"0": 4}}, {"label": "1", "val": 0.0, "test": None}),
        ({"train": {"0": 5, "1": 5}, "test": {"0": 1, "1": 1}},
         {"label": "0", "val": None, "test": 0.5}),
        ({"train": None}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_the_majority_baseline(histograms: Any, expected: Any) -> None:
    found = majority_baseline(histograms)
    assert (found and found.to_json()) == expected

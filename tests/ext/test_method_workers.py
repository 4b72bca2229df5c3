"""The extension's workers write their method's decisions into the configuration, nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from federatedscope import register
from federatedscope.core.configs.config import global_cfg
from federatedscope.core.workers import Client, Server
from federatedscope_ext.methods import METHODS
from federatedscope_ext.workers.base import settle

LORA = [{"adapter_package": "peft", "adapter_method": "lora", "r": 4}]


def config(method: str, **adapter: Any) -> Any:
    cfg = global_cfg.clone()
    cfg.federate.method = method
    cfg.llm.adapter.use = True
    cfg.llm.adapter.args = [{**LORA[0], **adapter}]
    return cfg


def server_of(method: str) -> Any:
    return register.first_answer(register.worker_dict, method)["server"]


@pytest.mark.parametrize("method", METHODS)
def test_they_are_registered_in_the_contracts_form(method: str) -> None:
    workers = register.first_answer(register.worker_dict, method)
    assert workers["server"].method is METHODS[method]
    assert issubclass(workers["server"], Server)
    assert issubclass(workers["client"], Client)


def test_other_methods_are_left_to_others() -> None:
    assert register.first_answer(register.worker_dict, "fedavg") is None


@pytest.mark.parametrize(
    ("method", "adapter", "local", "frozen", "head", "name"),
    [
        ("fedsa", {}, ["lora_B", "lora_embedding_B"], False, "local", "FedSA-LoRA"),
        ("fedsa", {"use_rslora": True}, ["lora_B", "lora_embedding_B"], False, "local",
         "FedSA-rsLoRA"),
        ("fedsa", {"adapter_method": "vera"}, ["vera_lambda_b"], False, "local", "FedSA-VeRA"),
        ("ffa", {}, [], True, "shared", "FFA-LoRA"),
    ],
)  # fmt: skip
def test_what_they_write(
    method: str, adapter: Any, local: list[str], frozen: bool, head: str, name: str
) -> None:
    cfg = config(method, **adapter)
    server = server_of(method)
    server.prepare_config(cfg)
    once = cfg.clone()
    assert list(cfg.personalization.local_param) == local
    assert cfg.federate.freeze_A is frozen
    assert cfg.personalization.head == head
    assert server.variant(cfg) == name
    settle(server.method, cfg)
    assert cfg == once


def test_the_users_own_choices_stay() -> None:
    cfg = config("fedsa")
    cfg.personalization.local_param = ["layer.0"]
    cfg.personalization.head = "shared"
    server_of("fedsa").prepare_config(cfg)
    assert list(cfg.personalization.local_param) == ["layer.0", "lora_B", "lora_embedding_B"]
    assert cfg.personalization.head == "shared"


def test_the_trainer_of_classifiers(rig: Any) -> None:
    """Both kinds of batch: with and without token types; logits and labels are kept."""
    import torch

    runner = rig.runner("data.type", "mnli@glue")
    trainer = runner.clients[1].trainer
    kept: list[Any] = []

    def look(ctx: Any) -> None:
        with torch.no_grad():
            expected = ctx.model(
                input_ids=ctx.data_batch["input_ids"],
                attention_mask=ctx.data_batch["attention_mask"],
                token_type_ids=ctx.data_batch["token_type_ids"],
            ).logits
        kept.append(torch.equal(ctx.y_prob, expected))
        kept.append(torch.equal(ctx.y_true, ctx.data_batch["labels"]))
        loss = torch.nn.functional.cross_entropy(expected, ctx.data_batch["labels"])
        kept.append(torch.allclose(ctx.loss_batch, loss))
        kept.append(expected.shape[1] == 3)

    trainer.register_hook_in_eval(look, "on_batch_forward")
    assert trainer.evaluate("val")
    assert kept
    assert all(kept)


def test_a_regression(rig: Any, tmp_path: Any) -> None:
    """One output, a loss of squares, labels as they are."""
    import json
    import random

    rng = random.Random(0)
    file = tmp_path / "scores.jsonl"
    with file.open("w") as stream:
        for _ in range(80):
            good = rng.random() < 0.5
            text = ("good fine" if good else "bad awful") + " film"
            stream.write(json.dumps({"text": text, "label": 0.5 + 4 * good}) + "\n")
    done = rig(
        "data.type", f"{file}@text", "data.splitter", "iid", "data.splits", "[0.7, 0.3, 0.0]",
        "eval.metrics", "['mse', 'pearson']", "eval.best_res_update_round_wise_key", "val_mse",
        "federate.total_round_num", 3, "train.local_update_steps", 4,
        "train.optimizer.lr", 0.02,
    )  # fmt: skip
    assert done.code == 0
    errors = [line["Results_avg"]["val_mse"] for line in done.lines[:-1]]
    assert errors[-1] < errors[0]
    assert done.run["clients"][0]["majority"] is None
    assert done.run["larger_is_better"] is False
    event = done.of("eval")[0]["metrics"]
    assert event["val_avg_loss"] == pytest.approx(event["val_mse"], rel=1e-4)

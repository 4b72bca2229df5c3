"""The loss of answers: a mean over the tokens of a split, whatever the batches."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from federatedscope.core.data.utils import rows_of
from federatedscope.llm.dataset.instruction_rows import IGNORE_INDEX

ROWS = 40
METRICS = ("val_loss", "val_avg_loss", "val_total", "val_rougeL_forced")


@pytest.fixture
def options(tmp_path: Path, tiny_llama: Path) -> tuple[Any, ...]:
    """Rows whose answers are one word long or up to thirty."""
    rng = random.Random(1)
    words = ["good", "fine", "great", "bad", "poor", "awful"]
    rows = [
        {"instruction": f"the film was w{i}", "output": " ".join(rng.choices(words, k=k))}
        for i, k in enumerate(rng.choices([1, 2, 30], k=ROWS))
    ]
    (tmp_path / "own.json").write_text(json.dumps(rows))
    return (
        "data.type", f"{tmp_path / 'own.json'}@llm", "model.type", f"{tiny_llama}@huggingface_llm",
        "trainer.type", "llmtrainer", "data.splitter", "iid", "data.splits", "[0.5, 0.5, 0.0]",
        "federate.method", "fedavg", "federate.client_num", 1, "llm.tok_len", 100,
        "eval.metrics", "['rougeL_forced']", "eval.best_res_update_round_wise_key", "val_avg_loss",
    )  # fmt: skip


def trainer_of(rig: Any, *options: Any) -> Any:
    runner = rig.runner(*options)
    runner.store.activate(1)
    trainer = runner.clients[1].trainer
    trainer.cfg.defrost()
    return trainer


def unlabel(rows: Any, which: range) -> None:
    """Leave rows nothing to learn from, as ``llm.tok_len`` does to those whose prompt fills it."""
    base, indices = rows_of(rows)
    base._answers = base._answers.copy()
    for i in which:
        base._answers[indices[i]] = base.lengths[indices[i]]


def by_hand(trainer: Any) -> float:
    """The mean over all answer tokens, row by row in double precision."""
    losses: list[float] = []
    for row in trainer.ctx.val_data:
        with torch.no_grad():
            logits = trainer.ctx.model(input_ids=row["input_ids"][None]).logits[0, :-1].double()
        labels = row["labels"][1:]
        each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        losses += each[labels != IGNORE_INDEX].tolist()
    return sum(losses) / len(losses)


@pytest.mark.parametrize("unlabelled", [0, 5, ROWS // 2 - 1])
def test_it_does_not_depend_on_the_batches(
    rig: Any, options: tuple[Any, ...], unlabelled: int
) -> None:
    trainer = trainer_of(rig, *options)
    unlabel(trainer.ctx.val_data, range(unlabelled))
    base, _ = rows_of(trainer.ctx.val_data)
    trainer.ctx.model.eval()
    found = {}
    for size in (1, 3, 64):
        trainer.cfg.eval.batch_size = size
        # Loaders sort by the lengths: another order of the same rows.
        for order, lengths in enumerate((base.lengths, base.lengths * 7 % 5)):
            with mock.patch.object(base, "lengths", lengths):
                found[size, order] = trainer.evaluate("val")
    expected = by_hand(trainer)
    for metrics in found.values():
        assert [metrics[m] for m in METRICS] == [
            pytest.approx(v, rel=1e-6) for v in [found[1, 0][m] for m in METRICS]
        ]
        assert metrics["val_avg_loss"] == pytest.approx(expected, rel=1e-5)
        assert metrics["val_loss"] / metrics["val_total"] == pytest.approx(metrics["val_avg_loss"])
        assert metrics["val_total"] == ROWS // 2


def test_a_split_without_an_answer_token_has_no_loss(rig: Any, options: tuple[Any, ...]) -> None:
    trainer = trainer_of(rig, *options)
    unlabel(trainer.ctx.val_data, range(ROWS // 2))
    assert math.isnan(trainer.evaluate("val")["val_avg_loss"])


def test_training_leaves_batches_without_an_answer_out(rig: Any, options: tuple[Any, ...]) -> None:
    """They are no sign that the run diverges, however many there are."""
    steps = ("dataloader.batch_size", 1, "train.local_update_steps", ROWS // 2)
    trainer = trainer_of(rig, *options, *steps, "dataloader.shuffle", False)
    unlabel(trainer.ctx.train_data, range(15))
    samples, state, metrics = trainer.train()
    assert samples == metrics["train_total"] == 5
    assert math.isfinite(metrics["train_avg_loss"]) and trainer.ctx.monitor.nonfinite_steps == 0
    assert all(torch.isfinite(tensor).all() for tensor in state.values())


def test_the_loss_of_training_is_the_mean_over_the_batchs_tokens(
    rig: Any, options: tuple[Any, ...]
) -> None:
    trainer = trainer_of(rig, *options, "dataloader.batch_size", 4)
    seen: list[tuple[float, int]] = []
    trainer.register_hook_in_train(
        lambda ctx: seen.append((ctx.loss_batch.item(), ctx.batch_size)), "on_batch_end"
    )
    metrics = trainer.train()[2]
    rows = sum(size for _, size in seen)
    assert metrics["train_avg_loss"] == pytest.approx(sum(x * n for x, n in seen) / rows)


@pytest.mark.parametrize("method", ["prompt", "p-tuning", "prefix"])
def test_virtual_tokens(rig: Any, options: tuple[Any, ...], method: str) -> None:
    """They are no answer, and leave the places of the answer's tokens as they are."""
    args = [{"adapter_package": "peft", "adapter_method": method, "num_virtual_tokens": 4}]
    trainer = trainer_of(rig, *options, "llm.adapter.args", args)
    found = []
    for size in (1, 64):
        trainer.cfg.eval.batch_size = size
        found.append(trainer.evaluate("val"))
    for metric in METRICS:
        assert found[0][metric] == pytest.approx(found[1][metric], rel=1e-6)

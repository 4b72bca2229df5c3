"""Rouge-L: against figures of the package rouge-score, and through a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from federatedscope.llm.generation import forced_answers
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.metrics.rouge import (
    generated_rouge_l,
    longest_common_subsequence,
    rouge_l,
    rouge_words,
)


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        # RougeScorer(["rougeL"]).score(reference, answer)["rougeL"].fmeasure of rouge-score 0.1.2
        ("The cat, sat down", "the cat sat", 0.8571428571428571),
        ("The cat, sat down on a mat!", "the cat sat on the mat", 0.7692307692307692),
        ("its 3 5", "it's 3.5 µm", 0.5),
        ("grosse 3 5", "Größe 3.5", 0.5714285714285715),
        ("b a", "a b", 0.5),
        ("", "a", 0.0),
        ("a", "!?", 0.0),
        ("Same words.", "same WORDS", 1.0),
    ],
)
def test_against_the_package(answer: str, reference: str, expected: float) -> None:
    assert rouge_l(answer, [reference]) == pytest.approx(expected, abs=1e-12)


def test_subsequences_against_the_table() -> None:
    """The textbook's table of lengths, over all pairs of short texts and some long ones."""
    import itertools
    import random

    def table(a: list[str], b: list[str]) -> int:
        length = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                length[i + 1][j + 1] = (
                    length[i][j] + 1 if x == y else max(length[i][j + 1], length[i + 1][j])
                )
        return length[-1][-1]

    texts = [list(t) for n in range(5) for t in itertools.product("ab", repeat=n)]
    rng = random.Random(1)
    long = [rng.choices("abcdefg", k=rng.randint(60, 150)) for _ in range(12)]
    for a, b in [*itertools.product(texts, texts), *itertools.product(long, long)]:
        assert longest_common_subsequence(a, b) == table(a, b)


def test_the_best_reference_counts() -> None:
    assert rouge_l("a b c", ["x", "a b", "c"]) == pytest.approx(0.8)
    assert generated_rouge_l(y_true=[["a"], ["b", "c"]], y_pred=["a", "d"]) == 0.5


def test_words() -> None:
    assert rouge_words("The 3.5-m Röhre's") == ["the", "3", "5", "m", "r", "hre", "s"]


def test_classes_are_no_answers() -> None:
    with pytest.raises(ExtensionError, match="llmtrainer"):
        generated_rouge_l(y_true=torch.zeros(3), y_pred=torch.zeros(3))


@pytest.fixture
def options(tmp_path: Path, tiny_llama: Path) -> tuple[Any, ...]:
    """Own rows with two right answers each."""
    file = tmp_path / "own.json"
    rows = [
        {"instruction": f"the film was w{i}", "output": ["good fine", "great"], "category": "a"}
        for i in range(40)
    ]
    file.write_text(json.dumps(rows))
    return (
        "data.type", f"{file}@llm", "model.type", f"{tiny_llama}@huggingface_llm",
        "trainer.type", "llmtrainer", "data.splitter", "iid", "data.splits", "[0.6, 0.2, 0.2]",
        "federate.method", "fedavg", "federate.client_num", 2, "llm.tok_len", 60,
        "train.optimizer.lr", 0.05, "train.local_update_steps", 6, "eval.max_new_tokens", 3,
        "eval.split", "['val', 'test']", "eval.metrics", "['rougeL', 'rougeL_forced']",
        "eval.best_res_update_round_wise_key", "test_rougeL", "federate.total_round_num", 6,
    )  # fmt: skip


class TestInARun:
    def test_it_rises_and_decides(self, rig: Any, options: tuple[Any, ...]) -> None:
        done = rig(*options, "eval.batch_size", 3)
        assert done.code == 0 and done.run["larger_is_better"] is True
        curve = [line["Results_weighted_avg"]["test_rougeL"] for line in done.lines[:-1]]
        assert 0 <= min(curve) < 0.5 < max(curve) <= 1
        assert done.run["best_round_weighted"] == 1 + curve.index(max(curve))
        for event in done.of("eval"):
            metrics = event["metrics"]
            assert {f"{s}_{m}" for s in ("val", "test") for m in ("rougeL", "rougeL_forced")} <= {
                *metrics
            }
        assert not any("rougeL" in key for e in done.of("train") for key in e["metrics"])

    def test_early_stopping_by_the_weighted_figure(
        self, rig: Any, options: tuple[Any, ...]
    ) -> None:
        done = rig(*options, "train.optimizer.lr", 0, "early_stop.patience", 2,
                   "federate.total_round_num", 9)  # fmt: skip
        assert done.run["stopped_by"] == "early_stop"
        assert done.run["last_round"] == 3

    def test_generation_happens_once_for_all_metrics(
        self, rig: Any, options: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from federatedscope.llm import generation

        calls: list[int] = []
        real = generation.generate

        def count(model: Any, tokenizer: Any, prompts: Any, *rest: Any) -> Any:
            calls.append(len(prompts))
            return real(model, tokenizer, prompts, *rest)

        monkeypatch.setattr(generation, "generate", count)
        done = rig(*options, "eval.metrics", "['rougeL', 'acc']", "federate.total_round_num", 1)
        assert done.code == 0
        assert sum(calls) == 16
        assert all("val_acc" in e["metrics"] for e in done.of("eval"))

    def test_forced_text_needs_no_generation(
        self, rig: Any, options: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from federatedscope.llm import generation

        monkeypatch.setattr(generation, "generate", None)
        done = rig(*options, "eval.metrics", "['rougeL_forced']", "federate.total_round_num", 1,
                   "eval.best_res_update_round_wise_key", "val_rougeL_forced")  # fmt: skip
        assert done.code == 0

    def test_not_for_classes(self, rig: Any) -> None:
        argv = rig.argv("eval.metrics", "['accuracy', 'rougeL']")
        assert rig.main("--quiet", *argv) == 2


class Letters:
    """A tokenizer of letters; 0 ends a text."""

    def batch_decode(self, rows: list[list[int]], skip_special_tokens: bool) -> list[str]:
        assert skip_special_tokens
        return ["".join(chr(96 + token) for token in row if token) for row in rows]


def test_forced_answers() -> None:
    labels = torch.tensor([[-100, -100, 1, 2, 0], [-100, 3, 0, -100, -100]])
    wanted = torch.tensor([[9, 1, 5, 0, 9], [3, 4, 9, 9, 9]])
    logits = torch.nn.functional.one_hot(wanted, 10).float()
    answers = forced_answers(logits, labels, Letters())
    # The guess at a place is what the place before it says.
    assert [(a.text, a.references) for a in answers] == [("ae", ["ab"]), ("cd", ["c"])]

"""``--metric``: what a point will measure, and what is refused before the first run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sweep_cases import FakeChecker

from federatedscope import register
from federatedscope.core.configs.config import CN
from federatedscope_ext.__main__ import main
from federatedscope_ext.tools.sweep.check import Verdict, examine, figures_of, is_among

ROOT = Path(__file__).resolve().parents[3]
YAML = str(ROOT / "yamls" / "minilm.yaml")


def config(metrics: Iterable[str], split: Iterable[str] = ("val",)) -> CN:
    return CN({"eval": {"metrics": list(metrics), "split": list(split)}})


@pytest.mark.parametrize(
    ("metric", "known"),
    [
        ("val_acc", True), ("acc", True), ("val_loss", True), ("avg_loss", True), ("total", True),
        ("test_acc", True), ("val_accuracy", False), ("train_acc", False), ("val_ac", False),
        ("val_f1", False), ("correct", False), ("val_nope", False), ("_acc", False),
    ],
)  # fmt: skip
def test_a_metric_is_known_with_and_without_its_split(metric: str, known: bool) -> None:
    figures = figures_of([config(["acc"], ["test", "val"])])
    assert is_among(metric, figures) is known


def test_the_figures_are_those_of_the_run_and_of_its_clients() -> None:
    assert figures_of([config(["acc"])]) == ["val_loss", "val_avg_loss", "val_total", "val_acc"]
    assert is_among("test_f1", figures_of([config(["acc"]), config(["f1"], ["test"])]))
    assert figures_of([]) == []


def outside(answer: Any) -> Callable[..., Any]:
    return lambda asked: answer if "mine" in asked else None


def test_metrics_from_outside_may_have_several_names(monkeypatch: pytest.MonkeyPatch) -> None:
    builders = {**register.metric_dict, "mine": outside(("mine", print, True))}
    monkeypatch.setattr(register, "metric_dict", builders)
    figures = figures_of([config(["mine", "acc"])])
    for metric in ("val_mine", "mine_recall", "acc"):
        assert is_among(metric, figures)
    assert not is_among("val_nope", figures)
    assert not is_among("val_mine", figures_of([config(["acc"])]))


def broken(asked: Any) -> None:
    raise RuntimeError("broken")


@pytest.mark.parametrize("kind", ["data", "trainer", "worker"])
def test_what_code_from_outside_measures_is_not_guessed(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    builders = {**getattr(register, f"{kind}_dict"), "mine": broken}
    monkeypatch.setattr(register, f"{kind}_dict", builders)
    assert figures_of([config(["acc"])]) == []


class Measures(FakeChecker):
    """Knows what a point measures: ``val_`` and its method."""

    def __call__(self, arguments: Sequence[str], full: bool) -> Verdict:
        verdict = super().__call__(arguments, full)
        method = (verdict.config or {}).get("federate.method")
        return dataclasses.replace(verdict, figures=[f"val_{method}"] if method else [])


@pytest.mark.usefixtures("runner")
def test_a_metric_that_no_point_measures_is_refused_before_the_first_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("federatedscope_ext.tools.sweep.check.examine", Measures())

    def dry(*words: str) -> int:
        start = ["sweep", "--cfg", "x.yaml", "--outdir", str(tmp_path / "s"), "--dry-run"]
        return main([*start, *words])

    methods = ["--grid", "federate.method=a,b"]
    assert dry(*methods, "--metric", "val_c") == 2
    text = capsys.readouterr().err
    assert "--metric val_c: no point measures it, so nothing was started" in text
    assert "Write one of val_a, val_b, or add it to eval.metrics" in text
    # One point that measures it is enough, and so is one of which nobody can tell.
    assert dry(*methods, "--metric", "b") == 0
    assert dry(*methods, "--grid", "seed=0", "--metric", "val_c") == 0


def test_the_runtime_tells_what_a_point_measures(tmp_path: Path) -> None:
    """With the metrics that the task brings where ``eval.metrics`` is empty."""
    argv = ["--cfg", YAML, "--embedded", "--outdir", str(tmp_path)]
    client = ["client_1.eval.metrics", "['accuracy', 'f1']"]
    assert examine(argv, False).figures == []
    plain = examine(argv, True)
    own = examine([*argv, "eval.metrics", "[]", *client], True)
    assert plain.figures == ["val_loss", "val_avg_loss", "val_total", "val_accuracy"]
    assert own.error == ""
    assert own.figures == [*plain.figures, "val_f1"]

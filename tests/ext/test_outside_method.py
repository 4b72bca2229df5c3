"""A method from outside is one file: the example of CONTRIBUTING, as its reader would use it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from federatedscope_ext.methods import METHODS

ROOT = Path(__file__).resolve().parents[2]
EXTENSIONS = ("extensions", "['federatedscope_ext', 'half_step']", "federate.method", "half_step")


@pytest.fixture(autouse=True)
def half_step(monkeypatch: pytest.MonkeyPatch, registry_of_runs: None) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    yield
    sys.modules.pop("half_step", None)


@pytest.fixture
def registry_of_runs() -> Iterator[None]:
    from federatedscope import register

    kinds = [d for name, d in vars(register).items() if name.endswith("_dict")]
    before, methods = [dict(d) for d in kinds], dict(METHODS)
    yield
    for now, then in zip([*kinds, METHODS], [*before, methods], strict=True):
        now.clear()
        now.update(then)


def test_contributing_shows_the_example_that_is_tested() -> None:
    example = (ROOT / "examples" / "half_step.py").read_text(encoding="utf-8")
    assert f"```python\n{example}```" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("ranks", [(), ("llm.adapter.client_ranks", "[2, 4, 8]")])
def test_it_runs_and_goes_half_of_the_way(rig: Any, mail: list[Any], ranks: Any) -> None:
    def served(*options: Any) -> dict[str, torch.Tensor]:
        mail.clear()
        runner = rig.runner(*ranks, "federate.total_round_num", 1, *options)
        start = {k: v.clone() for k, v in runner.store.state(0).items()}
        runner.run()
        end = runner.store.state(0)
        return {name: end[name] - start[name] for name in start if "lora_" in name}

    whole = served(*EXTENSIONS, "half_step.share", 1.0)
    half = served(*EXTENSIONS, "half_step.share", 0.5)
    plain = served("federate.method", "zero_pad")
    assert any(bool(step.any()) for step in half.values())
    for name, step in half.items():
        torch.testing.assert_close(step, whole[name] / 2, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(whole[name], plain[name], rtol=1e-4, atol=1e-7)


def test_its_option_has_bounds_help_and_a_line_in_the_catalogue(rig: Any, capsys: Any) -> None:
    assert rig(*EXTENSIONS, "half_step.share", 1.5).code == 2
    assert "half_step.share = 1.5: out of range" in capsys.readouterr().err
    assert rig(*EXTENSIONS, "aggregator.robust_rule", "median").code == 2
    assert "combines uploads in its own way" in capsys.readouterr().err
    done = rig(*EXTENSIONS, "federate.total_round_num", 1)
    assert done.code == 0
    assert (done.run["method"], done.run["variant"]) == ("half_step", "Half steps")
    from federatedscope_ext.__main__ import main

    assert main(["list", "methods"]) == 0
    assert "Half steps: the server goes half of the way" in " ".join(
        capsys.readouterr().out.split()
    )

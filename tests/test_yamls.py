"""Every yaml of the project runs one round on the built-in miniature."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from federatedscope.core.launch import main

YAMLS = sorted((Path(__file__).resolve().parents[1] / "yamls").glob("*.yaml"))


def test_there_are_yamls():
    assert len(YAMLS) > 40


def options(path: Path) -> list[str]:
    """What makes a run short: a round of one batch, a few short answers, twenty clients at most.

    Where something happens after the first round (promotion, the end of SLoRA's first stage) a
    second one shows that it did.
    """
    text = path.read_text(encoding="utf-8")
    staged = "\nslora:" in text
    short = {
        "federate.total_round_num": 2 if staged or "promotion:" in text else 1,
        "train.local_update_steps": 1,
        "train.batch_or_epoch": "batch",
        "eval.max_new_tokens": 4,
        "eval.max_generated_rows": 2,
        "eval.max_rows": 4,
        **({"slora.rounds": 1} if staged else {}),
        **({"federate.client_num": 20} if "client_num: 100\n" in text else {}),
    }
    return [str(part) for pair in short.items() for part in pair]


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_one_round_with_embedded(path, tmp_path):
    outdir = tmp_path / "run"
    arguments = ["--cfg", str(path), "--embedded", "--quiet", "--outdir", str(outdir)]

    assert main([*arguments, *options(path)]) == 0

    run = json.loads((outdir / "run.json").read_text())
    events = [json.loads(line) for line in (outdir / "metrics.jsonl").read_text().splitlines()]
    evaluated = [event for event in events if event["event"] == "eval"]
    after = [event for event in evaluated if event["phase"] == "after"]
    unseen_only = any("Only the unseen clients" in note for note in run["notes"])
    expected = [client for client in run["clients"] if client["unseen"] or not unseen_only]
    assert run["status"] == "finished"
    assert run["embedded"] and {"model.type", "data.root"} <= {s["field"] for s in run["swaps"]}
    assert len(after) == len(expected) * run["last_round"]
    assert all(run["main_metric"] in event["metrics"] for event in evaluated)
    assert (outdir / "report.html").stat().st_size > 10_000

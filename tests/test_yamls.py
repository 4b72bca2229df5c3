"""Every yaml of the project runs one round on the built-in miniature."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from federatedscope.core.launch import main

YAMLS = sorted((Path(__file__).resolve().parents[1] / "yamls").glob("*.yaml"))


def test_there_are_yamls():
    assert len(YAMLS) > 40


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_one_round_with_embedded(path, tmp_path):
    outdir = tmp_path / "run"
    arguments = ["--cfg", str(path), "--embedded", "--quiet", "--outdir", str(outdir)]
    arguments += ["federate.total_round_num", "1", "train.local_update_steps", "1"]
    arguments += ["eval.max_new_tokens", "4", "eval.max_generated_rows", "2"]

    assert main(arguments) == 0

    run = json.loads((outdir / "run.json").read_text())
    events = [json.loads(line) for line in (outdir / "metrics.jsonl").read_text().splitlines()]
    evaluated = [event for event in events if event["event"] == "eval"]
    assert run["status"] == "finished"
    assert run["embedded"] and {"model.type", "data.root"} <= {s["field"] for s in run["swaps"]}
    assert len(evaluated) == len(run["clients"])
    assert all(run["main_metric"] in event["metrics"] for event in evaluated)
    assert (outdir / "report.html").stat().st_size > 10_000

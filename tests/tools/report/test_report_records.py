"""Run folders are read back, whole or not."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from federatedscope.core.records import Majority, RunInfo
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.tools.report.records import RunRecord, find_runs, split_metric


def test_everything_is_read(make_run: Any) -> None:
    record = RunRecord.load(make_run())
    assert (len(record.train), len(record.evals), len(record.rounds)) == (6, 6, 3)
    assert record.problems == []
    assert record.info.method == "fedsa"
    assert record.info.clients[1].rows == {"train": 1100, "val": 200, "test": 0}
    assert record.info.clients[0].majority == Majority("0", val=0.5)
    assert record.rounds[0].bytes_up == {1: 1000, 2: 1000}
    assert record.train[0].metrics["train_avg_loss"] == 1.0


def test_a_cut_last_line_is_left_out_and_told(make_run: Any) -> None:
    folder = make_run()
    path = folder / "metrics.jsonl"
    path.write_text(path.read_text() + '{"event": "eval", "round": 4, "cli')
    record = RunRecord.load(folder)
    assert len(record.evals) == 6
    assert "last line" in record.problems[0]


@pytest.mark.parametrize("line", ["{broken", '{"event": "train", "round": "x"}', "[1, 2]"])
def test_a_broken_line_in_the_middle_does_not_stop_reading(make_run: Any, line: str) -> None:
    folder = make_run()
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line, *lines[1:]]) + "\n")
    record = RunRecord.load(folder)
    assert (len(record.train), len(record.evals), len(record.rounds)) == (6, 6, 3)
    assert "left out" in record.problems[0]


def test_null_and_nan_metrics_are_nan(make_run: Any) -> None:
    event = {"event": "eval", "round": 1, "client": 1, "metrics": {"val_acc": None}}
    record = RunRecord.load(make_run(events=[event]))
    assert math.isnan(record.evals[0].metrics["val_acc"])


def test_without_metrics_there_is_a_record_and_a_problem(make_run: Any) -> None:
    folder = make_run()
    (folder / "metrics.jsonl").unlink()
    record = RunRecord.load(folder)
    assert record.evals == []
    assert "metrics.jsonl is missing" in record.problems[0]


def test_a_minimal_run_file_loads(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"format": 1, "status": "running"}')
    assert RunRecord.load(tmp_path).info.status == "running"


def test_a_folder_that_is_no_run_lists_the_runs_below(make_run: Any, tmp_path: Path) -> None:
    make_run("deep/one")
    make_run("deep/two")
    with pytest.raises(ExtensionError) as error:
        RunRecord.load(tmp_path)
    assert str(tmp_path / "deep" / "one") in str(error.value)
    assert str(tmp_path / "deep" / "two") in str(error.value)
    assert [path.name for path in find_runs(tmp_path)] == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "part"),
    [("{", "cannot be read"), ("[]", "not an object"), ("{}", "describes no run"),
     ('{"format": 9}', "reads format 1"),
     ('{"format": 1, "rounds": "many"}', "rounds"), ('{"format": 1, "clients": {}}', "a list")],
)  # fmt: skip
def test_an_unusable_run_file_is_a_user_error(tmp_path: Path, content: str, part: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ExtensionError, match=part):
        RunRecord.load(tmp_path)


def test_missing_folder_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(ExtensionError, match="no such folder"):
        RunRecord.load(tmp_path / "nowhere")


def test_the_given_run_replaces_the_file(make_run: Any) -> None:
    folder = make_run(status="running")
    newest = {**json.loads((folder / "run.json").read_text()), "status": "finished"}
    assert RunRecord.load(folder, run=newest).info.status == "finished"


def test_unknown_fields_are_kept_aside() -> None:
    assert RunInfo.from_json({"format": 1, "later": 3}).raw["later"] == 3


@pytest.mark.parametrize(
    ("name", "parts"),
    [("val_acc", ("val", "acc")), ("test_avg_loss", ("test", "avg_loss")), ("acc", ("", "acc")),
     ("my_metric", ("", "my_metric"))],
)  # fmt: skip
def test_metric_names_are_split(name: str, parts: tuple[str, str]) -> None:
    assert split_metric(name) == parts

"""The folder of a run, and what is written to it."""

from __future__ import annotations

import csv
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from federatedscope.core.configs.config import global_cfg
from federatedscope.core.files import write_json, write_text
from federatedscope.core.outdir import choose_outdir, default_name


def config(**keys: Any) -> Any:
    cfg = global_cfg.clone()
    cfg.federate.method = "fedsa"
    cfg.model.type = "/models/tiny-bert@huggingface_llm"
    cfg.data.type = "sst2@glue"
    cfg.train.optimizer.lr = 0.02
    cfg.train.local_update_steps = 10
    for key, value in keys.items():
        cfg[key] = value
    return cfg


class TestTheFolder:
    def test_its_name(self) -> None:
        assert default_name(config()) == "fedsa_tiny-bert_on_sst2@glue_lr0.02_lstep10"

    @pytest.mark.parametrize(
        ("keys", "given", "expected"),
        [
            ({"outdir": "exp"}, False, "exp/fedsa_tiny-bert_on_sst2@glue_lr0.02_lstep10"),
            ({"outdir": "mine"}, True, "mine"),
            ({"outdir": "mine", "expname": "first"}, True, "mine/first"),
            ({"outdir": "exp", "expname": "first"}, False, "exp/first"),
            ({"outdir": "mine", "expname_tag": "b"}, True, "mine_b"),
            ({"outdir": "mine", "expname": "x", "expname_tag": "b"}, True, "mine/x_b"),
        ],
    )
    def test_where_it_is(
        self, tmp_path: Path, monkeypatch: Any, keys: Any, given: bool, expected: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert choose_outdir(config(**keys), given) == Path(expected)

    def test_a_run_is_never_written_over(self, tmp_path: Path) -> None:
        cfg = config(outdir=str(tmp_path / "run"))
        seen = set()
        for _ in range(3):
            folder = choose_outdir(cfg, True)
            assert folder not in seen
            seen.add(folder)
            folder.mkdir(parents=True)
            (folder / "config.yaml").write_text("")
        assert sorted(f.parent == tmp_path for f in seen) == [False, False, True]
        assert all(f.name.startswith("sub_exp_") for f in seen if f.parent != tmp_path)

    def test_a_folder_with_other_things_is_used(self, tmp_path: Path) -> None:
        (tmp_path / "note.txt").write_text("mine")
        assert choose_outdir(config(outdir=str(tmp_path)), True) == tmp_path


class TestWholeFiles:
    def test_text_and_json(self, tmp_path: Path) -> None:
        write_text(tmp_path / "a" / "x.txt", "grün\n")
        write_json(tmp_path / "x.json", {"ä": [1, None]})
        assert (tmp_path / "a" / "x.txt").read_text(encoding="utf-8") == "grün\n"
        assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"ä": [1, None]}
        assert (tmp_path / "x.json").stat().st_mode & 0o777 == 0o644

    def test_a_crash_leaves_the_old_one(self, tmp_path: Path, monkeypatch: Any) -> None:
        write_text(tmp_path / "x.txt", "old")

        def crash(*args: Any) -> None:
            raise OSError("disk full")

        monkeypatch.setattr(os, "replace", crash)
        with pytest.raises(OSError, match="disk full"):
            write_text(tmp_path / "x.txt", "new")
        assert (tmp_path / "x.txt").read_text() == "old"
        assert len(list(tmp_path.iterdir())) == 1


class TestWhatARunLeaves:
    def test_files(self, rig: Any) -> None:
        done = rig(report=True)
        there = {p.name for p in done.outdir.iterdir()}
        assert {
            "config.yaml", "run.json", "metrics.jsonl", "metrics.csv", "eval_results.log",
            "exp_print.log", "curves", "report.html",
        } <= there  # fmt: skip
        assert not any(name.startswith(".") or name.endswith(".tmp") for name in there)
        with (done.outdir / "metrics.csv").open() as file:
            assert len(list(csv.reader(file))) > 6
        assert list((done.outdir / "curves").glob("*.png"))

    def test_the_log_has_result_lines(self, rig: Any) -> None:
        done = rig("federate.total_round_num", 1)
        log = (done.outdir / "exp_print.log").read_text()
        assert "{'Role': 'Server #', 'Round': 0, 'Results_weighted_avg': {'val_accuracy'" in log
        assert "{'Role': 'Client #1', 'Round': 0, 'Results_raw': {'train_accuracy'" in log

    def test_the_log_has_what_was_said_before_there_was_a_folder(self, rig: Any) -> None:
        for _ in range(2):
            done = rig("federate.total_round_num", 0)
            log = (done.outdir / "exp_print.log").read_text()
            assert log.count("only validation rows are evaluated") == 1

    def test_logging_to_the_folder_ends_with_the_run(self, rig: Any) -> None:
        rig("federate.total_round_num", 0)
        handlers = logging.getLogger("federatedscope").handlers
        assert not [h for h in handlers if isinstance(h, logging.FileHandler)]

    def test_the_description(self, rig: Any) -> None:
        """Every entry that the report reads is there."""
        run = rig().run
        assert run["format"] == 1
        assert run["name"] == "run1"
        assert (run["method"], run["variant"]) == ("fedsa", "FedSA-LoRA")
        assert run["task_type"] == "SEQ_CLS"
        assert run["adapter"]["target_modules"] == ["query", "value"]
        assert run["label_names"] == ["negative", "positive"]
        assert run["memory_estimate_bytes"]["total"] > 0
        assert run["started"] <= run["finished"]
        assert run["seconds"] > 0
        assert run["peak_memory_bytes"] > 10**7
        assert {"python", "torch", "transformers", "peft"} <= set(run["versions"])
        for client in run["clients"]:
            assert client["rows"]["train"] == sum(client["labels"]["train"].values())
            majority = client["majority"]
            counts = client["labels"]["train"]
            assert counts[majority["label"]] == max(counts.values())
        assert sum(c["weight"] for c in run["clients"]) == pytest.approx(1)

    def test_two_runs_in_one_folder(self, rig: Any) -> None:
        first = rig("federate.total_round_num", 1)
        code = rig.main(
            "--quiet", f"--outdir={first.outdir}", *rig.argv("federate.total_round_num", 1)
        )
        assert code == 0
        (second,) = first.outdir.glob("sub_exp_*")
        assert (second / "run.json").exists()
        assert len((first.outdir / "metrics.jsonl").read_text().splitlines()) == len(first.events)

    def test_a_number_that_is_none_is_null(self, tmp_path: Path) -> None:
        from federatedscope.core.monitors.recorder import Recorder

        recorder = Recorder(tmp_path)
        recorder.on_run_start({"a": 1})
        recorder.on_eval({"metrics": {"x": float("nan"), "y": [float("inf"), 1.5]}})
        recorder.on_run_end({"a": 2}, str(tmp_path))
        (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
        assert json.loads(line) == {"metrics": {"x": None, "y": [None, 1.5]}}
        assert json.loads((tmp_path / "run.json").read_text()) == {"a": 2}

"""The command as a whole, with a runner and a checker that are quick."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sweep_cases import FakeChecker

from federatedscope_ext.__main__ import main
from federatedscope_ext.tools.sweep.record import only_one

pytestmark = pytest.mark.usefixtures("runner")


def sweep(outdir: Path, *words: str) -> int:
    return main(["sweep", "--cfg", "x.yaml", "--outdir", str(outdir), *words])


def saved(outdir: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((outdir / "sweep.json").read_text())
    return content


def test_a_sweep_runs_compares_and_is_not_repeated(
    tmp_path: Path, checker: FakeChecker, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sweep"
    grid = ["--grid", "federate.method=a,b", "seed=0,1"]
    assert sweep(out, *grid, "--jobs", "2") == 0
    first = capsys.readouterr()
    assert "2 seeds" in first.out
    assert "2 runs at a time on the CPU" in first.err
    names = ["method=a,seed=0", "method=a,seed=1", "method=b,seed=0", "method=b,seed=1"]
    record = saved(out)
    assert [point["name"] for point in record["points"]] == names
    assert {point["status"] for point in record["points"]} == {"finished"}
    assert record["status"] == "finished"
    assert record["grids"] == [{"federate.method": ["a", "b"], "seed": ["0", "1"]}]
    assert record["command"].startswith("python -m federatedscope_ext sweep --cfg x.yaml")
    assert (out / "compare.csv").is_file()
    assert (out / "compare.html").is_file()

    times = [(out / name / "run.json").stat().st_mtime_ns for name in names]
    assert sweep(out, *grid, "--grid", "federate.method=a", "seed=2") == 0
    assert [(out / name / "run.json").stat().st_mtime_ns for name in names] == times
    assert [point["skipped"] for point in saved(out)["points"]] == [True] * 4 + [False]
    assert not (out / "unfinished").exists()
    assert "4 finished already" in capsys.readouterr().err


def test_data_and_model_are_looked_at_once_for_all_seeds(
    tmp_path: Path, checker: FakeChecker
) -> None:
    sweep(tmp_path / "s", "--grid", "federate.method=a,b", "seed=0,1,2", "--dry-run")
    assert [full for _, full in checker.asked] == [True, False, False] * 2


def test_a_problem_of_data_or_model_is_that_of_all_seeds(
    tmp_path: Path, checker: FakeChecker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(tmp_path / "s", "--grid", "a.b=no_data,c", "seed=0,1", "--dry-run") == 2
    text = capsys.readouterr().err
    assert "2 of 4 points cannot run" in text
    assert "b=no_data,seed=0; b=no_data,seed=1\n    there is no data" in text


def test_a_dry_run_leaves_nothing(
    tmp_path: Path, checker: FakeChecker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(tmp_path / "s", "--grid", "seed=0,1", "a.b", "x y", "--dry-run") == 0
    assert not (tmp_path / "s").exists()
    text = capsys.readouterr().out
    assert f"--outdir {tmp_path}/s/seed=1 a.b 'x y' seed 1" in text


def test_the_commands_shown_are_to_be_typed_in_the_current_directory(
    tmp_path: Path,
    checker: FakeChecker,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    main_file = tmp_path / "checkout" / "federatedscope" / "main.py"
    main_file.parent.mkdir(parents=True)
    (tmp_path / "runner.py").rename(main_file)
    monkeypatch.setattr("federatedscope_ext.tools.sweep.plan.MAIN_FILE", main_file)
    monkeypatch.chdir(tmp_path / "checkout")
    sweep(Path("s"), "--grid", "seed=0", "--dry-run")
    typed = "--cfg x.yaml --outdir s/seed=0 seed 0"
    assert f"\npython federatedscope/main.py {typed}\n" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    assert sweep(Path("s"), "--grid", "seed=0") == 0
    record = saved(tmp_path / "s")
    assert record["points"][0]["command"] == f"python {main_file} {typed}"
    assert record["directory"] == str(tmp_path)


def test_a_point_that_cannot_run_stops_the_sweep_before_it_starts(
    tmp_path: Path, checker: FakeChecker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(tmp_path / "s", "--grid", "federate.method=a,b", "seed=0,13") == 2
    text = capsys.readouterr().err
    assert "2 of 4 points cannot run, so nothing was started" in text
    assert "method=a,seed=13; method=b,seed=13\n    seed = 13: an unlucky number." in text
    assert not list(tmp_path.rglob("run.json"))


def test_a_seed_that_is_refused_does_not_speak_for_the_others(
    tmp_path: Path, checker: FakeChecker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(tmp_path / "s", "--grid", "seed=13,0") == 2
    assert "1 of 2 points cannot run" in capsys.readouterr().err
    assert [full for _, full in checker.asked] == [True, True]


def test_a_finished_run_of_other_settings_is_an_error_that_says_what_differs(
    tmp_path: Path, checker: FakeChecker, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s"
    assert sweep(out, "--grid", "seed=0,1", "train.lr", "0.1") == 0
    capsys.readouterr()
    assert sweep(out, "--grid", "seed=0,1", "train.lr", "0.2") == 2
    text = capsys.readouterr().err
    assert "all points\n    its folder holds a finished run with other settings" in text
    assert "train.lr: '0.1' there, '0.2' here" in text
    clients = tmp_path / "clients.yaml"
    clients.write_text("client_1: {train: {lr: 0.3}}")
    assert sweep(out, "--grid", "seed=0", "train.lr", "0.1", "--client_cfg", str(clients)) == 2
    assert "client_1.train.lr: not there there, 0.3 here" in capsys.readouterr().err


def test_a_failed_point_is_told_and_started_again(
    tmp_path: Path, checker: FakeChecker, capsys: pytest.CaptureFixture[str], runner: Path
) -> None:
    out = tmp_path / "s"
    grid = ["--grid", "fake.fail=1", "seed=0", "--grid", "seed=1"]
    assert sweep(out, *grid) == 1
    text = capsys.readouterr().err
    assert "Failed: fail=1,seed=0: ended with status 1" in text
    assert "  | it went wrong" in text
    assert saved(out)["status"] == "failed"
    assert (out / "compare.csv").is_file()
    runner.write_text(runner.read_text().replace('sys.exit("it went wrong")', "pass"))
    assert sweep(out, *grid) == 0
    assert "1 finished already, 1 started again" in capsys.readouterr().err
    assert len(list((out / "unfinished").iterdir())) == 1


def test_a_second_sweep_in_the_same_folder_is_refused(
    tmp_path: Path, checker: FakeChecker, capsys: pytest.CaptureFixture[str]
) -> None:
    with only_one(tmp_path / "s"):
        assert sweep(tmp_path / "s", "--grid", "seed=0") == 2
    assert "another sweep is running there" in capsys.readouterr().err
    assert sweep(tmp_path / "s", "--grid", "seed=0") == 0


def test_a_comparison_that_fails_is_told_by_the_exit_status(
    tmp_path: Path, checker: FakeChecker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(tmp_path / "s", "--grid", "seed=0", "--metric", "val_f1") == 1
    text = capsys.readouterr().err
    assert saved(tmp_path / "s")["status"] == "finished"
    assert "No comparison: --metric = 'val_f1': none of these runs has measured it." in text


@pytest.mark.parametrize(
    "imported",
    ["federatedscope.register", "torch", "federatedscope_ext.tools.catalog",
     "federatedscope_ext.tools.sweep.arguments"],
)  # fmt: skip
def test_ctrl_c_while_the_command_is_imported_ends_it_without_a_traceback(
    tmp_path: Path, imported: str
) -> None:
    words = ["sweep", "--cfg", "x.yaml", "--grid", "seed=0", "--outdir", str(tmp_path / "s")]
    sweeping = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "federatedscope_ext", *words],
        cwd=Path(__file__).parents[3], stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert sweeping.stderr is not None
    names = (line.rpartition("|")[2].strip() for line in sweeping.stderr)
    assert imported in names  # reads on until it is there
    sweeping.send_signal(signal.SIGINT)
    _, errors = sweeping.communicate(timeout=60)
    assert sweeping.returncode == 130
    assert "Traceback" not in errors


INTERRUPTED = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from sweep_cases import FakeChecker
from federatedscope_ext.__main__ import main
from federatedscope_ext.tools.sweep import check, plan
plan.MAIN_FILE, check.examine = Path({runner!r}), FakeChecker()
sys.exit(main(["sweep", "--cfg", "x.yaml", "--outdir", {out!r}, *sys.argv[1:]]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_goes_on_with_the_same_command(
    tmp_path: Path, runner: Path, checker: FakeChecker, number: signal.Signals
) -> None:
    out = tmp_path / "s"
    script = INTERRUPTED.format(here=str(Path(__file__).parent), runner=str(runner), out=str(out))
    grid = ["--grid", "seed=0,1", "--jobs", "1", "fake.sleep"]
    sweeping = subprocess.Popen(
        [sys.executable, "-c", script, *grid, "60"], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    end = time.monotonic() + 60
    while not (out / "seed=0" / "metrics.jsonl").is_file() and sweeping.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    sweeping.send_signal(number)
    _, errors = sweeping.communicate(timeout=60)
    assert sweeping.returncode == 130, errors
    assert "The same command goes on from here" in errors
    assert [point["status"] for point in saved(out)["points"]] == ["interrupted", "queued"]
    assert saved(out)["status"] == "interrupted"
    assert not (out / "compare.csv").exists()

    assert sweep(out, *grid, "0") == 0
    assert saved(out)["counts"] == {"finished": 2}
    (kept,) = (out / "unfinished").iterdir()
    assert (kept / "report.html").read_text() == "the report"

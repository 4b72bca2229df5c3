"""``python -m federatedscope_ext``: what it prints and how it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from federatedscope import register
from federatedscope_ext.__main__ import main
from federatedscope_ext.tools.catalog import CATALOG
from federatedscope_ext.tools.report.files import check_writable


def test_list_names_every_method_task_and_splitter(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for part in (
        "fedsa", "rsLoRA", "VeRA", "fedavg", "ffa", "local", "global", "fedopt", "fedprox", "krum",
        "median", "trimmedmean", "bulyan", "normbounding", "2410.01463", "2403.12313",
        "cola@glue", "sst2@glue", "mrpc@glue", "stsb@glue", "qqp@glue", "mnli@glue", "qnli@glue",
        "rte@glue", "wnli@glue", "gsm8k@llm", "dolly-15k@llm", "FILE@llm", "matthews_correlation",
        "huggingface_llm", "--embedded", "iid", "lda", "meta",
    ):  # fmt: skip
        assert part in text, part


@pytest.mark.parametrize("section", [section.name for section in CATALOG])
def test_each_list_alone(section: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", section]) == 0
    text = capsys.readouterr().out
    others = [other.name for other in CATALOG if other.name != section]
    assert f"{section} (" in text
    assert not any(f"\n{other} (" in text for other in others)


def test_entries_have_a_cell_per_title() -> None:
    for section in CATALOG:
        entries = section.entries()
        assert len({entry.name for entry in entries}) == len(entries)
        for entry in entries:
            assert entry.about
            assert len(entry.details) == len(section.titles)


def test_what_other_modules_register_is_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(register.splitter_dict, "by_moonlight", lambda *a, **k: None)
    assert main(["list", "splitters"]) == 0
    assert "registered by other modules (splitter): by_moonlight" in capsys.readouterr().out


def test_compare_prints_and_writes(
    make_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(2):
        make_run(f"runs/{seed}", seed=seed)
    out = tmp_path / "out"
    arguments = ["compare", str(tmp_path / "runs"), "--metric", "acc", "--clients"]
    assert main([*arguments, "--format", "markdown", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "| 2 seeds |" in printed.out
    assert "compare.html" in printed.err
    assert {path.name for path in out.iterdir()} == {"compare.html", "compare.csv", "compare.png"}
    assert main([*arguments, "--by", "method,head_rule"]) == 0
    assert "head_rule" in capsys.readouterr().out


def test_report_makes_the_report_again(make_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run()
    assert main(["report", str(folder)]) == 0
    assert (folder / "report.html").is_file()
    assert "plain mean" in capsys.readouterr().out


@pytest.mark.parametrize("out", ["/proc/x", "file", "file/below"])
def test_a_folder_that_cannot_be_written_is_told_before_the_tables(
    make_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], out: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    assert main(["compare", str(make_run()), "--out", out]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "no file can be written there" in printed.err
    assert len(printed.err.strip().splitlines()) == 1


def test_the_check_of_a_folder_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b", "--out")
    assert list(tmp_path.iterdir()) == []


def test_report_names_the_runs_inside(make_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run()
    inside = make_run("run/sub_exp_1")
    assert main(["report", str(folder)]) == 0
    assert f"not about it: {inside}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["list", "nothing"], "methods, tasks"),
        (["list", "--import", "no_such_module_here"], "cannot be imported"),
        (["compare", "no_such_folder"], "no such folder"),
        (["report", "no_such_folder"], "no such folder"),
        (["report", "."], "run.json"),
        (["compare", "no_such_folder", "--out", "/proc/x"], "--out"),
    ],
)
def test_user_errors_are_one_paragraph_and_status_2(
    arguments: list[str], part: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert part in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["compare"], ["compare", "a", "--format", "x"]]
)
def test_a_wrong_command_line_is_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_as_a_module() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "federatedscope_ext", "list", "splitters"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "Dirichlet" in result.stdout

"""The command line: what goes to the runs, what to the sweep, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from federatedscope.core.errors import UserError
from federatedscope_ext.__main__ import main
from federatedscope_ext.tools.sweep.arguments import parse_tokens


def test_all_in_one() -> None:
    words = (
        "--embedded train.lr -0.1 --grid federate.method=a,b seed=0,1 eval.freq 5 --cfg x/y.yaml "
        "--client_cfg c.yaml --jobs 3 a.b=c --grid=seed=7 --dry-run --outdir o --metric val_acc"
    )
    settings = parse_tokens(words.split(), "sweep")
    assert settings.grids == [{"federate.method": ["a", "b"], "seed": ["0", "1"]}, {"seed": ["7"]}]
    assert settings.pairs == [("train.lr", "-0.1"), ("eval.freq", "5"), ("a.b", "c")]
    assert settings.presets == ["--embedded"]
    assert (settings.cfg, settings.client_cfg, settings.outdir, settings.jobs) == (
        "x/y.yaml", "c.yaml", Path("o"), 3
    )  # fmt: skip
    assert settings.dry_run
    assert settings.metric == "val_acc"


def test_the_folder_of_the_same_command_is_the_same() -> None:
    words = ["--cfg", "yamls/minilm.yaml", "--grid", "seed=0"]
    assert parse_tokens(words, "sweep").outdir == Path("exp/sweep_minilm")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "--grid is missing"),
        ("--grid", "no key follows"),
        ("--grid seed 0,1", "not of the form KEY=VALUE"),
        ("--grid seed=0 --check", "--dry-run"),
        ("--grid seed=0 --seed=1", "without dashes. Write: seed 1"),
        ("--grid seed=0 lr", "lr has no value"),
        ("--grid seed=0 lr --embedded", "lr has no value"),
        ("--grid seed=0 [1]", "is not the name of a key"),
        ("--grid seed=0 seed 1", "among the settings of all points"),
        ("--grid outdir=a,b", "--outdir DIR"),
        ("--grid seed=0 expname x", "--outdir DIR"),
    ],
)
def test_mistakes_are_told(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse_tokens(["--cfg", "x.yaml", *words.split()], "sweep")
    assert said in str(caught.value)
    assert main(["sweep", "--cfg", "x.yaml", *words.split()]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("jobs", ["0", "-1", "many"])
def test_jobs_is_a_positive_number(jobs: str) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_tokens(["--cfg", "x.yaml", "--grid", "seed=0", "--jobs", jobs], "sweep")
    assert caught.value.code == 2


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_reaches_the_command_and_has_examples(
    flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["sweep", flag])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "python -m federatedscope_ext sweep --cfg yamls/minilm.yaml --embedded" in text
    assert all(len(line) <= 100 for line in text.splitlines())

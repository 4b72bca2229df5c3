"""The real thing on the miniature: the checks, and a sweep from its start to the comparison."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from federatedscope.core.errors import UserError
from federatedscope_ext.tools.sweep.arguments import parse_tokens
from federatedscope_ext.tools.sweep.check import check_points, examine
from federatedscope_ext.tools.sweep.differences import config_differences
from federatedscope_ext.tools.sweep.plan import Found, Point, make_points

ROOT = Path(__file__).resolve().parents[3]
YAML = str(ROOT / "yamls" / "minilm.yaml")


def test_checking_gives_the_configuration_that_a_run_would_have(tmp_path: Path) -> None:
    argv = ["--cfg", YAML, "--embedded", "--outdir", str(tmp_path), "federate.method", "fedavg"]
    one = examine([*argv, "seed", "3"], False)
    assert one.error == ""
    assert one.config is not None
    assert one.config["seed"] == 3
    assert one.config["embedded.swaps"]
    other = examine([*argv, "seed", "4"], True)
    assert other.error == ""
    assert other.config is not None
    assert config_differences(one.config, other.config) == ["seed: 4 there, 3 here"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "full", "said"),
    [
        (["seed", "abc"], False, "seed = 'abc': wrong type: expected a whole number"),
        (["federate.method", "fedfoo"], False, "unknown method"),
        (["federate.metod", "fedavg"], False, "Did you mean federate.method"),
        (["--embeded"], False, "--embeded: unknown flag. Did you mean --embedded?"),
        (["personalization.local_param", "['foo']"], True, "in the name of no trainable parameter"),
        (["client_9.train.optimizer.lr", "1"], False, "there are only 3 clients"),
    ],
)
def test_checking_gives_the_runtimes_own_errors(
    tmp_path: Path, given: list[str], full: bool, said: str
) -> None:
    argv = ["--cfg", YAML, "--embedded", "--outdir", str(tmp_path), *given]
    error = examine(argv, full).error
    assert said in error


def test_a_missing_file_is_told() -> None:
    error = examine(["--cfg", "nowhere.yaml"], False).error
    assert "nowhere.yaml" in error


def words(out: Path) -> list[str]:
    return [
        "--cfg", YAML, "--embedded", "--outdir", str(out), "--jobs", "2",
        "--grid", "federate.method=fedavg,fedsa", "seed=0,1",
        "federate.total_round_num", "1", "train.local_update_steps", "2",
        "client_1.train.local_update_steps", "1",
    ]  # fmt: skip


def checked(words: list[str]) -> list[Point]:
    """The points of a command as they are found before it starts."""
    settings = parse_tokens(words, "sweep")
    points = make_points(settings)
    check_points(points, settings.metric)
    return points


def test_two_methods_and_two_seeds(tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    assert [point.found for point in checked(words(out))] == [Found.NOTHING] * 4
    done = subprocess.run(
        [sys.executable, "-m", "federatedscope_ext", "sweep", *words(out)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((out / "sweep.json").read_text())
    assert [point["status"] for point in record["points"]] == ["finished"] * 4
    assert done.stdout.count("2 seeds") == 2
    with (out / "compare.csv").open() as file:
        assert {row["method"] for row in csv.DictReader(file)} == {"fedavg", "fedsa"}

    # All is there now; other settings are not mixed with it.
    assert all(point.skipped for point in checked(words(out)))
    with pytest.raises(UserError, match=r"train.optimizer.lr: 0.002 there, 0.004 here"):
        checked([*words(out), "train.optimizer.lr", "0.004"])
    client = "client_1.train.local_update_steps"
    with pytest.raises(UserError, match=rf"all points\n[^\n]*\n *{client}: 1 there, 3 here$"):
        checked([*words(out), client, "3"])
    # Written in a file and in other words, the clients' settings are the same.
    clients = tmp_path / "clients.yaml"
    clients.write_text("client_1: {train: {local_update_steps: 1.0, batch_or_epoch: BATCH}}")
    given = words(out)[:-2]
    assert all(p.skipped for p in checked([*given, "--client_cfg", str(clients)]))
    clients.write_text("client_2:\nclient_1.train: {local_update_steps: 1}")
    assert all(p.skipped for p in checked([*given, "--client_cfg", str(clients)]))
    clients.write_text("client_1: {train: {local_update_stps: 1}}")
    with pytest.raises(UserError, match=r"all points\n *client_1.train.local_update_stps = 1"):
        checked([*given, "--client_cfg", str(clients)])

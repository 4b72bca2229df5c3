"""The scripts take relative folders from where they are called, not from the checkout."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment that counts as set up and whose ``python`` prints its arguments."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "activate").write_text(f"PATH={venv}/bin:$PATH\n")
    python = venv / "bin" / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    command = f"cat {ROOT}/requirements*.txt | cksum"
    wanted = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    (venv / ".installed-requirements.txt").write_text(wanted.stdout)
    return {**os.environ, "FEDERATEDSCOPE_VENV": str(venv), "SEEDS": "0"}


def called(script: str, *arguments: str, cwd: Path, env: dict[str, str]) -> list[str]:
    done = subprocess.run(
        ["bash", str(ROOT / "scripts" / script), *arguments],
        cwd=cwd, env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


@pytest.mark.parametrize("given", ["out/run", "./out/run", "{here}/out/run"])
def test_quickstart(tmp_path: Path, environment: dict[str, str], given: str) -> None:
    lines = called(
        "quickstart.sh", given.format(here=tmp_path), "seed", "3", cwd=tmp_path, env=environment
    )
    assert lines[lines.index("--outdir") + 1] == str(tmp_path / "out" / "run")
    assert lines[-1] == f"The report: {tmp_path}/out/run/report.html"
    assert lines[lines.index("seed") + 1] == "3"


@pytest.mark.parametrize("model", ["models/mini", "org/name"])
def test_compare_methods(tmp_path: Path, environment: dict[str, str], model: str) -> None:
    (tmp_path / "models" / "mini").mkdir(parents=True)
    lines = called(
        "compare_methods.sh", "sst2", "data", model, "out",
        cwd=tmp_path, env={**environment, "SEEDS": "0 5"},
    )  # fmt: skip
    folder = tmp_path / model if model == "models/mini" else model
    assert lines[:3] == ["-m", "federatedscope_ext", "sweep"]
    assert lines[lines.index("--outdir") + 1] == str(tmp_path / "out")
    assert lines[lines.index("data.root") + 1] == str(tmp_path / "data")
    assert lines[lines.index("model.type") + 1] == f"{folder}@huggingface_llm"
    grids = lines[lines.index("--grid") :]
    assert grids == [
        "--grid", "federate.method=fedsa,fedavg,ffa", "personalization.head=local,shared",
        "seed=0,5", "--grid", "federate.method=local", "personalization.head=local", "seed=0,5",
    ]  # fmt: skip

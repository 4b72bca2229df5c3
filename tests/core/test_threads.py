"""The cores that are really there, and how long threads spin while they wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from federatedscope.core.machine import available_cores

ROOT = Path(__file__).resolve().parents[2]
OPENMP = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
V1 = "5:memory:/other\n4:cpu,cpuacct:/docker/abc\n1:cpuset:/few\n0::/\n"


def machine(root: Path, groups: str, files: dict[str, str]) -> Path:
    """Trees of ``/proc`` and ``/sys``; ``files`` are named from ``/sys/fs/cgroup``."""
    files = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def v1(folder: str, quota: int, period: int = 100000) -> dict[str, str]:
    """A group of version 1 with a quota."""
    files = {"cpu.cfs_quota_us": f"{quota}\n", "cpu.cfs_period_us": f"{period}\n"}
    return {f"cpu/{folder}{name}": text for name, text in files.items()}


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that may run on eight cores of a machine of 64."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


@pytest.mark.usefixtures("eight_cores")
class TestCores:
    @pytest.mark.parametrize(
        ("files", "cores"),
        [
            ({}, 8),
            ({"job/run/cpu.max": "max 100000\n"}, 8),
            ({"job/run/cpu.max": "300000 100000\n"}, 3),
            ({"job/run/cpu.max": "250000 100000\n"}, 2),  # rounded down
            ({"job/run/cpu.max": "50000 100000\n"}, 1),  # but at least one
            ({"job/run/cpu.max": "100000 50000\n"}, 2),  # another period
            ({"job/run/cpu.max": "3200000 100000\n"}, 8),  # more than there is
            ({"job/run/cpu.max": "max 100000\n", "job/cpu.max": "400000 100000\n"}, 4),
            ({"job/run/cpu.max": "200000 100000\n", "job/cpu.max": "400000 100000\n"}, 2),
            ({"job/run/cpu.max": "600000 100000\n", "job/cpu.max": "500000 100000\n"}, 5),
            ({"cpu.max": "300000 100000\n"}, 3),  # a container that sees its group as the root
            ({"job/other/cpu.max": "100000 100000\n"}, 8),  # somebody else's
            ({"cpu/cpu.max": "100000 100000\n"}, 8),
            *(({"job/run/cpu.max": text}, 8) for text in ("", "100000", "what ever\n", "1 0\n")),
        ],
    )
    def test_quotas(self, tmp_path: Path, files: dict[str, str], cores: int) -> None:
        assert available_cores(machine(tmp_path, "0::/job/run\n", files)) == cores

    @pytest.mark.parametrize(
        ("files", "cores"),
        [
            (v1("docker/abc/", -1), 8),
            (v1("docker/abc/", 300000), 3),
            (v1("docker/abc/", 175000, 50000), 3),
            (v1("docker/abc/", 10000), 1),
            ({**v1("docker/abc/", -1), **v1("docker/", 200000), **v1("", -1)}, 2),
            (v1("", 400000), 4),
            (v1("few/", 100000), 8),  # a group of another controller
            ({"cpu/docker/abc/cpu.cfs_quota_us": "100000\n"}, 8),  # its period is missing
        ],
    )
    def test_quotas_of_version_1(self, tmp_path: Path, files: dict[str, str], cores: int) -> None:
        assert available_cores(machine(tmp_path, V1, files)) == cores

    def test_both_versions_at_once(self, tmp_path: Path) -> None:
        files = {**v1("docker/abc/", 500000), "cpu.max": "300000 100000\n"}
        assert available_cores(machine(tmp_path, V1, files)) == 3

    @pytest.mark.parametrize("groups", ["", "nonsense\n\n", "0::/../elsewhere\n", "0::\n"])
    def test_groups_that_say_nothing(self, tmp_path: Path, groups: str) -> None:
        assert available_cores(machine(tmp_path, groups, {"job/cpu.max": "100000 100000"})) == 8

    def test_files_that_cannot_be_read(self, tmp_path: Path) -> None:
        assert available_cores(tmp_path) == 8
        machine(tmp_path, "0::/job\n", {"cpu.max": "200000 100000\n"})
        (tmp_path / "sys/fs/cgroup/job/cpu.max").mkdir(parents=True)
        assert available_cores(tmp_path) == 2

    def test_a_system_without_affinity(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(os, "sched_getaffinity")
        assert available_cores(tmp_path) == 64
        monkeypatch.setattr(os, "cpu_count", lambda: None)
        assert available_cores(tmp_path) == 1


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: the number of threads and the environment are the process's."""
    inherited = {k: v for k, v in os.environ.items() if k not in OPENMP}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_cores_are_used_unless_the_user_says_otherwise() -> None:
    script = """
import os, torch
from federatedscope.core import machine
machine.available_cores = lambda: 3
assert machine.use_all_cores() == torch.get_num_threads() == 3
os.environ["OMP_NUM_THREADS"] = "2"
assert machine.use_all_cores() == torch.get_num_threads() == 2
for nonsense in ("", "0", "many"):
    os.environ["OMP_NUM_THREADS"] = nonsense
    assert machine.use_all_cores() == torch.get_num_threads() == 3
"""
    done = python("-c", script)
    assert done.returncode == 0, done.stderr


# Ends the process where PyTorch would be loaded, and tells what OpenMP would read then.
STOP_AT_TORCH = """
import os, runpy, sys
class Stop:
    def find_spec(name, path=None, target=None):
        if name == "torch":
            print("torch:", os.environ.get("GOMP_SPINCOUNT"), flush=True)
            os._exit(0)
sys.meta_path.insert(0, Stop)
how, what, *sys.argv[1:] = sys.argv[1:]
getattr(runpy, how)(what, run_name="__main__")
"""
RUN = ("run_path", "federatedscope/main.py", "--cfg", "yamls/minilm.yaml", "--check")
COMMANDS = {
    "a run": RUN,
    "a run on the miniature": (*RUN, "--embedded"),
    "the extension's commands": ("run_module", "federatedscope_ext", "list"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_wait_briefly(command: str) -> None:
    """It is set before PyTorch is loaded: later it has no effect."""
    done = python("-c", STOP_AT_TORCH, *COMMANDS[command])
    assert done.stdout.splitlines() == ["torch: 1000"], done.stderr


@pytest.mark.parametrize(
    ("environment", "spins"),
    [
        ({"GOMP_SPINCOUNT": "300000"}, "300000"),
        ({"GOMP_SPINCOUNT": ""}, ""),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"),
        ({"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "5"}, "5"),
    ],
)
def test_what_the_user_has_set_wins(environment: dict[str, str], spins: str) -> None:
    script = "import os, federatedscope; print(os.environ.get('GOMP_SPINCOUNT'))"
    done = python("-c", script, **environment)
    assert done.stdout.splitlines() == [spins], done.stderr


def test_openmp_reads_it() -> None:
    """Where PyTorch comes with GNU's OpenMP, as it does for Linux."""
    done = python("-c", "import federatedscope, torch", OMP_DISPLAY_ENV="verbose")
    assert done.returncode == 0, done.stderr
    shown = [line for line in done.stderr.splitlines() if "GOMP_SPINCOUNT" in line]
    if not shown:
        pytest.skip("PyTorch does not use GNU's OpenMP here")
    assert all("'1000'" in line for line in shown), shown

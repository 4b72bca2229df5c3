"""Independent random streams, the draw of clients, checkpoints, the machine."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from federatedscope.core import machine
from federatedscope.core.checkpoint import load_checkpoint, save_checkpoint
from federatedscope.core.configs.config import global_cfg
from federatedscope.core.errors import ConfigError, UserError
from federatedscope.core.sampler import get_sampler
from federatedscope.core.seeding import derived_seed, seeded, setup_seed


class TestStreams:
    def test_seeds_are_the_same_everywhere(self) -> None:
        """Golden values: a checkpoint of today must go on tomorrow, on another machine."""
        assert derived_seed(0, "a", 1) == derived_seed(0, "a", 1)
        assert derived_seed(0, "sample", 0) == 2775484790780771856
        assert 0 <= derived_seed(2**40, "x") < 2**63

    def test_names_make_a_difference(self) -> None:
        names = [(0,), (1,), (0, "a"), (0, "b"), (0, "a", 1), (0, 1, "a"), (0, "a", 2)]
        assert len({derived_seed(*n) for n in names}) == len(names)

    def test_a_block_has_its_own_and_leaves_no_trace(self) -> None:
        setup_seed(5)
        before = (random.random(), np.random.rand(), float(torch.rand(1)))
        setup_seed(5)
        with seeded(1, "client", 3):
            inside = (random.random(), np.random.rand(), float(torch.rand(1)))
        after = (random.random(), np.random.rand(), float(torch.rand(1)))
        assert after == before
        assert inside != before
        with seeded(1, "client", 3):
            assert inside == (random.random(), np.random.rand(), float(torch.rand(1)))

    def test_also_after_an_error(self) -> None:
        setup_seed(5)
        before = (random.random(), np.random.rand(), float(torch.rand(1)))
        setup_seed(5)
        with pytest.raises(RuntimeError), seeded(1):
            raise RuntimeError
        assert (random.random(), np.random.rand(), float(torch.rand(1))) == before


class TestTheSampler:
    def test_without_replacement_and_in_order(self) -> None:
        sampler = get_sampler("uniform", 10, seed=3)
        drawn = sampler.sample(4)
        assert drawn == sorted(set(drawn))
        assert all(1 <= client <= 10 for client in drawn)

    def test_working_clients_are_not_drawn(self) -> None:
        sampler = get_sampler("uniform", 6, seed=3)
        first = sampler.sample(4)
        second = sampler.sample(2)
        assert set(first) | set(second) == set(range(1, 7))
        with pytest.raises(ValueError, match="1 clients asked for, 0 idle"):
            sampler.sample(1)
        sampler.change_state(first, "idle")
        assert set(sampler.sample(4)) == set(first)

    def test_unseen_ones_neither(self) -> None:
        sampler = get_sampler("uniform", 6, seed=3)
        sampler.change_state([2, 5], "unseen")
        assert sampler.sample(4) == [1, 3, 4, 6]

    def test_the_draw_depends_on_seed_and_number_only(self) -> None:
        def draws(seed: int, noise: bool) -> list[list[int]]:
            sampler = get_sampler("uniform", 20, seed=seed)
            found = []
            for _ in range(5):
                if noise:
                    np.random.rand(7)
                    torch.rand(3)
                found.append(sampler.sample(5))
                sampler.change_state(found[-1], "idle")
            return found

        assert draws(1, False) == draws(1, True)
        assert draws(1, False) != draws(2, False)
        assert len({tuple(d) for d in draws(1, False)}) > 1

    def test_everybody_is_drawn_equally_often(self) -> None:
        sampler = get_sampler("uniform", 10, seed=0)
        counts = np.zeros(11)
        for _ in range(2000):
            drawn = sampler.sample(3)
            counts[drawn] += 1
            sampler.change_state(drawn, "idle")
        assert counts[0] == 0
        assert np.abs(counts[1:] - 600).max() < 5 * np.sqrt(600)

    def test_mistakes(self) -> None:
        with pytest.raises(ConfigError, match=r"federate\.sampler"):
            get_sampler("group", 3)
        with pytest.raises(ValueError, match="'asleep'"):
            get_sampler("uniform", 3).change_state(1, "asleep")


STATE = {"a": torch.arange(4.0), "b.c": torch.tensor(3)}


class TestCheckpoints:
    @pytest.mark.parametrize("suffix", ["ckpt", "pt", "safetensors"])
    def test_there_and_back(self, tmp_path: Path, suffix: str) -> None:
        file = tmp_path / "deep" / f"m.{suffix}"
        save_checkpoint(file, STATE, 12)
        state, rounds = load_checkpoint(file)
        assert rounds == 12
        assert state.keys() == STATE.keys()
        assert all(torch.equal(state[k], STATE[k]) for k in STATE)
        assert len(list(file.parent.iterdir())) == 1

    def test_upstreams_form(self, tmp_path: Path) -> None:
        torch.save({"cur_round": 3, "model": STATE}, tmp_path / "theirs.ckpt")
        state, rounds = load_checkpoint(tmp_path / "theirs.ckpt")
        assert (rounds, set(state)) == (3, {"a", "b.c"})

    def test_a_bare_state_dict(self, tmp_path: Path) -> None:
        torch.save(STATE, tmp_path / "bare.pt")
        state, rounds = load_checkpoint(tmp_path / "bare.pt")
        assert (rounds, set(state)) == (0, {"a", "b.c"})

    def test_nothing_in_a_file_is_run(self, tmp_path: Path) -> None:
        class Trap:
            def __reduce__(self) -> Any:
                return (Path.touch, (tmp_path / "sprung",))

        with (tmp_path / "trap.ckpt").open("wb") as file:
            pickle.dump({"cur_round": 1, "model": Trap()}, file)
        torch.save({"cur_round": 1, "model": Trap()}, tmp_path / "trap2.ckpt")
        for name in ("trap.ckpt", "trap2.ckpt"):
            with pytest.raises(UserError, match="no checkpoint that can be read"):
                load_checkpoint(tmp_path / name)
        assert not (tmp_path / "sprung").exists()

    @pytest.mark.parametrize("name", ["m.ckpt", "m.safetensors"])
    def test_a_damaged_file(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"not a checkpoint at all")
        with pytest.raises(UserError, match="no checkpoint that can be read safely"):
            load_checkpoint(tmp_path / name)

    def test_something_else(self, tmp_path: Path) -> None:
        torch.save([1, 2], tmp_path / "list.pt")
        with pytest.raises(UserError, match="holds a list"):
            load_checkpoint(tmp_path / "list.pt")
        with pytest.raises(UserError, match="There is no checkpoint"):
            load_checkpoint(tmp_path / "none.pt")

    def test_a_crash_leaves_the_old_one(self, tmp_path: Path, monkeypatch: Any) -> None:
        file = tmp_path / "m.ckpt"
        save_checkpoint(file, STATE, 1)

        def crash(*args: Any, **kwargs: Any) -> None:
            raise OSError("disk full")

        monkeypatch.setattr(torch, "save", crash)
        with pytest.raises(OSError, match="disk full"):
            save_checkpoint(file, STATE, 2)
        monkeypatch.undo()
        assert load_checkpoint(file)[1] == 1
        assert len(list(tmp_path.iterdir())) == 1


class TestTheMachine:
    @pytest.mark.parametrize(
        ("use", "device", "there", "expected"),
        [
            (False, -1, 0, "cpu"), (False, 0, 2, "cpu"), ("auto", -1, 0, "cpu"),
            ("auto", -1, 1, "cuda:0"), ("auto", 1, 2, "cuda:1"), ("auto", 1, 0, "cpu"),
            (True, -1, 1, "cuda:0"), (True, 1, 2, "cuda:1"),
        ],
    )  # fmt: skip
    def test_devices(
        self, monkeypatch: Any, use: Any, device: int, there: int, expected: str
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: there > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
        cfg = global_cfg.clone()
        cfg.use_gpu, cfg.device = use, device
        assert machine.choose_device(cfg) == expected

    @pytest.mark.parametrize(
        ("key", "value", "there", "word"),
        [("device", 2, 2, "2 CUDA device"), ("eval_device", 1, 1, "1 CUDA device"),
         ("device", 0, 0, "no CUDA device")],
    )  # fmt: skip
    def test_devices_that_are_not_there(
        self, monkeypatch: Any, key: str, value: int, there: int, word: str
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: there > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
        cfg = global_cfg.clone()
        cfg.use_gpu = True
        cfg[key] = value
        with pytest.raises(ConfigError, match=word):
            machine.choose_device(cfg)

    def test_all_cores_are_used(self) -> None:
        """In a process of its own: the number of threads is the process's."""
        script = (
            "import os, torch\n"
            "from federatedscope.core.machine import available_cores, use_all_cores\n"
            "assert use_all_cores() == torch.get_num_threads() == available_cores()\n"
            "os.environ['OMP_NUM_THREADS'] = '1'\n"
            "assert use_all_cores() == torch.get_num_threads() == 1\n"
        )
        import os

        environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=Path(__file__).resolve().parents[2],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def test_memory(self) -> None:
        assert machine.peak_memory_bytes() > 10**7

"""How many runs at a time, and where."""

from __future__ import annotations

import pytest

from federatedscope_ext.tools.sweep.slots import choose_slots, visible_gpus, wished_threads


@pytest.mark.parametrize(
    ("points", "cores", "gpus", "jobs", "threads", "expected"),
    [
        (9, 16, 0, None, None, (8, 2)),
        (9, 2, 0, None, None, (1, 2)),
        (9, 1, 0, None, None, (1, 1)),
        (3, 16, 0, None, None, (3, 5)),  # fewer points: more cores for each
        (9, 16, 0, 4, None, (4, 4)),
        (9, 2, 0, 4, None, (4, 1)),
        (9, 8, 0, None, 1, (8, 1)),  # the user's OMP_NUM_THREADS
        (9, 8, 0, None, 16, (1, 16)),
        (9, 16, 4, None, None, (4, 4)),
        (2, 16, 4, None, None, (2, 8)),
        (9, 16, 2, 6, None, (6, 2)),
        (0, 16, 0, None, None, (1, 16)),
    ],
)
def test_choice(
    points: int,
    cores: int,
    gpus: int,
    jobs: int | None,
    threads: int | None,
    expected: tuple[int, int],
) -> None:
    names = tuple(map(str, range(gpus)))
    slots = choose_slots(points, cores, names, jobs, threads)
    assert (slots.jobs, slots.threads) == expected


def test_each_place_sees_its_own_gpu() -> None:
    slots = choose_slots(9, 16, ("3", "5"), 4, None)
    seen = [slots.environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(4)]
    assert seen == ["3", "5", "3", "5"]
    assert str(slots) == "4 runs at a time on GPU 3, 5, up to 2 on one, 4 threads each"


def test_without_gpus_their_variable_is_left_alone() -> None:
    assert choose_slots(1, 2, (), None, None).environment(0) == {"OMP_NUM_THREADS": "2"}


def test_names_of_devices_are_those_that_this_process_may_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-abc,7")
    assert visible_gpus(3) == ("2", "GPU-abc", "7")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus(2) == ("0", "1")


@pytest.mark.parametrize(("text", "threads"), [("4", 4), ("0", None), ("x", None), ("", None)])
def test_threads_of_the_environment(
    text: str, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert wished_threads() == threads

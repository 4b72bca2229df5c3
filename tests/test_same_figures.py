"""The net under a change of structure finds what differs, and nothing else."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import same_cases
import same_figures
from record_tensors import Recorder
from same_compare import Comparison, compare, described, fingerprint, read_case

EVENTS: list[dict[str, Any]] = [
    {"event": "train", "round": 1, "client": 1, "metrics": {"train_loss": 0.5}, "seconds": 1.0},
    {"event": "train", "round": 1, "client": 2, "metrics": {"train_loss": 0.6}, "seconds": 1.0},
    {"event": "round", "round": 1, "bytes_up": {"1": 64, "2": 64}, "weights": {"1": 0.5}},
    {
        "event": "eval", "round": 1, "client": 1, "phase": "after", "scope": "global",
        "metrics": {"val_accuracy": 0.25},
    },
]  # fmt: skip
STATE = {"lora_A": torch.arange(6.0).reshape(2, 3), "lora_B": torch.zeros(3, 2)}


def recorded(folder: Path, events: Any = EVENTS, state: Any = STATE, **run: Any) -> Path:
    """A case as it is left behind; the client holds ``state`` after its training."""
    outdir = folder / "1"
    (outdir / "checkpoints").mkdir(parents=True)
    (folder / "done.json").write_text(json.dumps({"codes": [0], "seconds": 1.0}))
    (outdir / "metrics.jsonl").write_text("".join(f"{json.dumps(e)}\n" for e in events))
    (outdir / "eval_results.log").write_text("{'Role': 'Server #', 'Round': 0, 'r': nan}\n")
    run = {"seconds": float(len(str(folder))), "best_round": 1, "outdir": str(outdir), **run}
    (outdir / "run.json").write_text(json.dumps(run))
    torch.save({"cur_round": 1, "model": state}, outdir / "checkpoints" / "1_model.ckpt")
    recorder = Recorder(outdir)
    recorder.on_round_start(1, [1])
    recorder.on_batch(1, context(state), None)
    return folder


def context(state: Any, mode: str = "train", batch: int = 0) -> Any:
    model = torch.nn.Module()
    for name, tensor in state.items():
        model.register_parameter(name, torch.nn.Parameter(tensor.clone()))
    model.register_parameter("frozen", torch.nn.Parameter(torch.ones(2), requires_grad=False))
    return SimpleNamespace(model=model, cur_mode=mode, cur_split="train", cur_batch_i=batch)


@pytest.fixture
def against(tmp_path: Path) -> Callable[..., Comparison]:
    """Compare the case as it is above with one recorded otherwise."""

    def compared(**other: Any) -> Comparison:
        before = read_case(recorded(tmp_path / "before"))
        return compare(before, read_case(recorded(tmp_path / "a later one", **other)))

    return compared


def names(found: Comparison) -> list[str]:
    return [str(difference.place) for difference in found.differences]


def changed(index: int, **fields: Any) -> list[dict[str, Any]]:
    return [{**event, **(fields if i == index else {})} for i, event in enumerate(EVENTS)]


def test_equal_ones_are_the_same_whatever_time_and_place(against: Any) -> None:
    found = against(events=changed(0, seconds=9.0), started="yesterday")
    assert found.differences == []
    assert found.server_error == 0.0
    assert found.tensors == 4


def test_the_order_of_lines_is_no_figure(against: Any) -> None:
    assert against(events=EVENTS[::-1]).differences == []


def test_a_changed_figure_is_found(against: Any) -> None:
    found = against(events=changed(1, metrics={"train_loss": 0.6000001}))
    assert names(found) == ["round 1 train client 2: metrics.train_loss"]
    assert found.differences[0][1:] == (0.6, 0.6000001)


def test_a_missing_line_and_one_too_many_are_found(against: Any) -> None:
    found = against(events=[*EVENTS[:3], EVENTS[0]])
    assert {place.partition(":")[0] for place in names(found)} == {
        "round 1 eval client 1 after global",
        "round 1 train client 1 (line 2)",
    }


def test_a_changed_tensor_is_found_at_the_client_and_the_server(against: Any) -> None:
    found = against(state={**STATE, "lora_A": STATE["lora_A"] * (1 + 3e-7)})
    assert names(found) == [
        "round 1 train client 1 train train 1: lora_A",
        "round 1 server 1_model.ckpt: lora_A",
    ]
    assert 1e-8 < found.server_error < 1e-6
    first, _ = described(found.differences)
    assert first.startswith("round 1 train client 1 train train 1: 1 tensors, of lora_A the norm")


def test_another_result_line_and_another_field_of_the_run_are_found(against: Any) -> None:
    assert names(against(best_round=2)) == ["run run.json: best_round"]


def test_a_tolerance_forgives_what_follows_the_first_aggregation_only(tmp_path: Path) -> None:
    def verdict(name: str, events: Any, server: Any = STATE) -> list[str]:
        before = read_case(recorded(tmp_path / name / "before"))
        folder = recorded(tmp_path / name / "now", events=events)
        checkpoint = folder / "1" / "checkpoints" / "1_model.ckpt"
        torch.save({"cur_round": 1, "model": server}, checkpoint)
        left = compare(before, read_case(folder)).beyond(1e-6)
        return [str(difference.place) for difference in left]

    near = {**STATE, "lora_A": STATE["lora_A"] * (1 + 3e-7)}
    far = {**STATE, "lora_A": STATE["lora_A"] * 1.001}
    later = changed(3, metrics={"val_accuracy": 0.3})
    assert verdict("near", later, near) == []
    assert len(verdict("far", later, far)) == 2
    assert len(verdict("trained", changed(0, metrics={"train_loss": 0.7}), near)) == 1
    assert len(verdict("bytes", changed(2, bytes_up={"1": 60, "2": 64}), near)) == 1
    assert verdict("missing", EVENTS[:3], near)


def test_hashes_tell_bits_shapes_and_types_apart() -> None:
    tensors = [torch.zeros(4), -torch.zeros(4), torch.zeros(2, 2), torch.zeros(8).bfloat16()]
    assert len({fingerprint(tensor)[0] for tensor in tensors}) == 4
    assert fingerprint(torch.ones(2, 2).T) == fingerprint(torch.ones(2, 2))


def test_an_evaluation_is_recorded_once_and_training_step_by_step(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    for mode in ("train", "test"):
        for batch in range(3):
            recorder.on_batch(1, context(STATE, mode, batch), None)
    lines = [json.loads(line) for line in recorder.file.read_text().splitlines()]
    assert [(line["mode"], line["time"]) for line in lines] == [
        ("train", 1), ("train", 2), ("train", 3), ("test", 1)
    ]  # fmt: skip


def test_every_method_of_the_catalogue_is_in_a_case() -> None:
    listed = same_figures.listed_methods()
    assert {"fedsa", "flexlora", "krum", "fedprox"} <= set(listed)
    assert set(listed) <= same_cases.covered()


def test_a_run_that_failed_is_not_the_same(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(same_figures, "listed_methods", list)
    for side, code in (("before", 0), ("now", 1)):
        folder = recorded(tmp_path / side / "fedsa")
        (folder / "done.json").write_text(json.dumps({"codes": [code], "seconds": 1.0}))
    options = same_figures._parser().parse_args(["--against", "HEAD"])
    assert same_figures._report(tmp_path, ["fedsa"], options) == 1
    assert "FAILED" in capsys.readouterr().out


def test_a_mistaken_call_starts_nothing(capsys: Any) -> None:
    assert same_figures.main(["--against", "HEAD", "--only", "fedsah"]) == 2
    assert same_figures.main([]) == 2
    assert same_figures.main(["--against", "no_such_revision"]) == 2
    assert "fedsah" in capsys.readouterr().out

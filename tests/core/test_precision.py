"""What half precision means on the machine at hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from federatedscope.core.configs.config import global_cfg
from federatedscope.core.precision import Precision, choose_precision


def config(enabled: bool = True, wanted: str = "auto") -> Any:
    cfg = global_cfg.clone()
    cfg.train.is_enable_half = enabled
    cfg.train.half_dtype = wanted
    return cfg


@pytest.mark.parametrize(
    ("enabled", "wanted", "speed", "name", "word"),
    [
        (False, "auto", 9.0, "fp32", "is_enable_half is off"),
        (False, "bf16", 9.0, "fp32", "is_enable_half is off"),
        (True, "auto", 1.8, "bf16", "1.8x as fast"),
        (True, "auto", 0.3, "fp32", "0.30x the speed"),
        (True, "bf16", 0.3, "bf16", "asks for bf16"),
        (True, "fp16", 9.0, "fp16", "asks for fp16"),
        (True, "fp32", 9.0, "fp32", "asks for fp32"),
    ],
)
def test_on_a_cpu(enabled: bool, wanted: str, speed: float, name: str, word: str) -> None:
    chosen = choose_precision(config(enabled, wanted), "cpu", probe=lambda: speed)
    assert chosen.name == name
    assert word in chosen.reason


@pytest.mark.parametrize(
    ("capability", "name"), [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp16")]
)
def test_on_a_gpu(monkeypatch: Any, capability: tuple[int, int], name: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision(config(), "cuda:0").name == name


def test_the_probe_measures_something() -> None:
    assert choose_precision(config(), "cpu").name in ("bf16", "fp32")


def test_the_base_type() -> None:
    assert Precision("bf16", "").base_dtype == torch.bfloat16
    assert Precision("fp32", "").base_dtype == torch.float32


HALF = ("train.is_enable_half", True, "train.half_dtype")


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_the_base_is_half_and_what_is_trained_is_not(
    rig: Any, name: str, dtype: torch.dtype
) -> None:
    runner = rig.runner(*HALF, name)
    for parameter in runner.model.parameters():
        assert parameter.dtype == (torch.float32 if parameter.requires_grad else dtype)
    seen = []
    trainer = runner.clients[1].trainer
    moments: list[torch.dtype] = []
    trainer.register_hook_in_train(lambda ctx: seen.append(ctx.y_prob.dtype), "on_batch_forward")
    trainer.register_hook_in_train(
        lambda ctx: moments.extend(m["exp_avg"].dtype for m in ctx.optimizer.state.values()),
        "on_fit_end",
    )
    runner.run()
    assert set(seen) == {dtype}
    state = runner.store.state(1)
    assert all(t.dtype == torch.float32 and bool(torch.isfinite(t).all()) for t in state.values())
    assert set(moments) == {torch.float32}


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_a_half_precision_run_is_close_to_a_full_one(rig: Any, name: str) -> None:
    full, half = rig(), rig(*HALF, name)
    assert half.code == 0
    assert half.run["precision"] == name
    assert full.run["precision"] == "fp32"
    assert half.metrics != full.metrics
    for a, b in zip(full.of("train", round=1), half.of("train", round=1), strict=True):
        assert a["metrics"]["train_avg_loss"] == pytest.approx(
            b["metrics"]["train_avg_loss"], rel=0.1
        )
        assert b["nonfinite"] == 0


def test_fp16_scales_the_loss(rig: Any) -> None:
    runner = rig.runner(*HALF, "fp16")
    scales: list[float] = []
    trainer = runner.clients[1].trainer
    trainer.register_hook_in_train(
        lambda ctx: scales.append(ctx.scaler.get_scale()), "on_batch_backward"
    )
    runner.run()
    assert min(scales) > 1
    plain = rig.runner(*HALF, "bf16")
    scalers: list[Any] = []
    plain.clients[1].trainer.register_hook_in_train(
        lambda ctx: scalers.append(ctx.scaler), "on_fit_end"
    )
    plain.run()
    assert set(scalers) == {None}


def test_half_precision_that_does_not_pay_is_mentioned(rig: Any, monkeypatch: Any) -> None:
    from federatedscope.core import precision

    monkeypatch.setattr(precision, "_bf16_speed_on_cpu", lambda: 0.5)
    done = rig("train.is_enable_half", True)
    assert done.run["precision"] == "fp32"
    assert any("0.50x the speed" in note for note in done.run["notes"])


def test_traffic_is_counted_in_the_type_that_travels(rig: Any) -> None:
    done = rig(*HALF, "bf16")
    assert done.of("round")[0]["bytes_up"]["1"] == 4 * done.run["parameters"]["sent"]

"""What ``train.is_enable_half`` means on the machine at hand.

The frozen base is stored in bf16 where the device computes in it, else in fp16 with loss scaling;
trainable tensors and optimizer state stay in fp32 and the forward pass runs under autocast.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """The precision of a run: ``fp32``, ``bf16`` or ``fp16``, the autocast type of forward passes;
    and why, in a sentence for the summary.
    """

    name: str
    reason: str

    @property
    def base_dtype(self) -> torch.dtype:
        """Type in which the frozen base is stored."""
        return _DTYPES[self.name]


def choose_precision(cfg: Any, device: str, probe: Callable[[], float] | None = None) -> Precision:
    """Decide the precision.

    Reads ``train.is_enable_half`` and ``train.half_dtype`` (``auto``, ``bf16``, ``fp16``,
    ``fp32``). ``probe`` says how many times as fast as fp32 bf16 autocast is on this CPU; measured
    by default.
    """
    wanted = cfg.train.get("half_dtype", "auto")
    if not cfg.train.is_enable_half:
        return Precision("fp32", "train.is_enable_half is off")
    if wanted != "auto":
        return Precision(wanted, f"train.half_dtype asks for {wanted}")
    if device.startswith("cuda"):
        if torch.cuda.get_device_capability(torch.device(device))[0] >= 8:
            return Precision("bf16", "the GPU computes in bf16")
        return Precision("fp16", "the GPU has no bf16 units; fp16 with loss scaling instead")
    ratio = (probe or _bf16_speed_on_cpu)()
    if ratio > 1.0:
        return Precision("bf16", f"bf16 autocast is {ratio:.1f}x as fast as fp32 on this CPU")
    return Precision(
        "fp32",
        f"half precision was asked for, but bf16 autocast runs at {ratio:.2f}x the speed of fp32 "
        "on this CPU; train.half_dtype: bf16 forces it",
    )


def _bf16_speed_on_cpu(seconds: float = 0.2) -> float:
    """Speed of bf16 autocast relative to fp32 on a layer of an encoder's size."""
    layer = torch.nn.Linear(384, 1536)
    rows = torch.randn(512, 384)

    def rate(enabled: bool) -> float:
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            layer(rows)
            count, start = 0, time.perf_counter()
            while time.perf_counter() - start < seconds / 2:
                layer(rows)
                count += 1
            return count / (time.perf_counter() - start)

    return rate(True) / rate(False)

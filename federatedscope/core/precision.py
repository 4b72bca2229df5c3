"""What ``train.is_enable_half`` means on the machine at hand.

The frozen base is stored in bf16 where the device computes in it, else in fp16 with loss scaling;
trainable tensors and optimizer state stay in fp32 and the forward pass runs under autocast. Where
such tensors are parts of the base itself (a saved embedding, biases), not every operation is one
that autocast brings to one type, and text is generated outside it: :func:`join_types`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

# Parts of the names of adapters' own modules.
_ADAPTERS = ("lora_", "vera_", "prompt_encoder")
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


def join_types(model: nn.Module, base: torch.dtype) -> None:
    """Let modules of a half-precision base compute whose tensors are trained in float32.

    A module that is trained whole computes in float32 and hands its result on in the base's type;
    of one that is trained in part (its bias) the trained tensors are rounded while it computes.
    Adapters see to their types themselves.

    Parameters
    ----------
    model : torch.nn.Module
        Trainable parameters are float32 already.
    base : torch.dtype
        Of the frozen ones.
    """
    if base == torch.float32:
        return
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        trained = [key for key, parameter in own.items() if parameter.requires_grad]
        if not trained or hasattr(module, "base_layer") or any(p in name for p in _ADAPTERS):
            continue
        if all(parameter.dtype == torch.float32 for parameter in own.values()):
            module.register_forward_pre_hook(_widen)
            module.register_forward_hook(partial(_narrow, base))
        else:
            module.register_forward_pre_hook(partial(_round, base, trained))
            module.register_forward_hook(_restore, always_call=True)


def _widen(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    # Of the module's own type: a trainer may have converted it.
    own = next(module.parameters()).dtype
    return tuple(x.to(own) if _is_real(x) else x for x in inputs)


def _narrow(base: torch.dtype, module: nn.Module, inputs: Any, output: Any) -> Any:
    return output.to(base) if _is_real(output) else output


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _round(base: torch.dtype, trained: list[str], module: Any, inputs: Any) -> None:
    module.unrounded = {key: module._parameters[key] for key in trained}
    for key, parameter in module.unrounded.items():
        # Not by setattr, which takes parameters only; gradients go through the rounding.
        module._parameters[key] = parameter.to(base)


def _restore(module: Any, inputs: Any, output: Any) -> None:
    module._parameters.update(module.unrounded)

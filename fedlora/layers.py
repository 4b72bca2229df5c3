"""PEFT's LoRA layers in a model: which ranks and scales they have, and giving them others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fedlora.layouts import AdapterLayout, fit
from fedlora.names import factor_of


def lora_modules(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """``(name, module)`` of PEFT's LoRA layers, in the model's order."""
    for name, module in model.named_modules():
        if isinstance(getattr(module, "scaling", None), dict) and getattr(module, "r", None):
            yield name, module


def layout_of_model(model: nn.Module) -> AdapterLayout:
    """The layout that a model has now; empty without LoRA layers."""
    ranks, scales = {}, {}
    for name, module in lora_modules(model):
        adapter = next(iter(module.r))
        ranks[name], scales[name] = int(module.r[adapter]), float(module.scaling[adapter])
    return AdapterLayout(ranks, scales)


def apply_layout(modules: Iterable[tuple[str, Any]], layout: AdapterLayout) -> None:
    """Write a participant's ranks and scales into PEFT's layers (see :func:`lora_modules`)."""
    for name, module in modules:
        if name not in layout.ranks:
            continue
        for adapter in module.r:
            module.r[adapter] = layout.ranks[name]
            module.scaling[adapter] = layout.scales[name]


def resize(
    model: nn.Module,
    source: AdapterLayout,
    target: AdapterLayout,
    generator: torch.Generator,
) -> None:
    """Change the ranks of the active participant's own tensors, in the model.

    Rows that are added to A are random like PEFT's start (``U(-1, 1) / sqrt(d_in)``), columns that
    are added to B are zero, and B is multiplied by the ratio of the scales: when ranks grow, the
    applied update stays what it was. When they shrink, the last rows and columns go.

    Parameters
    ----------
    model : torch.nn.Module
        With the participant's tensors active.
    source, target : AdapterLayout
        Before and after.
    generator : torch.Generator
        For the new rows of A, on the CPU.
    """
    for name, parameter in model.named_parameters():
        found = factor_of(name)
        if found is None or found[0] not in target.ranks:
            continue
        module, factor = found
        old, new = parameter.shape[0 if factor == "A" else 1], target.ranks[module]
        kept = fit(parameter.data, name, source, target).clone()
        if new > old:
            kept = _grown(kept, factor, new - old, generator)
        parameter.data = kept
        parameter.grad = None
    apply_layout(lora_modules(model), target)


def _grown(kept: Tensor, factor: str, more: int, generator: torch.Generator) -> Tensor:
    if factor == "B":
        columns = kept.new_zeros((kept.shape[0], more, *kept.shape[2:]))
        return torch.cat([kept, columns], dim=1)
    shape = (more, *kept.shape[1:])
    rows = (2.0 * torch.rand(shape, generator=generator) - 1.0) / math.sqrt(kept[0].numel())
    return torch.cat([kept, rows.to(kept)], dim=0)

"""The machinery of a training step, and of whose tensors the model has.

Trainers and the client store ask an engine for what differs between PyTorch on one device and, for
instance, DeepSpeed: placing a model, computing under a precision, backward pass and step, and
putting one participant's tensors into the model in place of another's. The runner hands it in;
``register_engine`` adds one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["TorchEngine"]

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TorchEngine:
    """PyTorch on one device; what other engines replace method by method."""

    def prepare(self, model: nn.Module, device: str | torch.device) -> None:
        """Bring a model to its device, unless it is there: a walk over its modules takes time.

        Called before every training and evaluation, when the model has the participant's tensors
        and what it has received is copied into them.
        """
        parameter = next(model.parameters(), None)
        if parameter is None or parameter.device != torch.device(device):
            model.to(device)

    def precision(self, name: str, device: str | torch.device) -> AbstractContextManager[object]:
        """The context of a forward pass: autocast for ``bf16`` and ``fp16``, nothing for others."""
        dtype = _AUTOCAST.get(name)
        if dtype is None:
            return nullcontext()
        return torch.autocast(torch.device(device).type, dtype=dtype)

    def scaler(self, name: str, device: str | torch.device) -> torch.amp.GradScaler | None:
        """What scales the loss of a routine: fp16 needs it."""
        return torch.amp.GradScaler(torch.device(device).type) if name == "fp16" else None

    def backward(self, loss: Tensor, scaler: torch.amp.GradScaler | None = None) -> None:
        """Add a loss to the gradients."""
        (loss if scaler is None else scaler.scale(loss)).backward()

    def step(
        self,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler | None = None,
        clipped: Sequence[Tensor] = (),
        max_norm: float = 0.0,
    ) -> None:
        """One step of the optimizer, after which the gradients are gone.

        Parameters
        ----------
        optimizer : torch.optim.Optimizer
            Of the routine.
        scaler : torch.amp.GradScaler, optional
            See :meth:`scaler`.
        clipped : sequence of Tensor
            Parameters whose gradients are clipped together to ``max_norm``.
        max_norm : float
            0 clips nothing.
        """
        if max_norm > 0:
            if scaler is not None:
                scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(clipped, max_norm)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        optimizer.zero_grad()

    def load(self, slots: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
        """Let the model compute with a participant's tensors; nothing is copied.

        Parameters
        ----------
        slots : mapping of str to Tensor
            The model's own parameters and buffers that belong to a participant. Their gradients
            are dropped.
        tensors : mapping of str to Tensor
            The participant's, by the same names.
        """
        for name, slot in slots.items():
            slot.data = tensors[name]
            slot.grad = None

    def tensors(self, slots: Mapping[str, Any]) -> dict[str, Tensor]:
        """What the model computes with now, to be kept for the participant.

        What is sent does not come from here, but from the model's parameters as they are.
        """
        return {name: slot.data for name, slot in slots.items()}

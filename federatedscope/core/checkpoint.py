"""Checkpoints: tensors and a round number, nothing that can run code.

A file is ``{"cur_round": t, "model": state_dict}`` in PyTorch's format (``.ckpt``, ``.pt``,
``.pth``, what FederatedScope writes and reads) or safetensors with the round in its metadata.
"""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from federatedscope.core.errors import UserError
from federatedscope.core.files import replacing

# What the readers raise at a file that is none of theirs.
_DAMAGED = (
    *(pickle.UnpicklingError, SafetensorError, struct.error, EOFError),
    *(RuntimeError, ValueError, LookupError, AttributeError, TypeError),
)


def save_checkpoint(
    path: str | os.PathLike[str], state: Mapping[str, Tensor], cur_round: int
) -> None:
    """Write a checkpoint; a crash leaves either the old file or the new one.

    A path that ends in ``.safetensors`` is written in that format, another in PyTorch's; folders
    are created. ``cur_round`` are the rounds completed.
    """
    tensors = {name: t.detach().to("cpu").contiguous().clone() for name, t in state.items()}
    with replacing(path) as temporary:
        if Path(path).suffix == ".safetensors":
            save_file(tensors, temporary, metadata={"cur_round": str(cur_round)})
        else:
            torch.save({"cur_round": cur_round, "model": tensors}, temporary)


def load_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], int]:
    """Read a checkpoint of ours or of FederatedScope: state dict on the CPU, rounds completed (0
    where the file does not say).

    Raises
    ------
    UserError
        The file is missing, damaged, or holds anything but tensors and numbers.
    """
    source = Path(path)
    if not source.is_file():
        raise UserError(f"There is no checkpoint {source}. Check federate.restore_from.")
    try:
        if source.suffix == ".safetensors":
            with safe_open(str(source), framework="pt") as file:
                metadata = file.metadata() or {}
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return state, int(metadata.get("cur_round", 0))
        content = torch.load(source, map_location="cpu", weights_only=True)
    except _DAMAGED as error:
        raise UserError(
            f"{source} is no checkpoint that can be read safely ({type(error).__name__}): expected "
            "{'cur_round': int, 'model': state_dict} with tensors only, or safetensors."
        ) from error
    if not isinstance(content, Mapping):
        raise UserError(f"{source} holds a {type(content).__name__}, expected a state dict.")
    state = content.get("model", content)
    return dict(state), int(content.get("cur_round", 0))

"""A LoRA module's two factors with their scale.

The module computes ``W0 x + s B A x``; ``s B A`` is the *applied update*. Ranks, and with them
scales, differ between clients and modules, so a factor without its scale says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from federatedscope_ext.adapters.names import pair_names


@dataclass(frozen=True)
class LoraPair:
    """The factors of one module.

    Parameters
    ----------
    A : Tensor
        Shape ``(r, d_in)``.
    B : Tensor
        Shape ``(d_out, r)``.
    scale : float
        ``s``.

    Raises
    ------
    ValueError
        The shapes do not fit each other.
    """

    A: Tensor
    B: Tensor
    scale: float

    def __post_init__(self) -> None:
        if self.A.dim() != 2 or self.B.dim() != 2 or self.A.shape[0] != self.B.shape[1]:
            raise ValueError(
                f"A {tuple(self.A.shape)} and B {tuple(self.B.shape)} are no LoRA pair: expected "
                "(r, d_in) and (d_out, r)"
            )


def pairs_from_state(
    state: Mapping[str, Tensor],
    scale: float | Mapping[str, float] | Callable[[str], float],
    adapter: str = "default",
) -> dict[str, LoraPair]:
    """The LoRA pairs of a state dict, by module name. Tensors are not copied.

    Parameters
    ----------
    state : mapping of str to Tensor
        PEFT's names, see :mod:`federatedscope_ext.adapters.names`.
    scale : float, mapping or callable
        The scale: one for all, by module name, or a function of the module name such as
        ``functools.partial(scale_of, peft_config)``.
    adapter : str
        PEFT adapter to read where names carry one.

    Raises
    ------
    ValueError
        A factor without its partner, or shapes that do not fit.
    KeyError
        A module without a scale.
    """
    pairs = {}
    for module, (a, b) in pair_names(state, adapter).items():
        if callable(scale):
            s = scale(module)
        else:
            s = scale[module] if isinstance(scale, Mapping) else scale
        pairs[module] = LoraPair(state[a], state[b], float(s))
    return pairs


def applied_update(pair: LoraPair) -> Tensor:
    """``s B A``, shape ``(d_out, d_in)``, in float32 or wider."""
    dtype = torch.promote_types(torch.promote_types(pair.A.dtype, pair.B.dtype), torch.float32)
    return pair.scale * (pair.B.to(dtype) @ pair.A.to(dtype))


def rank_of(pair: LoraPair) -> int:
    """``r``, read off the factors."""
    return pair.A.shape[0]

"""A LoRA module's two factors with their scale.

The module computes ``W0 x + s B A x``; ``s B A`` is the *applied update*. Ranks, and with them
scales, differ between clients and modules, so a factor without its scale says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedlora.names import pair_names


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


@dataclass(frozen=True)
class Factors:
    """A module's factors as somebody has them; one of the two may be missing.

    Parameters
    ----------
    A : Tensor or None
        Shape ``(r, d_in)``.
    B : Tensor or None
        Shape ``(d_out, r)``.
    scale : float
        ``s`` of ``s B A``.
    """

    A: Tensor | None
    B: Tensor | None
    scale: float

    @property
    def rank(self) -> int:
        """``r``."""
        if self.A is not None:
            return self.A.shape[0]
        return 0 if self.B is None else self.B.shape[1]

    def completed(self, server: Factors | None) -> LoraPair | None:
        """The client's pair, where a factor that was not sent is the server's, cut to the rank.

        A factor that is not sent is one that nobody trains: ``s B`` of the client is then the
        first columns of the server's. ``None`` when the server does not have it either.
        """
        if self.A is not None and self.B is not None:
            return LoraPair(self.A, self.B, self.scale)
        if server is None:
            return None
        if self.A is None and self.B is not None and server.A is not None:
            return LoraPair(server.A[: self.rank], self.B, self.scale)
        if self.B is None and self.A is not None and server.B is not None:
            return LoraPair(self.A, server.B[:, : self.rank], server.scale)
        return None


def pairs_from_state(
    state: Mapping[str, Tensor],
    scale: float | Mapping[str, float] | Callable[[str], float],
    adapter: str = "default",
) -> dict[str, LoraPair]:
    """The LoRA pairs of a state dict, by module name. Tensors are not copied.

    Parameters
    ----------
    state : mapping of str to Tensor
        PEFT's names, see :mod:`fedlora.names`.
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

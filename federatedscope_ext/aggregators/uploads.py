"""What a client sent: read and checked before any arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from federatedscope_ext.adapters import LoraPair, factor_names

__all__ = ["AggregationError", "Factors", "Layout", "Upload", "client_ids", "read_upload"]

ScaleOf = Callable[[str, int], float]


class AggregationError(ValueError):
    """Uploads that cannot be aggregated.

    Parameters
    ----------
    message : str
        One paragraph: what is wrong and what to do.
    client_id : int, optional
        The client that sent it.
    key : str, optional
        The tensor it is about.
    """

    is_user_error = True

    def __init__(self, message: str, client_id: int | None = None, key: str | None = None) -> None:
        self.client_id = client_id
        self.key = key
        super().__init__(message)


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


@dataclass(frozen=True)
class Upload:
    """One client's contribution to a round.

    Parameters
    ----------
    client_id : int
        Who sent it.
    sample_size : float
        The weight it asks for, zero or more.
    factors : dict of str to Factors
        By module.
    others : dict of str to Tensor
        Everything that is no LoRA factor, such as the head.
    layout : Layout
        Names and shapes.
    """

    client_id: int
    sample_size: float
    factors: dict[str, Factors]
    others: dict[str, Tensor]
    layout: Layout


@dataclass(frozen=True)
class Layout:
    """Names and shapes of an upload; ranks are free, all else is equal for all clients.

    Parameters
    ----------
    client_id : int
        Whose it is.
    names : dict
        Module -> factor (``A``, ``B``) -> tensor name.
    shapes : dict
        Tensor name -> shape, with ``-1`` for the rank.
    """

    client_id: int
    names: dict[str, dict[str, str]]
    shapes: dict[str, tuple[int, ...]]

    def check(self, other: Layout) -> None:
        """Refuse an upload that does not belong to the same model.

        Raises
        ------
        AggregationError
            Other names, or other shapes than the rank accounts for.
        """
        client, first = other.client_id, self.client_id
        differing = sorted(self.shapes.keys() ^ other.shapes.keys())
        if differing:
            missing = [name for name in differing if name not in other.shapes]
            extra = [name for name in differing if name not in self.shapes]
            raise AggregationError(
                f"Client {client} and client {first} sent different tensors: client {client} lacks "
                f"{_some(missing)} and adds {_some(extra)}. All clients of a run must share the "
                "same names (personalization.local_param, llm.adapter.args).",
                client,
                differing[0],
            )
        for name, shape in other.shapes.items():
            if shape != self.shapes[name]:
                raise AggregationError(
                    f"{name} is {_shape(shape)} at client {client} and {_shape(self.shapes[name])} "
                    f"at client {first}. Only the rank of LoRA factors may differ between clients.",
                    client,
                    name,
                )


def client_ids(agg_info: Mapping[str, Any]) -> list[int]:
    """The IDs of a round's uploads, from ``staleness``; counted from 1 without it.

    Raises
    ------
    AggregationError
        An ID twice, or another number of IDs than of uploads.
    """
    count = len(agg_info["client_feedback"])
    staleness = list(agg_info.get("staleness") or [])
    ids = [int(client_id) for client_id, _ in staleness] or list(range(1, count + 1))
    if len(ids) != count or len(set(ids)) != count:
        raise AggregationError(
            f"{count} uploads came with the client IDs {ids}; expected one ID each."
        )
    return ids


def read_upload(
    client_id: int, content: Any, scale: ScaleOf, scales: Mapping[str, float] | None = None
) -> Upload:
    """Read and check ``(sample_size, state_dict)`` of one client.

    Parameters
    ----------
    client_id : int
        Who sent it.
    content : tuple
        What was sent.
    scale : callable
        ``f(module, rank)``: the scale of a module that ``scales`` does not name.
    scales : mapping of str to float, optional
        The client's own scales by module.

    Raises
    ------
    AggregationError
        A sample size that is negative or not finite, a value that is no tensor, NaN or infinity,
        or factors whose shapes do not fit each other.
    """
    try:
        sample_size, state = content
        size, items = float(sample_size), dict(state)
    except (TypeError, ValueError) as error:
        raise AggregationError(
            f"The upload of client {client_id} is a {type(content).__name__}; expected "
            "(sample_size, state_dict).",
            client_id,
        ) from error
    if not math.isfinite(size) or size < 0:
        raise AggregationError(
            f"Client {client_id} reports a sample size of {size}; expected a finite number >= 0.",
            client_id,
        )
    tensors = {name: _checked_tensor(client_id, name, value) for name, value in items.items()}
    names = factor_names(tensors)
    factors = {}
    for module, pair in names.items():
        a, b = (tensors[pair[f]] if f in pair else None for f in "AB")
        _check_shapes(client_id, pair, a, b)
        rank = Factors(a, b, 1.0).rank
        own = scales.get(module) if scales else None
        factors[module] = Factors(a, b, float(scale(module, rank) if own is None else own))
    used = {name for pair in names.values() for name in pair.values()}
    others = {name: tensor for name, tensor in tensors.items() if name not in used}
    shapes = {name: tuple(tensor.shape) for name, tensor in others.items()}
    for pair in names.values():
        shapes |= {pair["A"]: (-1, tensors[pair["A"]].shape[1])} if "A" in pair else {}
        shapes |= {pair["B"]: (tensors[pair["B"]].shape[0], -1)} if "B" in pair else {}
    return Upload(client_id, size, factors, others, Layout(client_id, names, shapes))


def _check_shapes(
    client_id: int, names: Mapping[str, str], a: Tensor | None, b: Tensor | None
) -> None:
    flat = [f for f, t in (("A", a), ("B", b)) if t is not None and t.dim() != 2]
    if flat or (a is not None and b is not None and a.shape[0] != b.shape[1]):
        shapes = " and ".join(
            f"{names[f]} as {_shape(t.shape)}" for f, t in (("A", a), ("B", b)) if t is not None
        )
        raise AggregationError(
            f"Client {client_id} sent {shapes}; expected A (r, d_in) and B (d_out, r) with one "
            "rank r. Only LoRA on linear layers and embeddings can be aggregated by rank.",
            client_id,
            names[flat[0] if flat else "A"],
        )


def _checked_tensor(client_id: int, key: str, value: Any) -> Tensor:
    try:
        tensor = value.detach() if isinstance(value, Tensor) else torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise AggregationError(
            f"Client {client_id} sent {key} as a {type(value).__name__}; expected a tensor.",
            client_id,
            key,
        ) from error
    if tensor.is_complex():
        raise AggregationError(
            f"Client {client_id} sent {key} as {tensor.dtype}; complex tensors cannot be averaged.",
            client_id,
            key,
        )
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).sum())
        raise AggregationError(
            f"Client {client_id} sent {bad} of {tensor.numel()} values of {key} as NaN or "
            "infinity; nothing was aggregated. Its training diverged: lower train.optimizer.lr, "
            "set grad.grad_clip, or switch train.is_enable_half off.",
            client_id,
            key,
        )
    return tensor


def _shape(shape: tuple[int, ...]) -> str:
    return f"({', '.join('r' if side < 0 else str(side) for side in shape)})"


def _some(names: list[str], limit: int = 3) -> str:
    if not names:
        return "nothing"
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more

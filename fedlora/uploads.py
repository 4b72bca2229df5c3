"""What the clients of a round sent: read and checked once, before any arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedlora.errors import AggregationError
from fedlora.names import factor_names
from fedlora.pairs import Factors

__all__ = ["Intake", "Upload", "client_ids", "factors_of", "normalised_weights", "read_upload"]


@dataclass(frozen=True)
class Upload:
    """One client's contribution to a round.

    Parameters
    ----------
    client_id : int
        Who sent it.
    sample_size : float
        The weight it asks for (rows owned or rows processed), zero or more.
    state : mapping of str to Tensor
        The shared tensors after local training. They are the client's own: never write into them.
    """

    client_id: int
    sample_size: float
    state: Mapping[str, Tensor]


class Intake:
    """The uploads of one round as they come: read, checked against each other, counted.

    Of the uploads only sizes, names and shapes are kept.

    Parameters
    ----------
    free_ranks : bool
        Whether the ranks of LoRA factors may differ between clients, who then must send matrices
        that fit each other.

    Attributes
    ----------
    sizes : dict of int to float
        Sample size by client.
    """

    def __init__(self, free_ranks: bool = False) -> None:
        self.free_ranks = free_ranks
        self.sizes: dict[int, float] = {}
        self._first: tuple[int, dict[str, tuple[int, ...]]] | None = None

    def take(self, content: Any, client_id: int | None = None) -> Upload:
        """Read one upload.

        Parameters
        ----------
        content : tuple
            ``(sample_size, state_dict)``.
        client_id : int, optional
            Who sent it; counted from 1 when not given.

        Raises
        ------
        AggregationError
            An ID twice, other names or shapes than the uploads before, factors of one module that
            do not fit each other, or what :func:`read_upload` refuses.
        """
        client = len(self.sizes) + 1 if client_id is None else client_id
        if client in self.sizes:
            raise AggregationError(
                f"Client {client} sent two updates in one round; expected one.", client
            )
        upload = read_upload(client, content)
        shapes = _shapes(upload, self.free_ranks)
        if self._first is None:
            self._first = client, shapes
        else:
            _check_same(self._first, (client, shapes), self.free_ranks)
        self.sizes[client] = upload.sample_size
        return upload

    def weights(self, uniform: bool = False) -> dict[int, float]:
        """The weight of each upload; they add up to 1. See :func:`normalised_weights`."""
        if not self.sizes:
            raise AggregationError("There is nothing to aggregate: no client sent an update.")
        return normalised_weights(self.sizes, uniform)


def read_upload(client_id: int, content: Any) -> Upload:
    """Read ``(sample_size, state_dict)`` of one client and check its values.

    Raises
    ------
    AggregationError
        A sample size that is negative or not finite, a value that is no tensor, or a tensor with
        NaN or infinity.
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
    return Upload(client_id, size, {k: _checked_tensor(client_id, k, v) for k, v in items.items()})


def factors_of(
    upload: Upload,
    scale: Callable[[str, int], float],
    scales: Mapping[str, float] | None = None,
) -> dict[str, Factors]:
    """The LoRA factors of an upload by module, each with its scale.

    Parameters
    ----------
    upload : Upload
        What was sent.
    scale : callable
        ``f(module, rank)``: the scale of a module that ``scales`` does not name.
    scales : mapping of str to float, optional
        The client's own scales by module.
    """
    found = {}
    for module, names in factor_names(upload.state).items():
        a, b = (upload.state[names[f]] if f in names else None for f in "AB")
        own = scales.get(module) if scales else None
        rank = Factors(a, b, 1.0).rank
        found[module] = Factors(a, b, float(scale(module, rank) if own is None else own))
    return found


def client_ids(agg_info: Mapping[str, Any]) -> list[int]:
    """The IDs of a round's uploads.

    Parameters
    ----------
    agg_info : mapping
        ``client_feedback``: list of ``(sample_size, state_dict)``. ``staleness``: list of
        ``(client_id, staleness)`` in the same order; without it clients are numbered from 1.

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


def normalised_weights(sizes: Mapping[int, float], uniform: bool = False) -> dict[int, float]:
    """``p_k = n_k / sum_j n_j`` over the clients that reported, or ``1 / K``.

    Raises
    ------
    AggregationError
        The sample sizes add up to zero.
    """
    if uniform:
        return {client: 1.0 / len(sizes) for client in sizes}
    total = math.fsum(sizes.values())
    if total <= 0:
        raise AggregationError(
            f"The sample sizes of clients {list(sizes)} add up to {total}; nothing can be weighted "
            "by them. Set aggregator.weights to 'uniform', or leave clients without rows out."
        )
    return {client: size / total for client, size in sizes.items()}


def _shapes(upload: Upload, free_ranks: bool) -> dict[str, tuple[int, ...]]:
    """Shapes by name, -1 for a rank that is free."""
    shapes = {name: tuple(tensor.shape) for name, tensor in upload.state.items()}
    for names in factor_names(upload.state).values() if free_ranks else ():
        a, b = (upload.state[names[f]] if f in names else None for f in "AB")
        _check_pair(upload.client_id, names, a, b)
        if a is not None:
            shapes[names["A"]] = (-1, a.shape[1])
        if b is not None:
            shapes[names["B"]] = (b.shape[0], -1)
    return shapes


Shapes = tuple[int, dict[str, tuple[int, ...]]]


def _check_same(reference: Shapes, given: Shapes, free_ranks: bool) -> None:
    """Refuse an upload whose names or shapes differ from those of the first one."""
    (first, expected), (client, shapes) = reference, given
    if expected.keys() != shapes.keys():
        missing = sorted(expected.keys() - shapes.keys())
        extra = sorted(shapes.keys() - expected.keys())
        raise AggregationError(
            f"Client {client} and client {first} sent different tensors: client {client} lacks "
            f"{_some(missing)} and adds {_some(extra)}. All clients of a run must share the same "
            "names (personalization.local_param, llm.adapter.args).",
            client,
            (missing + extra)[0],
        )
    for name, shape in shapes.items():
        if shape != expected[name]:
            demand = "Only the rank of LoRA factors may differ between clients."
            if not free_ranks:
                demand = "This rule needs equal shapes: give all clients the same adapter rank."
            raise AggregationError(
                f"{name} is {_shape(shape)} at client {client} and {_shape(expected[name])} at "
                f"client {first}. {demand}",
                client,
                name,
            )


def _check_pair(
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

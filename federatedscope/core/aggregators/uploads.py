"""What the clients of a round sent: read and checked once, before any arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from federatedscope.core.errors import UserError


class AggregationError(UserError):
    """An upload that cannot be aggregated.

    Parameters
    ----------
    message : str
        One paragraph: what is wrong and what to do.
    client_id : int, optional
        The client that sent it.
    key : str, optional
        The tensor it is about.
    """

    def __init__(self, message: str, client_id: int | None = None, key: str | None = None) -> None:
        self.client_id = client_id
        self.key = key
        super().__init__(message)


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
        The shared tensors after local training.
    """

    client_id: int
    sample_size: float
    state: Mapping[str, Tensor]


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
        size = float(sample_size)
        items = dict(state)
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


def read_uploads(agg_info: Mapping[str, Any]) -> list[Upload]:
    """Read a round's uploads and check that they belong together.

    Parameters
    ----------
    agg_info : mapping
        ``client_feedback``: list of ``(sample_size, state_dict)``. ``staleness``: list of
        ``(client_id, staleness)`` in the same order, the source of the IDs; without it clients
        are numbered from 1.

    Returns
    -------
    list of Upload
        In the order of the feedback. The tensors are the clients' own: never write into them.

    Raises
    ------
    AggregationError
        No upload at all, an ID twice, uploads with different names or shapes, or one that
        :func:`read_upload` refuses.
    """
    feedback = list(agg_info["client_feedback"])
    if not feedback:
        raise AggregationError("There is nothing to aggregate: no client sent an update.")
    staleness = list(agg_info.get("staleness") or [])
    ids = [int(client_id) for client_id, _ in staleness] or list(range(1, len(feedback) + 1))
    if len(ids) != len(feedback) or len(set(ids)) != len(ids):
        raise AggregationError(
            f"{len(feedback)} uploads came with the client IDs {ids}; expected one ID each."
        )
    uploads = [read_upload(i, content) for i, content in zip(ids, feedback, strict=True)]
    for upload in uploads[1:]:
        check_same_layout(uploads[0], upload)
    return uploads


def check_same_layout(reference: Upload, upload: Upload) -> None:
    """Refuse an upload whose names or shapes differ from those of ``reference``."""
    mine, theirs = upload.state.keys(), reference.state.keys()
    if mine != theirs:
        missing, extra = sorted(theirs - mine), sorted(mine - theirs)
        raise AggregationError(
            f"Client {upload.client_id} and client {reference.client_id} sent different tensors: "
            f"client {upload.client_id} lacks {_some(missing)} and adds {_some(extra)}. All "
            "clients of a run must share the same names (personalization.local_param).",
            upload.client_id,
            (missing + extra)[0],
        )
    for key, tensor in upload.state.items():
        expected = tuple(reference.state[key].shape)
        if tuple(tensor.shape) != expected:
            raise AggregationError(
                f"{key} is {tuple(tensor.shape)} at client {upload.client_id} and {expected} at "
                f"client {reference.client_id}. This rule needs equal shapes: give all clients the "
                "same adapter rank.",
                upload.client_id,
                key,
            )


def _some(names: list[str], limit: int = 3) -> str:
    if not names:
        return "nothing"
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def normalised_weights(uploads: list[Upload], uniform: bool = False) -> dict[int, float]:
    """``p_k = n_k / sum_j n_j`` over the clients that reported, or ``1 / K``.

    Raises
    ------
    AggregationError
        The sample sizes add up to zero.
    """
    if uniform:
        return {upload.client_id: 1.0 / len(uploads) for upload in uploads}
    total = math.fsum(upload.sample_size for upload in uploads)
    if total <= 0:
        raise AggregationError(
            f"The sample sizes of clients {[u.client_id for u in uploads]} add up to {total}; "
            "nothing can be weighted by them. Set aggregator.weights to 'uniform', or leave "
            "clients without rows out."
        )
    return {upload.client_id: upload.sample_size / total for upload in uploads}

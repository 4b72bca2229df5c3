"""What the robust rules share: how many faulty clients they stand, distances, Krum's order.

``n`` is the number of uploads of a round and ``f`` (``aggregator.byzantine_node_num``) the largest
number of them that may be arbitrary. The published rules are stated for updates ``x_k - x_t``; all
but norm bounding give the same result on the states ``x_k``, because distances, order and means
move along with a common shift.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from federatedscope.core.aggregators.aggregator import Aggregator
from federatedscope.core.errors import ConfigError
from fedlora.errors import AggregationError
from fedlora.means import Device, narrow, widen
from fedlora.uploads import Upload


class RobustAggregator(Aggregator):
    """A rule that compares uploads with each other, and so keeps all of a round.

    Subclasses write :meth:`_combined` and, where not all count alike, :meth:`_shares`.
    """

    def _begin(self) -> None:
        self._uploads: list[Upload] = []

    def _add(self, upload: Upload) -> None:
        self._uploads.append(upload)

    def _kept(self) -> list[Upload]:
        return self._uploads

    def _combine(self) -> dict[str, Tensor]:
        return self._combined(self._uploads)

    def _combined(self, uploads: list[Upload]) -> dict[str, Tensor]:
        """The server's new state."""
        raise NotImplementedError

    def _shares(self, sizes: Mapping[int, float], uploads: Sequence[Upload]) -> dict[int, float]:
        """All clients count alike."""
        return {client: 1.0 / len(sizes) for client in sizes}


def faulty_clients(config: Any) -> int:
    """``f``: how many uploads of a round may be arbitrary.

    Raises
    ------
    ConfigError
        A negative number.
    """
    number = int(config.aggregator.byzantine_node_num)
    if number < 0:
        raise ConfigError(
            "aggregator.byzantine_node_num", number, "a number of clients", "write 0 or more"
        )
    return number


def check_reported(uploads: Sequence[Upload], rule: str, needed: int) -> None:
    """Refuse a round in which too few clients reported."""
    if len(uploads) < needed:
        raise AggregationError(
            f"{rule} needs at least {needed} uploads and {len(uploads)} clients reported "
            f"({[u.client_id for u in uploads]}). Lower aggregator.byzantine_node_num, or sample "
            "more clients."
        )


def bft_argument(config: Any, name: str, default: float | None = None) -> float:
    """The number ``aggregator.BFT_args.<name>``.

    Raises
    ------
    ConfigError
        It is missing and has no default, or is no number.
    """
    value = config.aggregator.BFT_args.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(
            f"aggregator.BFT_args.{name}",
            value,
            f"aggregator.robust_rule = {config.aggregator.robust_rule!r} needs a number here",
            f"write for example aggregator.BFT_args: {{{name}: 1.0}}",
        )
    return float(value)


def stacked(uploads: Sequence[Upload], key: str, device: Device = "cpu") -> Tensor:
    """One tensor of all clients, shape ``(n, *shape)``, in float64."""
    return torch.stack([widen(upload.state[key], device) for upload in uploads])


def per_coordinate(
    uploads: Sequence[Upload], rule: Callable[[Tensor], Tensor], device: Device = "cpu"
) -> dict[str, Tensor]:
    """Apply ``rule``, which maps ``(n, *shape)`` to ``shape``, to every tensor."""
    return {
        key: narrow(rule(stacked(uploads, key, device)), tensor.dtype, key)
        for key, tensor in uploads[0].state.items()
    }


def middle(ordered: Tensor) -> Tensor:
    """The median of sorted values along the first dimension; a midpoint if ``n`` is even."""
    count = ordered.shape[0]
    return (ordered[(count - 1) // 2] + ordered[count // 2]) / 2


def squared_distances(uploads: Sequence[Upload], device: Device = "cpu") -> Tensor:
    """``||x_i - x_j||^2`` over all floating-point tensors together, shape ``(n, n)``.

    From differences, not from inner products: beside a huge outlier those would lose the small
    distances between the honest clients.
    """
    count = len(uploads)
    total = widen(torch.zeros(count, count), device)
    for key, tensor in uploads[0].state.items():
        if not tensor.is_floating_point():
            continue
        rows = stacked(uploads, key, device).reshape(count, tensor.numel())
        for i in range(count - 1):
            part = (rows[i + 1 :] - rows[i]).square().sum(1)
            total[i, i + 1 :] += part
            total[i + 1 :, i] += part
    return total


def krum_order(distances: Tensor, faulty: int) -> list[int]:
    """Indices by Krum's score, best first.

    The score is the sum of the squared distances to the ``n - f - 2`` nearest others (at least
    one). With a single neighbour two uploads that are each other's nearest always tie; the smaller
    sum of all distances then decides, so that the choice does not depend on the order of arrival.

    Parameters
    ----------
    distances : Tensor
        Squared distances, shape ``(n, n)``, zero on the diagonal.
    faulty : int
        ``f``.
    """
    count = distances.shape[0]
    neighbours = max(count - faulty - 2, 1)
    # The first column of the sorted distances is the upload itself.
    scores = distances.sort(dim=1).values[:, 1 : 1 + neighbours].sum(1)
    order = torch.argsort(distances.sum(1), stable=True)
    order = order[torch.argsort(scores[order], stable=True)]
    return [int(i) for i in order]


def uniform_weights(uploads: Sequence[Upload], chosen: Sequence[Upload]) -> dict[int, float]:
    """``1 / len(chosen)`` for the chosen clients and 0 for the others."""
    ids = {upload.client_id for upload in chosen}
    return {u.client_id: 1.0 / len(ids) if u.client_id in ids else 0.0 for u in uploads}

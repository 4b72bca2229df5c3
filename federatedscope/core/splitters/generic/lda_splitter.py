"""Label skew drawn from a Dirichlet distribution.

Hsu, Qi & Brown, *Measuring the Effects of Non-Identical Data Distribution for Federated Visual
Classification*, https://arxiv.org/abs/1909.06335 (rows of each class are shared out among
clients by one draw of ``Dir(alpha, ..., alpha)``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from federatedscope.core.data.utils import take
from federatedscope.core.errors import ConfigError
from federatedscope.core.splitters.base_splitter import BaseSplitter
from federatedscope.core.splitters.utils import class_codes, required_labels, split_by_prior

__all__ = ["LDASplitter", "dirichlet_distribution_noniid_slice"]

MAX_DRAWS = 200


class LDASplitter(BaseSplitter):
    """Share the rows of each class among clients by a draw of a Dirichlet distribution.

    Parameters
    ----------
    client_num : int
        Number of parts.
    alpha : float
        Concentration: small values give strong label skew, large ones approach IID. Default 0.5.
    min_size : int
        Rows that every client must have; draws that give fewer are repeated. Default 1.
    fill : bool
        After the draws were in vain, move rows from the largest clients to those that have fewer
        than ``min_size``, instead of stopping with an error. Default ``False``.
    """

    def __init__(
        self, client_num: int, alpha: float = 0.5, min_size: int = 1, fill: bool = False
    ) -> None:
        if not isinstance(alpha, (int, float)) or isinstance(alpha, bool) or not alpha > 0:
            problem = "the alpha of lda must be a number above 0"
            remedy = "Write for example data.splitter_args: [{'alpha': 0.5}]"
            raise ConfigError("data.splitter_args", [{"alpha": alpha}], problem, remedy)
        super().__init__(client_num)
        self.alpha = float(alpha)
        self.min_size = int(min_size)
        self.fill = bool(fill)

    def __call__(
        self, dataset: Any, prior: Sequence[Any] | None = None, **kwargs: Any
    ) -> list[Any]:
        """Split a dataset; with ``prior`` the parts follow those label distributions."""
        labels = required_labels(dataset, "lda")
        parts = dirichlet_distribution_noniid_slice(
            labels, self.client_num, self.alpha, self.min_size, prior, self.fill
        )
        return [take(dataset, part) for part in parts]


def dirichlet_distribution_noniid_slice(
    label: npt.NDArray[Any],
    client_num: int,
    alpha: float,
    min_size: int = 1,
    prior: Sequence[Any] | None = None,
    fill: bool = False,
) -> list[list[int]]:
    """Row indices per client with Dirichlet label skew; real-valued labels are cut into bins.

    The arguments are those of :class:`LDASplitter`, or ``prior``: labels of each client's training
    rows, which are followed instead of drawing.

    Raises
    ------
    ConfigError
        ``MAX_DRAWS`` draws left a client with fewer than ``min_size`` rows.
    """
    if prior is not None:
        return split_by_prior(label, client_num, prior)
    codes, _, classes = class_codes(label)
    if len(codes) < client_num * min_size:
        problem = f"there are {len(codes)} rows to split, fewer than {min_size} for each client"
        remedy = f"Write at most {len(codes) // max(min_size, 1)} clients, or use more data"
        raise ConfigError("federate.client_num", client_num, problem, remedy)
    for _ in range(MAX_DRAWS):
        parts = _draw(codes, classes, client_num, alpha)
        if min(map(len, parts)) >= min_size:
            break
    else:
        if not fill:
            raise _unlucky(parts, client_num, alpha, min_size, len(codes))
        _move_rows(parts, min_size)
    for part in parts:
        np.random.shuffle(part)
    return parts


def _draw(
    codes: npt.NDArray[np.int64], classes: int, client_num: int, alpha: float
) -> list[list[int]]:
    """One draw; the order of random calls is that of FederatedScope, so are its partitions."""
    parts: list[list[int]] = [[] for _ in range(client_num)]
    for row_class in range(classes):
        rows = np.flatnonzero(codes == row_class)
        np.random.shuffle(rows)
        # A tiny alpha underflows to shares of 0/0: everything then goes to the last client.
        shares = np.nan_to_num(np.random.dirichlet(np.repeat(alpha, client_num)))
        cuts = (np.cumsum(shares) * len(rows)).astype(int)[:-1]
        for part, piece in zip(parts, np.split(rows, cuts), strict=True):
            part.extend(piece.tolist())
    return parts


def _move_rows(parts: list[list[int]], min_size: int) -> None:
    """Fill small parts from the largest ones."""
    for part in sorted(parts, key=len):
        while len(part) < min_size:
            donor = max(parts, key=len)
            part.append(donor.pop(np.random.randint(len(donor))))


def _unlucky(
    parts: list[list[int]], client_num: int, alpha: float, min_size: int, rows: int
) -> ConfigError:
    short = [k for k, part in enumerate(parts, start=1) if len(part) < min_size]
    named = ", ".join(map(str, short[:5])) + (", ..." if len(short) > 5 else "")
    return ConfigError(
        "data.splitter",
        "lda",
        f"alpha {alpha:g} over {client_num} clients and {rows} rows left clients with fewer than "
        f"{min_size} training rows in each of {MAX_DRAWS} draws, in the last one {named}",
        "Use fewer clients (federate.client_num), a larger alpha (data.splitter_args: "
        f"[{{'alpha': {max(1.0, 2 * alpha):g}}}]), another data.seed, data.splitter: iid, or "
        f"data.splitter_args: [{{'alpha': {alpha:g}, 'fill': True}}], which moves rows from the "
        "largest clients to those",
    )

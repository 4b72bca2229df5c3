"""``data.splitter: lda_quality``: a few clients with balanced labels, the others skewed.

The setting of Byun & Lee, *Towards Federated Low-Rank Adaptation of Language Models with Rank
Heterogeneity*, NAACL 2025, https://arxiv.org/abs/2406.17477: 10 % of 100 clients are of high
quality, with all labels alike, and the labels of the rest are skewed. Every client has about the
same number of rows, so that nothing but the labels sets them apart.

How the skewed shares are made (the paper does not say): every skewed client draws its label
proportions from Dir(alpha, ..., alpha), as ``lda`` draws them per label; the draws are then scaled
by label and by client in turn (iterative proportional fitting, Deming & Stephan, 1940) until all
rows are given out and the clients are of one size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from federatedscope.register import register_splitter
from federatedscope_ext.errors import ExtensionError

__all__ = ["QualitySplitter", "build_quality_splitter"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

FITTING_STEPS = 500
# Proportions below this are raised to it: a client can be given a few rows of any label.
SMALLEST = 1e-6
_KEYS = ("label", "labels", "category", "categories")


class QualitySplitter:
    """Balanced labels for a share of the clients, Dirichlet-skewed ones for the rest.

    Parameters
    ----------
    client_num : int
        Number of parts.
    alpha : float
        Concentration of the Dirichlet distribution of the skewed clients. Default 0.1.
    balanced_share : float
        Share of the clients with balanced labels, rounded to whole clients, at least one where it
        is above 0. Default 0.1.

    Attributes
    ----------
    balanced_clients : list of int
        Numbers (from 1) of the clients with balanced labels; empty before the first split.
    groups : dict
        Client number to ``"of balanced labels"`` or ``""``, for the run's description.

    Notes
    -----
    All draws come from NumPy's global generator, which the data translator seeds with
    ``data.seed``.
    """

    def __init__(self, client_num: int, alpha: float = 0.1, balanced_share: float = 0.1) -> None:
        _check_number("alpha", alpha, 0 < _number(alpha) < np.inf, "a number above 0")
        share = _number(balanced_share)
        _check_number("balanced_share", balanced_share, 0 <= share <= 1, "a number from 0 to 1")
        self.client_num = client_num
        self.alpha = float(alpha)
        self.balanced_share = float(balanced_share)
        self.balanced_clients: list[int] = []

    def __repr__(self) -> str:
        return (
            f"QualitySplitter(client_num={self.client_num}, alpha={self.alpha}, "
            f"balanced_share={self.balanced_share})"
        )

    @property
    def groups(self) -> dict[int, str]:
        """Which client is of which kind."""
        return dict.fromkeys(self.balanced_clients, "of balanced labels")

    def __call__(
        self, dataset: Any, prior: Sequence[Any] | None = None, **kwargs: Any
    ) -> list[list[int]]:
        """Split a dataset.

        Parameters
        ----------
        dataset : sequence
            Rows with a label each.
        prior : sequence of sequences, optional
            Labels of each client's training rows: every label's rows are given out in proportion
            to them, so that validation rows are spread as training rows are.

        Returns
        -------
        list of list of int
            Row numbers of each client.

        Raises
        ------
        ExtensionError
            Rows without labels, fewer rows than clients, or too few rows of a label to give every
            balanced client its part.
        """
        labels, codes = np.unique(_labels(dataset), return_inverse=True)
        totals = np.bincount(codes, minlength=len(labels))
        if prior is not None:
            wanted = _as_in_training(labels, totals, prior)
        else:
            wanted = self._draw(labels, totals)
        counts = _whole(wanted, totals)
        return _deal(codes, counts)

    def _draw(self, labels: npt.NDArray[Any], totals: Integers) -> Floats:
        """Rows that each client is to have of each label, ``(clients, labels)``."""
        clients, rows = self.client_num, int(totals.sum())
        if rows < clients:
            raise ExtensionError(
                "federate.client_num",
                clients,
                f"there are {rows} rows to split",
                f"Write at most {rows} clients, or use more data",
            )
        balanced = max(1, round(self.balanced_share * clients)) if self.balanced_share else 0
        chosen = np.sort(np.random.permutation(clients)[:balanced])
        self.balanced_clients = [int(client) + 1 for client in chosen]
        size = rows / clients
        left = totals - balanced * size / len(labels)
        if left.min() < -1e-9:
            raise self._too_few(labels, totals, balanced, size)
        wanted = np.full((clients, len(labels)), size / len(labels))
        skewed = np.setdiff1d(np.arange(clients), chosen)
        if len(skewed):
            draws = _proportions(self.alpha, len(skewed), len(labels))
            wanted[skewed] = _fitted(draws, size, np.maximum(left, 0.0))
        if not np.isfinite(wanted).all():
            raise ExtensionError(
                "data.splitter_args",
                self._arguments,
                f"labels as skewed as alpha {self.alpha:g} makes them cannot be computed",
                "Write a larger alpha, for example 0.01",
            )
        return wanted

    @property
    def _arguments(self) -> list[dict[str, float]]:
        """The value of ``data.splitter_args``."""
        return [{"alpha": self.alpha, "balanced_share": self.balanced_share}]

    def _too_few(
        self, labels: npt.NDArray[Any], totals: Integers, balanced: int, size: float
    ) -> ExtensionError:
        rarest = int(np.argmin(totals))
        possible = int(totals[rarest] * len(labels) / size + 1e-9)
        # Any share above 0 means one client at least, so a smaller one need not help.
        remedy = (
            f"Write a balanced_share of at most {possible / self.client_num:.4g}"
            if possible
            else "Write 'balanced_share': 0, which is no client with balanced labels"
        )
        return ExtensionError(
            "data.splitter_args",
            self._arguments,
            f"{balanced} client(s) of {size:.0f} rows with all {len(labels)} labels alike need "
            f"{balanced * size / len(labels):.0f} rows of each, and there are {totals[rarest]} of "
            f"the label {labels[rarest]}",
            remedy,
        )


def _number(value: Any) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else float("nan")


def _check_number(name: str, value: Any, is_fine: bool, wanted: str) -> None:
    if not is_fine:
        raise ExtensionError(
            "data.splitter_args",
            [{name: value}],
            f"the {name} of lda_quality must be {wanted}",
            "Write for example data.splitter_args: [{'alpha': 0.1, 'balanced_share': 0.1}]",
        )


def _proportions(alpha: float, clients: int, labels: int) -> Floats:
    """Shares of the labels, drawn for each client from the symmetric Dirichlet distribution."""
    draws = np.random.dirichlet(np.full(labels, alpha), clients)
    # A tiny alpha underflows to shares of 0/0. What such a row tends to is all rows of one label,
    # and any label is as likely as the others.
    lost = np.flatnonzero(~np.isfinite(draws).all(axis=1))
    if len(lost):
        draws[lost] = np.eye(labels)[np.random.randint(labels, size=len(lost))]
    return np.maximum(draws, SMALLEST)


def _fitted(draws: Floats, size: float, left: Floats) -> Floats:
    """The draws scaled so that rows sum to ``size`` and columns to ``left``, nearly."""
    wanted = draws * size
    for _ in range(FITTING_STEPS):
        wanted *= (size / wanted.sum(axis=1))[:, None]
        columns = wanted.sum(axis=0)
        wanted *= left / np.where(columns > 0, columns, 1.0)
        if np.allclose(wanted.sum(axis=1), size, rtol=1e-6):
            break
    return wanted


def _as_in_training(labels: npt.NDArray[Any], totals: Integers, prior: Sequence[Any]) -> Floats:
    """Rows of each label in proportion to the clients' training rows of it."""
    known = {label: i for i, label in enumerate(labels.tolist())}
    held = np.zeros((len(prior), len(labels)))
    for client, mine in enumerate(prior):
        for label, count in zip(*np.unique(np.asarray(mine), return_counts=True), strict=True):
            if label.item() in known:
                held[client, known[label.item()]] += count
    # A label that nobody trains on goes to all alike.
    held[:, held.sum(axis=0) == 0] = 1.0
    return np.asarray(held / held.sum(axis=0) * totals)


def _whole(wanted: Floats, totals: Integers) -> Integers:
    """Whole numbers near ``wanted`` whose columns sum to ``totals``.

    What rounding takes from a client in one label it is given in another, so that the clients'
    sizes stay within about one row of what was wanted.
    """
    counts = np.floor(wanted + 1e-9).astype(np.int64)
    owed = np.zeros(len(wanted))
    for label in np.random.permutation(len(totals)):
        column = counts[:, label]
        owed += wanted[:, label] - column
        missing = int(totals[label] - column.sum())
        # Ties are broken at random; a client that was to have none is the last to get one.
        order = np.lexsort((np.random.random(len(owed)), -owed, wanted[:, label] == 0))
        for client in np.resize(order, max(missing, 0)):
            counts[client, label] += 1
            owed[client] -= 1
    return counts


def _deal(codes: Integers, counts: Integers) -> list[list[int]]:
    """Rows of each label dealt out in random order."""
    parts: list[list[int]] = [[] for _ in range(len(counts))]
    for label in range(counts.shape[1]):
        rows = np.random.permutation(np.flatnonzero(codes == label))
        for part, piece in zip(
            parts, np.split(rows, np.cumsum(counts[:, label])[:-1]), strict=True
        ):
            part.extend(piece.tolist())
    for part in parts:
        np.random.shuffle(part)
    return parts


def _labels(dataset: Any) -> npt.NDArray[Any]:
    """One label per row: of the attribute ``labels`` below all subsets, or of the rows."""
    base, index = dataset, np.arange(len(dataset))
    while hasattr(base, "indices") and hasattr(base, "dataset"):
        base, index = base.dataset, np.asarray(base.indices)[index]
    values = getattr(base, "labels", None)
    if values is not None and len(values) == len(base):
        return np.asarray(values)[index]
    found = [_label_of(base[int(i)]) for i in index]
    if any(value is None for value in found):
        raise ExtensionError(
            "data.splitter",
            "lda_quality",
            "it spreads rows by their label, and the rows of this data set have none",
            "Write data.splitter: iid, or give the rows a 'label'",
        )
    return np.asarray(found)


def _label_of(row: Any) -> Any:
    """The label of a row: the second of a pair, or the entry of a dict."""
    value: Any = None
    if isinstance(row, (tuple, list)):
        value = row[1] if len(row) > 1 else None
    elif isinstance(row, dict):
        value = next((row[key] for key in _KEYS if key in row), None)
    if hasattr(value, "item") and np.size(value) == 1:
        value = value.item()
    return value if isinstance(value, (int, float, str)) else None


def build_quality_splitter(name: str, client_num: int, **arguments: Any) -> QualitySplitter | None:
    """The splitter for ``lda_quality``, ``None`` for other names.

    Raises
    ------
    ExtensionError
        Arguments that it does not take, or values out of range.
    """
    if name != "lda_quality":
        return None
    strange = sorted(set(arguments) - {"alpha", "balanced_share"})
    if strange:
        raise ExtensionError(
            "data.splitter_args",
            [arguments],
            f"lda_quality does not take {', '.join(strange)}",
            "Write for example data.splitter_args: [{'alpha': 0.1, 'balanced_share': 0.1}]",
        )
    return QualitySplitter(client_num, **arguments)


register_splitter("lda_quality", build_quality_splitter)

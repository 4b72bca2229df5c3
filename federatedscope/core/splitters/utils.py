"""Labels as class numbers, and splits that follow given label distributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from federatedscope.core.data.utils import is_real_valued, labels_of
from federatedscope.core.errors import ConfigError

__all__ = ["class_codes", "required_labels", "split_by_prior"]

IntArray = npt.NDArray[np.int64]

REAL_VALUED_BINS = 10


def required_labels(dataset: Any, splitter: str) -> npt.NDArray[Any]:
    """The labels of a dataset; a :class:`ConfigError` where its rows have none."""
    labels = labels_of(dataset)
    if labels is None:
        problem = "it spreads rows by their label or category, and the rows of this data set have "
        remedy = "Write data.splitter: iid, or give the rows a 'label' or 'category'"
        raise ConfigError("data.splitter", splitter, f"{problem}none", remedy)
    return labels


def class_codes(
    labels: npt.NDArray[Any], prior: Sequence[Any] | None = None
) -> tuple[IntArray, list[IntArray], int]:
    """Number the classes of labels and of the clients' training labels alike.

    Real-valued labels (a regression's targets) are cut into ten bins of equal frequency. Returns
    codes of ``labels``, codes of each entry of ``prior``, the number of classes.
    """
    parts = [np.asarray(part) for part in (labels, *(prior or ()))]
    parts = [part if part.size else part.astype(parts[0].dtype) for part in parts]
    joined = np.concatenate(parts)
    if is_real_valued(joined):
        edges = np.unique(np.quantile(joined, np.linspace(0, 1, REAL_VALUED_BINS + 1)[1:-1]))
        joined = np.searchsorted(edges, joined, side="right")
    classes, codes = np.unique(joined, return_inverse=True)
    pieces = np.split(codes.astype(np.int64), np.cumsum([len(part) for part in parts])[:-1])
    return pieces[0], pieces[1:], len(classes)


def split_by_prior(
    labels: npt.NDArray[Any], client_num: int, prior: Sequence[Any]
) -> list[list[int]]:
    """Spread rows so that each client's part follows its training rows' label distribution.

    The rows of a class go to clients in proportion to their training rows of that class; a class
    that nobody trains on goes to them in proportion to all their training rows. Every row goes
    to exactly one client. Fractions are settled by what clients are owed so far, so that a small
    client is not rounded down in every class, and a client left without any row gets one of its
    classes from the client that has most of them, where there is one to spare.

    Takes labels of the rows to spread, of shape ``(n,)``, and of each client's training rows;
    returns row indices per client.
    """
    if len(prior) != client_num:
        raise ValueError(f"{len(prior)} label distributions for {client_num} clients")
    codes, train_codes, classes = class_codes(labels, prior)
    frequency = np.stack([np.bincount(part, minlength=classes) for part in train_codes], axis=1)
    parts: list[list[int]] = [[] for _ in range(client_num)]
    owed = np.zeros(client_num)
    for row_class in range(classes):
        rows = np.flatnonzero(codes == row_class)
        if not len(rows):
            continue
        np.random.shuffle(rows)
        counts = _apportion(len(rows), _shares(frequency, row_class), owed)
        for part, piece in zip(parts, np.split(rows, np.cumsum(counts)[:-1]), strict=True):
            part.extend(piece.tolist())
    _fill_empty(parts, codes, frequency)
    for part in parts:
        np.random.shuffle(part)
    return parts


def _shares(frequency: IntArray, row_class: int) -> npt.NDArray[np.float64]:
    """Share of each client in the rows of a class, from its training rows."""
    every = (frequency[row_class], frequency.sum(axis=0), np.ones(frequency.shape[1]))
    weights = next(one for one in every if one.sum() > 0)
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def _apportion(
    rows: int, shares: npt.NDArray[np.float64], owed: npt.NDArray[np.float64]
) -> IntArray:
    """Whole numbers of rows near ``rows * shares`` that sum to ``rows``; updates ``owed``."""
    target = rows * shares
    counts = np.floor(target + 1e-9).astype(np.int64)
    left = rows - int(counts.sum())
    if left:
        # Ties are broken at random, so that no client is favoured for its number.
        order = np.lexsort((np.random.random(len(shares)), -(target - counts + owed), shares == 0))
        counts[order[:left]] += 1
    owed += target - counts
    return counts


def _fill_empty(parts: list[list[int]], codes: IntArray, frequency: IntArray) -> None:
    """Give each client without a row one of the classes it trains on."""
    empty = [client for client, part in enumerate(parts) if not part]
    if not empty:
        return
    held = np.zeros_like(frequency)
    for client, part in enumerate(parts):
        np.add.at(held[:, client], codes[np.asarray(part, dtype=np.int64)], 1)
    for client in np.random.permutation(empty).tolist():
        for row_class in np.argsort(-frequency[:, client], kind="stable"):
            donor = int(np.argmax(held[row_class]))
            if frequency[row_class, client] == 0:
                break
            if held[row_class, donor] < 2:
                continue
            rows = parts[donor]
            position = next(j for j, i in enumerate(rows) if codes[i] == row_class)
            parts[client].append(rows.pop(position))
            held[row_class, donor] -= 1
            held[row_class, client] += 1
            break

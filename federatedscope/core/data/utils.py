"""What splitters, loaders and summaries ask of a dataset.

A dataset is any map-style sequence of rows: a torch dataset, a Hugging Face dataset, a list.
Optional attributes make it faster and clearer than reading every row: ``labels`` (one value per
row), ``lengths`` (tokens per row), ``collate_fn``; what was cut off is told by ``cut`` and ``left``
(tokens per row that were taken, and those of its text or answer that it still has) and by
``left_out``, a list of ``(where, rows, reason)``. The helpers here find them below any nesting of
:class:`torch.utils.data.Subset` and :class:`torch.utils.data.ConcatDataset`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import ConcatDataset, Subset

from federatedscope.core.data.wrap_dataset import WrapDataset
from federatedscope.core.errors import ConfigError
from federatedscope.core.seeding import capture, put_back

IntArray = npt.NDArray[np.int64]

_LABEL_ATTRIBUTES = ("labels", "targets", "categories")
_LABEL_KEYS = ("label", "labels", "category", "categories")


def listed(numbers: Sequence[int], most: int = 20) -> str:
    """The first of a list of numbers as text."""
    return ", ".join(map(str, numbers[:most])) + (", ..." if len(numbers) > most else "")


@contextmanager
def numpy_seed(seed: int) -> Iterator[None]:
    """Run a block with NumPy's global generator at ``seed``; its state before is put back."""
    state = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(state)


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Run a block with Python's, NumPy's and PyTorch's CPU generators at ``seed``.

    The states before the block are put back, so that building data never changes a run's other
    random numbers.
    """
    outside = capture()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        put_back(outside)


def convert_data_mode(data: Any, config: Any) -> Any:
    """The data as ``federate.mode`` wants them; builders of extensions call it last.

    Returns ``data`` itself, since one process simulates every worker; any other mode than
    ``standalone`` is a :class:`ConfigError`.
    """
    mode = config.federate.mode
    if mode.lower() != "standalone":
        raise ConfigError(
            "federate.mode",
            mode,
            "there is no process per worker yet, so nobody could own one worker's part of the data",
            "Write federate.mode: standalone",
        )
    return data


def dataset_of(holder: Any, split: str) -> Any:
    """The rows that a participant has of a split, out of a :class:`ClientData` or a mapping of
    datasets, loaders or arrays; ``None`` where it has none.
    """
    if hasattr(holder, f"{split}_data"):
        dataset = getattr(holder, f"{split}_data")
    else:
        dataset = holder.get(split) if isinstance(holder, Mapping) else None
    if hasattr(dataset, "batch_size"):
        dataset = getattr(dataset, "dataset", dataset)
    return array_rows(dataset)


def count_rows(holder: Any, split: str) -> int:
    """Rows that a participant has of a split; 0 without data."""
    dataset = dataset_of(holder, split)
    return len(dataset) if hasattr(dataset, "__len__") else 0


def array_rows(dataset: Any) -> Any:
    """A split given as arrays, ``{'x': ..., 'y': ...}``, as rows; anything else as it is."""
    if isinstance(dataset, Mapping) and {"x", "y"} <= dataset.keys():
        return WrapDataset(dataset)
    return dataset


def rows_of(dataset: Any) -> tuple[Any, IntArray]:
    """The dataset below all subsets of subsets, and the indices of the rows into it, an array of
    shape ``(len(dataset),)``.
    """
    if not isinstance(dataset, Subset):
        return dataset, np.arange(len(dataset), dtype=np.int64)
    base, indices = rows_of(dataset.dataset)
    return base, indices[np.asarray(dataset.indices, dtype=np.int64)]


def take(dataset: Any, indices: Iterable[int]) -> Any:
    """Some rows of a dataset: a list of a list, a :class:`Subset` of anything else."""
    if isinstance(dataset, list):
        return [dataset[int(i)] for i in indices]
    return Subset(dataset, [int(i) for i in indices])


def merge_datasets(parts: Sequence[Any]) -> Any:
    """One dataset with the rows of all parts, in order; ``None`` where there are none."""
    parts = [array_rows(part) for part in parts if part is not None and len(part) > 0]
    if not parts:
        return None
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, list) for part in parts):
        return [row for part in parts for row in part]
    return ConcatDataset(parts)


def labels_of(dataset: Any) -> npt.NDArray[Any] | None:
    """One label per row, or ``None`` where rows have none.

    Looked for in the dataset's ``labels``, ``targets`` or ``categories``, then in the rows: the
    second entry of a tuple, or the entry ``label``, ``labels``, ``category`` or ``categories`` of
    a dict. Only scalars count as labels; token labels of language models do not.

    Returns
    -------
    array of shape ``(n,)`` or None
        Of integers, floats or strings.
    """
    return _per_row(dataset, _labels_of_base)


def lengths_of(dataset: Any) -> IntArray | None:
    """Tokens per row from the dataset's ``lengths``, or ``None`` where it has none."""
    return numbers_of(dataset, "lengths")


def numbers_of(dataset: Any, name: str) -> IntArray | None:
    """One number per row from an attribute of the dataset, or ``None`` where it has none."""
    return _per_row(dataset, lambda base, _: _attribute(base, (name,)))


def bases_of(dataset: Any) -> Iterator[Any]:
    """The datasets below all subsets and concatenations."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    if isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            yield from bases_of(part)
    elif dataset is not None:
        yield dataset


def collate_of(dataset: Any) -> Callable[[list[Any]], Any] | None:
    """The ``collate_fn`` of the dataset below all subsets, or ``None``."""
    while isinstance(dataset, Subset | ConcatDataset):
        dataset = dataset.dataset if isinstance(dataset, Subset) else dataset.datasets[0]
    return getattr(dataset, "collate_fn", None)


def label_histogram(dataset: Any) -> dict[str, int] | None:
    """Rows per label, by the label's text; ``None`` without labels or for real-valued ones."""
    labels = None if dataset is None else labels_of(dataset)
    if labels is None:
        return None
    if labels.dtype.kind == "f":
        # A shard of a regression may by chance have whole numbers only.
        everybody = labels_of(rows_of(dataset)[0])
        if is_real_valued(labels if everybody is None else everybody):
            return None
    values, counts = np.unique(labels, return_counts=True)
    if labels.dtype.kind == "f":
        values = values.astype(np.int64)
    return {str(value): int(count) for value, count in zip(values, counts, strict=True)}


def is_real_valued(labels: npt.NDArray[Any]) -> bool:
    """Whether labels are a regression's targets: floats that are not all whole numbers."""
    return bool(labels.dtype.kind == "f" and np.any(labels != np.round(labels)))


def _per_row(
    dataset: Any, read: Callable[[Any, IntArray], npt.NDArray[Any] | None]
) -> npt.NDArray[Any] | None:
    """``read(base, indices)`` below subsets, joined over concatenated datasets."""
    base, indices = rows_of(dataset)
    if not isinstance(base, ConcatDataset):
        values = read(base, indices)
        return None if values is None else values[indices]
    parts = [_per_row(part, read) for part in base.datasets]
    known = [part for part in parts if part is not None]
    return np.concatenate(known)[indices] if len(known) == len(parts) else None


def _attribute(base: Any, names: tuple[str, ...]) -> npt.NDArray[Any] | None:
    for name in names:
        values = _scalars(getattr(base, name, None))
        if values is not None and len(values) == len(base):
            return values
    return None


def _labels_of_base(base: Any, indices: IntArray) -> npt.NDArray[Any] | None:
    values = _attribute(base, _LABEL_ATTRIBUTES)
    # A dataset that says that it has no labels is not searched for them.
    if values is None and getattr(base, "labels", ()) is not None:
        for key in _LABEL_KEYS:
            if key in (getattr(base, "column_names", None) or ()):
                return _scalars(base[key])
        # Reading rows one by one is slow, but right for every dataset.
        values = _scalars([_label_of_row(base[i]) for i in range(len(base))])
    return values


def _label_of_row(row: Any) -> Any:
    """The label of one row, ``None`` where it has no scalar one."""
    candidates = row[1:2] if isinstance(row, tuple | list) else ()
    if isinstance(row, dict):
        candidates = [row.get(key) for key in _LABEL_KEYS]
    return next((value for value in candidates if _is_scalar(value)), None)


def _is_scalar(value: Any) -> bool:
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return value.ndim == 0
    return isinstance(value, (str, int, float, np.generic))


def _scalars(values: Any) -> npt.NDArray[Any] | None:
    """A sequence of scalars as an array; ``None`` for anything else."""
    if values is None or isinstance(values, str):
        return None
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    if not isinstance(values, np.ndarray):
        values = list(values)
        if not all(_is_scalar(value) for value in values):
            return None
        items = [v.item() if isinstance(v, (torch.Tensor, np.generic)) else v for v in values]
        # Mixed numbers and text are compared as text.
        if any(isinstance(item, str) for item in items):
            items = [str(item) for item in items]
        values = np.asarray(items)
    return values if values.ndim == 1 and values.dtype.kind in "biufUS" else None

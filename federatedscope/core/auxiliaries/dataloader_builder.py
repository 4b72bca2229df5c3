"""Loaders: which rows make a batch, and in which order."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Sampler

from federatedscope.core.errors import ConfigError

__all__ = ["check_loadable", "get_dataloader"]

BATCHES_PER_GROUP = 50


def get_dataloader(
    dataset: Any, config: Any, split: str = "train", generator: torch.Generator | None = None
) -> Any:
    """A loader of one split.

    Training rows are shuffled (``dataloader.shuffle``), in batches of ``dataloader.batch_size``,
    with ``dataloader.group_by_length`` in batches of similar length. Other splits keep all rows,
    longest first where lengths are known (the figures do not depend on the order, padding and
    the memory needed do), in batches of ``eval.batch_size``.

    The dataset's ``collate_fn`` makes batches; without one PyTorch's default does. ``generator``
    shuffles training rows, PyTorch's global generator by default.

    Returns
    -------
    torch.utils.data.DataLoader or None
        ``None`` without rows; the dataset itself for ``dataloader.type: raw``.

    Raises
    ------
    ConfigError
        Unknown ``dataloader.type``, or a batch size below 1.
    """
    # Not at the top: the data package uses this builder, and either may be imported first.
    from federatedscope.core.data.utils import collate_of

    if dataset is None or len(dataset) == 0:
        return None
    options = config.dataloader
    if options.type == "raw":
        return dataset
    if options.type != "base":
        problem = "there is no such loader"
        raise ConfigError("dataloader.type", options.type, problem, "Write base (or raw)")
    training = split == "train"
    batch_size = batch_size_of(config, split)
    if not training:
        # A generator of its own: evaluating must not move the run's random numbers.
        generator = torch.Generator()
    sampler = _by_length(dataset, options, training, batch_size, generator)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=training and options.shuffle and sampler is None,
        sampler=sampler,
        drop_last=training and options.drop_last,
        collate_fn=collate_of(dataset),
        num_workers=options.num_workers,
        pin_memory=options.pin_memory,
        generator=generator,
    )


def batch_size_of(config: Any, split: str) -> int:
    """Rows per batch of a split."""
    field, size = "dataloader.batch_size", config.dataloader.batch_size
    if split != "train" and config.eval.get("batch_size", 0):
        field, size = "eval.batch_size", config.eval.batch_size
    if size < 1:
        raise ConfigError(field, size, "a batch has at least one row", f"Write {field}: 16")
    return int(size)


def check_loadable(data: Mapping[int, Any], cfg: Any, skip: Collection[int] = ()) -> None:
    """Refuse a client, but for those to ``skip`` that never train, without training rows, or with
    fewer than a batch and ``dataloader.drop_last``.
    """
    from federatedscope.core.data.utils import count_rows

    for client, mine in sorted(data.items()):
        if client == 0 or client in skip:
            continue
        own = getattr(mine, "client_cfg", None) or cfg
        rows = count_rows(mine, "train")
        size = batch_size_of(own, "train")
        if rows == 0:
            problem = f"client {client} has no training rows"
            remedy = "Use fewer clients, a larger alpha (data.splitter_args) or another data.seed"
            raise ConfigError("federate.client_num", cfg.federate.client_num, problem, remedy)
        if own.dataloader.drop_last and rows < size:
            problem = f"client {client} has {rows} training rows, fewer than one batch of {size} "
            problem += "(dataloader.batch_size), so nothing would be trained"
            remedy = f"Write dataloader.drop_last: False, or dataloader.batch_size: {rows} or less"
            raise ConfigError("dataloader.drop_last", True, problem, remedy)


def _by_length(
    dataset: Any, options: Any, training: bool, batch_size: int, generator: torch.Generator | None
) -> Sampler[int] | list[int] | None:
    """An order by length, or ``None`` for any or the given one."""
    from federatedscope.core.data.utils import lengths_of

    if training and not (options.shuffle and options.group_by_length):
        return None
    lengths = lengths_of(dataset)
    if lengths is None and training:
        problem = "the rows of this data set have no known length"
        remedy = "Write dataloader.group_by_length: False, or give the dataset an attribute"
        raise ConfigError("dataloader.group_by_length", True, problem, f"{remedy} 'lengths'")
    if lengths is None:
        return None
    if training:
        return _GroupedByLength(lengths, batch_size, generator)
    return np.argsort(-lengths, kind="stable").tolist()


class _GroupedByLength(Sampler[int]):
    """Shuffled rows of which each run of ``batch_size`` has similar lengths.

    A random permutation is cut into groups of 50 batches, each sorted by length; the batches are
    then shuffled. A last, smaller batch stays last.
    """

    def __init__(
        self, lengths: npt.NDArray[np.int64], batch_size: int, generator: torch.Generator | None
    ) -> None:
        self.lengths, self.batch_size, self.generator = lengths, batch_size, generator

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        size = self.batch_size
        order = torch.randperm(len(self.lengths), generator=self.generator).numpy()
        # The rows of a last, smaller batch are any rows, not always the shortest ones.
        order, rest = np.split(order, [len(order) // size * size])
        step = size * BATCHES_PER_GROUP
        groups = np.split(order, range(step, len(order), step))
        batches = np.concatenate(
            [group[np.argsort(self.lengths[group], kind="stable")] for group in groups]
        ).reshape(-1, size)
        shuffled = torch.randperm(len(batches), generator=self.generator).numpy()
        yield from batches[shuffled].reshape(-1).tolist()
        yield from rest.tolist()

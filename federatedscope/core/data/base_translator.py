"""From one dataset to the data of every worker."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from federatedscope.core.auxiliaries.splitter_builder import get_splitter
from federatedscope.core.configs.loading import client_config
from federatedscope.core.data.base_data import SPLITS, ClientData, StandaloneDataDict
from federatedscope.core.data.utils import is_real_valued, labels_of, listed, numpy_seed, take
from federatedscope.core.errors import ConfigError

__all__ = ["BaseDataTranslator", "nothing_to_train", "split_sizes"]

logger = logging.getLogger(__name__)


class BaseDataTranslator:
    """Split a dataset into training, validation and test rows, then among clients.

    Parameters
    ----------
    global_cfg : CN
        Reads the ``data`` section and ``federate.client_num``.
    client_cfgs : mapping, optional
        Keys of single clients, ``{'client_1': CN, ...}``.

    Notes
    -----
    Every random choice comes from NumPy's generator at ``data.seed``; its state is put back.
    For a given seed the partitions equal those of FederatedScope for the same rows.
    """

    def __init__(self, global_cfg: Any, client_cfgs: Any = None) -> None:
        self.global_cfg = global_cfg
        self.client_cfgs = client_cfgs
        # Everything is with one client; there is nothing to split.
        self.centralised = global_cfg.federate.method.lower() == "global"
        self.splitter = None if self.centralised else get_splitter(global_cfg)
        self._left_out: list[tuple[str, int, str]] = []

    def __call__(self, dataset: Any) -> StandaloneDataDict:
        """Build the data of all workers; the server's (0) is the union, for the global model.

        Parameters
        ----------
        dataset : sequence or tuple of three
            The rows, to be split by ``data.splits``; or ``(train, val, test)`` as they are
            (an empty list or ``None`` for a split that there is not).

        Raises
        ------
        ConfigError
            A client would have no training rows, or the splitter cannot divide these rows.
        """
        with numpy_seed(self.global_cfg.data.seed):
            datadict = self.split(dataset)
        return StandaloneDataDict(datadict, self.global_cfg)

    def split(self, dataset: Any) -> dict[int, Any]:
        """Both splits, on the generator as it is."""
        self._left_out = []
        given = isinstance(dataset, tuple)
        rows = dataset if given else self._subsample(dataset)
        train, val, test = self.split_train_val_test(rows)
        if given:
            train = self._subsample(train, "train rows")
        self._refuse_no_rows(0 if given else len(rows), train)
        try:
            return self.split_to_client(train, val, test)
        except ConfigError as error:
            known, lost = (0, []) if given else _lost_labels(rows, train)
            if self.global_cfg.data.splitter != "meta" or not lost:
                raise
            problem = f"{error.problem} (the training rows have {known - len(lost)} of the {known} "
            problem += f"categories; all rows of {', '.join(lost[:5])} are validation or test rows)"
            remedy = f"{error.remedy}, or another data.seed"
            raise ConfigError(error.field, error.value, problem, remedy) from error

    def split_train_val_test(self, dataset: Any, cfg: Any = None) -> tuple[Any, Any, Any]:
        """Training, validation and test rows; a tuple of the three is returned as it is."""
        if isinstance(dataset, tuple):
            if len(dataset) == 3:
                return dataset
            told = "a tuple of datasets must be (train, val, test); this one has"
            raise ValueError(f"{told} {len(dataset)}")
        train, val = split_sizes(len(dataset), (cfg or self.global_cfg).data.splits)
        order = np.random.permutation(np.arange(len(dataset)))
        pieces = np.split(order, [train, train + val])
        return take(dataset, pieces[0]), take(dataset, pieces[1]), take(dataset, pieces[2])

    def split_to_client(self, train: Any, val: Any, test: Any) -> dict[int, Any]:
        """The data of every worker from the three splits."""
        server = ClientData(self.global_cfg, train=train, val=val, test=test)
        server.left_out = self._left_out
        if self.centralised:
            config = client_config(self.global_cfg, self.client_cfgs, 1, check=False)
            return {0: server, 1: ClientData(config, train=train, val=val, test=test)}
        shards = {"train": self._shards(train)}
        prior = None
        if self.global_cfg.data.consistent_label_distribution and shards["train"]:
            prior = _label_lists(shards["train"])
        for split, rows in (("val", val), ("test", test)):
            shards[split] = self._shards(rows, prior)
        self._check_shards(shards)
        for split, rows in (("train", train), ("val", val), ("test", test)):
            self._count_unsplit(split, rows, shards[split])
        datadict: dict[int, Any] = {0: server}
        # A splitter may say which clients are of which kind, for the run's description.
        groups = getattr(self.splitter, "groups", None) or {}
        for client in range(1, self.global_cfg.federate.client_num + 1):
            mine = {name: parts[client - 1] for name, parts in shards.items() if parts}
            config = client_config(self.global_cfg, self.client_cfgs, client, check=False)
            datadict[client] = ClientData(config, **mine)
            datadict[client].group = str(groups.get(client, ""))
        return datadict

    def _shards(self, rows: Any, prior: Any = None) -> list[Any]:
        """One part per client, an empty list where there are no rows."""
        if rows is None or len(rows) == 0:
            return []
        if self.splitter is None:
            problem = "this data set is one set of rows that has to be spread over the clients"
            remedy = "Write data.splitter: iid, lda (label skew) or meta (by category)"
            raise ConfigError("data.splitter", self.global_cfg.data.splitter, problem, remedy)
        parts = self.splitter(rows) if prior is None else self.splitter(rows, prior=prior)
        return self._as_datasets(rows, list(parts))

    def _as_datasets(self, rows: Any, parts: list[Any]) -> list[Any]:
        """Parts of a splitter, which may be lists of row indices, as datasets."""
        wanted = self.global_cfg.federate.client_num
        if len(parts) < wanted:
            problem = f"the splitter gave {len(parts)} parts for {wanted} clients"
            remedy = "Use fewer clients (federate.client_num) or another splitter"
            raise ConfigError("data.splitter", self.global_cfg.data.splitter, problem, remedy)
        return [take(rows, part) if _is_index_list(part, rows) else part for part in parts[:wanted]]

    def _check_shards(self, shards: dict[str, list[Any]]) -> None:
        """Refuse a client without training rows, mention one without others."""
        for split in SPLITS:
            empty = [k for k, part in enumerate(shards[split], start=1) if len(part) == 0]
            if empty and split == "train":
                raise self._no_rows(empty)
            if empty:
                told = "%d of %d clients have no %s rows and are not evaluated there: %s"
                logger.info(told, len(empty), len(shards[split]), split, listed(empty, 10))

    def _count_unsplit(self, split: str, rows: Any, parts: list[Any]) -> None:
        """Note the rows that the splitter has given to nobody."""
        lost = len(rows) - sum(map(len, parts)) if parts else 0
        if lost > 0:
            reason = f"the splitter {self.global_cfg.data.splitter} gives them to no client"
            self._left_out.append((f"{split} rows", lost, reason))

    def _refuse_no_rows(self, rows: int, train: Any) -> None:
        """Refuse data without a training row (fewer clients would not help); ``rows`` is how many
        were split, 0 for given splits.
        """
        if train is not None and len(train) > 0:
            return
        data = self.global_cfg.data
        if rows:
            problem = f"none of the {rows} rows of the data set is left for training"
            remedy = "Use more rows, or write a larger first share"
            raise ConfigError("data.splits", list(data.splits), problem, remedy)
        raise nothing_to_train(data)

    def _no_rows(self, empty: list[int]) -> ConfigError:
        data = self.global_cfg.data
        arguments = data.splitter_args[0] if data.splitter_args else {}
        alpha = f" with alpha {arguments['alpha']}" if "alpha" in arguments else ""
        left = f"leaves client {listed(empty, 10)} without any training row"
        problem = f"the splitter {data.splitter}{alpha} {left}"
        remedy = "Use fewer clients, a larger alpha (data.splitter_args), another data.seed, or "
        clients = self.global_cfg.federate.client_num
        return ConfigError("federate.client_num", clients, problem, f"{remedy}more data")

    def _subsample(self, rows: Any, which: str = "rows") -> Any:
        """``data.subsample`` of the rows, the same share of every label where there are labels."""
        share = self.global_cfg.data.subsample
        if share == 1.0 or rows is None or len(rows) == 0:
            return rows
        if not 0.0 < share < 1.0:
            problem = "it is a share of the rows"
            raise ConfigError("data.subsample", share, problem, "Write a number in (0, 1]")
        labels = labels_of(rows)
        if labels is None or is_real_valued(labels):
            labels = np.zeros(len(rows))
        groups = [np.flatnonzero(labels == value) for value in np.unique(labels)]
        kept = [
            np.random.permutation(group)[: max(1, math.floor(share * len(group) + 1e-9))]
            for group in groups
        ]
        used = sum(map(len, kept))
        logger.info("data.subsample: %d of %d rows are used.", used, len(rows))
        self._left_out.append((which, len(rows) - used, f"data.subsample {share}"))
        return take(rows, np.sort(np.concatenate(kept)))


def nothing_to_train(data: Any) -> ConfigError:
    """The refusal of a data set whose training part is empty, from the section ``data``."""
    problem = f"the data set has no training rows (data.root is {data.root})"
    remedy = "Look whether its file is empty, or give another data.root"
    return ConfigError("data.type", data.type, problem, remedy)


def _lost_labels(dataset: Any, train: Any) -> tuple[int, list[str]]:
    """Number of a dataset's labels, and those that none of its training rows has."""
    every, trained = labels_of(dataset), labels_of(train)
    if every is None or trained is None or is_real_valued(every):
        return 0, []
    return len(np.unique(every)), [str(label) for label in np.setdiff1d(every, trained)]


def split_sizes(rows: int, splits: Sequence[float]) -> tuple[int, int]:
    """Numbers of training and validation rows; the rest are test rows."""
    shares = [*map(float, splits), 0.0, 0.0][:3]
    if len(splits) > 3 or min(shares) < 0 or not shares[0] > 0 or sum(shares) > 1 + 1e-6:
        problem = "these are not shares of training, validation and test rows"
        remedy = "Write three numbers that sum to 1, for example [0.8, 0.1, 0.1]"
        raise ConfigError("data.splits", list(splits), problem, remedy)
    train, val = int(shares[0] * rows), int(shares[1] * rows)
    if sum(shares) > 1 - 1e-6 and shares[2] == 0:
        # No test rows are wanted: what rounding leaves over is not made into any.
        train, val = (rows - val, val) if val == 0 else (train, rows - train)
    return train, val


def _label_lists(parts: list[Any]) -> list[Any] | None:
    """Labels of each client's training rows, ``None`` where rows have none."""
    labels = [labels_of(part) if len(part) else np.empty(0) for part in parts]
    return None if any(values is None for values in labels) else labels


def _is_index_list(part: Any, rows: Any) -> bool:
    """Whether a splitter's part is a list of row numbers (and not of rows)."""
    if isinstance(part, np.ndarray):
        return part.ndim == 1 and part.dtype.kind in "iu"
    if not isinstance(part, (list, tuple)) or not part:
        return False
    rows_are_numbers = isinstance(rows, list) and isinstance(rows[0], (int, np.integer))
    return not rows_are_numbers and all(isinstance(i, (int, np.integer)) for i in part)

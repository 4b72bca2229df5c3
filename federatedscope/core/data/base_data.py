"""One worker's data, and everybody's."""

from __future__ import annotations

import logging
from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from typing import Any, ClassVar

from federatedscope.core.auxiliaries.dataloader_builder import get_dataloader
from federatedscope.core.configs.loading import client_config
from federatedscope.core.data.utils import merge_datasets

__all__ = ["SPLITS", "ClientData", "StandaloneDataDict"]

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")


class ClientData(dict[str, Any]):
    """The splits of one worker: datasets as attributes, loaders as entries.

    Attributes
    ----------
    train_data, val_data, test_data : sequence or None
        The datasets; a split without rows has no loader.
    client_cfg : CN
        The worker's configuration, with which loaders are built (``dataloader``, ``eval``).
    group : str
        What its splitter says about the worker, for example "balanced"; empty for most.
    left_out : list of tuple
        Rows that are not used on the way from a data set to this worker, of the server's those that
        concern all: ``(which, number of rows, reason)``.
    generator : torch.Generator or None
        What the training loader shuffles with; ``None`` takes PyTorch's global generator.

    Notes
    -----
    ``data['train']`` builds the loader when it is first asked for and keeps it.
    """

    SPLIT_NAMES: ClassVar[list[str]] = list(SPLITS)

    def __init__(
        self, client_cfg: Any, train: Any = None, val: Any = None, test: Any = None, **kwargs: Any
    ) -> None:
        super().__init__()
        self.client_cfg: Any = None
        self.generator: Any = None
        self.group = ""
        self.left_out: list[tuple[str, int, str]] = []
        self.train_data = train
        self.val_data = val
        self.test_data = test
        self.setup(client_cfg)
        self.update(kwargs)

    def setup(self, new_client_cfg: Any = None) -> bool:
        """Take a configuration; loaders built with other loading options are dropped. Returns
        whether anything changed.
        """
        if new_client_cfg is None:
            return False
        old, self.client_cfg = self.client_cfg, new_client_cfg
        if old is not None and _loading_options(old) == _loading_options(new_client_cfg):
            return False
        for split in SPLITS:
            if self.rows(split):
                # None stands for a loader that nobody asked for yet.
                dict.__setitem__(self, split, None)
        return True

    def dataset(self, split: str) -> Any:
        """The dataset of a split, or ``None``."""
        return getattr(self, f"{split}_data")

    def rows(self, split: str) -> int:
        """Number of rows of a split."""
        dataset = self.dataset(split)
        return 0 if dataset is None else len(dataset)

    def __getitem__(self, key: str) -> Any:
        value = dict.__getitem__(self, key)
        if value is None and key in SPLITS:
            generator = self.generator if key == "train" else None
            value = get_dataloader(self.dataset(key), self.client_cfg, key, generator)
            dict.__setitem__(self, key, value)
        return value

    def get(self, key: str, default: Any = None) -> Any:
        """The entry ``key``, ``default`` where there is none."""
        try:
            return self[key]
        except KeyError:
            return default

    # dict's own methods would hand out the placeholders.
    def __iter__(self) -> Iterator[str]:
        return super().__iter__()

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        """Entries, loaders built."""
        return ItemsView(self)

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        """Values, loaders built."""
        return ValuesView(self)


class StandaloneDataDict(dict[int, Any]):
    """Data of all workers by their number: 0 the server, 1..N the clients.

    ``federate.method: global`` leaves one client that holds the rows of all;
    ``federate.merge_test_data`` (and ``merge_val_data``) give the server the clients' test (and
    validation) rows where it has none of its own.
    """

    def __init__(self, datadict: Mapping[int, Any], global_cfg: Any) -> None:
        self.global_cfg = global_cfg
        self.client_cfgs: Any = None
        super().__init__(self.preprocess(dict(datadict)))

    def resetup(self, global_cfg: Any, client_cfgs: Any = None) -> None:
        """Give every worker the configuration it has under new ones."""
        self.global_cfg, self.client_cfgs = global_cfg, client_cfgs
        for worker, data in self.items():
            if isinstance(data, ClientData):
                data.setup(client_config(global_cfg, client_cfgs, worker, check=False))

    def preprocess(self, datadict: dict[int, Any]) -> dict[int, Any]:
        """Merge what the configuration asks to be merged."""
        federate = self.global_cfg.federate
        if federate.merge_test_data:
            splits = ["test", "val"] if federate.merge_val_data else ["test"]
            datadict[0] = self._server_with(datadict, splits)
        if federate.method.lower() == "global" and sum(worker > 0 for worker in datadict) > 1:
            merged = {split: self._merged(datadict, split) for split in SPLITS}
            server = datadict.get(0)
            if server is None or not any(map(server.rows, SPLITS)):
                server = ClientData(self.global_cfg, **merged)
            client = ClientData(self.global_cfg, **merged)
            client.left_out = [one for k in datadict if k > 0 for one in datadict[k].left_out]
            datadict = {0: server, 1: client}
            logger.info("federate.method: global: one client holds the rows of all.")
        return datadict

    def _server_with(self, datadict: dict[int, Any], splits: list[str]) -> ClientData:
        server = datadict.get(0)
        own = {s: server.dataset(s) for s in SPLITS} if isinstance(server, ClientData) else {}
        for split in splits:
            if not len(own.get(split) or ()):
                own[split] = self._merged(datadict, split)
        merged = ClientData(self.global_cfg, **own)
        merged.left_out = list(getattr(server, "left_out", ()))
        return merged

    @staticmethod
    def _merged(datadict: Mapping[int, Any], split: str) -> Any:
        return merge_datasets([datadict[k].dataset(split) for k in sorted(datadict) if k > 0])


def _loading_options(cfg: Any) -> tuple[Any, ...]:
    return dict(cfg.dataloader), cfg.eval.get("batch_size", 0)

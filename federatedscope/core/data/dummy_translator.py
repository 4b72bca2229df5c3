"""Data that come split by client already."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from federatedscope.core.configs.loading import client_config
from federatedscope.core.data.base_data import SPLITS, ClientData
from federatedscope.core.data.base_translator import BaseDataTranslator, nothing_to_train
from federatedscope.core.data.utils import listed

__all__ = ["DummyDataTranslator"]

logger = logging.getLogger(__name__)


class DummyDataTranslator(BaseDataTranslator):
    """Wrap a mapping of client number to data; rows stay with their clients.

    Each value is a mapping with any of ``train``, ``val`` and ``test``, or one dataset that is
    split by ``data.splits``. Parameters are those of
    :class:`~federatedscope.core.data.BaseDataTranslator`.
    """

    def split(self, dataset: Any) -> dict[int, Any]:
        """The data of every worker; a :class:`ConfigError` where none has a training row."""
        if not isinstance(dataset, Mapping):
            raise TypeError(
                f"DummyDataTranslator takes a dict of client number to data, not a "
                f"{type(dataset).__name__}"
            )
        datadict: dict[int, Any] = {}
        for worker, data in dataset.items():
            config = client_config(self.global_cfg, self.client_cfgs, worker, check=False)
            if not isinstance(data, Mapping):
                data = dict(zip(SPLITS, self.split_train_val_test(data, config), strict=True))
            datadict[worker] = ClientData(config, **data)
        hollow = [k for k, data in datadict.items() if k > 0 and not data.rows("train")]
        if hollow and len(hollow) == sum(k > 0 for k in datadict):
            raise nothing_to_train(self.global_cfg.data)
        if hollow:
            logger.warning("Clients without training rows: %s.", listed(hollow))
        return datadict

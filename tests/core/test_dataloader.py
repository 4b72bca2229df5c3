"""Loaders: padding, order, reproducibility, and what cannot be loaded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, Subset

from federatedscope.core.auxiliaries.dataloader_builder import check_loadable, get_dataloader
from federatedscope.core.configs.config import global_cfg
from federatedscope.core.data import ClientData
from federatedscope.core.errors import ConfigError


class Rows(Dataset):
    """Rows of known length; a batch is the list of row numbers and its padded size."""

    def __init__(self, lengths):
        self.lengths = np.asarray(lengths)

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index):
        return index, int(self.lengths[index])

    @staticmethod
    def collate_fn(items):
        return [i for i, _ in items], len(items) * max(length for _, length in items)


LENGTHS = np.random.RandomState(0).randint(1, 100, 203)


def config(*pairs):
    cfg = global_cfg.clone()
    cfg.merge_from_list(["dataloader.batch_size", 8, *pairs])
    return cfg


def run(rows, cfg, split="train", seed=0):
    generator = torch.Generator().manual_seed(seed)
    batches = list(get_dataloader(rows, cfg, split, generator))
    return [ids for ids, _ in batches], sum(size for _, size in batches)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("drop_last", [False, True])
def test_training_batches(grouped, drop_last):
    cfg = config("dataloader.group_by_length", grouped, "dataloader.drop_last", drop_last)
    batches, _ = run(Rows(LENGTHS), cfg)
    sizes = [len(batch) for batch in batches]
    assert sizes == [8] * 25 + ([] if drop_last else [3])
    seen = [i for batch in batches for i in batch]
    assert len(set(seen)) == len(seen) and (drop_last or sorted(seen) == list(range(203)))
    assert run(Rows(LENGTHS), cfg)[0] == batches
    assert run(Rows(LENGTHS), cfg, seed=1)[0] != batches


def test_grouping_saves_padding_and_mixes_lengths():
    plain, grouped = (
        run(Rows(LENGTHS), config("dataloader.group_by_length", on)) for on in (False, True)
    )
    assert grouped[1] < 0.75 * plain[1]
    longest = [max(LENGTHS[batch]) for batch in grouped[0]]
    assert longest != sorted(longest) and longest != sorted(longest, reverse=True)


def test_without_shuffling_rows_stay_in_order():
    batches, _ = run(Rows(LENGTHS), config("dataloader.shuffle", False))
    assert [i for batch in batches for i in batch] == list(range(203))


def test_evaluation_keeps_every_row_longest_first():
    cfg = config("dataloader.drop_last", True, "eval.batch_size", 50)
    batches, _ = run(Subset(Rows(LENGTHS), list(range(100))), cfg, "val")
    assert [len(batch) for batch in batches] == [50, 50]
    lengths = [LENGTHS[i] for batch in batches for i in batch]
    assert lengths == sorted(LENGTHS[:100], reverse=True)


def test_evaluation_does_not_move_the_global_generator():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    list(get_dataloader(Rows(LENGTHS), config(), "test"))
    assert torch.rand(1) == expected


def test_training_follows_the_global_generator_by_default():
    torch.manual_seed(0)
    first = [ids for ids, _ in get_dataloader(Rows(LENGTHS), config())]
    torch.manual_seed(0)
    assert [ids for ids, _ in get_dataloader(Rows(LENGTHS), config())] == first


def test_rows_without_lengths():
    rows = [(torch.ones(2) * i, i) for i in range(20)]
    x, y = next(iter(get_dataloader(rows, config(), "val")))
    assert x.shape == (8, 2) and y.tolist() == list(range(8))
    with pytest.raises(ConfigError, match="group_by_length"):
        get_dataloader(rows, config("dataloader.group_by_length", True))


def test_nothing_raw_and_unknown():
    assert get_dataloader([], config()) is None and get_dataloader(None, config()) is None
    rows = [1]
    assert get_dataloader(rows, config("dataloader.type", "raw")) is rows
    with pytest.raises(ConfigError, match=r"dataloader\.type"):
        cfg = config()
        cfg.dataloader.type = "pyg"
        get_dataloader(rows, cfg)


@pytest.mark.parametrize("field", ["dataloader.batch_size", "eval.batch_size"])
def test_batch_of_no_rows(field):
    split = "train" if field.startswith("dataloader") else "val"
    with pytest.raises(ConfigError, match=field):
        get_dataloader([1], config(field, -1), split)


class TestCheckLoadable:
    """Before a model is loaded."""

    @staticmethod
    def data(cfg, *sizes):
        data = {k: ClientData(cfg, train=Rows(LENGTHS[:n])) for k, n in enumerate(sizes, start=1)}
        return {0: ClientData(cfg), **data}

    def test_short_batches_are_fine(self):
        cfg = config()
        check_loadable(self.data(cfg, 3, 20), cfg)

    def test_fewer_rows_than_a_batch(self):
        cfg = config("dataloader.drop_last", True)
        with pytest.raises(ConfigError) as error:
            check_loadable(self.data(cfg, 8, 5), cfg)
        for part in ("client 2", "5 training rows", "one batch of 8", "drop_last: False"):
            assert part in str(error.value)

    def test_client_without_rows(self):
        cfg = config()
        data = self.data(cfg, 8, 0)
        with pytest.raises(ConfigError, match="client 2 has no training rows"):
            check_loadable(data, cfg)
        check_loadable(data, cfg, skip=[2])

    def test_plain_mappings(self):
        cfg = config("dataloader.drop_last", True)
        with pytest.raises(ConfigError, match="client 1"):
            check_loadable({1: {"train": [1, 2]}}, cfg)

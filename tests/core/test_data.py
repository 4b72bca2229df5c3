"""Translators and ``get_data``: every row once, seeds, label distributions, modes, errors."""

from __future__ import annotations

import logging
import random

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from federatedscope import register
from federatedscope.core.auxiliaries.data_builder import get_data
from federatedscope.core.configs.config import global_cfg
from federatedscope.core.data import (
    BaseDataTranslator,
    ClientData,
    DummyDataTranslator,
    StandaloneDataDict,
    WrapDataset,
)
from federatedscope.core.data.utils import (
    collate_of,
    isolated_rng,
    label_histogram,
    labels_of,
    lengths_of,
    merge_datasets,
    rows_of,
)
from federatedscope.core.errors import ConfigError


def config(**keys):
    cfg = global_cfg.clone()
    pairs = {"federate.client_num": 3, "data.splitter": "iid", "data.type": "mine"}
    pairs |= {key.replace("__", "."): value for key, value in keys.items()}
    cfg.merge_from_list([item for pair in pairs.items() for item in pair])
    return cfg


def dict_rows(count, classes=3, seed=0):
    labels = np.random.RandomState(seed).randint(0, classes, count)
    return [{"id": i, "label": int(label)} for i, label in enumerate(labels)]


def ids(dataset):
    return [] if dataset is None else [dataset[i]["id"] for i in range(len(dataset))]


class Tokenised(torch.utils.data.Dataset):
    """A dataset with all the optional attributes; reading a row is an error."""

    def __init__(self, labels):
        self.labels = list(labels)
        self.lengths = np.arange(1, len(self.labels) + 1)
        self.collate_fn = len

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        raise AssertionError("the rows need not be read")


@pytest.mark.parametrize("splitter", ["iid", "lda", "meta"])
def test_one_dataset_every_row_once(splitter):
    data = BaseDataTranslator(config(data__splitter=splitter))(dict_rows(500))
    assert sorted(data) == [0, 1, 2, 3]
    held = [ids(data[k].dataset(split)) for k in (1, 2, 3) for split in ("train", "val", "test")]
    assert sorted(i for part in held for i in part) == list(range(500))
    assert [data[0].rows(split) for split in ("train", "val", "test")] == [400, 50, 50]


def test_split_tuple_is_taken_as_it_is():
    parts = dict_rows(90), dict_rows(30), []
    data = BaseDataTranslator(config())(parts)
    assert [data[0].rows(split) for split in ("train", "val", "test")] == [90, 30, 0]
    assert [data[1].rows(split) for split in ("train", "val", "test")] == [30, 10, 0]
    assert sorted(data[1]) == ["train", "val"]


@pytest.mark.parametrize(
    ("splits", "sizes"),
    [
        ([0.8, 0.1, 0.1], [80, 10, 10]),
        ([0.99, 0.0, 0.01], [99, 0, 1]),
        ([0.9, 0.1], [90, 10, 0]),
        ([1.0, 0.0, 0.0], [100, 0, 0]),
        ([0.333, 0.667, 0.0], [33, 67, 0]),
    ],
)
def test_ml_split_sizes(splits, sizes):
    data = BaseDataTranslator(config(data__splits=splits))(dict_rows(100))
    assert [data[0].rows(split) for split in ("train", "val", "test")] == sizes


@pytest.mark.parametrize("splits", [[0.0, 0.5, 0.5], [0.8, 0.8, 0.1], [-1, 1, 1], [0.2] * 5])
def test_wrong_splits(splits):
    with pytest.raises(ConfigError, match=r"data\.splits"):
        BaseDataTranslator(config(data__splits=splits))(dict_rows(100))


def partition(**keys):
    data = BaseDataTranslator(config(data__splitter="lda", **keys))(dict_rows(300))
    return [ids(data[k].train_data) for k in (1, 2, 3)]


def test_data_seed_decides_the_split_and_nothing_else_does():
    random.seed(5)
    np.random.seed(5)
    first = partition()
    np.random.seed(6)
    assert partition(seed=9) == first
    assert partition(data__seed=1) != first


def test_global_generators_are_left_alone(monkeypatch):
    def build(cfg, client_cfgs):
        random.random(), np.random.rand(), torch.rand(1)
        return BaseDataTranslator(cfg, client_cfgs)(dict_rows(100)), cfg

    monkeypatch.setattr(register, "data_dict", {"mine": build})
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    get_data(config())
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected


def test_isolated_rng_is_seeded_and_restores_after_an_error():
    def draw():
        with isolated_rng(3):
            return random.random(), np.random.rand(), torch.rand(1).item()

    assert draw() == draw()
    np.random.seed(0)
    state = np.random.get_state()[1].copy()
    with pytest.raises(RuntimeError), isolated_rng(3):
        raise RuntimeError
    assert (np.random.get_state()[1] == state).all()


@pytest.mark.parametrize("alpha", [0.1, 0.5, 5.0])
@pytest.mark.parametrize("form", ["dicts", "tuples", "tensors", "text"])
def test_validation_follows_the_training_distribution(alpha, form):
    """No class of a client is off by more than one row plus its share of rounding."""

    def rows(count, seed):
        labels = np.random.RandomState(seed).permutation(np.arange(count) % 3)
        if form == "tensors":
            return TensorDataset(torch.arange(count), torch.as_tensor(labels))
        if form == "tuples":
            return [(i, int(label)) for i, label in enumerate(labels)]
        name = (lambda v: f"topic {v}") if form == "text" else int
        return [{"id": i, "label": name(v)} for i, v in enumerate(labels)]

    cfg = config(data__splitter="lda", data__splitter_args=[{"alpha": alpha}])
    data = BaseDataTranslator(cfg)((rows(3000, 1), rows(600, 2), rows(300, 3)))
    for client in (1, 2, 3):
        train = label_histogram(data[client].train_data)
        for split, scale in (("val_data", 600 / 3000), ("test_data", 300 / 3000)):
            mine = label_histogram(getattr(data[client], split))
            for label, count in train.items():
                assert abs(mine.get(label, 0) - scale * count) <= 1 + 1e-9


def test_inconsistent_label_distribution_on_request():
    cfg = config(data__splitter="lda", data__consistent_label_distribution=False)
    data = BaseDataTranslator(cfg)((dict_rows(3000), dict_rows(600, seed=1), []))
    off = 0.0
    for client in (1, 2, 3):
        train, val = (label_histogram(data[client].dataset(s)) for s in ("train", "val"))
        for label in "012":
            shares = [h.get(label, 0) / sum(h.values()) for h in (train, val)]
            off = max(off, abs(shares[0] - shares[1]))
    assert off > 0.2


def test_validation_without_some_class():
    val = [row for row in dict_rows(60, seed=1) if row["label"] != 2]
    data = BaseDataTranslator(config(data__splitter="lda"))((dict_rows(300), val, []))
    assert sorted(i for k in (1, 2, 3) for i in ids(data[k].val_data)) == sorted(
        row["id"] for row in val
    )


def test_client_without_training_rows_is_an_error():
    cfg = config(federate__client_num=7)
    with pytest.raises(ConfigError) as error:
        BaseDataTranslator(cfg)((dict_rows(5), [], []))
    for part in ("client_num", "iid", "6, 7", "fewer clients", "larger alpha", "data.seed"):
        assert part in str(error.value)


@pytest.mark.parametrize("rows", [[], ([], dict_rows(9), []), (None, dict_rows(9), None)])
@pytest.mark.parametrize("method", ["fedavg", "global"])
def test_nothing_to_train_on(rows, method):
    """Fewer clients or a larger alpha would not help."""
    with pytest.raises(ConfigError) as error:
        BaseDataTranslator(config(data__root="/there", federate__method=method))(rows)
    assert error.value.field == "data.type" and "client_num" not in str(error.value)
    assert "no training rows (data.root is /there)" in error.value.problem


def test_a_share_without_a_whole_row():
    with pytest.raises(ConfigError, match=r"data\.splits = .*none of the 3 rows .*is left"):
        BaseDataTranslator(config(data__splits=[0.2, 0.4, 0.4]))(dict_rows(3))


def test_a_category_that_is_with_the_validation_rows_only():
    rows = [{"id": i, "label": f"c{i % 3}"} for i in range(30)] + [{"id": 30, "label": "rare"}]
    seeds = (s for s in range(99) if np.random.RandomState(s).permutation(31).tolist()[-1] == 30)
    cfg = config(data__splitter="meta", federate__client_num=4, data__seed=next(seeds))
    with pytest.raises(ConfigError) as error:
        BaseDataTranslator(cfg)(rows)
    for part in ("3 of the 4 categories", "all rows of rare", "another data.seed"):
        assert part in str(error.value)
    cfg.federate.client_num = 5
    cfg.data.seed = next(s for s in range(99) if np.random.RandomState(s).permutation(31)[0] == 30)
    with pytest.raises(ConfigError, match=r"the data have 4\. Write"):
        BaseDataTranslator(cfg)(rows)


def test_client_without_validation_rows_is_mentioned(caplog):
    with caplog.at_level(logging.INFO):
        data = BaseDataTranslator(config())((dict_rows(30), dict_rows(2), []))
    assert "1 of 3 clients have no val rows" in caplog.text and ": 3" in caplog.text
    assert "val" not in data[3] and data[3].get("val") is None


def test_missing_splitter_is_named():
    with pytest.raises(ConfigError, match=r"data\.splitter"):
        BaseDataTranslator(config(data__splitter=""))(dict_rows(30))


@pytest.mark.parametrize("form", ["lists", "arrays", "subsets"])
def test_user_splitters_may_return_indices_or_subsets(monkeypatch, form):
    def split(dataset, prior=None):
        if form == "lists":
            return [list(range(k, len(dataset), 3)) for k in range(3)]
        if form == "arrays":
            return np.array_split(np.arange(len(dataset)), 3)
        return [Subset(dataset, list(range(k, len(dataset), 3))) for k in range(3)]

    monkeypatch.setattr(register, "splitter_dict", {"x": lambda kind, n, **kw: split})
    data = BaseDataTranslator(config())((dict_rows(30), [], []))
    assert sorted(i for k in (1, 2, 3) for i in ids(data[k].train_data)) == list(range(30))


def test_user_splitter_with_too_few_parts(monkeypatch):
    monkeypatch.setattr(register, "splitter_dict", {"x": lambda *a, **kw: lambda rows: [rows]})
    with pytest.raises(ConfigError, match="1 parts for 3 clients"):
        BaseDataTranslator(config())((dict_rows(30), [], []))


def test_subsample_keeps_the_share_of_every_label():
    rows = [{"id": i, "label": int(i >= 900)} for i in range(1000)]
    data = BaseDataTranslator(config(data__subsample=0.1))((rows, rows[:50], []))
    assert label_histogram(data[0].train_data) == {"0": 90, "1": 10}
    assert data[0].rows("val") == 50
    one = BaseDataTranslator(config(data__subsample=0.1))(rows)
    assert sum(one[0].rows(split) for split in ("train", "val", "test")) == 100
    with pytest.raises(ConfigError, match=r"data\.subsample"):
        BaseDataTranslator(config(data__subsample=1.5))(rows)


def test_client_keys_reach_their_client():
    own = {"client_2": type(global_cfg)({"dataloader": {"batch_size": 5}})}
    data = BaseDataTranslator(config(), own)((dict_rows(90), [], []))
    sizes = [data[k].client_cfg.dataloader.batch_size for k in (1, 2, 3)]
    assert sizes == [64, 5, 64]
    assert data[2]["train"].batch_size == 5
    assert data[1].client_cfg is data[3].client_cfg


class TestGetData:
    """Modes of ``get_data``."""

    @pytest.fixture(autouse=True)
    def registered(self, monkeypatch):
        def build(cfg, client_cfgs):
            if cfg.data.type != "mine":
                return None
            cfg.data.num_labels = 3
            return BaseDataTranslator(cfg, client_cfgs)((dict_rows(90), dict_rows(30), [])), cfg

        monkeypatch.setattr(register, "data_dict", {"mine": build})

    def test_registered_builder_and_configuration(self):
        cfg = config()
        cfg.freeze()
        data, modified = get_data(cfg)
        assert sorted(data) == [0, 1, 2, 3]
        assert (modified.data.num_labels, cfg.data.num_labels) == (3, 0)
        assert modified.is_frozen()

    def test_unknown_type(self):
        with pytest.raises(ConfigError, match=r"data\.type = 'other'.*@glue.*@llm.*mine"):
            get_data(config(data__type="other"))

    def test_global_is_one_client_with_everything(self):
        data, modified = get_data(config(federate__method="Global", data__splitter="lda"))
        assert sorted(data) == [0, 1] and modified.federate.client_num == 1
        for worker in (0, 1):
            assert ids(data[worker].train_data) == list(range(90))
            assert data[worker].rows("val") == 30

    def test_training_one_client_only(self):
        everybody, _ = get_data(config())
        data, modified = get_data(config(federate__client_idx_for_local_train=2))
        assert sorted(data) == [0, 1] and modified.federate.client_num == 1
        assert ids(data[1].train_data) == ids(everybody[2].train_data)

    def test_training_a_client_that_there_is_not(self):
        with pytest.raises(ConfigError, match="1 to 3"):
            get_data(config(federate__client_idx_for_local_train=4))


class TestDummyTranslator:
    """Data that come split by client."""

    def test_rows_stay_with_their_clients(self, caplog):
        rows = {1: {"train": dict_rows(5)}, 2: dict_rows(10), 3: {"train": [], "test": [1, 2]}}
        data = DummyDataTranslator(config(data__splitter=""))(rows)
        assert ids(data[1].train_data) == list(range(5))
        assert [data[2].rows(split) for split in ("train", "val", "test")] == [8, 1, 1]
        assert data[3].rows("test") == 2 and "train" not in data[3]
        assert "Clients without training rows: 3" in caplog.text

    def test_nobody_has_training_rows(self):
        rows = {k: {"train": [], "test": dict_rows(3)} for k in (1, 2)}
        with pytest.raises(ConfigError, match=r"no training rows \(data\.root is /there\)"):
            DummyDataTranslator(config(data__splitter="", data__root="/there"))(rows)

    def test_only_a_mapping(self):
        with pytest.raises(TypeError, match="list"):
            DummyDataTranslator(config(data__splitter=""))([1, 2])

    def test_server_gets_the_clients_test_rows(self):
        cfg = config(federate__merge_test_data=True, federate__merge_val_data=True)
        rows = {
            0: {},
            **{k: {"train": [k], "val": [k], "test": [k, -k]} for k in (1, 2, 3)},
        }
        data = DummyDataTranslator(cfg)(rows)
        assert list(data[0].test_data) == [1, -1, 2, -2, 3, -3]
        assert list(data[0].val_data) == [1, 2, 3]

    def test_global(self):
        cfg = config(federate__method="global")
        rows = {k: {"train": [k, k], "test": [k]} for k in (1, 2)}
        data = DummyDataTranslator(cfg)(rows)
        assert sorted(data) == [0, 1] and list(data[1].train_data) == [1, 1, 2, 2]


class TestClientData:
    """Splits as entries."""

    def test_loaders_are_built_when_asked_for(self, monkeypatch):
        from federatedscope.core.data import base_data

        calls = []
        monkeypatch.setattr(
            base_data, "get_dataloader", lambda rows, cfg, split, gen: calls.append(split) or split
        )
        data = ClientData(config(), train=[1], val=[], test=[2], note="x")
        assert (sorted(data), len(data), "val" in data) == (["note", "test", "train"], 3, False)
        assert calls == []
        assert data["train"] == "train" and data.get("train") == "train"
        assert calls == ["train"]
        assert dict(data) == {"train": "train", "test": "test", "note": "x"}
        assert sorted(data.values()) == ["test", "train", "x"]

    def test_setup_rebuilds_only_for_new_loading_options(self):
        data = ClientData(config(), train=dict_rows(10))
        loader = data["train"]
        assert data.setup(config(seed=4)) is False and data["train"] is loader
        assert data.setup(config(dataloader__batch_size=2)) is True
        assert data["train"].batch_size == 2

    def test_missing_entries(self):
        data = ClientData(config(), train=dict_rows(10))
        assert data.get("test", 7) == 7
        with pytest.raises(KeyError):
            data["test"]

    def test_resetup(self):
        data = StandaloneDataDict({1: ClientData(config(), train=dict_rows(10))}, config())
        data.resetup(config(dataloader__batch_size=3))
        assert data[1]["train"].batch_size == 3


class TestHelpers:
    """What is asked of datasets."""

    def test_attributes_are_found_without_reading_rows(self):
        base = Tokenised([2, 0, 1, 1])
        part = Subset(Subset(base, [3, 2, 0]), [2, 0])
        assert labels_of(part).tolist() == [2, 1]
        assert lengths_of(part).tolist() == [1, 4]
        assert collate_of(part) is len
        assert rows_of(part)[0] is base
        joined = ConcatDataset([part, base])
        assert labels_of(Subset(joined, [0, 3])).tolist() == [2, 0]

    @pytest.mark.parametrize(
        ("rows", "labels"),
        [
            ([(0, 1), (0, 2)], [1, 2]),
            ([{"label": "a"}, {"label": "b"}], ["a", "b"]),
            ([{"labels": [1, 2], "category": "x"}], ["x"]),
            ([{"input_ids": [1], "labels": torch.tensor([1, 2])}], None),
            ([{"label": torch.tensor(3)}], [3]),
            ([1, 2], None),
        ],
    )
    def test_labels_of_rows(self, rows, labels):
        found = labels_of(rows)
        assert (None if found is None else found.tolist()) == labels

    def test_dataset_that_says_it_has_no_labels(self):
        class Unlabelled(Tokenised):
            def __len__(self):
                return 2

        rows = Unlabelled([1, 2])
        rows.labels = None
        assert labels_of(rows) is None

    def test_histograms(self):
        assert label_histogram([(0, "b"), (0, "a"), (0, "b")]) == {"a": 1, "b": 2}
        assert label_histogram([(0, 1.5), (0, 2.0)]) is None
        assert label_histogram(Subset([(0, 1.5), (0, 2.0)], [1])) is None
        assert label_histogram([1, 2]) is None and label_histogram(None) is None

    def test_merging(self):
        assert merge_datasets([[1], None, [], [2]]) == [1, 2]
        assert merge_datasets([None, []]) is None
        parts = TensorDataset(torch.arange(3)), TensorDataset(torch.arange(2))
        assert len(merge_datasets(parts)) == 5

    def test_wrapped_arrays(self):
        rows = WrapDataset({"x": np.ones((2, 3)), "y": [[1], [0]]})
        x, y = rows[0]
        assert len(rows) == 2 and x.dtype == y.dtype == torch.float32 and x.shape == (3,)

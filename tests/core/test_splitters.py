"""Splitters: completeness, determinism, label skew, category ownership, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

from federatedscope import register
from federatedscope.core.auxiliaries.splitter_builder import get_splitter
from federatedscope.core.configs.config import global_cfg
from federatedscope.core.data.utils import labels_of, rows_of
from federatedscope.core.errors import ConfigError
from federatedscope.core.splitters import BaseSplitter
from federatedscope.core.splitters.generic import IIDSplitter, LDASplitter, MetaSplitter
from federatedscope.core.splitters.utils import class_codes, split_by_prior

LABELS = np.random.RandomState(0).randint(0, 3, 600)


class Rows(Dataset):
    """Dict rows, with the labels only inside of them."""

    def __init__(self, labels, key="label"):
        self.values, self.key = list(labels), key

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return {"x": index, self.key: self.values[index]}


def as_tuples(labels):
    return [(i, label) for i, label in enumerate(labels)]


def as_tensors(labels):
    return TensorDataset(torch.arange(len(labels)), torch.as_tensor(np.asarray(labels)))


FORMS = {
    "list of tuples": as_tuples(LABELS.tolist()),
    "list of dicts": [{"x": i, "label": int(v)} for i, v in enumerate(LABELS)],
    "dataset of dicts": Rows(LABELS.tolist()),
    "dataset of categories": Rows([f"topic {v}" for v in LABELS], key="category"),
    "tensor dataset": as_tensors(LABELS),
    "subset": Subset(as_tensors(LABELS), list(range(0, 600, 2))),
}
SPLITTERS = {
    "iid": lambda: IIDSplitter(3),
    "lda": lambda: LDASplitter(3, alpha=0.5),
    "meta": lambda: MetaSplitter(3),
}


def identities(part):
    """What tells rows apart: their first entry."""
    rows = [part[i] for i in range(len(part))]
    return [int(row["x"] if isinstance(row, dict) else row[0]) for row in rows]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SPLITTERS)
def test_every_row_goes_to_exactly_one_client(form, name):
    dataset = FORMS[form]
    np.random.seed(1)
    parts = SPLITTERS[name]()(dataset)
    assert len(parts) == 3
    assert sorted(i for part in parts for i in identities(part)) == sorted(identities(dataset))
    kind = list if isinstance(dataset, list) else Subset
    assert all(isinstance(part, kind) and len(part) for part in parts)


@pytest.mark.parametrize("name", SPLITTERS)
def test_seed_decides(name):
    def split(seed):
        np.random.seed(seed)
        return [identities(part) for part in SPLITTERS[name]()(FORMS["list of tuples"])]

    assert split(1) == split(1)
    assert split(1) != split(2)


def test_iid_sizes_and_known_partition():
    np.random.seed(12345)
    parts = IIDSplitter(7)(as_tuples(LABELS[:100].tolist()))
    assert [len(part) for part in parts] == [15, 15, 14, 14, 14, 14, 14]
    # FederatedScope's own partition for this seed.
    np.random.seed(12345)
    index = list(range(100))
    np.random.shuffle(index)
    assert [i for part in parts for i in identities(part)] == index


def test_lda_partition_is_that_of_federatedscope():
    """Sizes computed with FederatedScope 0.3.0 for seed 12345 and these labels."""
    labels = np.random.RandomState(0).randint(0, 3, 5000)
    np.random.seed(12345)
    parts = LDASplitter(3, alpha=0.5)(as_tuples(labels.tolist()))
    assert [len(part) for part in parts] == LDA_SIZES
    assert [identities(part)[:3] for part in parts] == LDA_FIRST_ROWS


def test_alpha_decides_the_skew():
    def largest_share(alpha):
        np.random.seed(3)
        shares = []
        for part in LDASplitter(3, alpha=alpha)(as_tuples(LABELS.tolist())):
            counts = np.bincount([label for _, label in part], minlength=3)
            shares.append(counts.max() / counts.sum())
        return np.mean(shares)

    assert largest_share(0.1) > largest_share(1.0) > largest_share(1000.0)
    assert largest_share(1000.0) < 0.42


def test_lda_draws_again_until_nobody_is_empty():
    """With this alpha most single draws leave a client without rows."""
    np.random.seed(0)
    parts = LDASplitter(4, alpha=0.1, min_size=5)(as_tuples(LABELS.tolist()))
    assert min(len(part) for part in parts) >= 5


def test_lda_gives_up_with_a_remedy_or_fills():
    rows = as_tuples(LABELS[:60].tolist())
    with pytest.raises(ConfigError) as error:
        LDASplitter(30, alpha=0.05)(rows)
    message = str(error.value)
    assert error.value.field == "data.splitter"
    for part in ("lda", "0.05", "30 clients", "fewer clients", "larger alpha", "data.seed"):
        assert part in message
    parts = LDASplitter(30, alpha=0.05, fill=True)(rows)
    assert min(len(part) for part in parts) == 1
    assert sorted(i for part in parts for i in identities(part)) == list(range(60))


def test_lda_with_fewer_rows_than_clients():
    with pytest.raises(ConfigError, match=r"5 rows.*at most 5 clients"):
        LDASplitter(6)(as_tuples(LABELS[:5].tolist()))


@pytest.mark.parametrize("alpha", [0, -1, "0.5", None, True])
def test_lda_refuses_a_wrong_alpha(alpha):
    with pytest.raises(ConfigError, match="alpha"):
        LDASplitter(3, alpha=alpha)


def test_lda_of_real_values_goes_by_bins():
    targets = np.random.RandomState(0).uniform(0, 5, 900)
    np.random.seed(4)
    parts = LDASplitter(3, alpha=0.1)(as_tuples(targets.tolist()))
    means = [np.mean([y for _, y in part]) for part in parts]
    assert sum(map(len, parts)) == 900
    assert max(means) - min(means) > 0.5


def test_meta_groups_categories_and_keeps_them_whole():
    categories = [f"c{i % 7}" for i in range(210)]
    np.random.seed(0)
    parts = MetaSplitter(3)(Rows(categories, key="category"))
    owned = [{part[i]["category"] for i in range(len(part))} for part in parts]
    assert sorted(map(len, owned)) == [2, 2, 3]
    assert set.union(*owned) == set(categories) and sum(map(len, owned)) == 7


def test_meta_with_fewer_categories_than_clients():
    with pytest.raises(ConfigError, match=r"federate\.client_num: 3"):
        MetaSplitter(4)(as_tuples(LABELS.tolist()))


@pytest.mark.parametrize("name", ["lda", "meta"])
def test_rows_without_labels_are_refused(name):
    with pytest.raises(ConfigError, match=r"data\.splitter: iid"):
        SPLITTERS[name]()([{"x": i} for i in range(10)])


def test_meta_sends_evaluation_rows_to_the_owner_of_the_category():
    np.random.seed(0)
    train = MetaSplitter(3)(Rows([f"c{i % 5}" for i in range(100)], key="category"))
    prior = [labels_of(part) for part in train]
    val = MetaSplitter(3)(Rows([f"c{i % 5}" for i in range(23)], key="category"), prior=prior)
    for mine, theirs in zip(train, val, strict=True):
        assert set(labels_of(theirs)) == set(labels_of(mine))


class TestPrior:
    """Validation rows follow the distribution of the training rows."""

    def test_shares_are_exact_to_one_row(self):
        prior = [["a"] * 90 + ["b"] * 10, ["a"] * 10 + ["b"] * 190]
        labels = np.array(["a"] * 50 + ["b"] * 100)
        np.random.seed(0)
        parts = split_by_prior(labels, 2, prior)
        counts = [[np.sum(labels[part] == c) for c in "ab"] for part in parts]
        assert counts == [[45, 5], [5, 95]]

    def test_class_that_is_missing_in_validation(self):
        parts = split_by_prior(np.array([0] * 10), 2, [[0] * 5 + [1] * 5, [0] * 5 + [2] * 5])
        assert [len(part) for part in parts] == [5, 5]

    def test_class_that_nobody_trains_on(self):
        """Its rows go to clients by their size."""
        parts = split_by_prior(np.array([7] * 40), 2, [[0] * 30, [1] * 10])
        assert [len(part) for part in parts] == [30, 10]

    def test_client_without_a_class_gets_none_of_it(self):
        labels = np.array([0] * 20 + [1] * 20)
        parts = split_by_prior(labels, 2, [[0] * 50, [0] * 25 + [1] * 50])
        assert set(labels[parts[0]]) == {0}

    def test_small_clients_are_not_left_out(self):
        prior = [[0] * 1000, [0] * 3, [1] * 2]
        parts = split_by_prior(np.array([0] * 30 + [1] * 5), 3, prior)
        assert [len(part) >= 1 for part in parts] == [True, True, True]

    def test_fractions_do_not_add_up_against_a_client(self):
        """Two clients owed half a row in each of 20 classes get 10 rows each."""
        prior = [list(range(20)), list(range(20))]
        for seed in range(5):
            np.random.seed(seed)
            assert [len(p) for p in split_by_prior(np.arange(20), 2, prior)] == [10, 10]

    def test_more_clients_than_rows(self):
        parts = split_by_prior(np.array([0, 1]), 5, [[0, 1]] * 5)
        assert sum(map(len, parts)) == 2

    def test_wrong_number_of_distributions(self):
        with pytest.raises(ValueError, match="2 label distributions for 3 clients"):
            split_by_prior(np.array([0]), 3, [[0], [0]])


def test_class_codes_agree_between_labels_and_prior():
    codes, prior, classes = class_codes(np.array(["b", "c"]), [["a", "b"], [], ["c"]])
    assert classes == 3
    assert codes.tolist() == [1, 2]
    assert [part.tolist() for part in prior] == [[0, 1], [], [2]]


class TestBuilder:
    """``get_splitter``."""

    @staticmethod
    def config(*pairs):
        cfg = global_cfg.clone()
        cfg.merge_from_list(["federate.client_num", 3, *pairs])
        return cfg

    def test_arguments_reach_the_splitter(self):
        args = [{"alpha": 0.3}]
        splitter = get_splitter(self.config("data.splitter", "lda", "data.splitter_args", args))
        assert (splitter.alpha, splitter.client_num) == (0.3, 3)
        assert repr(splitter) == "LDASplitter(client_num=3, alpha=0.3, min_size=1, fill=False)"

    def test_default_alpha(self):
        assert get_splitter(self.config("data.splitter", "lda")).alpha == 0.5

    def test_none(self):
        assert get_splitter(self.config()) is None

    def test_unknown_splitter_names_the_known_ones(self):
        with pytest.raises(ConfigError, match=r"iid, lda, .*meta"):
            get_splitter(self.config("data.splitter", "dirichlet"))

    def test_unknown_argument(self):
        with pytest.raises(ConfigError, match="beta"):
            get_splitter(self.config("data.splitter", "lda", "data.splitter_args", [{"beta": 1}]))

    @pytest.mark.parametrize("name", ["iid", "lda", "mine"])
    @pytest.mark.parametrize(
        ("args", "problem"),
        [
            ([{"client_num": 3}], "federate.client_num"),
            ([{"alpha": 0.1, "name": "lda"}], "write data.splitter"),
            ([{"alpha": 0.1}, {"alpha": 0.2}], "has 2 mappings, and a splitter takes one"),
        ],
    )
    def test_arguments_that_no_splitter_takes(self, monkeypatch, name, args, problem):
        def mine(name, client_num, **arguments):
            return BaseSplitter(client_num, **arguments) if name == "mine" else None

        monkeypatch.setattr(register, "splitter_dict", {"mine": mine})
        with pytest.raises(ConfigError) as caught:
            get_splitter(self.config("data.splitter", name, "data.splitter_args", args))
        assert caught.value.field == "data.splitter_args" and caught.value.value == args
        assert problem in str(caught.value)

    def test_no_clients(self):
        with pytest.raises(ConfigError, match=r"federate\.client_num"):
            get_splitter(self.config("data.splitter", "iid", "federate.client_num", 0))

    def test_registered_one_comes_first(self, monkeypatch):
        class Mine(BaseSplitter):
            def __call__(self, dataset, prior=None):
                return []

        monkeypatch.setattr(register, "splitter_dict", {})
        monkeypatch.setitem(
            register.splitter_dict,
            "mine",
            lambda kind, client_num, **kw: Mine(client_num, **kw) if kind == "lda" else None,
        )
        splitter = get_splitter(
            self.config("data.splitter", "lda", "data.splitter_args", [{"depth": 4}])
        )
        assert isinstance(splitter, Mine) and splitter.depth == 4


def test_rows_of_sees_through_nested_subsets():
    base = as_tensors(LABELS)
    inner = Subset(base, [5, 6, 7, 8])
    dataset, indices = rows_of(Subset(inner, [3, 0]))
    assert dataset is base and indices.tolist() == [8, 5]


LDA_SIZES = [580, 1479, 2941]
LDA_FIRST_ROWS = [[632, 4395, 287], [2324, 4196, 3728], [2812, 1242, 1159]]

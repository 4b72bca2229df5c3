"""What a run's description says of rows that are cut, and of those that are not used."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from torch.utils.data import ConcatDataset, Subset

from federatedscope.core.configs.config import global_cfg
from federatedscope.core.data import BaseDataTranslator, ClientData
from federatedscope.core.data.participation import limit_rows
from federatedscope.core.monitors.progress import print_run_summary
from federatedscope.core.preflight_rows import (
    describe_left_out,
    describe_truncation,
    truncation_notes,
)
from federatedscope.core.records import ClientInfo, LeftOut, RunInfo, Truncation


class Rows:
    """Rows of 4 tokens each at most, of which every one lost ``cut``."""

    def __init__(self, cut: list[int], left: list[int] | None = None) -> None:
        self.cut = np.array(cut)
        self.lengths = np.full(len(cut), 4)
        self.left = np.array([3] * len(cut) if left is None else left)
        self.labels = np.zeros(len(cut), dtype=np.int64)
        self.left_out: list[tuple[str, int, str]] = []

    def __len__(self) -> int:
        return len(self.cut)

    def __getitem__(self, index: int) -> int:
        return index


def config(**keys: Any) -> Any:
    cfg = global_cfg.clone()
    cfg.merge_from_list([x for k, v in keys.items() for x in (k.replace("__", "."), v)])
    return cfg


class TestTruncation:
    def test_is_counted_below_subsets_and_concatenations(self) -> None:
        rows = Rows([0, 5, 7, 0, 9], [3, 3, 0, 0, 3])
        mine = ClientData(
            config(),
            train=Subset(Subset(rows, [4, 2, 1, 0]), [1, 2, 3]),
            val=ConcatDataset([Subset(rows, [3]), Rows([1])]),  # type: ignore[list-item]
        )
        assert describe_truncation(mine) == {
            # The fourth row was empty as it came.
            "train": Truncation(2, 12, 1, 3, 12 + 12),
            "val": Truncation(1, 1, 0, 2, 8 + 1),
        }

    def test_data_sets_that_do_not_say(self) -> None:
        assert describe_truncation({"train": [1, 2, 3]}) is None
        assert describe_truncation({}) is None

    @pytest.mark.parametrize(
        ("cuts", "told"),
        [
            ([[0] * 20, [0] * 20], ""),
            ([[1] * 4 + [0] * 16, [0] * 20], ""),
            ([[1] * 5 + [0] * 15, [0] * 20], "cuts 12% of the rows; 5 would hold all."),
            # Few of all, but most of one client's.
            ([[1, 0], [0] * 20], ""),
            ([[1, 1, 0], [0] * 97], "cuts 2% of the rows; 5 would hold all."),
            ([[96] * 1 + [9] * 9, [0] * 190], "cuts 5% of the rows; 13 would hold 99 % of them, "
             "100 all."),
        ],
    )  # fmt: skip
    def test_many_are_worth_a_note(self, cuts: list[list[int]], told: str) -> None:
        data = {k: {"train": Rows(cut)} for k, cut in enumerate(cuts, start=1)}
        infos = tuple(ClientInfo(k, truncated=describe_truncation(v)) for k, v in data.items())
        notes = truncation_notes(config(llm__tok_len=4), data, infos)
        assert notes == ([f"llm.tok_len 4 {told}"] if told else [])

    @pytest.mark.parametrize(("labels", "what"), [(2, "text"), (0, "answer")])
    def test_rows_of_which_nothing_is_left(self, labels: int, what: str) -> None:
        data = {1: {"train": Rows([0] * 99 + [3], [3] * 99 + [0])}}
        infos = (ClientInfo(1, truncated=describe_truncation(data[1])),)
        cfg = config(model__type="x@huggingface_llm", data__num_labels=labels)
        (note,) = truncation_notes(cfg, data, infos)
        assert f"cuts 1% of the rows, and of 1 nothing of the {what} is left" in note


class TestLeftOut:
    def data(self, left_out: list[tuple[str, int, str]], **keys: Any) -> Any:
        rows = Rows([0] * 10)
        rows.left_out = left_out
        cfg = config(federate__client_num=2, **keys)
        return cfg, {k: ClientData(cfg, train=Subset(rows, range(5))) for k in (0, 1, 2)}

    def test_a_files_own_are_told_once_and_clients_are_added_up(self) -> None:
        cfg, data = self.data([("a.csv", 3, "no label (-1)"), ("b.csv", 0, "no label (-1)")])
        cfg.data.rows_per_client = 4
        limit_rows(data, cfg)
        assert describe_left_out(cfg, data) == (
            LeftOut("train rows", 2, "data.rows_per_client 4"),
            LeftOut("a.csv", 3, "no label (-1)"),
        )

    def test_limits_of_evaluation_are_none(self) -> None:
        rows = Rows([0] * 10)
        cfg = config(eval__max_rows=2)
        data = {1: ClientData(cfg, train=rows, val=rows, test=rows)}
        limit_rows(data, cfg)
        assert data[1].rows("val") == 2
        assert describe_left_out(cfg, data) == ()

    @pytest.mark.parametrize("given", [False, True])
    def test_a_share_of_the_rows(self, given: bool) -> None:
        cfg = config(federate__client_num=2, data__splitter="iid", data__subsample=0.4)
        rows: Any = Rows([0] * 10)
        data = BaseDataTranslator(cfg)((rows, [], []) if given else rows)
        which = "train rows" if given else "rows"
        assert describe_left_out(cfg, data) == (LeftOut(which, 6, "data.subsample 0.4"),)

    def test_what_a_splitter_gives_to_nobody(self) -> None:
        cfg = config(federate__client_num=2, data__splitter="iid", data__splits=[0.5, 0.5, 0.0],
                     federate__merge_test_data=True)  # fmt: skip
        translator = BaseDataTranslator(cfg)
        translator.splitter = lambda rows, prior=None: [[0, 1], [2], [3, 4]]
        why = "the splitter iid gives them to no client"
        assert describe_left_out(cfg, translator(Rows([0] * 10))) == (
            LeftOut("train rows", 2, why), LeftOut("val rows", 2, why),
        )  # fmt: skip

    def test_the_last_batch_of_every_epoch(self) -> None:
        cfg, data = self.data([], dataloader__batch_size=2, dataloader__drop_last=True)
        why = "dataloader.drop_last"
        assert describe_left_out(cfg, data) == (LeftOut("train rows of every epoch", 2, why),)

    def test_other_clients_of_one_that_trains_alone(self, rig: Any) -> None:
        run = rig.prepared("federate.client_idx_for_local_train", 2).run
        every = sum(client["rows"]["train"] for client in rig.prepared().run["clients"])
        (mine,) = run["clients"]
        (left_out,) = run["left_out"]
        assert left_out["rows"] == every - mine["rows"]["train"] > 0
        assert left_out["reason"] == "federate.client_idx_for_local_train 2"

    def test_answers_without_a_token_to_learn_from(self) -> None:
        cfg = config(model__type="x@huggingface_llm")
        data = {k: {"train": Rows([0, 2], [3, 0])} for k in (0, 1, 2)}
        why = "no token of the answer to learn from"
        assert describe_left_out(cfg, data) == (LeftOut("train rows", 2, why),)


class TestInARun:
    def texts(self, run: dict[str, Any]) -> str:
        console = Console(file=io.StringIO(), width=140)
        print_run_summary(run, console)
        return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]

    def test_one_line_where_nothing_is_cut(self, rig: Any) -> None:
        run = rig.prepared("llm.tok_len", 64).run
        text = self.texts(run)
        assert "llm.tok_len 64 cuts no row" in text
        assert "Rows cut" not in text and "left out" not in text
        assert run["left_out"] == []

    def test_each_client_where_something_is(self, rig: Any) -> None:
        prepared = rig.prepared("llm.tok_len", 4, "data.rows_per_client", 5)
        info = RunInfo.from_json(json.loads(json.dumps(prepared.run)))
        for client in info.clients:
            assert client.truncated is not None
            for split in ("train", "val"):
                rows = prepared.data[client.id].dataset(split)
                base, found = rows, list(range(len(rows)))
                while isinstance(base, Subset):
                    found = [base.indices[i] for i in found]
                    base = base.dataset
                lost = base.cut[found]
                assert client.truncated[split].tokens == lost.sum() > 0
                assert client.truncated[split].rows == (lost > 0).sum()
        assert info.cut.rows == sum(client.cut.rows for client in info.clients)
        text = self.texts(prepared.run)
        assert f"llm.tok_len 4 cuts {info.cut.rows} of {info.cut.all_rows} rows" in text
        one = info.clients[1].truncated or {}
        assert f"{one['val'].rows} ({one['val'].tokens})" in text
        assert "Note: llm.tok_len 4 cuts" in text
        assert "train rows: data.rows_per_client 5" in text

    def test_check_shows_it(self, rig: Any, capsys: Any) -> None:
        assert rig.main(*rig.argv("--check", "llm.tok_len", 4)) == 0
        shown = capsys.readouterr().out
        assert "Rows cut by llm.tok_len 4 (tokens)" in shown

    def test_many_clients_name_the_one_that_loses_most(self, rig: Any) -> None:
        run = rig.prepared("llm.tok_len", 4, "federate.client_num", 24, "data.splitter", "iid").run
        assert "; most at client" in self.texts(run)
        assert "Rows cut by" not in self.texts(run)


def test_builders_from_outside_need_not_say_anything() -> None:
    data = {0: {"train": [1, 2]}, 1: {"train": [(1, 0), (2, 1)]}}
    assert describe_left_out(config(), data) == ()

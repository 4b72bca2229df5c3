"""Natural Instructions: a task per client, also where one has nothing to train on."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from natural_instructions_runs import config_of

from federatedscope.core.auxiliaries.data_builder import get_data
from federatedscope.core.errors import ConfigError
from federatedscope.core.preflight_rows import describe_left_out
from federatedscope.core.records import LeftOut
from federatedscope.llm.dataset import natural_instructions
from federatedscope.llm.dataset.natural_instructions import Tables, choose_clients, find

CLIENTS, HOLLOW = 6, 3
ROWS = {"train": 8, "val": 4, "test": 4}


def rows_of(client: int, split: str) -> list[dict[str, Any]]:
    if (client, split) == (HOLLOW, "train"):
        return []
    rng = random.Random(f"{client} {split}")
    return [
        {
            "client_id": client,
            "idx": i,
            "category": f"kind {client}",
            "instruction": f"say w{client}",
            "input": " ".join(rng.choices(["good", "bad", "film"], k=3)),
            "output": f"w{client} {rng.choice(['fine', 'dull'])}",
        }
        for i in range(ROWS[split])
    ]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = tmp_path_factory.mktemp("tables")
    (root / "natural_instructions").mkdir()
    for split, name in natural_instructions.TABLES.items():
        rows = [row for k in range(CLIENTS) for row in rows_of(k, split)]
        pq.write_table(pa.Table.from_pylist(rows), root / f"natural_instructions/{name}.parquet")
    return root


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of FlexLoRA's repository."""
    root = tmp_path_factory.mktemp("files")
    (root / "1613").mkdir()
    for split, name in natural_instructions.FILES.items():
        for client in (*range(CLIENTS), natural_instructions.CLIENTS):
            rows = rows_of(client % 10, split)
            if rows:
                keys = ("instruction", "input", "output", "category")
                text = json.dumps([{key: row[key] for key in keys} for row in rows])
                (root / "1613" / f"{name}_{client}.json").write_text(text)
    (root / "1613" / "global_test.json").write_text("[]")
    return root


class TestPartition:
    def test_a_client_is_a_task(self, rig: Any, options: Any, tables: Path) -> None:
        data, cfg = get_data(config_of(rig, *options, "data.root", tables))
        assert cfg.federate.client_num == CLIENTS
        assert sorted(data) == list(range(CLIENTS + 1))
        for client in range(1, CLIENTS + 1):
            for split, rows in ROWS.items():
                wanted = 0 if (client - 1, split) == (HOLLOW, "train") else rows
                assert data[client].rows(split) == wanted
                labels = {row["categories"] for row in data[client].dataset(split) or ()}
                assert len(labels) <= 1
        assert data[0].rows("train") == ROWS["train"] * (CLIENTS - 1)
        assert cfg.federate.untrained_clients == [HOLLOW + 1]

    def test_both_layouts_give_the_same(
        self, rig: Any, options: Any, tables: Path, files: Path
    ) -> None:
        found = [get_data(config_of(rig, *options, "data.root", r))[0] for r in (tables, files)]
        for client in range(1, CLIENTS + 1):
            for split in ROWS:
                first, second = ([*(d[client].dataset(split) or ())] for d in found)
                assert len(first) == len(second)
                for a, b in zip(first, second, strict=True):
                    assert a["input_ids"].tolist() == b["input_ids"].tolist()

    def test_the_loss_is_on_the_answer_only(self, rig: Any, options: Any, tables: Path) -> None:
        data, _ = get_data(config_of(rig, *options, "data.root", tables))
        rows = data[0].dataset("train")
        item = rows[0]
        learned = item["labels"][item["labels"] >= 0].tolist()
        answer = rows.tokenizer(rows.raw(0)["answer"], add_special_tokens=False)["input_ids"]
        assert learned == [*answer, rows.tokenizer.eos_token_id]
        assert rows.raw(0)["instruction"] in rows.raw(0)["prompt"]

    @pytest.mark.parametrize("layout", ["tables", "files"])
    def test_some_of_the_clients(
        self, rig: Any, options: Any, layout: str, request: pytest.FixtureRequest
    ) -> None:
        root = request.getfixturevalue(layout)
        few = (*options, "data.root", root, "federate.client_num", 3)
        data, cfg = get_data(config_of(rig, *few, "data.seed", 5))
        assert sorted(data) == [0, 1, 2, 3] and cfg.federate.client_num == 3
        chosen = choose_clients(range(CLIENTS), 3, 5)
        records = data[0].dataset("val").records
        assert {r["category"] for r in records} == {f"kind {client}" for client in chosen}

    def test_which_ones_depends_on_the_data_seed(self) -> None:
        draws = {tuple(choose_clients(range(100), 10, seed)) for seed in range(4)}
        assert len(draws) == 4
        assert all(list(draw) == sorted(set(draw)) for draw in draws)
        assert choose_clients([4, 9], 0, 1) == choose_clients([4, 9], 2, 1) == [4, 9]

    def test_more_clients_than_there_are(self, rig: Any, options: Any, tables: Path) -> None:
        cfg = config_of(rig, *options, "data.root", tables, "federate.client_num", 7)
        with pytest.raises(ConfigError, match="has 6 clients here"):
            get_data(cfg)

    def test_the_released_folder_has_a_file_too_many(self, files: Path) -> None:
        assert find(str(files)).clients == list(range(CLIENTS))
        assert find(str(files / "1613")).clients == list(range(CLIENTS))

    def test_no_data(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"local_training_0.*tasks/task001_"):
            find(str(tmp_path))

    def test_two_forms(self, tables: Path, files: Path, tmp_path: Path, caplog: Any) -> None:
        (tmp_path / "natural_instructions").symlink_to(tables / "natural_instructions")
        assert isinstance(find(str(tmp_path)), Tables) and not caplog.text
        (tmp_path / "1613").symlink_to(files / "1613")
        assert isinstance(find(str(tmp_path)), Tables)
        assert f"there is also {tmp_path / '1613'}, which is not" in caplog.text

    def test_a_splitter_pools_the_rows(self, rig: Any, options: Any, tables: Path) -> None:
        few = ("data.root", tables, "data.splitter", "iid", "federate.client_num", 4)
        data, cfg = get_data(config_of(rig, *options, *few))
        assert [data[k].rows("train") for k in range(1, 5)] == [10] * 4
        assert cfg.federate.untrained_clients == []

    def test_a_share_of_the_training_rows(self, rig: Any, options: Any, tables: Path) -> None:
        data, cfg = get_data(config_of(rig, *options, "data.root", tables, "data.subsample", 0.25))
        assert describe_left_out(cfg, data) == (LeftOut("train rows", 30, "data.subsample 0.25"),)
        assert [data[k].rows("train") for k in range(1, 7)] == [2, 2, 2, 0, 2, 2]
        assert data[1].rows("val") == ROWS["val"]

    def test_other_instruction_data_still_need_a_splitter(self, rig: Any, options: Any) -> None:
        with pytest.raises(ConfigError, match="no clients of its own"):
            config_of(rig, *options, "data.type", "dolly-15k@llm").assert_cfg()


class TestNumbersOfClients:
    """The column ``client_id`` of the tables."""

    def tables(self, root: Path, numbers: list[Any], split: str = "train") -> Tables:
        import pyarrow as pa
        import pyarrow.parquet as pq

        folder = root / "natural_instructions"
        folder.mkdir(exist_ok=True)
        rows = [{**rows_of(1, "train")[0], "client_id": number} for number in numbers]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}.parquet")
        return Tables(folder)

    @pytest.mark.parametrize(
        ("numbers", "problem"),
        [
            (["task000", "task001"], "'task000' in row 1"),
            ([2, None], r"nothing \(null\) in row 2"),
            ([1.0, 0.5], r"0\.5 in row 2"),
            ([float("nan"), 1.0], "nan in row 1"),
            ([3, -1], "-1 in row 2"),
            ([True, False], "True in row 1"),
        ],
    )
    @pytest.mark.parametrize("split", ["train", "test"])
    def test_no_whole_numbers(
        self, tmp_path: Path, split: str, numbers: list[Any], problem: str
    ) -> None:
        self.tables(tmp_path, [0, 1])
        source = self.tables(tmp_path, numbers, split)
        for look in (lambda: source.clients, lambda: source.read(split, [0])):
            with pytest.raises(ConfigError, match=f"the column client_id has {problem}") as caught:
                look()
            assert caught.value.value.endswith(f"{split}.parquet")
            assert "whole numbers from 0" in caught.value.remedy

    def test_whole_numbers_written_as_others(self, tmp_path: Path) -> None:
        assert self.tables(tmp_path, [3.0, 1.0]).clients == [1, 3]
        assert self.tables(tmp_path, [700007, 7]).read("train", [7])[1].tolist() == [7]

    def test_the_row_of_a_mistake_is_that_of_the_file(self, tmp_path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        source = self.tables(tmp_path, [0, 0, 1])
        rows = [{**rows_of(1, "train")[0], "client_id": k, "output": None} for k in (0, 0, 1)]
        rows[0]["output"] = "fine"
        pq.write_table(pa.Table.from_pylist(rows), source.folder / "train.parquet")
        with pytest.raises(ConfigError, match="row 3: the output is empty"):
            source.read("train", [1])


class TestRuns:
    def test_the_client_without_rows(self, rig: Any, options: Any, tables: Path) -> None:
        done = rig(*options, "data.root", tables)
        assert done.code == 0
        assert {e["client"] for e in done.of("train")} == {1, 2, 3, 5, 6}
        assert {e["client"] for e in done.of("eval")} == {1, 2, 3, 4, 5, 6}
        client = done.run["clients"][HOLLOW]
        assert (client["id"], client["rows"]["train"], client["weight"]) == (4, 0, 0.0)
        assert done.run["sample_client_num"] == 5
        assert any("never train" in note and " 4 " in note for note in done.run["notes"])
        assert all("4" not in e["weights"] for e in done.of("round"))

    @pytest.mark.parametrize(
        "pairs",
        [
            ("federate.method", "local"),
            ("federate.method", "global"),
            ("federate.method", "fedsa"),
            ("federate.ignore_weight", True),
            ("finetune.before_eval", True, "finetune.local_update_steps", 1),
            ("eval.phases", "['before', 'after']"),
            ("federate.sample_client_num", 2, "federate.unseen_clients_rate", 0.4),
        ],
    )
    def test_it_breaks_nothing(
        self, rig: Any, options: Any, tables: Path, pairs: tuple[Any, ...]
    ) -> None:
        done = rig(*options, "data.root", tables, "eval.metrics", "[]",
                   "eval.best_res_update_round_wise_key", "val_avg_loss", *pairs)  # fmt: skip
        assert done.code == 0 and done.run["status"] == "finished"
        assert not done.of("train", client=HOLLOW + 1)

    def test_nobody_is_left_to_train(self, rig: Any, options: Any, tables: Path) -> None:
        cfg = ("data.root", tables, "federate.untrained_clients", "[1, 2, 3, 5, 6]")
        assert rig.main("--quiet", *rig.argv(*options, *cfg)) == 2

    def test_only_the_unseen_are_evaluated(self, rig: Any, options: Any, tables: Path) -> None:
        done = rig(
            *options, "data.root", tables, "federate.unseen_clients_rate", 0.4,
            "eval.clients", "unseen", "federate.total_round_num", 3,
        )  # fmt: skip
        unseen = {c["id"] for c in done.run["clients"] if c["unseen"]}
        assert len(unseen) == 2
        assert {e["client"] for e in done.of("eval")} == unseen
        assert len(done.of("eval")) == 2 * 3
        assert done.run["best_round"] in (1, 2, 3)
        assert all("Results_avg_unseen" in line for line in done.lines[:-1])


def test_all_real_clients(rig: Any, options: Any) -> None:
    root = Path(os.environ.get("FEDERATEDSCOPE_TEST_DATA", "")) / "data"
    if not (root / "natural_instructions").is_dir():
        pytest.skip("set FEDERATEDSCOPE_TEST_DATA to a folder with data/natural_instructions")
    source = find(str(root))
    assert source.clients == list(range(natural_instructions.CLIENTS))
    chosen = choose_clients(source.clients, 20, 0)
    _, owners = source.read("train", [*chosen, 967])
    assert set(owners.tolist()) == set(chosen) - {967}
    pairs = ("data.root", root, "federate.client_num", 20, "llm.tok_len", 200)
    data, _ = get_data(config_of(rig, *options, *pairs))
    assert all(0 < data[k].rows("train") <= 40 for k in range(1, 21))
    assert all(len({r["categories"] for r in data[k].train_data}) == 1 for k in range(1, 21))

"""Result lines, best values, early stopping, trackers."""

from __future__ import annotations

import ast
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from federatedscope.core.configs.config import global_cfg
from federatedscope.core.errors import ConfigError
from federatedscope.core.monitors.early_stopper import EarlyStopper
from federatedscope.core.monitors.formatting import result_line, split_of, summarize
from federatedscope.core.monitors.metric_calculator import MetricCalculator
from federatedscope.core.monitors.monitor import Monitor, larger_is_better
from federatedscope.core.monitors.trackers import TensorBoardTracker, _MeanTracker, check_trackers
from federatedscope.core.results import Results

TABLE = {
    "val_acc": [0.5, 1.0, 0.9],
    "val_avg_loss": [0.7, 0.1, 0.2],
    "val_total": [10, 30, 60],
    "test_acc": [0.2, 0.4, 0.6],
    "test_total": [1, 1, 2],
}


def monitor(key: str = "val_acc", **keys: Any) -> Monitor:
    cfg = global_cfg.clone()
    cfg.eval.metrics = ["acc"]
    cfg.eval.best_res_update_round_wise_key = key
    for name, value in keys.items():
        cfg[name] = value
    return Monitor(cfg)


class TestTheTextOfResultLines:
    def test_is_read_by_scripts_whatever_the_figures_are(self, tmp_path: Path) -> None:
        mine = monitor(outdir=str(tmp_path))
        mine.outdir = str(tmp_path)
        table = {"val_acc": [0.5, math.nan], "val_loss": [math.inf, 1.0], "val_total": [3, 1]}
        line = mine.format_eval_res(table, 3, role="Server #")
        mine.save_formatted_results(line)
        mine.save_formatted_results({"Role": "mine", "Results_raw": {"x": np.float64(0.5)}})
        server, own = (tmp_path / "eval_results.log").read_text().splitlines()
        read = ast.literal_eval(server)
        assert read["Results_raw"]["val_acc"] == [0.5, None]
        assert read["Results_avg"] == {"val_acc": None, "val_loss": None, "val_total": 2.0}
        assert ast.literal_eval(own)["Results_raw"] == {"x": 0.5}
        # What is compared and stopped by keeps the number that it is.
        assert math.isnan(line["Results_avg"]["val_acc"])
        # As a client of FederatedScope logs its own.
        client = mine.format_eval_res({"val_loss": -math.inf}, 0, role="Client #1")
        assert ast.literal_eval(f"{client}")["Results_raw"] == {"val_loss": None}


def keeper(**keys: Any) -> Results:
    """What a server keeps, without a course."""
    cfg = global_cfg.clone()
    cfg.eval.metrics = ["acc"]
    cfg.eval.best_res_update_round_wise_key = "val_acc"
    return Results(cfg, monitor(**keys), None, [3])


def evaluated(mine: Results, rnd: int, *values: float) -> None:
    """Take in a round of clients 1, 2, 3 (unseen) with 100, 200, 300 rows."""
    results = {
        client: {"val_acc": value, "val_total": 100 * client}
        for client, value in enumerate(values, start=1)
    }
    mine.take_clients(results, rnd, rnd)


class TestTheBestRound:
    def test_is_of_the_plain_mean_and_the_weighted_one_has_its_own_name(self) -> None:
        mine = keeper()
        evaluated(mine, 1, 0.5, 0.8)
        evaluated(mine, 2, 0.9, 0.5)
        evaluated(mine, 3, 0.6, 0.6)
        assert (mine.best_round, mine.best_round_weighted) == (2, 1)
        assert mine.best["client_summarized_avg"]["val_acc"] == 0.7
        assert mine.best["client_summarized_weighted_avg"]["val_acc"] == 0.7

    def test_does_not_depend_on_the_digits_of_the_log(self) -> None:
        mine = keeper(print_decimal_digits=1)
        evaluated(mine, 1, 0.81, 0.81)
        evaluated(mine, 2, 0.82, 0.82)
        assert mine.best_round == 2

    def test_is_the_first_of_equal_ones_and_not_of_unseen_clients(self) -> None:
        mine = keeper()
        evaluated(mine, 1, 0.5, 0.7, 0.1)
        evaluated(mine, 2, 0.7, 0.5, 0.9)
        assert mine.best_round == 1

    def test_is_the_one_whose_model_is_saved(self) -> None:
        """The server saves after a round that has become the best one."""
        mine = keeper()
        saved: list[int] = []
        nan = float("nan")
        for rnd, value in enumerate((nan, 0.5, 0.4, nan, 0.6), start=1):
            evaluated(mine, rnd, value, 0.5)
            saved += [rnd] if mine.best_round == rnd else []
        assert saved == [1, 2, 5]
        again = keeper()
        again.load_state_dict(mine.state_dict())
        evaluated(again, 6, 0.6, 0.5)
        assert (again.best_round, mine.best_round) == (5, 5)


class TestSummaries:
    def test_plain_mean(self) -> None:
        assert summarize(TABLE, "avg") == pytest.approx(
            {k: float(np.mean(v)) for k, v in TABLE.items()}
        )

    def test_weighted_by_the_rows_of_the_split(self) -> None:
        result = summarize(TABLE, "weighted_avg")
        assert result["val_acc"] == pytest.approx((5 + 30 + 54) / 100)
        assert result["test_acc"] == pytest.approx((0.2 + 0.4 + 1.2) / 4)
        # Counts are not weighted by themselves.
        assert result["val_total"] == pytest.approx(100 / 3)

    def test_spread(self) -> None:
        values = [i / 10 for i in range(20)]
        result = summarize({"val_acc": values, "val_total": [1] * 20}, "fairness")
        assert result["val_acc_std"] == pytest.approx(np.std(values))
        assert (result["val_acc_min"], result["val_acc_max"]) == (0.0, 1.9)
        assert result["val_acc_bottom_decile"] == pytest.approx(values[2])
        assert result["val_acc_top_decile"] == pytest.approx(values[18])
        assert result["val_acc_bottom10%"] == pytest.approx(np.mean(values[:2]))
        assert result["val_acc_top10%"] == pytest.approx(np.mean(values[18:]))
        assert result["val_acc_cos1"] == pytest.approx(
            np.mean(values) / np.sqrt(np.mean(np.square(values)))
        )

    def test_equal_clients_are_perfectly_fair(self) -> None:
        result = summarize({"val_acc": [0.4] * 5, "val_total": [2] * 5}, "fairness")
        assert result["val_acc_std"] == pytest.approx(0)
        assert result["val_acc_cos1"] == pytest.approx(1)
        assert result["val_acc_entropy"] == pytest.approx(np.log(5))

    def test_one_client_has_no_spread(self) -> None:
        assert summarize({"val_acc": [0.4], "val_total": [2]}, "fairness")["val_acc"] == 0.4

    def test_no_rows_at_all(self) -> None:
        result = summarize({"val_acc": [0.4], "val_total": [0]}, "weighted_avg")
        assert np.isnan(result["val_acc"])

    def test_results_without_their_number_of_rows(self) -> None:
        with pytest.raises(ValueError, match="val_total"):
            summarize({"val_acc": [0.4]}, "weighted_avg")

    def test_lines(self) -> None:
        line = result_line("Server #", 3, {"avg": {"a": 1 / 3}, "raw": {"a": [1 / 3, 2]}}, 3)
        assert line == {
            "Role": "Server #", "Round": 3,
            "Results_avg": {"a": 0.333}, "Results_raw": {"a": [0.333, 2]},
        }  # fmt: skip
        assert str(result_line("x", 0, {"avg": {"a": np.float64(0.5)}})) == (
            "{'Role': 'x', 'Round': 0, 'Results_avg': {'a': 0.5}}"
        )
        assert split_of("val_avg_loss") == "val"


class TestTheMonitor:
    @pytest.mark.parametrize(
        ("key", "larger"),
        [("val_acc", True), ("val_loss", False), ("val_avg_loss", False), ("test_acc", True),
         ("val_mse", False), ("val_acc_std", False), ("val_anything", True)],
    )  # fmt: skip
    def test_directions(self, key: str, larger: bool) -> None:
        assert larger_is_better(key, MetricCalculator(["acc", "mse"])) is larger

    def test_the_best_round_keeps_all_its_figures(self) -> None:
        books: dict[str, Any] = {}
        mine = monitor()
        rounds = [(0.5, 0.9), (0.7, 0.8), (0.7, 0.1), (0.6, 0.2)]
        better = [
            mine.update_best_result(books, {"val_acc": a, "val_loss": b}, "avg") for a, b in rounds
        ]
        assert better == [True, True, False, False]
        assert books == {"avg": {"val_acc": 0.7, "val_loss": 0.8}}

    def test_a_loss_is_best_when_lowest(self) -> None:
        books: dict[str, Any] = {}
        mine = monitor("val_loss")
        better = [mine.update_best_result(books, {"val_loss": x}, "avg") for x in (2, 3, 1)]
        assert better == [True, False, True]

    @pytest.mark.parametrize("key", ["val_acc", "val_loss"])
    def test_nan_is_worse_than_anything(self, key: str) -> None:
        books: dict[str, Any] = {}
        mine = monitor(key)
        nan = float("nan")
        better = [mine.update_best_result(books, {key: x}, "avg") for x in (nan, nan, 0.5, nan)]
        assert better == [True, False, True, False]

    def test_lists_count_by_their_best(self) -> None:
        books: dict[str, Any] = {}
        monitor().update_best_result(books, {"val_acc": [0.1, 0.4], "val_loss": [3, 2]}, "one")
        assert books == {"one": {"val_acc": 0.4, "val_loss": 2}}

    def test_a_summary_without_the_key_decides_nothing(self) -> None:
        assert monitor().update_best_result({}, {"val_acc_std": 0.1}, "fairness") is False

    def test_forms(self) -> None:
        mine = monitor(print_decimal_digits=2)
        line = mine.format_eval_res(TABLE, rnd=4, role="Server #", forms=["avg", "raw"])
        assert set(line) == {"Role", "Round", "Results_avg", "Results_raw"}
        assert line["Results_avg"]["val_avg_loss"] == 0.33
        single = mine.format_eval_res({"val_acc": 0.123}, rnd=4, role="Client #2")
        assert single == {"Role": "Client #2", "Round": 4, "Results_raw": {"val_acc": 0.12}}

    def test_lines_are_appended(self, tmp_path: Any) -> None:
        mine = monitor(outdir=str(tmp_path))
        mine.save_formatted_results({"Role": "Server #", "Round": 0})
        mine.save_formatted_results({"Role": "Server #", "Round": 1})
        text = (tmp_path / "eval_results.log").read_text()
        assert text == "{'Role': 'Server #', 'Round': 0}\n{'Role': 'Server #', 'Round': 1}\n"

    def test_bytes(self) -> None:
        mine = monitor()
        mine.track_upload_bytes(3)
        mine.track_upload_bytes(4)
        mine.track_download_bytes(5)
        assert (mine.total_upload_bytes, mine.total_download_bytes) == (7, 5)


class TestEarlyStopping:
    @pytest.mark.parametrize(
        ("patience", "delta", "mode", "larger", "values", "stops_at"),
        [
            (2, 0.0, "best", True, [1, 2, 2, 2, 2], 4),
            (2, 0.0, "best", True, [1, 2, 1, 3, 2, 1], 6),
            (2, 0.0, "best", False, [3, 2, 4, 4], 4),
            (1, 0.5, "best", True, [1.0, 1.4], 2),
            (1, 0.5, "best", True, [1.0, 1.6, 2.2], None),
            (0, 0.0, "best", True, [1] * 9, None),
            (2, 0.0, "mean", True, [1, 2, 3, 2], 4),
            (2, 0.0, "mean", True, [1, 2, 3, 4, 5], None),
            (2, 0.0, "mean", False, [3, 2, 1, 0], None),
            (1, 0.0, "best", True, [1, float("nan"), 2], None),
        ],
    )
    def test_when(
        self, patience: int, delta: float, mode: str, larger: bool, values: Any, stops_at: Any
    ) -> None:
        stopper = EarlyStopper(patience, delta, mode, larger)
        history: list[float] = []
        for number, value in enumerate(values, start=1):
            history.append(value)
            if stopper.track_and_check(history):
                assert number == stops_at
                return
        assert stops_at is None


class TestTrackers:
    def test_means(self) -> None:
        logged: list[Any] = []

        class Mine(_MeanTracker):
            def log(self, values: dict[str, float], rnd: int) -> None:
                logged.append((rnd, values))

        tracker = Mine()
        tracker.on_train({"client": 1, "round": 1, "metrics": {"train_avg_loss": 0.5}})
        for client, value in ((1, 0.2), (2, 0.4)):
            tracker.on_eval({
                "client": client, "round": 1, "phase": "after", "unseen": False,
                "metrics": {"val_acc": value, "val_total": 3},
            })  # fmt: skip
        tracker.on_eval({
            "client": 3, "round": 1, "phase": "after", "unseen": True, "metrics": {"val_acc": 9.0},
        })  # fmt: skip
        tracker.on_round({"round": 2, "bytes_up": {"1": 3, "2": 4}, "bytes_down": {"1": 5}})
        tracker.on_run_end({}, "")
        assert (1, {"client_1/train_avg_loss": 0.5}) in logged
        assert (1, {"client_2/after/val_acc": 0.4}) in logged
        assert (2, {"bytes/up": 7.0, "bytes/down": 5.0}) in logged
        assert logged[-1] == (1, {"mean/val_acc": pytest.approx(0.3)})

    def test_tensorboard(self, rig: Any) -> None:
        pytest.importorskip("tensorboard")
        done = rig("tensorboard.use", True, "federate.total_round_num", 1)
        assert done.code == 0
        (file,) = (done.outdir / "tensorboard").iterdir()
        content = file.read_bytes()
        assert b"mean/val_accuracy" in content
        assert b"bytes/up" in content
        assert TensorBoardTracker.__doc__

    @pytest.mark.parametrize("section", ["tensorboard", "wandb"])
    def test_a_package_that_is_missing(self, monkeypatch: Any, section: str) -> None:
        from federatedscope.core.monitors import trackers

        monkeypatch.setattr(trackers, "find_spec", lambda name: None)
        cfg = global_cfg.clone()
        check_trackers(cfg)
        cfg[section].use = True
        with pytest.raises(ConfigError, match=f"pip install {section}"):
            check_trackers(cfg)

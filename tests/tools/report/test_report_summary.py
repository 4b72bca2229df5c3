"""The figures of a run, against values worked out by hand.

The standard run has two clients with 100 and 200 validation rows and accuracies
(.60, .50), (.90, .70), (.80, .74) after rounds 1, 2, 3.
"""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
from rich.console import Console

from federatedscope.register import larger_is_better
from federatedscope_ext.tools.report.client_table import client_tables
from federatedscope_ext.tools.report.console import print_summary
from federatedscope_ext.tools.report.csv import csv_rows
from federatedscope_ext.tools.report.evaluations import Series, is_proportion
from federatedscope_ext.tools.report.page import render_html
from federatedscope_ext.tools.report.records import RunRecord
from federatedscope_ext.tools.report.summary import RunSummary


def summary_of(folder: Any, metric: str | None = None) -> RunSummary:
    return RunSummary(RunRecord.load(folder), metric)


def evaluation(round_: int, client: int, value: float, rows: int, **changes: Any) -> dict[str, Any]:
    return {
        "event": "eval", "round": round_, "client": client, "phase": "after", "unseen": False,
        "scope": "personal", "metrics": {"val_acc": value, "val_total": rows}, **changes,
    }  # fmt: skip


def before_column(summary: RunSummary) -> list[list[str]]:
    """The clients of the table, and what they had before aggregation."""
    (table,) = client_tables(summary)
    at = table.titles.index("before agg.")
    return [[str(row[column]) for row in table.rows] for column in (0, at)]


def test_best_and_last_round_and_both_means(make_run: Any) -> None:
    summary = summary_of(make_run())
    assert summary.headline == Series("clients", "after", "personal")
    assert (summary.best_round, summary.last_round, summary.rounds_done) == (2, 3, 3)
    best = summary.spread(summary.headline, 2)
    assert best is not None
    assert best.plain == pytest.approx(0.80)
    assert best.weighted == pytest.approx((100 * 0.9 + 200 * 0.7) / 300)
    assert (best.n, best.low, best.high) == (2, 0.7, 0.9)
    assert best.std == pytest.approx(0.1)
    assert best.error == pytest.approx(math.sqrt(0.09 / 100 + 0.21 / 200) / 2)


def test_the_best_round_is_chosen_by_the_plain_mean(make_run: Any) -> None:
    # Round 2 has the larger plain mean (.70 against .65), round 1 the larger weighted one.
    summary = summary_of(make_run(table=((0.50, 0.80), (0.90, 0.50))))
    assert summary.best_round == 2


def test_a_smaller_is_better_metric_takes_the_smallest(make_run: Any) -> None:
    table = ((2.0, 2.0), (1.0, 1.0), (1.5, 1.5))
    run = make_run(table=table, main_metric="val_perplexity", larger_is_better=False)
    assert summary_of(run).best_round == 2


def test_another_metric_chooses_its_own_best_round(make_run: Any) -> None:
    summary = summary_of(make_run(), "val_avg_loss")
    assert not summary.larger_is_better
    assert summary.best_round == 2
    assert math.isnan(summary.mean_baseline())


def test_the_first_of_equal_rounds_is_best(make_run: Any) -> None:
    assert summary_of(make_run(table=((0.5, 0.7), (0.6, 0.6)))).best_round == 1


def test_the_untrained_model_is_not_the_best_round(make_run: Any) -> None:
    before = [evaluation(0, k, 0.95, 100) for k in (1, 2)]
    assert summary_of(make_run(more=before)).best_round == 2
    assert summary_of(make_run("only", events=before)).best_round == 0


def test_unseen_clients_and_the_server_do_not_enter_the_means(make_run: Any) -> None:
    more = [
        evaluation(2, 3, 0.1, 100, unseen=True),
        evaluation(3, 3, 0.3, 100, unseen=True),
        evaluation(2, 0, 0.2, 300, scope="global"),
    ]
    summary = summary_of(make_run(more=more))
    best = summary.spread(summary.headline, summary.best_round)
    assert best is not None
    assert best.plain == pytest.approx(0.80)
    unseen = summary.spread(summary.population("unseen"), 3)
    server = summary.spread(summary.population("server"), 2)
    assert unseen is not None
    assert server is not None
    assert (unseen.plain, server.plain) == (0.3, 0.2)
    rows = {row.id: row for row in summary.client_rows}
    assert rows[3].unseen
    assert rows[3].best == 0.1


@pytest.mark.parametrize(
    ("phases", "population", "expected"),
    [(["before"], "clients", "before"), (["before", "after"], "clients", "after")],
)
def test_after_aggregation_comes_before_before(
    make_run: Any, phases: list[str], population: str, expected: str
) -> None:
    events = [
        evaluation(1, client, value, 100, phase=phase)
        for phase, value in zip(phases, (0.9, 0.6), strict=False)
        for client in (1, 2)
    ]
    summary = summary_of(make_run(events=events))
    assert summary.headline is not None
    assert (summary.headline.population, summary.headline.phase) == (population, expected)
    if len(phases) == 2:
        before = summary.spread(summary.other_phase("before"), 1)
        assert before is not None
        assert before.plain == 0.9
        assert dict(zip(*before_column(summary), strict=True))["1"] == "0.9000"


def test_the_server_is_the_headline_of_a_run_that_evaluates_only_there(make_run: Any) -> None:
    events = [evaluation(t, 0, 0.5 + t / 10, 100, scope="global") for t in (1, 2)]
    summary = summary_of(make_run(events=events))
    assert summary.headline == Series("server", "after", "global")
    assert summary.best_round == 2
    assert math.isnan(summary.mean_baseline())


def test_a_partly_evaluated_last_round_of_a_stopped_run_is_left_out(make_run: Any) -> None:
    more = [evaluation(4, 1, 0.99, 100)]
    stopped = summary_of(make_run(more=more, status="interrupted"))
    assert stopped.partial_round == 4
    assert (stopped.best_round, stopped.last_round) == (2, 3)


def test_a_diverged_client_is_not_averaged_away(make_run: Any) -> None:
    summary = summary_of(make_run(table=((0.6, 0.5), (0.99, math.nan))))
    last = summary.spread(summary.headline, 2)
    assert last is not None
    assert math.isnan(last.plain)
    assert summary.best_round == 1


def test_client_rows(make_run: Any) -> None:
    row = summary_of(make_run()).client_rows[0]
    assert (row.id, row.best, row.last, row.baseline) == (1, 0.9, 0.8, 0.5)
    assert (row.majority_label, row.rounds_trained) == ("entailment", 3)
    assert (row.bytes_up, row.bytes_down) == (3000, 6000)


def test_baselines_belong_to_accuracies_only(make_run: Any) -> None:
    summary = summary_of(make_run(main_metric="val_matthews_correlation"))
    assert summary.best_round == 2
    assert math.isnan(summary.mean_baseline())
    best = summary.spread(summary.headline, 2)
    assert best is not None
    assert math.isnan(best.error)


def test_rounds_bytes_and_time(make_run: Any) -> None:
    summary = summary_of(make_run())
    rows = summary.round_rows
    assert [row.round for row in rows] == [1, 2, 3]
    assert [row.train_loss for row in rows] == pytest.approx([1, 1 / 2, 1 / 3])
    assert rows[1].plain == pytest.approx(0.8)
    wire = summary.communication
    assert (wire.up, wire.down, wire.per_round_up, wire.per_client_up) == (6000, 12000, 2000, 1000)
    assert wire.cumulative == [(1, 2000, 4000), (2, 4000, 8000), (3, 6000, 12000)]
    assert summary.seconds_per_round == 20
    assert summary.tokens_per_second == 800


def test_nonfinite_steps_are_counted(make_run: Any) -> None:
    more = [{"event": "train", "round": 3, "client": 1, "metrics": {}, "nonfinite": 4}]
    summary = summary_of(make_run(more=more))
    assert summary.nonfinite_steps == 4
    assert summary.round_rows[-1].nonfinite == 4


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({"method": "fedsa"}, False), ({"method": "local", "local_param": []}, False),
     ({"method": "fedavg", "local_param": ["lora_B", "classifier"]}, False),
     ({"method": "fedavg", "local_param": ["classifier"]}, True),
     ({"method": "ffa", "local_param": []}, True)],
)  # fmt: skip
def test_who_has_a_global_model(make_run: Any, changes: dict[str, Any], expected: bool) -> None:
    assert summary_of(make_run(**changes)).has_global_model is expected


@pytest.mark.parametrize(
    ("metric", "larger", "proportion"),
    [("val_acc", True, True), ("val_accuracy", True, True), ("test_avg_loss", False, False),
     ("val_rmse", False, False), ("val_f1", True, False), ("test_exact_match", True, True)],
)  # fmt: skip
def test_metric_names_tell_direction_and_kind(metric: str, larger: bool, proportion: bool) -> None:
    assert larger_is_better(metric) is larger
    assert is_proportion(metric) is proportion


def test_bytes_of_evaluations_are_counted_apart(make_run: Any) -> None:
    event = {"event": "round", "round": 4, "seconds": 1, "sampled": [1], "bytes_up": {"1": 10},
             "bytes_down": {"1": 20}, "bytes_evaluation": {"1": 7, "2": 7},
             "bytes_encoding": 5}  # fmt: skip
    wire = summary_of(make_run(more=[event])).communication
    assert (wire.up, wire.down, wire.evaluation, wire.encoding) == (6010, 12020, 14, 5)


def test_bytes_beside_training_are_told_by_what_they_were_for(make_run: Any) -> None:
    lines = [
        {"event": "traffic", "round": 3, "kind": kind, "bytes_down": {"1": size}, **more}
        for kind, size, more in (
            ("evaluation", 7, {"bytes_encoding": 1}),
            ("finish", 5, {"bytes_encoding": 2}),
            ("training", 3, {"bytes_up": {"2": 11}}),
        )
    ]
    summary = summary_of(make_run(more=lines))
    wire = summary.communication
    assert (wire.evaluation, wire.finish, wire.unfinished, wire.encoding) == (7, 5, 14, 3)
    assert (wire.up, wire.down, wire.rounds) == (6000, 12000, 3)
    told = [row for row in csv_rows(summary.record) if row[2] == "traffic"]
    assert [(row[0], row[1], *row[6:]) for row in told] == [
        (3, 1, "bytes_evaluation", 7), (3, 1, "bytes_finish", 5), (3, 2, "bytes_up", 11),
        (3, 1, "bytes_down", 3),
    ]  # fmt: skip
    page = render_html(summary)
    assert "5 B more for the final state" in page and "In an unfinished round" in page
    console = Console(width=200, record=True, file=io.StringIO())
    print_summary(summary, console)
    assert "; 7 B for evaluation, 5 B at the end, 14 B in an unfinished round." in (
        console.export_text()
    )

"""Runs side by side: grouping, spread, notes, files."""

from __future__ import annotations

import csv
import io
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.tools.report.compare import Comparison, check_client, compare, load_runs
from federatedscope_ext.tools.report.compare_groups import Figure
from federatedscope_ext.tools.report.compare_page import _chart, write_comparison
from federatedscope_ext.tools.report.compare_tables import (
    compare_csv,
    compare_markdown,
    comparison_table,
    figure_text,
    print_comparison,
)

BESTS = (0.80, 0.84, 0.85)


def seeds(make_run: Any, name: str, bests: tuple[float, ...] = BESTS, **changes: Any) -> list[Path]:
    """One run per seed, whose best plain mean is given and whose last is .10 lower."""
    return [
        make_run(f"{name}/s{seed}", table=((b + 0.1, b - 0.1), (b, b - 0.2)), seed=seed, **changes)
        for seed, b in enumerate(bests)
    ]


def compared(*folders: Path, **options: Any) -> Comparison:
    return compare(load_runs(folders, options.pop("metric", None)), **options)


def test_seeds_become_mean_and_sample_std(make_run: Any, tmp_path: Path) -> None:
    seeds(make_run, "a")
    comparison = compared(tmp_path)
    assert len(comparison.groups) == 1
    best, last = comparison.groups[0].figure("best"), comparison.groups[0].figure("last")
    assert best is not None
    assert last is not None
    assert best.mean == pytest.approx(statistics.mean(BESTS))
    assert best.std == pytest.approx(statistics.stdev(BESTS))
    assert last.mean == pytest.approx(statistics.mean(BESTS) - 0.1)
    assert comparison.groups[0].runs_text == "3 seeds"


@pytest.mark.parametrize(
    ("changes", "column"),
    [
        ({"method": "fedavg", "variant": "FedAvg"}, "method"),
        ({"variant": "FedSA-rsLoRA"}, "variant"),
        ({"head_rule": "shared"}, "head_rule"),
        ({"optimizer": {"type": "AdamW", "lr": 0.001}}, "optimizer.lr"),
        ({"adapter": {"method": "lora", "r": 4, "alpha": 16}}, "adapter.r"),
        ({"data_seed": 7}, "data_seed"),
        ({"main_metric": "val_f1"}, "main_metric"),
    ],
)
def test_what_differs_separates_and_is_a_column(
    make_run: Any, tmp_path: Path, changes: dict[str, Any], column: str
) -> None:
    seeds(make_run, "a")
    seeds(make_run, "b", **changes)
    comparison = compared(tmp_path)
    assert [len(group.runs) for group in comparison.groups] == [3, 3]
    assert column in comparison.columns
    assert comparison.groups[0].columns[column] != comparison.groups[1].columns[column]


@pytest.mark.parametrize(
    "changes",
    [
        {"started": "2027-01-01", "seconds": 1.0, "command": "other", "threads": 9},
        {"name": "x", "best_round": 2, "peak_memory_bytes": 3, "versions": {"torch": "9"}},
        {"optimizer": {"lr": 2e-3, "type": "AdamW"}, "device": "cuda:0", "notes": ["n"]},
    ],
)
def test_outcomes_and_machines_do_not_separate(
    make_run: Any, tmp_path: Path, changes: dict[str, Any]
) -> None:
    make_run("a", seed=0)
    make_run("b", seed=1, **changes)
    assert len(compared(tmp_path).groups) == 1


def test_another_partition_is_another_group_unless_ignored(make_run: Any, tmp_path: Path) -> None:
    make_run("a", seed=0)
    clients = [{"id": k, "rows": {"train": 5, "val": 100 * k}} for k in (1, 2)]
    make_run("b", seed=1, data_seed=1, clients=clients)
    assert len(compared(tmp_path).groups) == 2
    pooled = compared(tmp_path, ignore=["data_seed", "ranks"])
    assert len(pooled.groups) == 1
    assert any("pooled although they differ in data_seed" in note for note in pooled.notes)


def test_the_same_seed_with_other_rows_is_told(make_run: Any, tmp_path: Path) -> None:
    make_run("a")
    make_run("b", clients=[{"id": k, "rows": {"train": 5, "val": 5}, "rank": 8} for k in (1, 2)])
    comparison = compared(tmp_path)
    assert comparison.columns == ["partition"]
    assert any("although the data seed is the same" in note for note in comparison.notes)


def test_config_yaml_separates_what_run_json_does_not_tell(make_run: Any, tmp_path: Path) -> None:
    for name, seed, mu in (("a", 0, 0.1), ("b", 1, 0.1), ("c", 0, 1.0)):
        folder = make_run(name, seed=seed)
        (folder / "config.yaml").write_text(
            f"seed: {seed}\noutdir: {name}\nfedprox: {{mu: {mu}}}\nfederate: {{method: FedAvg}}\n"
        )
    comparison = compared(tmp_path)
    assert [len(group.runs) for group in comparison.groups] == [2, 1]
    assert comparison.columns == ["fedprox.mu"]
    assert len(compared(tmp_path, ignore=["fedprox"]).groups) == 1


@pytest.mark.parametrize(
    ("config", "column", "value"),
    [
        ("fedopt: {use: true, optimizer: {type: SGD, lr: 0.5}}", "fedopt", "optimizer SGD, lr 0.5"),
        ("fedprox: {use: true, mu: 0.1}", "fedprox", "mu 0.1"),
        ("finetune: {before_eval: true}", "finetune", "on"),
    ],
)
def test_options_that_are_on_tell_runs_apart(
    make_run: Any, tmp_path: Path, config: str, column: str, value: str
) -> None:
    """Also where the method separates the runs, so that config.yaml's keys are not looked at."""
    (make_run("a") / "config.yaml").write_text(f"{column}: {{use: false}}\n")
    (make_run("b", method="other") / "config.yaml").write_text(config)
    comparison = compared(tmp_path)
    assert comparison.columns == ["method", column]
    assert [group.columns[column] for group in comparison.groups] == ["-", value]


def test_options_of_run_json_come_before_the_config(make_run: Any, tmp_path: Path) -> None:
    for name, options in (("a", {}), ("b", {"fedprox": {"mu": 3}})):
        folder = make_run(name, options=options)
        (folder / "config.yaml").write_text("fedprox: {use: true, mu: 1}\n")
    comparison = compared(tmp_path)
    assert comparison.columns == ["fedprox"]
    assert comparison.groups[1].label == "fedprox=mu 3"


def test_an_option_is_one_field_with_or_without_options_in_run_json(
    make_run: Any, tmp_path: Path
) -> None:
    """Runs of before and after ``options`` came into run.json are of one group."""
    config = "fedopt: {use: true, optimizer: {type: SGD, lr: 0.5}}\n"
    given = {"fedopt": {"optimizer": "SGD", "lr": 0.5}, "robust_rule": "krum"}
    (make_run("a", seed=0, robust_rule="krum") / "config.yaml").write_text(config)
    make_run("b", seed=1, robust_rule="krum", options=given)
    assert len(compared(tmp_path).groups) == 1


def test_what_follows_from_the_model_separates_no_runs(make_run: Any, tmp_path: Path) -> None:
    """Runs of before and after a record had it are of one group."""
    make_run("a", seed=0)
    make_run("b", seed=1, new_tensors=["classifier.weight"])
    assert len(compared(tmp_path).groups) == 1


def test_labels_of_runs_that_differ_in_much_are_short(make_run: Any, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"model": "m", "batch_size": 3, "rounds": 9, "embedded": True}
    for task in ("mnli@glue", "sst2@glue", "rte@glue"):
        for method in ("fedsa", "ffa"):
            more = {} if task == "mnli@glue" else changes
            make_run(f"{task}/{method}", task=task, method=method, **more)
    comparison = compared(tmp_path)
    assert len(comparison.columns) == 6
    assert comparison.groups[0].label == "method=fedsa, task=mnli@glue"
    assert len({group.label for group in comparison.groups}) == 6


def test_an_outdir_used_again_is_compared_with_the_runs_inside(
    make_run: Any, tmp_path: Path
) -> None:
    make_run("one", seed=0)
    make_run("one/sub_exp_2026", seed=1)
    comparison = compared(tmp_path / "one")
    assert comparison.groups[0].runs_text == "2 seeds"
    assert any("one is a run and has 1 more inside (sub_exp_2026)" in n for n in comparison.notes)
    make_run("two")
    assert not any("inside" in note for note in compared(tmp_path / "two").notes)


@pytest.mark.parametrize("line", ["[1, 2]", "7", '{"event": "ev'])
def test_what_was_left_out_of_a_run_is_a_note(make_run: Any, line: str) -> None:
    folder = make_run()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(line)
    assert any(f"{folder}: " in note and "left out" in note for note in compared(folder).notes)


def test_weighted_means_are_compared_with_the_weighted_baseline(make_run: Any) -> None:
    clients = [{"id": k, "rows": {"val": 100 * k}, "majority": {"label": "0", "val": share}}
               for k, share in ((1, 0.4), (2, 0.7))]  # fmt: skip
    table = comparison_table(compared(make_run(clients=clients)))
    found = dict(zip(table.titles, table.rows[0], strict=True))
    assert found["majority baseline"] == "0.5500"
    assert found["weighted baseline"] == "0.6000"


def test_runs_of_several_metrics_are_not_headed_by_one(make_run: Any, tmp_path: Path) -> None:
    make_run("a")
    make_run("b", main_metric="val_f1")
    assert compared(tmp_path).metric == "val_acc / val_f1"


@pytest.mark.parametrize(
    ("shares", "own"), [((0.5, 0.5), []), ((0.5, 0.6), [0, 1]), ((0.5, 0.6, 0.6), [0])]
)
def test_baselines_have_their_groups_color(
    make_run: Any, tmp_path: Path, shares: tuple[float, ...], own: list[int]
) -> None:
    for name, share in zip("abc", shares, strict=False):
        make_run(name, method=name, clients=[
            {"id": k, "rows": {"val": 9}, "majority": {"label": "0", "val": share}} for k in (1, 2)
        ])  # fmt: skip
    canvas = _chart(compared(tmp_path, ignore=["partition"]))
    assert canvas is not None
    axes = canvas.axes[0]
    colors = [line.get_color() for line in axes.lines if line.get_linestyle() == "-"]
    assert len(set(colors)) == len(shares)
    dotted = {
        float(line.get_ydata()[0]): line.get_color()  # type: ignore[index]
        for line in axes.lines
        if line.get_linestyle() == ":" and len(line.get_ydata())  # type: ignore[arg-type]
    }
    assert set(dotted) == set(shares)
    for at, share in enumerate(shares):
        assert (dotted[share] == colors[at]) is (at in own)
    assert axes.get_legend() is None
    texts = [text.get_text() for text in canvas.legends[0].get_texts()]
    assert texts[:2] == ["method=a", "method=b"]


def test_by_groups_by_the_given_fields_only(make_run: Any, tmp_path: Path) -> None:
    seeds(make_run, "a")
    seeds(make_run, "b", optimizer={"type": "SGD", "lr": 1.0})
    comparison = compared(tmp_path, by=["method", "head_rule"])
    assert [len(group.runs) for group in comparison.groups] == [6]
    assert comparison.groups[0].label == "method=fedsa, head_rule=local"
    assert any("optimizer.lr" in note for note in comparison.notes)


def test_adapter_arguments_get_a_column_only_where_they_say_more(
    make_run: Any, tmp_path: Path
) -> None:
    for name, r, dropout in (("a", 4, 0.0), ("b", 8, 0.0), ("c", 8, 0.1)):
        make_run(name, adapter={"r": r, "arguments": {"r": r, "lora_dropout": dropout}})
    columns = ["adapter.r", "adapter.arguments.lora_dropout"]
    assert compared(tmp_path).columns == columns
    assert comparison_table(compared(tmp_path)).titles[:2] == ["r", "lora_dropout"]


def test_model_paths_are_shown_by_their_end(make_run: Any, tmp_path: Path) -> None:
    make_run("a", model="/some/where/deep/encoder/model@huggingface_llm")
    make_run("b", model="org/name@huggingface_llm")
    assert [g.columns["model"] for g in compared(tmp_path).groups] == ["encoder/model", "org/name"]


@pytest.mark.parametrize("option", ["by", "ignore"])
def test_an_unknown_field_is_a_user_error(make_run: Any, option: str) -> None:
    with pytest.raises(ExtensionError, match=f"--{option}.*mehtod.*data_seed"):
        compared(make_run(), **{option: ["mehtod"]})


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"task": "sst2@glue"}, "task"), ({"model": "other"}, "model"), ({"rounds": 30}, "rounds"),
     ({"head_rule": "shared"}, "head_rule"), ({"data_seed": 4}, "data_seed"),
     ({"embedded": True}, "embedded")],
)  # fmt: skip
def test_incomparable_runs_are_noted(
    make_run: Any, tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    make_run("a")
    assert not any(note.startswith(f"{field} differs") for note in compared(tmp_path).notes)
    make_run("b", **changes)
    assert any(note.startswith(f"{field} differs") for note in compared(tmp_path).notes)


def test_unfinished_runs_are_flagged(make_run: Any, tmp_path: Path) -> None:
    make_run("a", seed=0)
    make_run("b", seed=1, status="interrupted", stopped_by="ctrl_c", rounds=3)
    comparison = compared(tmp_path)
    assert comparison.groups[0].runs_text == "2 seeds (1 unfinished)"
    assert any("b is not finished (interrupted, 3 of 3" in note for note in comparison.notes)


def test_a_repeated_seed_is_told(make_run: Any, tmp_path: Path) -> None:
    make_run("a")
    make_run("b")
    comparison = compared(tmp_path)
    assert comparison.groups[0].runs_text == "1 seed, 2 runs"
    assert any("repeat a seed" in note for note in comparison.notes)


def test_before_aggregation_comes_along_when_measured(make_run: Any) -> None:
    def event(client: int) -> dict[str, Any]:
        return {"event": "eval", "round": 2, "client": client, "phase": "before",
                "scope": "personal", "metrics": {"val_acc": 0.9, "val_total": 10}}  # fmt: skip

    table = comparison_table(compared(make_run(more=[event(1), event(2)])))
    assert table.rows[0][table.titles.index("before aggregation")] == "0.9000"
    assert "before aggregation" not in comparison_table(compared(make_run("b"))).titles


@pytest.mark.parametrize(
    ("metric", "best"),
    [("val_acc", 0.8), ("acc", 0.8), ("val_avg_loss", 0.7), ("avg_loss", 0.7)],
)
def test_the_metric_can_be_chosen(make_run: Any, metric: str, best: float) -> None:
    figure = compared(make_run(), metric=metric).groups[0].figure("best")
    assert figure is not None
    assert figure.mean == pytest.approx(best)


def test_a_metric_nobody_measured_is_a_user_error(make_run: Any) -> None:
    with pytest.raises(ExtensionError, match=r"val_f1.*val_acc"):
        load_runs([make_run()], "val_f1")


@pytest.mark.parametrize(
    ("values", "text"),
    [([0.5], "0.5000"), ([0.5, 0.6], "0.5500 ± 0.0707"), ([], "-"), ([None, None], "-"),
     ([None, 0.25], "0.2500"), ([0.5, math.nan], "nan")],
)  # fmt: skip
def test_figures_as_text(values: list[float | None], text: str) -> None:
    assert figure_text(Figure.of(values)) == text


def test_markdown_and_csv(make_run: Any, tmp_path: Path) -> None:
    seeds(make_run, "a")
    make_run("b", method="fed|avg")
    comparison = compared(tmp_path)
    text = compare_markdown(comparison, clients=True)
    assert "0.8300 ± 0.0265" in text
    assert "fed\\|avg" in text
    rows = list(csv.DictReader(io.StringIO(compare_csv(comparison))))
    assert [row["runs"] for row in rows] == ["3", "1"]
    assert float(rows[0]["best_mean"]) == pytest.approx(statistics.mean(BESTS))
    assert float(rows[0]["best_std"]) == pytest.approx(statistics.stdev(BESTS))
    assert rows[1]["best_std"] == ""
    clients = list(csv.DictReader(io.StringIO(compare_csv(comparison, clients=True))))
    assert len(clients) == 4
    assert float(clients[0]["best_mean"]) == pytest.approx(statistics.mean(BESTS) + 0.1)


def test_one_client_before_and_after_each_aggregation(make_run: Any, tmp_path: Path) -> None:
    """The default table has client 2 at .50, .70, .74; before it was .1 more, plus .02 a seed."""
    for seed in (0, 1):
        before = [
            {"event": "eval", "round": rnd, "client": 2, "phase": "before", "scope": "personal",
             "unseen": False, "metrics": {"val_acc": value + 0.1 + 0.02 * seed, "val_total": 200}}
            for rnd, value in ((1, 0.50), (3, 0.74))
        ]  # fmt: skip
        make_run(f"a/{seed}", seed=seed, more=before)
    make_run("b", method="fedavg")
    comparison = compared(tmp_path)
    rows = list(csv.DictReader(io.StringIO(compare_csv(comparison, client=2))))
    assert [(row["method"], row["round"]) for row in rows] == [
        (method, rnd) for method in ("fedsa", "fedavg") for rnd in "123"
    ]
    first, second = rows[:2]
    assert float(first["before_mean"]) == pytest.approx(0.61)
    assert float(first["before_std"]) == pytest.approx(statistics.stdev([0.60, 0.62]))
    assert float(first["after_mean"]) == pytest.approx(0.50)
    assert second["before_mean"] == second["before_std"] == "" and second["after_mean"] == "0.7"
    text = compare_markdown(comparison, client=2)
    assert "Client 2:" in text and "| fedsa | 1 | 0.6100 ± 0.0141 | 0.5000 ± 0.0000 |" in text
    out = io.StringIO()
    print_comparison(comparison, Console(file=out, width=100), client=2)
    assert "0.6100 ± 0.0141" in out.getvalue()
    with pytest.raises(ExtensionError, match=r"--client = 3.*Write one of 1, 2"):
        check_client(comparison, 3)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_terminal_table_fits_any_width(make_run: Any, tmp_path: Path, width: int) -> None:
    seeds(make_run, "a")
    seeds(make_run, "b", method="fedavg", head_rule="shared")
    out = io.StringIO()
    print_comparison(compared(tmp_path), Console(file=out, width=width), clients=True)
    assert "…" not in out.getvalue()
    assert "0.8300 ± 0.0265" in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= width


def test_files(make_run: Any, tmp_path: Path) -> None:
    seeds(make_run, "runs/a")
    seeds(make_run, "runs/b", method="<b>fedavg</b>")
    written = write_comparison(compared(tmp_path / "runs"), tmp_path / "out")
    assert [path.name for path in written] == ["compare.csv", "compare.png", "compare.html"]
    page = written[-1].read_text()
    assert "data:image/png;base64," in page
    assert "http" not in page
    assert "<b>fedavg" not in page
    assert "0.8300 ± 0.0265" in page


def test_runs_without_evaluation_do_not_break_it(make_run: Any, tmp_path: Path) -> None:
    make_run("runs/a", events=[])
    make_run("runs/b", method="fedavg", events=[])
    comparison = compared(tmp_path / "runs")
    assert any("has no evaluation" in note for note in comparison.notes)
    assert [p.name for p in write_comparison(comparison, tmp_path / "out")] == [
        "compare.csv",
        "compare.html",
    ]

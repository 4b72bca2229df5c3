"""metrics.csv, curves, report.html, the terminal table and the callback."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from federatedscope_ext.tools.report import ReportCallback, RunRecord, make_report, print_summary
from federatedscope_ext.tools.report.client_table import client_tables
from federatedscope_ext.tools.report.csv import COLUMNS, write_csv
from federatedscope_ext.tools.report.curves import _bytes_figure, _loss_figure, _metric_figure
from federatedscope_ext.tools.report.page import render_html
from federatedscope_ext.tools.report.summary import RunSummary


def page_of(folder: Path) -> str:
    return render_html(RunSummary(RunRecord.load(folder)))


class Balanced(HTMLParser):
    """Checks that every element is closed, in order, and gathers addresses and text."""

    VOID = frozenset(["meta", "link", "img", "br"])

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "action", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text.append(data)


def parsed(page: str) -> Balanced:
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    return parser


def test_csv_has_every_measurement_once(make_run: Any) -> None:
    folder = make_run()
    path = write_csv(RunRecord.load(folder))
    with path.open() as lines:
        rows = list(csv.DictReader(lines))
    assert tuple(rows[0]) == COLUMNS
    found = [r for r in rows if r["event"] == "eval" and r["metric"] == "acc"]
    assert len(found) == 6
    second = next(r for r in found if (r["round"], r["client"]) == ("2", "1"))
    assert (second["phase"], second["scope"], second["split"]) == ("after", "personal", "val")
    assert float(second["value"]) == 0.9
    sent = [r for r in rows if r["metric"] == "bytes_up"]
    assert sum(int(r["value"]) for r in sent) == 6000
    assert [r["metric"] for r in rows if not r["value"]] == []
    assert list(folder.glob(".*")) == []


def test_the_report_is_written_and_stands_alone(make_run: Any) -> None:
    folder = make_run()
    written = {str(path.relative_to(folder)) for path in make_report(RunRecord.load(folder))}
    assert written == {
        "metrics.csv", "curves/metric.png", "curves/loss.png", "curves/bytes.png", "report.html",
    }  # fmt: skip
    page = (folder / "report.html").read_text()
    found = parsed(page)
    assert found.addresses
    assert all(address.startswith("data:") for address in found.addresses)
    assert "script" not in found.tags
    assert not re.search(r"https?://|@import|url\(", page)
    assert sum(address.startswith("data:image/png") for address in found.addresses) == 3


def test_the_page_says_what_was_evaluated(make_run: Any) -> None:
    text = " ".join(parsed(page_of(make_run())).text)
    for part in (
        "FedSA-LoRA on mnli@glue", "0.8000", "0.7700", "0.7667", "After".lower(), "Scope: personal",
        "Head: local", "no meaningful global model", "every client counts the same",
        "+0.3000", "73,728 of 296,835", "yamls/fedsa_mnli.yaml", "torch 2.13.0", "AdamW",
        "entailment",
    ):  # fmt: skip
        assert part in text, part


def test_methods_with_a_global_model_say_nothing_of_the_kind(make_run: Any) -> None:
    page = page_of(make_run(method="fedavg", variant="FedAvg", local_param=[], head_rule="shared"))
    assert "no meaningful global model" not in page
    assert "sent and averaged" in page


EVIL = "<script>alert('x')</script>&\"quoted\""


def test_everything_from_the_run_is_escaped(make_run: Any) -> None:
    names = ("name", "variant", "task", "model", "device", "precision", "precision_reason",
             "command", "head_rule", "error", "started")  # fmt: skip
    changes: dict[str, Any] = dict.fromkeys(names, EVIL)
    changes |= {
        "status": "failed", "notes": [EVIL], "versions": {EVIL: EVIL}, "embedded": True,
        "swaps": [{"field": EVIL, "was": EVIL, "now": EVIL, "why": EVIL}],
        "label_names": [EVIL, EVIL, EVIL], "optimizer": {"type": EVIL},
        "adapter": {EVIL: [EVIL]}, "local_param": [EVIL], "weights": EVIL,
        "evaluation": {"scope": EVIL, "note": EVIL}, "main_metric": f"val_{EVIL}",
        "memory_estimate_bytes": {EVIL: 3, "total": 5},
    }  # fmt: skip
    page = page_of(make_run(**changes))
    assert "<script" not in page
    assert "script" not in parsed(page).tags
    assert EVIL in "".join(parsed(page).text)


def test_every_swap_of_the_miniature_is_listed(make_run: Any) -> None:
    swaps = [
        {"field": "model.type", "was": "big", "now": "tiny-encoder", "why": "no download"},
        {"field": "train.optimizer.lr", "was": 0.02, "now": 0.002, "why": "small model"},
    ]
    text = " ".join(parsed(page_of(make_run(embedded=True, swaps=swaps))).text)
    assert "Miniature run" in text
    for swap in swaps:
        assert all(str(value) in text for value in swap.values())


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"status": "interrupted", "stopped_by": "ctrl_c", "rounds": 9},
         "interrupted by Ctrl-C after 3 of 9 rounds"),
        ({"status": "failed", "error": "loss is not finite"}, "loss is not finite"),
        ({"status": "running", "finished": None, "seconds": None}, "3 of 3 rounds so far"),
        ({"stopped_by": "early_stop", "rounds": 9}, "stopped early after 3 of 9 rounds"),
    ],
)  # fmt: skip
def test_how_the_run_ended_is_told(make_run: Any, changes: dict[str, Any], part: str) -> None:
    assert part in page_of(make_run(**changes))


def test_warnings_say_when_a_result_is_none(make_run: Any) -> None:
    assert "always answering" in page_of(make_run(table=((0.4, 0.5), (0.45, 0.5))))
    assert "two sampling errors" in page_of(make_run("b", table=((0.55, 0.5), (0.52, 0.51))))
    assert "two sampling errors" not in page_of(make_run("c"))
    assert "early stopping" not in page_of(make_run("d"))


@pytest.mark.parametrize("missing", ["metrics.jsonl", "half"])
def test_a_run_that_has_hardly_begun_renders(make_run: Any, missing: str) -> None:
    folder = make_run(status="running", last_round=0)
    if missing == "half":
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        (folder / "metrics.jsonl").write_text(lines[0] + "\n" + lines[1][:20])
    else:
        (folder / "metrics.jsonl").unlink()
    make_report(RunRecord.load(folder))
    parsed((folder / "report.html").read_text())
    assert "No results yet" in (folder / "report.html").read_text()


def test_a_bare_run_file_renders(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"format": 1}')
    parsed(page_of(tmp_path))


def test_a_thousand_clients_render_quickly(make_run: Any) -> None:
    table = [[0.5 + t / 20 + (k % 7) / 100 for k in range(1000)] for t in range(5)]
    folder = make_run(table=table)
    start = time.perf_counter()
    make_report(RunRecord.load(folder))
    assert time.perf_counter() - start < 20
    page = (folder / "report.html").read_text()
    parsed(page)
    assert "The first 25 of 1000 clients" in page
    assert "median" in page
    assert "<td>26</td>" not in page
    assert len(page) < 1_500_000


def test_both_means_of_the_client_table_have_baseline_and_lift(make_run: Any) -> None:
    """100 rows with a baseline of .4 and 200 with .7; .9 and .7 at the best round."""
    folder = make_run()
    run = json.loads((folder / "run.json").read_text())
    for client, share in zip(run["clients"], (0.4, 0.7), strict=True):
        client["majority"]["val"] = share
    (folder / "run.json").write_text(json.dumps(run))
    section = page_of(folder).split("<h2>Clients</h2>")[1].split("</section>")[0]
    rows = [re.findall(r"<t[dh][^>]*>([^<]*)<", row) for row in section.split("<tr")]
    found = {row[0]: row for row in rows if row}
    assert found["plain mean"][3:6] == ["0.5500", "0.8000", "+0.2500"]
    assert found["weighted mean"][3:8] == ["0.6000", "0.7667", "+0.1667", "0.7600", "+0.1600"]
    out = io.StringIO()
    print_summary(RunRecord.load(folder), Console(file=out, width=100))
    lines = {
        line.split(" ┃")[0].split(" │")[0].strip(): line for line in out.getvalue().splitlines()
    }
    assert re.findall(r"[+.\d]+", lines["plain mean"])[:3] == ["0.5500", "0.8000", "+0.2500"]
    assert re.findall(r"[+.\d]+", lines["weighted mean"])[:3] == ["0.6000", "0.7667", "+0.1667"]


def test_what_is_cut_and_left_out_is_told(make_run: Any) -> None:
    clients = [
        {"id": k, "rows": {"train": 10, "val": 4}, "weight": 0.5, "unseen": k == 2, "truncated": {
            "train": {"rows": k, "tokens": 7 * k, "all_rows": 10, "all_tokens": 100},
            "val": {"rows": 0, "tokens": 0, "all_rows": 4, "all_tokens": 40},
        }}
        for k in (1, 2)
    ]  # fmt: skip
    left_out = [{"where": "data/a.csv", "rows": 3, "reason": "no label (-1)"}]
    page = page_of(make_run(clients=clients, left_out=left_out, tok_len=16))
    text = " ".join(parsed(page).text)
    assert "llm.tok_len 16 cuts 3 of 28 rows, 21 of 280 tokens" in text
    assert "3 of a.csv: no label (-1)" in text
    assert re.search(r">1 \(7\)<", page) and re.search(r">2 \(14\)<", page)
    assert "What stays on a client (lora_B, classifier) is untrained." in text
    usual = page_of(make_run("usual"))
    assert "Truncation" not in usual and "Left out" not in usual and "train cut" not in usual


def test_every_weighted_mean_is_by_the_rows_of_its_own_split(make_run: Any) -> None:
    """100 and 200 validation rows, 300 and 100 test rows: .8 by these, .6333 by those."""
    more = [
        {"event": "eval", "round": 2, "client": client, "phase": phase, "scope": "personal",
         "metrics": {"test_acc": acc, "test_total": rows, "val_acc": acc, "val_total": other}}
        for phase in ("before", "after")
        for client, acc, rows, other in ((1, 0.9, 300, 100), (2, 0.5, 100, 200))
    ]  # fmt: skip
    summary = RunSummary(RunRecord.load(make_run(table=[[0.6, 0.5], [0.9, 0.5]], more=more)))
    (table,) = client_tables(summary)
    means = {row[0]: dict(zip(table.titles, row, strict=True)) for row in table.means}
    best = summary.best_round
    assert means["plain mean"]["test_acc"] == "0.7000"
    assert means["weighted mean"]["test_acc"] == "0.8000"
    assert means["weighted mean"]["before agg."] == "0.6333"
    spread = summary.spread(summary.headline, best, "test_acc")
    assert spread is not None and spread.weighted == pytest.approx(0.8)


def test_a_client_that_diverged_is_not_averaged_away_in_its_table(make_run: Any) -> None:
    """NaN is a value and makes the mean none; a client that was not evaluated has no value."""
    folder = make_run(table=[[0.5, 0.6, 0.7, 0.8]])
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    kept = [line for line in lines if '"eval"' not in line or '"client": 4' not in line]
    (folder / "metrics.jsonl").write_text("\n".join(kept))
    (table,) = client_tables(RunSummary(RunRecord.load(folder)))
    at = table.titles.index("best and last, round 1")
    assert [row[at] for row in (*table.rows, table.means[0])] == [
        "0.5000", "0.6000", "0.7000", "-", "0.6000",
    ]  # fmt: skip
    worse = make_run("worse", table=[[0.5, 0.6], [0.5, math.nan]])
    (table,) = client_tables(RunSummary(RunRecord.load(worse)))
    at = table.titles.index("last, round 2")
    assert [row[at] for row in table.means] == ["-", "-"]


def test_the_weighted_means_best_round_is_told_where_it_is_another(make_run: Any) -> None:
    page = page_of(make_run(table=((0.50, 0.80), (0.90, 0.50))))
    assert "own choice, the best round is 1" in page
    assert "own choice, the best round is" not in page_of(make_run("b"))


def test_what_the_codec_adds_is_told_beside_the_bytes(make_run: Any) -> None:
    event = {"event": "round", "round": 4, "bytes_up": {"1": 1}, "bytes_encoding": 4321}
    folder = make_run(more=[event])
    assert "4.32 kB more for names, shapes" in page_of(folder)
    assert ",bytes_encoding,4321" in write_csv(RunRecord.load(folder)).read_text()
    assert "for names, shapes" not in page_of(make_run("b"))


def test_options_that_are_on_are_told(make_run: Any) -> None:
    folder = make_run(robust_rule="krum")
    (folder / "config.yaml").write_text(
        "fedopt: {use: true, optimizer: {type: Adam, lr: 0.5}}\nfedprox: {use: false, mu: 0.1}\n"
        "finetune: {before_eval: true, local_update_steps: 3}\n"
    )
    text = "fedopt (optimizer Adam, lr 0.5), finetune, robust_rule (krum)"
    assert page_of(folder).count(text) == 2
    out = io.StringIO()
    print_summary(RunRecord.load(folder), Console(file=out, width=200))
    assert f"With {text}." in out.getvalue()
    assert "With " not in page_of(make_run("plain", robust_rule="fedavg"))


def test_legends_are_outside_the_axes(make_run: Any) -> None:
    summary = RunSummary(RunRecord.load(make_run()))
    for figure in (_metric_figure(summary), _loss_figure(summary), _bytes_figure(summary)):
        assert figure is not None
        figure.canvas.draw()
        (legend,) = figure.legends
        axes = figure.axes[0]
        assert axes.get_legend() is None
        assert legend.get_window_extent().y1 <= axes.get_window_extent().y0


def test_the_terminal_table(make_run: Any) -> None:
    out = io.StringIO()
    print_summary(RunRecord.load(make_run()), Console(file=out, width=100))
    text = out.getvalue()
    for part in (
        "plain mean", "0.8000", "weighted mean", "0.7667", "0.7700", "+0.3000", "personal",
        "after aggregation", "head: local", "no global model", "1.00 kB",
    ):  # fmt: skip
        assert part in text, part


def test_the_callback_uses_the_newest_run_and_survives_trouble(
    make_run: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = make_run(status="running")
    run = {**json.loads((folder / "run.json").read_text()), "status": "finished"}
    callback = ReportCallback(None)
    callback.on_run_end(run, str(folder))
    assert "finished, 3 of 3 rounds" in (folder / "report.html").read_text()
    assert "plain mean" in capsys.readouterr().out
    (tmp_path / "file").write_text("")
    callback.on_run_end(run, tmp_path / "file")
    assert "report could not be made" in caplog.text
    callback.on_run_end({**run, "clients": 3}, folder)
    assert caplog.text.count("report could not be made") == 2


def test_the_callback_is_registered() -> None:
    registry = pytest.importorskip("federatedscope.register")
    builder = registry.callback_dict["report"]
    assert hasattr(builder(None), "on_run_end")

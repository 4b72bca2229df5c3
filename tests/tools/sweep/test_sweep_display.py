"""What is shown while it goes on."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from sweep_cases import MakePoints

from federatedscope_ext.tools.sweep.display import (
    Follower,
    Lines,
    LiveTable,
    show_failures,
    watcher,
)
from federatedscope_ext.tools.sweep.jobs import Stop, run_points
from federatedscope_ext.tools.sweep.plan import Found, Point, Status
from federatedscope_ext.tools.sweep.slots import Slots


def event(rnd: int, client: int, value: float, **more: Any) -> str:
    base = {"event": "eval", "round": rnd, "client": client, "phase": "after", "unseen": False,
            "metrics": {"val_acc": value}}  # fmt: skip
    return json.dumps({**base, **more}) + "\n"


def test_the_follower_reads_only_what_is_new_and_whole(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    follower.update()
    assert follower.text == "starting"
    (tmp_path / "run.json").write_text('{"rounds": 9, "main_metric": "val_acc"}')
    file = tmp_path / "metrics.jsonl"
    second = event(2, 1, 0.8)
    file.write_text(event(1, 1, 0.5) + event(1, 2, 0.7) + second[:20])
    follower.update()
    assert follower.text == "round 1/9"
    assert follower.shown_metric == "val_acc 0.6000"
    with file.open("a") as lines:
        lines.write(second[20:] + "no json\n[]\n")
    follower.update()
    assert follower.text == "round 2/9"
    assert follower.shown_metric == "val_acc 0.8000"


def test_the_followers_metric_is_the_clients_own_after_aggregation(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"rounds": 9, "main_metric": "val_acc"}')
    lines = event(1, 0, 0.1) + event(1, 1, 0.4) + event(1, 0, 0.1)
    lines += event(1, 2, 0.9, phase="before") + event(1, 3, 0.9, unseen=True)
    lines += event(1, 2, 0.6) + event(1, 4, 0.0, metrics={"val_acc": None})
    (tmp_path / "metrics.jsonl").write_text(lines)
    follower = Follower(tmp_path)
    follower.update()
    assert math.isclose(follower.value, 0.5)


def test_plain_lines(make: MakePoints, tmp_path: Path) -> None:
    points = make({"seed": 0}, {"seed": 1, "fake.fail": 1})
    stream = io.StringIO()
    console = Console(file=stream, width=60)
    with watcher(points, console) as shown:
        assert isinstance(shown, Lines)
        run_points(points, Slots(1, 1), shown, Stop())
    show_failures(points, console)
    text = stream.getvalue()
    assert "started  seed=0" in text
    assert "finished  seed=0  after 0:00:0" in text
    assert "val_acc 0.6500" in text
    assert "done 1, running 0, queued 0, failed 1" in text
    assert "  | it went wrong" in text
    assert f"python {tmp_path / 'runner.py'} --outdir" in text
    assert "\x1b" not in text


def test_the_table_on_a_terminal(make: MakePoints) -> None:
    points = make(*({"seed": seed, "fake.sleep": 1.5} for seed in range(3)))
    points[2].status, points[2].found = Status.FINISHED, Found.FINISHED
    stream = io.StringIO()
    console = Console(file=stream, width=100, force_terminal=True)
    with watcher(points, console) as shown:
        assert isinstance(shown, LiveTable)
        run_points(points[:2], Slots(2, 1), shown, Stop())
    text = stream.getvalue()
    assert "round 2/2" in text
    assert "val_acc 0.6500" in text
    assert "done 1 (1 of them before), running 2, queued 0, failed 0" in text
    assert "finished  seed=1" in text


def test_names_are_not_read_as_markup(tmp_path: Path) -> None:
    stream = io.StringIO()
    point = Point("x=[red]", {}, tmp_path, ["a", "[/b]"], Status.FAILED, error="[/oh]")
    show_failures([point], Console(file=stream, width=200))
    assert "x=[red]: [/oh]" in stream.getvalue()

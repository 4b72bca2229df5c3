"""What a run leaves behind when it does not end as planned."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from exchanges import hand_over

from federatedscope.core.workers import Server
from federatedscope_ext.trainers.glue import GlueTrainer

ROOT = Path(__file__).resolve().parents[2]
DETERMINISTIC = ("federate.total_round_num", 3)


def spoil(monkeypatch: pytest.MonkeyPatch, when: Any) -> None:
    """Make the loss NaN where ``when(ctx)`` says so, as an overflow in the forward pass would."""
    real = GlueTrainer._hook_on_batch_forward

    def forward(self: Any, ctx: Any) -> None:
        real(self, ctx)
        if when(ctx):
            ctx.loss_batch = ctx.loss_batch * float("nan")

    monkeypatch.setattr(GlueTrainer, "_hook_on_batch_forward", forward)


def is_training(ctx: Any, client: int) -> bool:
    return ctx.cur_mode == "train" and client == ctx.monitor.monitored_object.ID


class TestNonFiniteLoss:
    def test_a_batch_is_skipped_and_counted(self, rig: Any, monkeypatch: Any) -> None:
        spoil(monkeypatch, lambda ctx: is_training(ctx, 2) and ctx.cur_batch_i == 1)
        options = ("train.local_update_steps", 3, "data.splitter", "iid")
        done = rig(*options)
        assert done.code == 0
        for event in done.of("train"):
            bad = event["client"] == 2
            assert event["nonfinite"] == int(bad)
            assert event["steps"] == 3
            assert event["samples"] == event["metrics"]["train_total"] == (16 if bad else 24)
            assert event["metrics"]["train_avg_loss"] is not None
        assert all(e["metrics"]["val_avg_loss"] is not None for e in done.of("eval"))

    def test_a_skipped_batch_leaves_the_weights_alone(self, rig: Any, monkeypatch: Any) -> None:
        """All batches skipped: the client sends what it received."""
        spoil(monkeypatch, lambda ctx: is_training(ctx, 2))
        done = rig("federate.total_round_num", 1)
        assert done.code == 0
        (event,) = done.of("train", client=2)
        assert (event["samples"], event["nonfinite"]) == (0, event["steps"])
        assert event["metrics"]["train_total"] == 0
        assert event["metrics"]["train_accuracy"] is None
        runner = rig.runner()
        first = {k: v.clone() for k, v in runner.store.state(2).items()}
        from federatedscope.core.message import Message

        hand_over(runner, Message("model_para", 0, [2], 0, runner.server.shared_state()))
        assert all(torch.equal(v, first[k]) for k, v in runner.store.state(2).items())

    def test_when_it_persists_the_run_stops_with_a_diagnosis(
        self, rig: Any, monkeypatch: Any, capsys: Any
    ) -> None:
        spoil(monkeypatch, lambda ctx: is_training(ctx, 2) and ctx.cur_round >= 1)
        done = rig(*DETERMINISTIC, "train.local_update_steps", 4, "train.max_nonfinite_steps", 3)
        assert done.code == 1
        assert done.run["status"] == "failed"
        assert done.run["stopped_by"] == "error"
        assert done.run["last_round"] == 1
        shown = capsys.readouterr().err
        for word in ("NaN", "3 steps in a row", "grad.grad_clip", "train.optimizer.lr"):
            assert word in done.run["error"]
            assert word in shown
        assert "Traceback" not in shown
        assert "Traceback" in (done.outdir / "exp_print.log").read_text()
        assert len(done.of("round")) == 1
        assert len(done.of("eval")) == 3

    def test_the_streak_runs_on_over_rounds_and_ends_with_a_good_batch(
        self, rig: Any, monkeypatch: Any
    ) -> None:
        spoil(monkeypatch, lambda ctx: is_training(ctx, 2) and ctx.cur_batch_i < 3)
        options = ("train.local_update_steps", 4, *DETERMINISTIC, "data.splitter", "iid")
        assert rig(*options, "train.max_nonfinite_steps", 4).code == 0
        spoil(monkeypatch, lambda ctx: is_training(ctx, 2))
        done = rig(*options, "train.max_nonfinite_steps", 6)
        assert done.code == 1
        assert done.run["last_round"] == 1

    def test_weights_that_are_not_finite_are_named(
        self, rig: Any, monkeypatch: Any, capsys: Any
    ) -> None:
        real = GlueTrainer._hook_on_batch_end

        def end(self: Any, ctx: Any) -> None:
            real(self, ctx)
            if is_training(ctx, 1):
                next(p for p in ctx.model.parameters() if p.requires_grad).data.fill_(float("inf"))

        monkeypatch.setattr(GlueTrainer, "_hook_on_batch_end", end)
        done = rig("train.local_update_steps", 4, "train.max_nonfinite_steps", 2)
        assert done.code == 1
        assert "not finite any more, the first is base_model" in done.run["error"]

    def test_an_upload_that_is_not_finite_is_refused(self, rig: Any, monkeypatch: Any) -> None:
        from federatedscope.core.workers import Client

        real = Client._train

        def train(self: Any) -> Any:
            weight, state = real(self)
            return weight, {k: v * float("nan") for k, v in state.items()}

        monkeypatch.setattr(Client, "_train", train)
        done = rig()
        assert done.code == 1
        assert "diverged" in done.run["error"]

    def test_in_evaluation_it_shows(self, rig: Any, monkeypatch: Any) -> None:
        """No row is left out: the loss is null and all rows count."""
        spoil(monkeypatch, lambda ctx: ctx.cur_mode == "test" and ctx.cur_batch_i == 0)
        done = rig("federate.total_round_num", 1, "data.splitter", "iid")
        assert done.code == 0
        assert [e["metrics"]["val_total"] for e in done.of("eval")] == [12, 12, 12]
        assert all(e["metrics"]["val_avg_loss"] is None for e in done.of("eval"))

    def test_in_evaluation_with_weights_that_are_not_finite(self, rig: Any) -> None:
        runner = rig.runner("data.splitter", "iid")
        head = next(name for name in runner.store.names if "classifier" in name)
        runner.store.state(1)[head].fill_(float("nan"))
        runner.store.activate(1)
        metrics = runner.clients[1].trainer.evaluate("val")
        assert metrics["val_total"] == 12
        assert math.isnan(metrics["val_avg_loss"])


class Stop:
    """Raises in a round."""

    def __init__(self, error: BaseException, rnd: int = 2, client: int = 2) -> None:
        self.error, self.round, self.client = error, rnd, client

    def on_train(self, event: dict[str, Any]) -> None:
        if (event["round"], event["client"]) == (self.round, self.client):
            raise self.error


class TestInterruption:
    def test_what_was_finished_is_on_disk(self, rig: Any) -> None:
        done = rig(*DETERMINISTIC, callbacks=(Stop(KeyboardInterrupt()),), report=True)
        assert done.code == 130
        assert done.run["status"] == "interrupted"
        assert done.run["stopped_by"] == "ctrl_c"
        assert done.run["last_round"] == 1
        assert done.run["finished"]
        assert len(done.of("round")) == 1
        assert len(done.of("eval")) == 3
        # What was running is kept as far as it got.
        assert {e["client"] for e in done.of("train", round=2)} == {1, 2}
        assert (done.outdir / "config.yaml").exists()
        assert (done.outdir / "report.html").exists()
        assert (done.outdir / "metrics.csv").exists()

    def test_no_spilled_client_stays_behind(self, rig: Any) -> None:
        done = rig(
            "federate.client_memory_mb", 1, *DETERMINISTIC, callbacks=(Stop(KeyboardInterrupt()),)
        )
        assert not (done.outdir / "clients").exists()

    @pytest.fixture(autouse=True)
    def in_the_foreground(self) -> Iterator[None]:
        """Shells start background jobs with Ctrl-C ignored, and the tests may be such a job."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    def test_where_ctrl_c_is_ignored_it_stays_ignored(self, rig: Any) -> None:
        class Press:
            def on_batch(self, client: int, ctx: Any, monitor: Any) -> None:
                os.kill(os.getpid(), signal.SIGINT)

        signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert rig(*DETERMINISTIC, callbacks=(Press(),)).code == 0

    @pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
    def test_signals_of_users_and_of_batch_systems(self, rig: Any, sent: signal.Signals) -> None:
        class Kill:
            def on_batch(self, client: int, ctx: Any, monitor: Any) -> None:
                if ctx.cur_round == 1 and ctx.cur_mode == "train":
                    os.kill(os.getpid(), sent)

        before = signal.getsignal(sent)
        done = rig(*DETERMINISTIC, callbacks=(Kill(),))
        assert done.code == 130
        assert (done.run["status"], done.run["last_round"]) == ("interrupted", 1)
        assert signal.getsignal(sent) is before

    def test_ctrl_c_at_the_command(self, rig: Any, tmp_path: Path) -> None:
        """The command itself, from a plain checkout in another folder."""
        outdir = rig.folder()
        arguments = rig.argv("federate.total_round_num", 5000, "train.local_update_steps", 1)
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "federatedscope" / "main.py"), "--quiet",
             "--outdir", str(outdir), *arguments],
            cwd=tmp_path, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        metrics = outdir / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while not (metrics.exists() and '"eval"' in metrics.read_text()):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=60)
        assert process.returncode == 130, shown
        assert "Traceback" not in shown
        assert "Interrupted after round" in shown
        run = json.loads((outdir / "run.json").read_text())
        assert run["status"] == "interrupted"
        events = [json.loads(line) for line in metrics.read_text().splitlines()]
        rounds = [e for e in events if e["event"] == "round"]
        assert len(rounds) == run["last_round"] >= 1
        assert (outdir / "report.html").exists()


class TestErrors:
    def test_a_programming_error_keeps_its_traceback(self, rig: Any, capsys: Any) -> None:
        done = rig(*DETERMINISTIC, callbacks=(Stop(ZeroDivisionError("by nought")),))
        assert done.code == 1
        assert done.run["status"] == "failed"
        assert done.run["error"] == "ZeroDivisionError: by nought"
        assert len(done.of("round")) == 1
        shown = capsys.readouterr().err
        assert shown.count("Traceback") == 1
        assert "by nought" in shown
        assert "by nought" in (done.outdir / "exp_print.log").read_text()

    def test_an_error_while_the_workers_are_built(self, rig: Any, monkeypatch: Any) -> None:
        def broken(self: Any, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("no such thing")

        monkeypatch.setattr(Server, "_setup_course", broken)
        done = rig()
        assert done.code == 1
        assert done.run["status"] == "failed"
        assert done.run["last_round"] == 0

    def test_a_message_that_nobody_handles(self, rig: Any) -> None:
        from federatedscope.core.message import Message

        runner = rig.runner()
        with pytest.raises(ValueError, match="Client has no handler for messages of type 'hello'"):
            hand_over(runner, Message("hello", 0, [1], 0))

"""What a user sees: the summary before, the progress during a run."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from federatedscope.core.monitors.progress import (
    Progress,
    human_bytes,
    human_time,
    print_run_summary,
)


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "-"), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * 2**20, "5.0 MiB"),
     (3 * 2**30, "3.0 GiB"), (2**41, "2.0 TiB")],
)  # fmt: skip
def test_bytes(count: float | None, text: str) -> None:
    assert human_bytes(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (65.9, "1:05"), (3725, "1:02:05")])
def test_times(seconds: float, text: str) -> None:
    assert human_time(seconds) == text


def plain() -> Console:
    return Console(file=io.StringIO(), width=120)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


class TestTheSummary:
    def test_what_it_says(self, rig: Any) -> None:
        console = plain()
        print_run_summary(rig.prepared().run, console)
        text = shown(console)
        for word in (
            "FedSA-LoRA", "sst2@glue", "trainable", "512 sent", "rank 4, scale 2 on query, value",
            "head: local", "2 rounds, 3 of 3 clients", "2 batches of 8 rows", "AdamW lr 0.01",
            "weights", "rows", "cpu", "fp32", "(estimate)", "6.0 KiB up, 6.0 KiB down", "seed",
            "negative 8", "positive 22", "0.312",
        ):  # fmt: skip
            assert word in text, word

    def test_many_clients_make_no_long_table(self, rig: Any) -> None:
        console = plain()
        run = rig.prepared("federate.client_num", 30, "data.splitter", "iid").run
        print_run_summary(run, console)
        assert "training labels" not in shown(console)
        assert "3 of 30" not in shown(console)
        assert "30 of 30 clients" in shown(console)

    def test_notes_and_swaps(self, rig: Any) -> None:
        run = rig.prepared("federate.shared_module", True).run
        run["swaps"] = [{"field": "model.type", "was": "a", "now": "b", "why": "it is small"}]
        console = plain()
        print_run_summary(run, console)
        assert "Note: federate.shared_module is on" in shown(console)
        assert "Embedded: model.type 'a' -> 'b' (it is small)" in shown(console).replace("\n", " ")

    def test_options(self, rig: Any) -> None:
        run = rig.prepared().run | {
            "options": {"fedprox": {"mu": 0.1}, "robust_rule": "krum", "finetune": True}
        }
        console = plain()
        print_run_summary(run, console)
        assert "fedprox (mu 0.1), robust_rule (krum), finetune" in shown(console)

    def test_a_model_of_an_extension(self, rig: Any) -> None:
        """Without parameters known there is still a summary."""
        run = rig.prepared().run
        run |= {
            "parameters": None, "adapter": None, "memory_estimate_bytes": None,
            "bytes_per_round": None,
        }  # fmt: skip
        console = plain()
        print_run_summary(run, console)
        assert "FedSA-LoRA" in shown(console)


class TestProgress:
    def lines(self, rig: Any, *options: Any) -> list[str]:
        console = Console(file=io.StringIO(), width=200)
        progress = Progress(rounds=2, steps=2, console=console)
        assert not progress.is_live
        rig(*options, callbacks=(progress,))
        return shown(console).splitlines()

    def test_plain_lines(self, rig: Any) -> None:
        lines = self.lines(rig)
        assert len(lines) == 8
        for rnd in (1, 2):
            for client in (1, 2, 3):
                line = lines[4 * (rnd - 1) + client - 1]
                assert line.startswith(f"round {rnd}/2  client {client}  train  loss ")
                assert "2 steps" in line
                assert "tokens/s" in line
            mean = lines[4 * rnd - 1]
            assert mean.startswith(f"round {rnd}/2  mean over 3 client(s) after aggregation")
            assert mean.index("val_accuracy") < mean.index("val_avg_loss")
            assert "elapsed" in mean
            assert "left" in mean

    def test_the_mean_is_the_plain_one(self, rig: Any) -> None:
        lines = self.lines(rig)
        accuracy = [e["metrics"]["val_accuracy"] for e in rig().of("eval", round=2)]
        assert f"val_accuracy {sum(accuracy) / 3:.4f}" in lines[-1]

    def test_skipped_steps_show(self, rig: Any, monkeypatch: Any) -> None:
        from federatedscope_ext.trainers.glue import GlueTrainer

        real = GlueTrainer._hook_on_batch_forward

        def forward(self: Any, ctx: Any) -> None:
            real(self, ctx)
            if ctx.cur_mode == "train" and ctx.cur_batch_i == 0:
                ctx.loss_batch = ctx.loss_batch * float("nan")

        monkeypatch.setattr(GlueTrainer, "_hook_on_batch_forward", forward)
        assert "1 steps skipped" in self.lines(rig)[0]

    def test_on_a_terminal_it_is_redrawn(self, rig: Any) -> None:
        console = Console(file=io.StringIO(), width=120, force_terminal=True)
        progress = Progress(rounds=2, steps=2, console=console)
        assert progress.is_live
        done = rig(callbacks=(progress,))
        assert done.code == 0
        text = shown(console)
        assert "mean over 3 client(s)" in text
        assert "clients 3/3" in text
        assert "loss" in text
        assert progress._live is None

    def test_evaluation_only(self, rig: Any) -> None:
        (line,) = self.lines(rig, "federate.total_round_num", 0)
        assert "mean over 3" in line


class TestTheCommand:
    def test_quiet_says_nothing(self, rig: Any, capsys: Any) -> None:
        rig("federate.total_round_num", 1)
        captured = capsys.readouterr()
        assert captured.out == captured.err == ""

    def test_not_quiet(self, rig: Any, capsys: Any) -> None:
        outdir = rig.folder()
        code = rig.main(f"--outdir={outdir}", *rig.argv("federate.total_round_num", 1))
        assert code == 0
        text = capsys.readouterr().err
        assert "This run" in text
        assert "round 1/1  client 3  train" in text
        assert f"Finished after round 1: {outdir}" in text

"""What the terminal shows while a run goes on."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from federatedscope.core.callbacks import Event
from federatedscope.core.data.base_data import SPLITS
from federatedscope.core.monitors.means import EvaluationMeans
from federatedscope.core.records import ClientInfo, Majority, RunInfo

# More are not listed before the run.
LISTED_CLIENTS = 20


def human_bytes(count: float | None) -> str:
    """``1.5 MiB`` of 1572864."""
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def human_time(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    total = int(seconds)
    hours, rest = divmod(total, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def _speed(tokens: int, seconds: float) -> str:
    return f"  {tokens / max(seconds, 1e-9):,.0f} tokens/s" if tokens else ""


class Progress(EvaluationMeans):
    """Rounds, clients, loss, metrics, speed and time left.

    On a terminal one table is redrawn in place; otherwise plain lines are printed, one per trained
    client and round, so that logs stay readable.

    Draws on standard error by default, which leaves standard output to results. ``steps`` are the
    local ones per client and round, 0 when they are epochs.
    """

    def __init__(self, rounds: int, steps: int, console: Console | None = None) -> None:
        super().__init__()
        self.console = console or Console(file=sys.stderr)
        self.rounds = rounds
        self.steps = steps
        self.round = self.done = 0
        self.clients: list[int] = []
        self.line = ""
        self.last_mean: dict[str, float] = {}
        self._main_metric = ""
        self._started = time.perf_counter()
        self._live: Live | None = None

    @property
    def is_live(self) -> bool:
        """Whether the display is redrawn in place."""
        return self.console.is_terminal

    def on_run_start(self, run: Event) -> None:
        """Start the clock and the display."""
        self._started = time.perf_counter()
        self._main_metric = run["main_metric"]
        if self.is_live:
            # Four redraws a second, rich's own pace.
            self._live = Live(self._render(), console=self.console, transient=True)
            self._live.start()

    def on_round_start(self, rnd: int, clients: list[int]) -> None:
        """Print the evaluation of the round before and show who takes part."""
        self._close_evaluation()
        self.round, self.clients, self.done = rnd, list(clients), 0
        self._redraw()

    def on_batch(self, client: int, ctx: Any, monitor: Any) -> None:
        """Show the running client's step and loss."""
        if self._live is None:
            return
        loss = ctx.get("loss_batch")
        shown = f"{float(loss.detach()):.4f}" if loss is not None else "-"
        what = "train" if ctx.cur_mode in ("train", "finetune") else f"evaluate {ctx.cur_split}"
        total = f"/{self.steps}" if self.steps and what == "train" else ""
        speed = _speed(monitor.tokens, monitor.seconds)
        self.line = f"client {client}  {what} step {monitor.steps}{total}  loss {shown}{speed}"
        self._redraw()

    def on_train(self, event: Event) -> None:
        """One line per trained client."""
        self.done += 1
        metrics = event["metrics"]
        loss = metrics.get("train_avg_loss", float("nan"))
        speed = _speed(event["tokens"], event["seconds"])
        skipped = f"  {event['nonfinite']} steps skipped" if event["nonfinite"] else ""
        self._print(
            f"round {event['round']}/{self.rounds}  client {event['client']}  train  "
            f"loss {loss:.4f}  {event['steps']} steps  {event['seconds']:.1f} s{speed}{skipped}"
        )

    def on_round(self, event: Event) -> None:
        """Redraw after aggregation."""
        self._redraw()

    def on_run_end(self, run: Event, outdir: str) -> None:
        """Take the display down."""
        self._close_evaluation()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _close_evaluation(self) -> None:
        """Print the mean over clients of the evaluation that just ended."""
        means, count = self.take_means()
        if not count:
            return
        self.last_mean = means
        # The deciding metric first, the losses last, and of these only the means over rows.
        wanted = [k for k in self.last_mean if k.endswith("avg_loss") or not k.endswith("_loss")]
        wanted.sort(key=lambda k: (k.endswith("_loss"), k != self._main_metric, k))
        shown = "  ".join(f"{k} {self.last_mean[k]:.4f}" for k in wanted)
        self._print(
            f"round {self.round}/{self.rounds}  mean over {count} client(s) after aggregation  "
            f"{shown}  elapsed {human_time(self._elapsed)}  left {self._left()}"
        )

    @property
    def _elapsed(self) -> float:
        return time.perf_counter() - self._started

    def _left(self) -> str:
        done = self.round - 1 + (self.done / len(self.clients) if self.clients else 1)
        if done <= 0:
            return "-"
        return human_time(self._elapsed / done * (self.rounds - done))

    def _print(self, text: str) -> None:
        if self._live is None:
            self.console.print(text, highlight=False, soft_wrap=True)
        elif "mean over" in text:
            self._live.console.print(text, highlight=False)

    def _redraw(self) -> None:
        if self._live is not None:
            self._live.update(self._render())

    def _render(self) -> Table:
        table = Table.grid(padding=(0, 1))
        filled = int(30 * min(1.0, max(0, self.round - 1) / max(1, self.rounds)))
        bar = Text("█" * filled + "░" * (30 - filled), style="cyan")
        table.add_row(
            Text(f"round {self.round}/{self.rounds}", style="bold"),
            bar,
            Text(f"clients {self.done}/{len(self.clients)}"),
            Text(f"elapsed {human_time(self._elapsed)}  left {self._left()}"),
        )
        table.add_row(Text("now"), Text(self.line or "starting"))
        return table


def print_run_summary(run: Event, console: Console) -> None:
    """One table of what will run, before training."""
    info = RunInfo.from_json(run)
    table = Table(title="This run", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for label, value in _summary_rows(info):
        if value:
            table.add_row(label, value)
    console.print(table)
    if len(info.clients) <= LISTED_CLIENTS:
        console.print(_client_table(info))
        if info.cut.rows:
            console.print(_cut_table(info))
    for note in info.notes:
        console.print(f"Note: {note}", highlight=False)
    for swap in info.swaps:
        changed = f"{swap.field} {swap.was!r} -> {swap.now!r} ({swap.why})"
        console.print(f"Embedded: {changed}", highlight=False)


def _summary_rows(run: RunInfo) -> Iterator[tuple[str, str]]:
    """Labels and what they are; what has nothing to say is empty."""
    yield "method", f"{run.variant} ({run.method})"
    yield "task", run.task
    yield "model", run.model
    if (counts := run.parameters) is not None:
        share = f"{counts.trainable / max(1, counts.total):.2%}"
        numbers = f"{counts.total:,} in total, {counts.trainable:,} trainable ({share})"
        yield "parameters", f"{numbers}, {counts.sent:,} sent"
    yield from _adapter_rows(run)
    what = "not trained" if run.head_rule == "frozen" else "trained"
    yield "starts at random", f"{', '.join(new)} ({what})" if (new := run.new_tensors) else ""
    kept = ", ".join(run.local_param) or "nothing"
    yield "stays on the client", f"{kept} (head: {run.head_rule})"
    sampled = f"{run.sample_client_num} of {len(run.clients)} clients a round"
    optimizer = f"{run.optimizer.get('type')} lr {run.optimizer.get('lr')}"
    yield "training", f"{run.rounds} rounds, {sampled}, {_steps(run)}, {optimizer}"
    options = run.options or {}
    yield "with", ", ".join(map(_option_text, options, options.values()))
    yield "weights", run.weights
    yield "truncation", truncation_text(run)
    yield "left out", left_out_text(run)
    yield "evaluation", run.evaluation.note
    precision = f"{run.precision} ({run.precision_reason})"
    yield "device", f"{run.device}, {run.threads} threads, {precision}"
    if memory := run.memory_estimate_bytes:
        yield "memory", f"about {human_bytes(memory['total'])} (estimate)"
    if traffic := run.bytes_per_round:
        up, down = human_bytes(traffic["up"]), human_bytes(traffic["down"])
        yield "a round sends", f"{up} up, {down} down"
    yield "seed", f"{run.seed} (data: {run.data_seed})"


def truncation_text(run: RunInfo) -> str:
    """``llm.tok_len 64 cuts 12 of 60 rows, 340 of 900 tokens``; empty where nobody counts."""
    cut = run.cut
    if not cut.rows:
        return f"llm.tok_len {run.tok_len} cuts no row" if cut.all_rows else ""
    rows, tokens = f"{cut.rows:,} of {cut.all_rows:,} rows", f"{cut.tokens:,} of {cut.all_tokens:,}"
    text = f"llm.tok_len {run.tok_len} cuts {rows}, {tokens} tokens"
    if cut.empty:
        text += f"; nothing is left of {cut.empty:,}"
    if len(run.clients) > LISTED_CLIENTS:
        most = max(run.clients, key=lambda c: c.cut.rows / max(c.cut.all_rows, 1))
        text += f"; most at client {most.id}: {most.cut.rows:,} of {most.cut.all_rows:,} rows"
    return text


def cut_texts(client: ClientInfo) -> list[str]:
    """Of each split the rows that ``llm.tok_len`` cuts and the tokens they lose, ``20 (310)``."""
    cuts = [(client.truncated or {}).get(split) for split in SPLITS]
    return ["-" if one is None else f"{one.rows:,} ({one.tokens:,})" for one in cuts]


def left_out_text(run: RunInfo) -> str:
    """``3 of train.csv (no label (-1))``; empty where all rows are used."""
    return "; ".join(
        f"{one.rows:,} {'of ' if '.' in one.where else ''}{Path(one.where).name}: {one.reason}"
        for one in run.left_out
    )


def _adapter_rows(run: RunInfo) -> Iterator[tuple[str, str]]:
    """The adapter, and the ranks that occur where they differ."""
    if (adapter := run.adapter) is None:
        return
    where = ", ".join(adapter.target_modules or ())
    scale = f", scale {adapter.scale:g}" if adapter.scale else ""
    yield "adapter", f"{adapter.method}, rank {adapter.r}{scale} on {where}"
    counts = Counter((client.rank, client.scale) for client in run.clients)
    if len(counts) > 1:
        ordered = sorted(counts.items(), key=lambda item: _first(item[0][0]))
        kinds = [
            f"{number} client{'s' if number > 1 else ''} rank {_shown(rank)} "
            f"(scale {_shown(scale)})"
            for (rank, scale), number in ordered
        ]
        yield "ranks", "; ".join(kinds)
        yield "scale rule", f"{adapter.scale_rule}, lora_alpha {adapter.alpha}"


def _shown(value: float | tuple[float, ...] | None) -> str:
    """A number, or those of different modules with slashes between."""
    values = value if isinstance(value, tuple) else (value,)
    return "/".join("-" if v is None else f"{v:g}" for v in values)


def _first(rank: int | tuple[int, ...] | None) -> int:
    return (rank[0] if isinstance(rank, tuple) else rank) or 0


def _steps(run: RunInfo) -> str:
    """``2 batches of 8 rows``, ``1 epoch in batches of 8 rows``."""
    count, rows = run.local_update_steps, f"{run.batch_size} rows"
    if run.batch_or_epoch != "batch":
        return f"{count} {'epoch' if count == 1 else 'epochs'} in batches of {rows}"
    return f"{count} {'batch' if count == 1 else 'batches'} of {rows}"


def _option_text(name: str, value: Any) -> str:
    """``fedprox (mu 0.1)``; the name alone of what is just on."""
    if isinstance(value, dict):
        value = ", ".join(f"{key} {item}" for key, item in value.items())
    return name if value is True else f"{name} ({value})"


def _client_table(run: RunInfo) -> Table:
    table = Table(title="Clients", title_justify="left")
    columns = ("client", *SPLITS, "weight", "rank", "training labels", "majority")
    for column in columns:
        table.add_column(column, justify="left" if "labels" in column else "right")
    for client in run.clients:
        labels = (client.labels or {}).get("train") or {}
        shown = "  ".join(f"{run.label_name(k)} {v}" for k, v in sorted(labels.items()))
        majority = client.majority or Majority()
        value = majority.val if majority.val is not None else majority.test
        table.add_row(
            f"{client.id}{' (unseen)' if client.unseen else ''}",
            *(str(client.rows[split]) for split in SPLITS),
            f"{client.weight:.3f}",
            str(list(client.rank) if isinstance(client.rank, tuple) else client.rank or "-"),
            shown or "-",
            f"{value:.3f}" if value is not None else "-",
        )
    return table


def _cut_table(run: RunInfo) -> Table:
    table = Table(title=f"Rows cut by llm.tok_len {run.tok_len} (tokens)", title_justify="left")
    for column in ("client", *SPLITS):
        table.add_column(column, justify="right")
    for client in run.clients:
        table.add_row(str(client.id), *cut_texts(client))
    return table

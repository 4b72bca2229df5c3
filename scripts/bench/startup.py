"""Seconds until the first round begins, and memory over rounds, as the number of clients grows.

    python scripts/bench/startup.py --model DIR --data ROOT --clients 3 100 1000

See ``scripts/bench/README.md`` for what is measured and how.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from runs import (
    add_run_options,
    check_run_options,
    hand_back,
    in_child,
    mib,
    prepared_run,
    resident_bytes,
    say,
    settings,
)

EARLY = 2


class Watch:
    """A callback that notes when the first round begins, and the memory after every round.

    Parameters
    ----------
    store : ClientStore
        Knows which clients have tensors of their own by now.
    """

    def __init__(self, store: Any) -> None:
        self.store = store
        self.begun: float | None = None
        self.resident: list[int] = []
        self.owners: list[int] = []

    def on_round_start(self, rnd: int, clients: list[int]) -> None:
        """The round before is over, evaluation included."""
        if self.begun is None:
            self.begun = time.time()
        else:
            self.note()

    def note(self) -> None:
        """Note memory and the number of states."""
        self.resident.append(resident_bytes())
        self.owners.append(len(self.store.owners))


def child(job: dict[str, Any]) -> None:
    """Start a run and carry it through, noting time and memory."""
    options = argparse.Namespace(**job["options"])
    clients = job["clients"]
    sampled = max(1, round(options.rate * clients))
    extra: list[object] = ["federate.total_round_num", options.rounds]
    extra += ["federate.sample_client_num", sampled, "eval.freq", options.eval_freq]
    extra += ["train.local_update_steps", options.steps, "data.splitter", "lda"]
    extra += ["data.splitter_args", "[{'alpha': 0.5, 'fill': True}]"]
    with prepared_run(options, settings(options, clients, extra)) as prepared:
        from federatedscope.core.launch import build_callbacks, build_runner
        from federatedscope.core.machine import peak_memory_bytes

        ready = time.time()
        callbacks = build_callbacks(prepared.cfg, quiet=True)
        runner = build_runner(prepared, None, callbacks)
        built = time.time()
        watch = Watch(runner.store)
        callbacks.members.append(watch)
        callbacks.on_run_start(prepared.run)
        runner.run()
        watch.note()
        adapter = runner.store.state_bytes
        runner.close()
        hand_back(
            {
                "sampled": sampled,
                "model": prepared.cfg.model.type,
                "threads": prepared.run["threads"],
                "device": prepared.device,
                "seconds_prepared": ready - job["started"],
                "seconds_built": built - ready,
                "seconds_to_first_round": (watch.begun or built) - job["started"],
                "resident": watch.resident,
                "owners": watch.owners,
                "peak_rss": peak_memory_bytes(),
                "adapter_bytes": adapter,
            }
        )


def measure(options: argparse.Namespace, clients: int) -> dict[str, Any]:
    """One number of clients, in a process of its own."""
    say(f"{clients} clients: {options.rounds} rounds")
    job = {"options": vars(options), "clients": clients, "started": time.time()}
    return {"clients": clients, **in_child(__file__, job, options.threads)}


def show(options: argparse.Namespace, results: list[dict[str, Any]]) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    first, last = results[0], options.rounds
    middle = last // 2
    title = (
        f"{options.method} on {first['model']}, {first['device']}, {first['threads']} thread(s), "
        f"{options.rate:.1%} of the clients a round, {options.rounds} rounds"
    )
    table = Table(title=title, title_justify="left")
    for column in ("clients", "a round", "s to round 1", "prepare", "build", "peak MiB"):
        table.add_column(column, justify="right")
    for column in (f"after {EARLY}", f"after {middle}", f"after {last}", "new adapters"):
        table.add_column(column, justify="right")
    for row in results:
        added = (row["owners"][-1] - row["owners"][EARLY - 1]) * row["adapter_bytes"]
        table.add_row(
            str(row["clients"]),
            str(row["sampled"]),
            f"{row['seconds_to_first_round']:.1f}",
            f"{row['seconds_prepared']:.1f}",
            f"{row['seconds_built']:.1f}",
            mib(row["peak_rss"]),
            *(mib(row["resident"][rnd - 1]) for rnd in (EARLY, middle, last)),
            mib(added),
        )
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(table)
    console.print(
        f"'after': resident MiB after so many rounds; new adapters: MiB of the clients that got "
        f"tensors of their own after round {EARLY}.",
        highlight=False,
    )


def main() -> int:
    """Read the options, measure, print."""
    if len(sys.argv) == 3 and sys.argv[1] == "--child":
        child(json.loads(sys.argv[2]))
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add_run_options(parser)
    add = parser.add_argument
    add("--clients", type=int, nargs="+", default=[3, 100, 1000], help="default: 3 100 1000")
    add("--rate", type=float, default=0.01, help="share of clients a round (default: %(default)s)")
    add("--steps", type=int, default=2, help="per client and round (default: %(default)s)")
    add("--rounds", type=int, default=40, help="default: %(default)s")
    add("--eval-freq", type=int, default=10, help="evaluate every so many rounds (default: 10)")
    options = parser.parse_args()
    check_run_options(parser, options)
    if options.rounds < 2 * EARLY:
        parser.error(f"--rounds: at least {2 * EARLY}")
    results = [measure(options, clients) for clients in options.clients]
    show(options, results)
    if options.json:
        text = json.dumps({"options": vars(options), "results": results}, indent=1)
        Path(options.json).write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

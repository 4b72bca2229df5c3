"""Seconds until the first round begins, and memory over rounds, as the number of clients grows.

    python scripts/bench/startup.py --model DIR --data ROOT --clients 3 100 1000

See ``scripts/bench/README.md`` for what is measured and how.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import runs
from runs import hand_back, in_child, mib, prepared_run, resident_bytes, say, settings

EARLY = 2


class Watch:
    """A callback that notes when the first round begins, and the memory after every round; the
    store knows which clients have tensors of their own by now.
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


def shown(options: argparse.Namespace, results: list[dict[str, Any]]) -> Any:
    """The table."""
    first, last = results[0], options.rounds
    marks = (EARLY, last // 2, last)
    title = (
        f"{options.method} on {first['model']}, {first['device']}, {first['threads']} thread(s), "
        f"{options.rate:.1%} of the clients a round, {options.rounds} rounds"
    )
    columns = ("clients", "a round", "s to round 1", "prepare", "build", "peak MiB")
    after = (f"after {rnd}" for rnd in marks)
    table = runs.table(title, (), (*columns, *after, "new adapters"))
    for row in results:
        added = (row["owners"][-1] - row["owners"][EARLY - 1]) * row["adapter_bytes"]
        table.add_row(
            str(row["clients"]),
            str(row["sampled"]),
            *(f"{row[f'seconds_{part}']:.1f}" for part in ("to_first_round", "prepared", "built")),
            mib(row["peak_rss"]),
            *(mib(row["resident"][rnd - 1]) for rnd in marks),
            mib(added),
        )
    table.caption = (
        f"'after': resident MiB after so many rounds; new adapters: MiB of the clients that got "
        f"tensors of their own after round {EARLY}."
    )
    return table


def main() -> int:
    """Read the options, measure, print."""
    if runs.is_child(child):
        return 0
    parser = runs.parser_of(
        __doc__,
        clients=([3, 100, 1000], "how many"),
        rate=(0.01, "share of clients a round"),
        steps=(2, "per client and round"),
        rounds=(40, "of the run"),
        eval_freq=(10, "evaluate every so many rounds"),
    )
    options = parser.parse_args()
    runs.check_run_options(parser, options)
    if options.rounds < 2 * EARLY:
        parser.error(f"--rounds: at least {2 * EARLY}")
    results = [measure(options, clients) for clients in options.clients]
    runs.show_and_write(shown(options, results), options, {"results": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())

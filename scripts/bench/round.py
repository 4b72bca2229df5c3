"""Wall time and memory of rounds against the floor, a plain PyTorch loop over the same steps.

    python scripts/bench/round.py --model DIR --data ROOT --clients 3 30 300

See ``scripts/bench/README.md`` for what is compared and how.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import runs
from runs import hand_back, in_child, mib, prepared_run, say, settings

# Relative differences of losses up to which both sides computed the same.
TOLERANCE = {"fp32": 1e-6, "bf16": 2e-2, "fp16": 2e-2}
TOLERANCE_CUDA = 1e-3
MEMORY_ROUNDS = 2
SIDES = {"both": "rounds of both sides", "ours": "our memory", "floor": "the floor's memory"}


class DifferentLossesError(RuntimeError):
    """The two sides did not compute the same."""


class Alternation:
    """A callback that runs the floor's round after each of ours, while our clock stands still.

    Without a ``floor`` only our side runs. ``tolerance`` is the largest relative difference of
    losses and of the means; ``server_state`` returns the server's tensors by name.
    """

    def __init__(
        self, floor: Any, cfg: Any, tolerance: float, server_state: Callable[[], Mapping[str, Any]]
    ) -> None:
        self.floor = floor
        self.server_state = server_state
        self.eval_freq = cfg.eval.freq
        self.last = cfg.federate.total_round_num
        self.tolerance = tolerance
        self.ours: list[tuple[float, float]] = []
        self.theirs: list[tuple[float, float]] = []
        self.largest_difference = 0.0
        self._clients: list[int] = []
        self._train: dict[int, float] = {}
        self._eval: dict[int, dict[str, float]] = {}
        self._started: tuple[float, float] | None = None

    def on_round_start(self, rnd: int, clients: list[int]) -> None:
        """Close the round before, let the floor do the same, and start the clock."""
        self.close_round(rnd - 1)
        self._clients = list(clients)
        self._train, self._eval = {}, {}
        self._started = _now()

    def on_train(self, event: dict[str, Any]) -> None:
        """Keep a client's training loss."""
        self._train[event["client"]] = event["metrics"]["train_loss"]

    def on_eval(self, event: dict[str, Any]) -> None:
        """Keep a client's evaluation."""
        self._eval[event["client"]] = event["metrics"]

    def close_round(self, rnd: int) -> None:
        """Stop our clock after round ``rnd`` and run the floor's."""
        if self._started is None:
            return
        now = _now()
        self.ours.append((now[0] - self._started[0], now[1] - self._started[1]))
        self._started = None
        if self.floor is None:
            return
        evaluate = rnd % self.eval_freq == 0 or rnd == self.last
        floor = self.floor.round(rnd - 1, self._clients, evaluate, self.server_state())
        self.theirs.append((floor.seconds, floor.cpu_seconds))
        if not floor.mean_difference <= self.tolerance:
            raise DifferentLossesError(
                f"round {rnd}: the means of the two sides differ by {floor.mean_difference:.2e}"
            )
        self._compare(rnd, floor)

    def _compare(self, rnd: int, floor: Any) -> None:
        what = f"round {rnd}"
        self._check(f"{what}, training loss", self._train, floor.train_loss)
        ours = {k: metrics["val_loss"] for k, metrics in self._eval.items()}
        self._check(f"{what}, validation loss", ours, floor.eval_loss)
        if self.tolerance <= TOLERANCE["fp32"]:
            ours = {k: metrics["val_accuracy"] for k, metrics in self._eval.items()}
            self._check(f"{what}, validation accuracy", ours, floor.eval_accuracy)

    def _check(self, what: str, ours: Mapping[int, float], theirs: Mapping[int, float]) -> None:
        if ours.keys() != theirs.keys():
            raise DifferentLossesError(
                f"{what}: ours has clients {sorted(ours)}, the floor {sorted(theirs)}"
            )
        for client, value in ours.items():
            other = theirs[client]
            difference = abs(value - other) / max(abs(value), abs(other), 1e-12)
            self.largest_difference = max(self.largest_difference, difference)
            if not difference <= self.tolerance:
                raise DifferentLossesError(
                    f"{what} of client {client}: {value!r} here, {other!r} in the plain loop, a "
                    f"relative difference of {difference:.2e} (allowed: {self.tolerance:.0e}). The "
                    "two sides do not compute the same, so their times cannot be compared."
                )


def _now() -> tuple[float, float]:
    """Seconds on the wall and of this process's cores, with the GPU's work done."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def child(job: dict[str, Any]) -> None:
    """Measure one number of clients: ``side`` is ``both``, ``ours`` or ``floor``."""
    options = argparse.Namespace(**job["options"])
    side, clients = job["side"], job["clients"]
    rounds = options.rounds if side == "both" else min(options.rounds, MEMORY_ROUNDS)
    extra: list[object] = ["federate.total_round_num", rounds, "eval.freq", options.eval_freq]
    extra += ["federate.sample_client_num", min(options.sample or clients, clients)]
    extra += ["train.local_update_steps", options.steps, "data.splitter", "iid"]
    with prepared_run(options, settings(options, clients, extra)) as prepared:
        if side == "floor":
            result = _floor_alone(prepared, rounds)
        else:
            result = _our_side(prepared, with_floor=side == "both")
    hand_back({**result, **_peak(prepared.device)})


def _our_side(prepared: Any, with_floor: bool) -> dict[str, Any]:
    """Run the rounds as the command does, with the floor's between them."""
    from floor import Floor

    from federatedscope.core.launch import build_callbacks, build_runner
    from federatedscope.core.monitors.recorder import Recorder

    cfg, device = prepared.cfg, prepared.device
    callbacks = build_callbacks(cfg, quiet=True)
    runner = build_runner(prepared, None, callbacks)
    floor = None
    if with_floor:
        floor = Floor(copy.deepcopy(runner.model), prepared.data, cfg, device)
    tolerance = TOLERANCE[cfg.train.half_dtype]
    if device != "cpu":
        tolerance = max(tolerance, TOLERANCE_CUDA)
    alternation = Alternation(floor, cfg, tolerance, lambda: runner.store.state(0))
    callbacks.members.append(alternation)
    callbacks.on_run_start(prepared.run)
    runner.run()
    alternation.close_round(cfg.federate.total_round_num)
    for member in callbacks.members:
        if isinstance(member, Recorder):
            member.on_run_end(prepared.run, cfg.outdir)
    runner.close()
    return {
        "ours_seconds": alternation.ours,
        "floor_seconds": alternation.theirs,
        "largest_difference": alternation.largest_difference,
        "adapter_bytes": runner.store.state_bytes,
        "precision": cfg.train.half_dtype,
        "device": device,
        "threads": prepared.run["threads"],
        "model": cfg.model.type,
        "sampled": cfg.federate.sample_client_num,
        "steps": cfg.train.local_update_steps,
        "batch": cfg.dataloader.batch_size,
    }


def _floor_alone(prepared: Any, rounds: int) -> dict[str, Any]:
    """The floor without the runtime, for its memory."""
    from floor import Floor

    from federatedscope.core.launch import build_model

    cfg = prepared.cfg
    model = build_model(cfg, prepared.data, prepared.precision.base_dtype)
    floor = Floor(model.to(prepared.device), prepared.data, cfg, prepared.device)
    clients = list(range(1, cfg.federate.sample_client_num + 1))
    for index in range(rounds):
        floor.round(index, clients, evaluate=True)
    return {}


def _peak(device: str) -> dict[str, Any]:
    import torch

    from federatedscope.core.machine import peak_memory_bytes

    on_gpu = torch.cuda.max_memory_allocated(device) if device != "cpu" else None
    return {"peak_rss": peak_memory_bytes(), "peak_gpu": on_gpu}


def measure(options: argparse.Namespace, clients: int) -> dict[str, Any]:
    """All figures for one number of clients, each from a process of its own."""

    def run(side: str) -> dict[str, Any]:
        say(f"{clients} clients: {SIDES[side]}")
        job = {"options": vars(options), "clients": clients, "side": side}
        return in_child(__file__, job, options.threads)

    timed = run("both")
    alone = {side: run(side) for side in ("ours", "floor")} if options.memory else {}
    # The first round fills caches and makes the clients' states.
    pairs = list(zip(timed["ours_seconds"], timed["floor_seconds"], strict=True))[1:]
    ours, floor = [a[0] for a, _ in pairs], [b[0] for _, b in pairs]
    ratios = [a[0] / b[0] for a, b in pairs]
    return {
        "clients": clients,
        **{k: timed[k] for k in ("sampled", "steps", "batch", "adapter_bytes", "precision")},
        **{k: timed[k] for k in ("device", "threads", "model", "largest_difference")},
        "ours_seconds": ours,
        "floor_seconds": floor,
        "ours_median": statistics.median(ours),
        "floor_median": statistics.median(floor),
        "ratio": statistics.median(ratios),
        "ratio_quartiles": np.quantile(ratios, [0.25, 0.75]).tolist(),
        "cpu_ratio": statistics.median(a[1] / b[1] for a, b in pairs),
        "memory": {side: {k: r[k] for k in ("peak_rss", "peak_gpu")} for side, r in alone.items()},
    }


def shown(options: argparse.Namespace, results: list[dict[str, Any]]) -> Any:
    """The table."""
    first = results[0]
    title = (
        f"{options.method} on {first['model']}, {first['device']} {first['precision']}, "
        f"{first['threads']} thread(s), {first['steps']} steps of {first['batch']} rows, "
        f"{options.rounds - 1} alternating rounds after one to warm up"
    )
    columns = ("clients", "a round", "ours s", "floor s", "ours/floor", "quartiles", "CPU time")
    more = ("peak MiB", "floor's", "adapter KiB", "loss differs")
    table = runs.table(title, (), (*columns, *more))
    for row in results:
        low, high = row["ratio_quartiles"]
        table.add_row(
            str(row["clients"]),
            str(row["sampled"]),
            f"{row['ours_median']:.3f}",
            f"{row['floor_median']:.3f}",
            f"{row['ratio']:.3f}",
            f"{low:.3f}-{high:.3f}",
            f"{row['cpu_ratio']:.3f}",
            *(mib(_peak_of(row, side)) for side in ("ours", "floor")),
            f"{row['adapter_bytes'] / 1024:,.1f}",
            f"{row['largest_difference']:.0e}" if row["largest_difference"] else "never",
        )
    return table


def _peak_of(row: dict[str, Any], side: str) -> float | None:
    memory = row["memory"].get(side, {})
    return memory.get("peak_gpu") or memory.get("peak_rss")


def main() -> int:
    """Read the options, measure, print."""
    if runs.is_child(child):
        return 0
    parser = runs.parser_of(
        __doc__,
        clients=([3, 30, 300], "how many"),
        sample=(0, "clients per round; 0: all of them"),
        steps=(10, "per client and round"),
        rounds=(9, "the first one is not counted"),
        eval_freq=(1, "evaluate every so many rounds"),
    )
    no_memory = "leave the memory out"
    parser.add_argument("--no-memory", dest="memory", action="store_false", help=no_memory)
    options = parser.parse_args()
    runs.check_run_options(parser, options)
    if options.rounds < 2:
        parser.error("--rounds: at least 2, the first one is not counted")
    results = [measure(options, clients) for clients in options.clients]
    runs.show_and_write(shown(options, results), options, {"results": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())

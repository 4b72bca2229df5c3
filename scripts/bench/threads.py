"""One thread against all cores, and a short spin against a long one, on a quiet and a busy machine.

    python scripts/bench/threads.py          # a training step of an encoder of MiniLM's size
    python scripts/bench/threads.py --run    # a whole run of the command, too

See ``scripts/bench/README.md`` for what is measured and how.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import runs
from runs import hand_back, in_child, say, settings

# What OpenMP reads when it is loaded. 300000 is what libgomp does where nothing is set.
READ = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
DEFAULT = "all cores, short spin"
VARIANTS = {
    "all cores, long spin": {"GOMP_SPINCOUNT": "300000"},
    DEFAULT: {},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
WARM_UP = 2
# Ends with the process that started it, however that ended.
BUSY = """
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(10**6):
        pass
"""


def child(job: dict[str, Any]) -> None:
    """Train a randomly initialised encoder with LoRA for some steps; seconds of each."""
    # First, as in the command: it says how long threads spin, before PyTorch is loaded.
    from federatedscope.core.machine import use_all_cores  # isort: skip
    import torch
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import BertConfig, BertForSequenceClassification

    threads = use_all_cores()
    torch.manual_seed(0)
    shape = BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    lora = LoraConfig(task_type=TaskType.SEQ_CLS, r=8, lora_alpha=16)
    model = get_peft_model(BertForSequenceClassification(shape), lora).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    rows = torch.randint(shape.vocab_size, (job["batch"], job["tokens"]))
    labels = torch.arange(job["batch"]) % 2
    seconds = []
    for _ in range(WARM_UP + job["steps"]):
        start = time.perf_counter()
        model(input_ids=rows, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    hand_back({"threads": threads, "seconds": statistics.median(seconds[WARM_UP:])})


def step(options: argparse.Namespace, environment: dict[str, str]) -> float:
    """Median seconds of a training step."""
    job = {name: getattr(options, name) for name in ("batch", "tokens", "steps")}
    return float(in_child(__file__, job, 0, environment)["seconds"])


def whole_run(options: argparse.Namespace, environment: dict[str, str]) -> float:
    """Seconds of the command, imports included."""
    command = [
        sys.executable,
        str(runs.ROOT / "federatedscope" / "main.py"),
        "--cfg",
        str(runs.YAML),
    ]
    command += [] if options.model else ["--embedded"]
    rounds = ["federate.total_round_num", options.rounds, "eval.freq", 1]
    with tempfile.TemporaryDirectory(prefix="bench_") as folder:
        command += ["--quiet", "--outdir", folder, *settings(options, options.clients, rounds)]
        start = time.perf_counter()
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - start


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """So many processes that compute without end beside this one."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def environment_of(variant: str, threads: int) -> dict[str, str]:
    """The environment of a variant; ``threads`` are "all cores", 0: those that are there."""
    inherited = {name: text for name, text in os.environ.items() if name not in READ}
    wanted = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    return {**inherited, **wanted, **VARIANTS[variant]}


def measure(options: argparse.Namespace, what: str) -> list[dict[str, Any]]:
    """Seconds of every variant, quiet and busy: one process each, in turn, over and over."""
    work = {"a step": step, "a run": whole_run}[what]
    conditions = {"quiet": 0, f"beside {options.loops} busy loops": options.loops}
    results = [
        {"what": what, "machine": name, "loops": loops, "seconds": {v: [] for v in VARIANTS}}
        for name, loops in conditions.items()
    ]
    if what == "a run":
        say("a run that is not counted: it fills the caches")
        work(options, environment_of(DEFAULT, options.threads))
    for repeat in range(options.repeats):
        for row in results:
            for variant in VARIANTS:
                say(f"{what}, {row['machine']}, {variant}, {repeat + 1} of {options.repeats}")
                with busy(row["loops"]):
                    seconds = work(options, environment_of(variant, options.threads))
                row["seconds"][variant].append(seconds)
    return results


def shown(options: argparse.Namespace, results: list[dict[str, Any]], load: float) -> Any:
    """The table; ``load`` is what others did on the machine at the start."""
    from federatedscope.core.machine import available_cores

    threads = options.threads or available_cores()
    title = (
        f"Median seconds of {options.repeats} processes and, in brackets, times those of "
        f"'{DEFAULT}' (median over pairs); all cores: {threads} threads; load average before: "
        f"{load:.1f}"
    )
    table = runs.table(title, ("what", "machine"), tuple(VARIANTS))
    for row in results:
        table.add_row(row["what"], row["machine"], *(_cell(row["seconds"], v) for v in VARIANTS))
    return table


def _cell(seconds: dict[str, list[float]], variant: str) -> str:
    ratios = [a / b for a, b in zip(seconds[variant], seconds[DEFAULT], strict=True)]
    return f"{statistics.median(seconds[variant]):.2f} ({statistics.median(ratios):.2f})"


def main() -> int:
    """Read the options, measure, print."""
    if runs.is_child(child):
        return 0
    parser = runs.parser_of(
        __doc__,
        repeats=(5, "processes of each variant"),
        loops=(2, "busy loops of the busy machine"),
        tokens=(64, "of a row of a step"),
        steps=(10, "of a process"),
        clients=(3, "of the run"),
        rounds=(3, "of the run"),
    )
    parser.add_argument("--run", action="store_true", help="also a whole run of the command")
    options = parser.parse_args()
    runs.check_run_options(parser, options)
    if options.device != "cpu" or options.half:
        parser.error("--device, --half: this is about the CPU's threads")
    if min(options.repeats, options.loops, options.steps) < 1:
        parser.error("--repeats, --loops, --steps: at least 1")
    load = os.getloadavg()[0]
    results = measure(options, "a step")
    results += measure(options, "a run") if options.run else []
    table = shown(options, results, load)
    runs.show_and_write(table, options, {"load": load, "results": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What the benchmarks have in common: a run as the command builds it, child processes, numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
YAML = ROOT / "yamls" / "minilm.yaml"
sys.path.insert(0, str(ROOT))

# A child process prints its result as one line of JSON behind this mark.
RESULT = "RESULT "


def add_run_options(parser: ArgumentParser) -> None:
    """Options that decide what is run."""
    add = parser.add_argument
    add("--model", metavar="DIR", help="Hugging Face folder; the built-in miniature without it")
    add("--data", metavar="ROOT", help="data.root with glue/TASK/*.parquet; needs --model")
    add("--task", default="sst2", help="GLUE task (default: %(default)s)")
    add("--method", default="fedsa", help="fedsa, fedavg or ffa (default: %(default)s)")
    add("--batch", type=int, default=16, help="rows per step (default: %(default)s)")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    add("--half", action="store_true", help="train.is_enable_half")
    add("--threads", type=int, default=0, help="of PyTorch; all cores without it")
    add("--seed", type=int, default=0, help="default: %(default)s")
    add("--json", metavar="FILE", help="also write the figures there")


def check_run_options(parser: ArgumentParser, options: Namespace) -> None:
    """End with a message where the options do not fit together."""
    from importlib.util import find_spec

    if options.data and not options.model:
        parser.error("--data needs --model: the miniature brings its own rows")
    if options.model and not Path(options.model).is_dir():
        parser.error(f"--model {options.model}: no such folder")
    if options.model and not options.data:
        parser.error("--model needs --data: a folder with glue/TASK/*.parquet")
    if not options.model and find_spec("federatedscope_ext.tools.embedded.preset") is None:
        parser.error("the built-in miniature is not there; give --model DIR and --data ROOT")


def settings(options: Namespace, clients: int, extra: Sequence[object] = ()) -> list[str]:
    """``[key, value, ...]`` of a run with these options, as on the command line."""
    opts: list[object] = ["seed", options.seed]
    opts += ["federate.method", options.method, "federate.client_num", clients]
    opts += ["data.type", f"{options.task}@glue", "dataloader.batch_size", options.batch]
    opts += ["use_gpu", options.device == "cuda", "train.is_enable_half", options.half]
    if options.model:
        opts += ["model.type", f"{options.model}@huggingface_llm", "data.root", options.data]
    return [str(value) for value in (*opts, *extra)]


@contextmanager
def prepared_run(options: Namespace, opts: Sequence[str]) -> Iterator[Any]:
    """A configuration merged, checked and prepared in a temporary run folder, with its log file: a
    :class:`federatedscope.core.launch.Prepared`.
    """
    from federatedscope.core.cmd_args import CommandLine
    from federatedscope.core.configs.loading import build_config, check_run
    from federatedscope.core.launch import place_outputs, prepare
    from federatedscope.core.logging_setup import (
        log_to_folder,
        setup_console,
        stop_logging_to_folder,
    )

    setup_console(quiet=True)
    presets = [] if options.model else ["embedded"]
    with tempfile.TemporaryDirectory(prefix="bench_") as folder:
        line = CommandLine(cfg_file=str(YAML), outdir=folder, opts=list(opts), presets=presets)
        run = build_config(line)
        check_run(run)
        handler = log_to_folder(Path(folder))
        try:
            prepared = prepare(run)
            place_outputs(prepared, Path(folder))
            yield prepared
        finally:
            stop_logging_to_folder(handler)


def is_child(child: Callable[[dict[str, Any]], None]) -> bool:
    """Whether this process is one of :func:`in_child`; then ``child`` has done its job."""
    if len(sys.argv) != 3 or sys.argv[1] != "--child":
        return False
    child(json.loads(sys.argv[2]))
    return True


def parser_of(doc: str | None, **numbers: tuple[Any, str]) -> ArgumentParser:
    """A parser with the options of a run, and ``--NAME`` for each ``(default, help)``."""
    parser = ArgumentParser(description=(doc or "").split("\n")[0])
    add_run_options(parser)
    for name, (default, text) in numbers.items():
        several = isinstance(default, list)
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(default[0] if several else default),
            nargs="+" if several else None,
            default=default,
            help=f"{text} (default: {' '.join(map(str, default)) if several else default})",
        )
    return parser


def table(title: str, left: Sequence[str], right: Sequence[str]) -> Any:
    """An empty table with columns of words and columns of numbers."""
    from rich.table import Table

    made = Table(title=title, title_justify="left", caption_justify="left")
    for column in (*left, *right):
        made.add_column(column, justify="left" if column in left else "right")
    return made


def show_and_write(shown: Any, options: Namespace, figures: Mapping[str, Any]) -> None:
    """Print a table; write ``--json`` where it is asked for."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 150).print(shown, highlight=False)
    if options.json:
        text = json.dumps({"options": vars(options), **figures}, indent=1)
        Path(options.json).write_text(text + "\n", encoding="utf-8")


def in_child(
    script: str, job: dict[str, Any], threads: int, environ: Mapping[str, str] = os.environ
) -> dict[str, Any]:
    """Run ``script --child JOB`` in a process of its own and read its result.

    Where it failed, its output has been shown and this is a :class:`RuntimeError`.
    """
    environment = dict(environ)
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    done = subprocess.run(
        [sys.executable, script, "--child", json.dumps(job)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(RESULT)]
    if done.returncode or not lines:
        raise RuntimeError(f"{Path(script).name} failed for {job} (see above)")
    result: dict[str, Any] = json.loads(lines[-1][len(RESULT) :])
    return result


def hand_back(result: dict[str, Any]) -> None:
    """Print a child's result for :func:`in_child`."""
    print(RESULT + json.dumps(result), flush=True)


def say(what: str) -> None:
    """Tell on standard error what is measured now."""
    print(f"{what} ...", file=sys.stderr, flush=True)


def resident_bytes() -> int:
    """Resident size of this process now (its peak where the system does not tell)."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        from federatedscope.core.machine import peak_memory_bytes

        return peak_memory_bytes()


def mib(count: float | None) -> str:
    """``12.3`` of bytes, in MiB."""
    return "-" if count is None else f"{count / 2**20:,.1f}"

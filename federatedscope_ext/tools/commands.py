"""``python -m federatedscope_ext``: what is there to choose, and what came of it.

Each command is a function that takes the parsed arguments and returns the exit status; a new one
is such a function and its parser in :func:`build_parser`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from federatedscope_ext import end_at_once
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.tools.catalog import CATALOG, print_section

PROG = "python -m federatedscope_ext"
USER_ERROR = 2
INTERRUPTED = 130
PIPED_WIDTH = 160


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; default those of the process.

    Returns
    -------
    int
        0, 2 for a mistake of the user (told in one paragraph on standard error), 130 for Ctrl-C;
        of ``sweep`` also 1.
    """
    try:
        if signal.getsignal(signal.SIGINT) is end_at_once:
            # From here on it is an exception again: a command may have something to end well.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        arguments = build_parser().parse_args(argv)
        status: int = arguments.run(arguments)
    except BrokenPipeError:
        # The reader (head, less) has gone; there is nobody to tell, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        # Anything else is a bug and deserves its traceback.
        if not getattr(error, "is_user_error", False) and not isinstance(error, OSError):
            raise
        print(f"{PROG}: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=PROG,
        description="Look at runs and at what can be run. A run itself is started with: "
        "python federatedscope/main.py --cfg FILE",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_compare(commands)
    _add_report(commands)
    _add_list(commands)
    _add_sweep(commands)
    return parser


def _add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "compare",
        help="several runs side by side, seeds as mean and spread",
        description="Put runs side by side. Runs that differ only in their seed are one line: "
        "mean and sample standard deviation over seeds.",
        epilog=f"Example: {PROG} compare exp/ --ignore data_seed --format markdown",
    )
    parser.add_argument("outdirs", nargs="+", type=Path, metavar="OUTDIR",
                        help="a run folder, or a folder with runs somewhere below it")  # fmt: skip
    parser.add_argument("--metric", help="metric to compare by, such as val_acc (default: the "
                        "runs' own main metric); it also chooses the best round")  # fmt: skip
    parser.add_argument("--by", type=_names, default=[], metavar="FIELD,...",
                        help="group by these fields only, as in method,head_rule")  # fmt: skip
    parser.add_argument("--ignore", type=_names, default=[], metavar="FIELD,...",
                        help="fields that do not separate groups, as in data_seed")  # fmt: skip
    parser.add_argument("--clients", action="store_true", help="also a table per client")
    parser.add_argument("--client", type=int, metavar="ID", help="also a table of this client by "
                        "round, before (eval.phases) and after aggregation")  # fmt: skip
    parser.add_argument("--format", choices=("table", "markdown", "csv"), default="table",
                        help="form of what is printed (default: table); csv with --clients or "
                        "--client prints that table only")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR",
                        help="also write compare.html, compare.csv and compare.png")  # fmt: skip
    parser.set_defaults(run=run_compare)


def _add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "report",
        help="make the report of a run again",
        description="Write metrics.csv, curves/*.png and report.html of a run folder again, also "
        "of a run that is still going or was interrupted.",
    )
    parser.add_argument("outdirs", nargs="+", type=Path, metavar="OUTDIR", help="a run folder")
    parser.set_defaults(run=run_report)


def _add_list(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "list",
        help="methods, tasks, models, splitters, metrics",
        description="What can be chosen, a line each, and the yaml key that chooses it.",
    )
    names = [section.name for section in CATALOG]
    parser.add_argument("sections", nargs="*", metavar="WHAT", help=f"{', '.join(names)} "
                        "(default: all)")  # fmt: skip
    parser.add_argument("--import", dest="modules", action="append", default=[], metavar="MODULE",
                        help="import this module first, to list what it registers")  # fmt: skip
    parser.set_defaults(run=run_list)


def _add_sweep(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    # Its words are those of the runtime's command line, flags of presets and pairs in any order,
    # which argparse cannot read. With a prefix that no word has, it hands all of them on.
    parser = commands.add_parser(
        "sweep", help="run a grid of settings, then compare", add_help=False, prefix_chars="\0"
    )
    parser.add_argument("words", nargs="*")
    parser.set_defaults(run=run_sweep)


def run_compare(arguments: argparse.Namespace) -> int:
    """``compare``."""
    from federatedscope_ext.tools.report.compare import check_client, compare, load_runs
    from federatedscope_ext.tools.report.compare_tables import (
        compare_csv,
        compare_markdown,
        print_comparison,
    )
    from federatedscope_ext.tools.report.files import check_writable

    if arguments.out is not None:
        check_writable(arguments.out, "--out")
    runs = load_runs(arguments.outdirs, arguments.metric)
    comparison = compare(runs, arguments.by, arguments.ignore)
    if arguments.client is not None:
        check_client(comparison, arguments.client)
    tables = {"clients": arguments.clients, "client": arguments.client}
    if arguments.format == "table":
        print_comparison(comparison, _console(), **tables)
    else:
        text = compare_markdown if arguments.format == "markdown" else compare_csv
        print(text(comparison, **tables), end="")
    if arguments.format == "csv":
        for note in comparison.notes:
            print(f"Note: {note}", file=sys.stderr)
    if arguments.out is not None:
        from federatedscope_ext.tools.report.compare_page import write_comparison

        for path in write_comparison(comparison, arguments.out):
            print(f"Wrote {path}", file=sys.stderr)
    return 0


def run_report(arguments: argparse.Namespace) -> int:
    """``report``."""
    from federatedscope_ext.tools.report import RunRecord, RunSummary, make_report, print_summary
    from federatedscope_ext.tools.report.files import check_writable
    from federatedscope_ext.tools.report.records import find_runs

    console = _console()
    for outdir in arguments.outdirs:
        record = RunRecord.load(outdir)
        check_writable(outdir, "OUTDIR")
        print_summary(RunSummary(record), console)
        for path in make_report(record):
            print(f"Wrote {path}", file=sys.stderr)
        for path in find_runs(outdir)[1:]:
            print(f"Another run is inside, this report is not about it: {path}", file=sys.stderr)
    return 0


def run_list(arguments: argparse.Namespace) -> int:
    """``list``."""
    known = {section.name: section for section in CATALOG}
    for name in arguments.sections:
        if name not in known:
            raise ExtensionError(
                "list", name, "there is no such list", f"Write one of {', '.join(known)}"
            )
    for module in arguments.modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ExtensionError(
                "--import", module, f"it cannot be imported ({error})",
                "Give a module on the Python path, such as federatedscope.contrib.model.mine",
            ) from error  # fmt: skip
    console = _console()
    for name in arguments.sections or known:
        print_section(known[name], console)
    return 0


def run_sweep(arguments: argparse.Namespace) -> int:
    """``sweep``."""
    from federatedscope_ext.tools.sweep.command import sweep

    return sweep(arguments.words, f"{PROG} sweep", _console())


def _console() -> Console:
    """Standard output, as wide as the terminal; wide enough for tables where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=PIPED_WIDTH)


def _names(text: str) -> list[str]:
    """A comma-separated list of field names."""
    return [name.strip() for name in text.split(",") if name.strip()]

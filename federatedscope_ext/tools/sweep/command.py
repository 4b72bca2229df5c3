"""The command, in the order in which a reader expects it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from federatedscope.core.errors import UserError
from federatedscope.core.machine import available_cores
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.tools.report.compare import compare, load_runs
from federatedscope_ext.tools.report.compare_page import write_comparison
from federatedscope_ext.tools.report.compare_tables import print_comparison
from federatedscope_ext.tools.report.files import check_writable
from federatedscope_ext.tools.sweep.arguments import Settings, parse_tokens
from federatedscope_ext.tools.sweep.check import check_points
from federatedscope_ext.tools.sweep.display import counts_line, show_failures, watcher
from federatedscope_ext.tools.sweep.jobs import Stop, run_points, stop_on_signals
from federatedscope_ext.tools.sweep.plan import Found, Point, Status, make_points
from federatedscope_ext.tools.sweep.record import SWEEP_FILE, only_one, recorder
from federatedscope_ext.tools.sweep.slots import Slots, choose_slots, visible_gpus, wished_threads

__all__ = ["sweep"]

EXIT_OK, EXIT_FAILED, EXIT_INTERRUPTED = 0, 1, 130
_TODO = {
    Found.NOTHING: "run",
    Found.UNFINISHED: "run again; what is there goes to unfinished/",
    Found.FINISHED: "skip: finished",
}


def sweep(tokens: Sequence[str], prog: str, output: Console) -> int:
    """Run the command whose words ``tokens`` are; the help calls it ``prog``.

    ``output`` gets the plan and the comparison; how it goes is told on standard error.

    Returns
    -------
    int
        0: every point is finished; 1: some failed, or there is no comparison; 130: interrupted.

    Raises
    ------
    UserError, ExtensionError
        The command, or the configuration of a point, is wrong; nothing was started.
    """
    settings = parse_tokens(tokens, prog)
    check_writable(settings.outdir, "--outdir")
    points = make_points(settings)
    # Of its own: what is printed while points are checked is dropped.
    console = Console(file=sys.stderr)
    if settings.dry_run:
        _prepare(points, settings, console)
        _show_plan(points, output)
        return EXIT_OK
    with only_one(settings.outdir):
        slots = _prepare(points, settings, console)
        record = recorder(settings, [*prog.split(), *tokens], points, slots)
        interrupted = _run(points, slots, record, console)
        compared = interrupted or _compare(points, settings, console, output)
    show_failures(points, console)
    console.print(Text(f"{counts_line(points)}; {settings.outdir / SWEEP_FILE}"), soft_wrap=True)
    if interrupted:
        console.print("Interrupted. The same command goes on from here.")
        return EXIT_INTERRUPTED
    failed = any(point.status is Status.FAILED for point in points)
    return EXIT_FAILED if failed or not compared else EXIT_OK


def _prepare(points: list[Point], settings: Settings, console: Console) -> Slots:
    """Check everything; choose where to run what is left."""
    text = f"Checking {len(points)} point(s) ..."
    with console.status(text) as status:
        if not console.is_terminal:
            console.print(text)
        check_points(
            points, settings.metric,
            lambda done: status.update(f"Checking points: {done} of {len(points)} ..."),
        )  # fmt: skip
    left = _left(points)
    gpus: tuple[str, ...] = ()
    if any(point.config.get("use_gpu") not in (False, None) for point in left):
        gpus = visible_gpus(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    slots = choose_slots(len(left), available_cores(), gpus, settings.jobs, wished_threads())
    if gpus:
        _fit_to_one_gpu(left)
    skipped = len(points) - len(left)
    again = sum(point.found is Found.UNFINISHED for point in left)
    notes = [f"{skipped} finished already"] if skipped else []
    notes += [f"{again} started again"] if again else []
    told = f" ({', '.join(notes)})" if notes else ""
    where = f"; {slots}" if left else ""
    text = f"{len(points)} point(s){told}{where}; in {settings.outdir}"
    console.print(Text(text), soft_wrap=True)
    return slots


def _left(points: Sequence[Point]) -> list[Point]:
    """The points that are not finished yet."""
    return [point for point in points if not point.skipped]


def _fit_to_one_gpu(points: Sequence[Point]) -> None:
    """Let a configuration that names the second GPU use the one that its process will see."""
    for point in points:
        for key in ("device", "eval_device"):
            if int(point.config.get(key, -1)) > 0:
                point.arguments += [key, "0"]


def _show_plan(points: Sequence[Point], output: Console) -> None:
    """What would be done, point by point."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("point", style="bold")
    table.add_column("what would be done")
    for point in points:
        table.add_row(Text(point.name), _TODO[point.found])
    output.print(table)
    left = _left(points)
    if left:
        output.print("\ncommands:")
    for point in left:
        output.print(Text(point.shown_command), soft_wrap=True)


def _run(points: list[Point], slots: Slots, record: Callable[..., None], console: Console) -> bool:
    """Run what is not finished; returns whether the user stopped it."""
    record()
    stop = Stop()
    with stop_on_signals(stop), watcher(points, console) as display:
        run_points(_left(points), slots, display, stop, record)
        counts = Counter(point.status for point in points)
        status = "failed" if counts[Status.FAILED] else "finished"
        interrupted = counts[Status.QUEUED] + counts[Status.INTERRUPTED] > 0
        record("interrupted" if interrupted else status)
    return interrupted


def _compare(
    points: Sequence[Point], settings: Settings, console: Console, output: Console
) -> bool:
    """Print and write the comparison of what is finished; false where that cannot be."""
    folders = [point.folder for point in points if point.status is Status.FINISHED]
    if not folders:
        return True
    try:
        comparison = compare(load_runs(folders, settings.metric))
    except (ExtensionError, UserError) as error:
        # The runs are done; `compare` on this folder does the rest.
        console.print(Text(f"No comparison: {error}", style="red"), soft_wrap=True)
        return False
    print_comparison(comparison, output)
    for path in write_comparison(comparison, settings.outdir):
        console.print(Text(f"Wrote {path}"), soft_wrap=True)
    return True

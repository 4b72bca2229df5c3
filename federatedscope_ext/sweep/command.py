"""The command, in the order in which a reader expects it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.sweep.arguments import Settings, parse_tokens
from federatedscope_ext.sweep.check import Checker
from federatedscope_ext.sweep.display import Lines, LiveTable, counts_line, show_failures, watcher
from federatedscope_ext.sweep.jobs import Job, Stop, run_points, stop_on_signals
from federatedscope_ext.sweep.plan import Found, Point, Status, make_points
from federatedscope_ext.sweep.preparation import check_points, fit_to_one_gpu, wants_gpu
from federatedscope_ext.sweep.record import Record, only_one
from federatedscope_ext.sweep.slots import (
    Slots,
    choose_slots,
    usable_cores,
    visible_gpus,
    wished_threads,
)
from federatedscope_ext.tools.report.files import check_writable

__all__ = ["sweep"]

EXIT_OK, EXIT_FAILED, EXIT_INTERRUPTED = 0, 1, 130
_PIPED_WIDTH = 160


def sweep(tokens: Sequence[str], prog: str) -> int:
    """Run the command; returns the exit status.

    Parameters
    ----------
    tokens : sequence of str
        The words behind ``sweep``.
    prog : str
        What the help calls the command.

    Returns
    -------
    int
        0: every point is finished; 1: some failed, or there is no comparison; 130: interrupted.

    Raises
    ------
    SweepError, ExtensionError
        The command, or the configuration of a point, is wrong; nothing was started.
    """
    settings = parse_tokens(tokens, prog)
    check_writable(settings.outdir, "--outdir")
    points = make_points(settings)
    console = Console(stderr=True)
    if settings.dry_run:
        _prepare(points, settings, console)
        _show_plan(points)
        return EXIT_OK
    with only_one(settings.outdir):
        slots = _prepare(points, settings, console)
        record = Record(settings, [*prog.split(), *tokens], points, slots)
        interrupted = _run(points, slots, record, console)
        return _conclude(points, settings, record, console, interrupted)


def _prepare(points: list[Point], settings: Settings, console: Console) -> Slots:
    """Check everything; choose where to run what is left."""
    text = f"Checking {len(points)} point(s) ..."
    with Checker() as checker, console.status(text) as status:
        if not console.is_terminal:
            console.print(text)
        check_points(
            points, settings, checker,
            lambda done: status.update(f"Checking points: {done} of {len(points)} ..."),
        )  # fmt: skip
        left = [point for point in points if not point.skipped]
        gpus = visible_gpus(checker.devices()) if wants_gpu(left) else ()
    slots = choose_slots(len(left), usable_cores(), gpus, settings.jobs, wished_threads())
    if gpus:
        fit_to_one_gpu(left)
    skipped = len(points) - len(left)
    again = sum(point.found is Found.UNFINISHED for point in left)
    notes = [f"{skipped} finished already"] if skipped else []
    notes += [f"{again} started again"] if again else []
    told = f" ({', '.join(notes)})" if notes else ""
    where = f"; {slots}" if left else ""
    console.print(
        Text(f"{len(points)} point(s){told}{where}; in {settings.outdir}"), soft_wrap=True
    )
    return slots


def _show_plan(points: Sequence[Point]) -> None:
    """What would be done, point by point."""
    console = _output()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("point", style="bold")
    table.add_column("what would be done")
    for point in points:
        todo = {
            Found.NOTHING: "run",
            Found.UNFINISHED: "run again; what is there goes to unfinished/",
            Found.FINISHED: "skip: finished",
        }
        table.add_row(Text(point.name), todo[point.found])
    console.print(table)
    left = [point for point in points if not point.skipped]
    if left:
        console.print("\ncommands:")
    for point in left:
        console.print(Text(point.shown_command), soft_wrap=True)


def _run(points: list[Point], slots: Slots, record: Record, console: Console) -> bool:
    """Run what is not finished; returns whether the user stopped it."""
    left = [point for point in points if not point.skipped]
    record.write()
    stop = Stop()
    with stop_on_signals(stop), watcher(points, console) as display:
        run_points(left, slots, _Recording(display, record), stop)
        counts = Counter(point.status for point in points)
        status = "failed" if counts[Status.FAILED] else "finished"
        interrupted = counts[Status.QUEUED] + counts[Status.INTERRUPTED] > 0
        record.write("interrupted" if interrupted else status)
    return interrupted


class _Recording:
    """Hands on to the display and writes ``sweep.json`` whenever a point changes."""

    def __init__(self, display: LiveTable | Lines, record: Record) -> None:
        self._display, self._record = display, record
        self.tick, self.stopping = display.tick, display.stopping

    def started(self, job: Job) -> None:
        """A point runs."""
        self._record.write()
        self._display.started(job)

    def ended(self, job: Job) -> None:
        """A point has ended."""
        self._record.write()
        self._display.ended(job)


def _conclude(
    points: Sequence[Point], settings: Settings, record: Record, console: Console, interrupted: bool
) -> int:
    """Failures, the comparison of what is finished, and the exit status."""
    finished = [point for point in points if point.status is Status.FINISHED]
    failed = any(point.status is Status.FAILED for point in points)
    if finished and not interrupted:
        failed |= not _compare(finished, settings, console)
    show_failures(points, console)
    console.print(Text(f"{counts_line(points)}; {record.path}"), soft_wrap=True)
    if interrupted:
        console.print("Interrupted. The same command goes on from here.")
        return EXIT_INTERRUPTED
    return EXIT_FAILED if failed else EXIT_OK


def _compare(points: Sequence[Point], settings: Settings, console: Console) -> bool:
    """The comparison, printed and written to the sweep's folder; whether there is one."""
    from federatedscope_ext.tools.report.compare import compare, load_runs
    from federatedscope_ext.tools.report.compare_page import write_comparison
    from federatedscope_ext.tools.report.compare_tables import print_comparison

    try:
        comparison = compare(load_runs([point.folder for point in points], settings.metric))
    except ExtensionError as error:
        # The runs are done; `compare` on this folder does the rest.
        console.print(Text(f"No comparison: {error}", style="red"), soft_wrap=True)
        return False
    print_comparison(comparison, _output())
    for path in write_comparison(comparison, settings.outdir):
        console.print(Text(f"Wrote {path}"), soft_wrap=True)
    return True


def _output() -> Console:
    """Standard output, as wide as the terminal; wide enough for tables where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=_PIPED_WIDTH)

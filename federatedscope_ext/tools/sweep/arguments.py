"""The command line of a sweep: flags, grids, presets and ``section.key value`` pairs in any order.

The pairs and presets are the runtime's own and are handed on to every point, so the runtime reads
them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from federatedscope.core.cmd_args import parse_args
from federatedscope.core.errors import UserError
from federatedscope_ext.tools.sweep.grid import Grid, parse_grid

__all__ = ["Settings", "parse_tokens", "sweep_parser"]

_OWN = ("outdir", "expname", "expname_tag")
_OF_A_SINGLE_RUN = ("--check", "--quiet", "--version", "--local_rank", "--local-rank")

DESCRIPTION = """\
Run a grid of settings, several runs at a time, and compare them.

Every point of the grid is a run of its own (python federatedscope/main.py ...) in the folder
DIR/NAME, where NAME says its values. All points are checked before the first one starts. What is
finished already is skipped, so the same command, given again, continues an interrupted sweep; what
a stopped or failed run left is moved to DIR/unfinished when it is run again. Ctrl-C stops the runs,
and they write their reports; a second Ctrl-C ends them at once. A point that fails does not stop
the others.
"""
EXAMPLES = """\
values:
  Commas separate values, except within brackets and quotes. A value with brackets, blanks or quotes
  needs quotes of the shell around it. Several --grid are united.

examples:
  two methods, three seeds, on the built-in miniature
    {prog} --cfg yamls/minilm.yaml --embedded \\
      --grid federate.method=fedavg,fedsa seed=0,1,2 --outdir exp/two_methods
  lists as values, and settings that are the same for all points
    {prog} --cfg FILE \\
      --grid 'llm.adapter.client_ranks=[4,8,16],[16,16,16]' seed=0,1 \\
      federate.total_round_num 20 train.optimizer.lr 0.01
  two grids: every head rule for fedsa and fedavg, one of them for local
    {prog} --cfg FILE \\
      --grid federate.method=fedsa,fedavg personalization.head=local,shared \\
      --grid federate.method=local personalization.head=local
  look first
    {prog} --cfg FILE --grid seed=0,1,2 --dry-run

files in DIR:
  NAME/               a run as always, and console.log with what it printed
  sweep.json          grid, points, status, seconds, commands
  compare.html, .csv, .png   the finished points, runs that differ only in their seed as one line
  unfinished/         what interrupted and failed runs left when they were started again

exit status: 0 all points finished, 1 some failed or could not be compared, 2 the command or a
point's configuration is wrong (nothing was started), 130 interrupted
"""


class Settings(argparse.Namespace):
    """What the command line asks for: its own flags, and what is handed on.

    Attributes
    ----------
    grids : list of Grid
        At least one.
    pairs : list of (str, str)
        Settings that all points share.
    presets : list of str
        Flags for the runtime, as ``--embedded``.
    """

    cfg: str
    client_cfg: str
    outdir: Path
    jobs: int | None
    metric: str | None
    dry_run: bool
    embedded: bool
    grids: list[Grid]
    pairs: list[tuple[str, str]]
    presets: list[str]


def sweep_parser(prog: str) -> argparse.ArgumentParser:
    """The flags and the help."""
    parser = argparse.ArgumentParser(
        prog=prog,
        usage="%(prog)s --cfg FILE --grid KEY=VALUE,... [flags] [key value ...]",
        description=DESCRIPTION,
        epilog=EXAMPLES.format(prog=prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--cfg", required=True, metavar="FILE", help="yaml file of the runs")
    add("--grid", metavar="KEY=VALUE,...", help="keys and their values, all combinations; may be "
        "given several times")  # fmt: skip
    add("--client_cfg", metavar="FILE", default="", help="yaml with client_N: settings")
    add("--outdir", type=Path, metavar="DIR", help="the sweep's folder (default: exp/sweep_NAME "
        "with the name of the yaml file)")  # fmt: skip
    add("--jobs", type=_positive, metavar="N", help="runs at a time (default: one per GPU, each "
        "with its own; without GPUs one per two cores)")  # fmt: skip
    add("--metric", help="metric to compare by, such as val_acc (default: the runs' own)")
    add("--dry-run", action="store_true", help="check every point, show what would run, and end")
    add("--embedded", action="store_true", help="on the built-in miniature; this and every other "
        "flag is handed to the runs")  # fmt: skip
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def parse_tokens(tokens: Sequence[str], prog: str) -> Settings:
    """Read the words behind ``sweep``.

    Raises
    ------
    UserError
        A grid, a pair or a flag that cannot be, with what to write.
    SystemExit
        ``--help``, or a flag's value is missing or wrong (as of any command).
    """
    grids, words = _take_grids(tokens)
    settings, rest = sweep_parser(prog).parse_known_args(words, Settings())
    for name in (word.partition("=")[0] for word in rest):
        if name in _OF_A_SINGLE_RUN:
            raise UserError(
                f"{name}: a flag of a single run. A sweep checks every point before it starts; "
                "--dry-run ends after that"
            )
    runs = parse_args([*rest, *["--embedded"] * settings.embedded])
    if not grids:
        raise UserError("--grid is missing. Write for example --grid seed=0,1,2")
    opts = [*runs.opts, *runs.client_opts]
    settings.grids = grids
    settings.pairs = list(zip(opts[::2], opts[1::2], strict=True))
    settings.presets = [f"--{name}" for name in dict.fromkeys(runs.presets)]
    settings.outdir = settings.outdir or Path("exp") / f"sweep_{Path(settings.cfg).stem}"
    _check_keys(settings)
    return settings


def _take_grids(tokens: Sequence[str]) -> tuple[list[Grid], list[str]]:
    """The grids, each of all the ``KEY=VALUE`` behind a ``--grid``; and the other words."""
    grids, others, words = [], [], list(tokens)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if name != "--grid":
            others.append(word)
            continue
        axes = [value] if equals else []
        while words and "=" in words[0] and not words[0].startswith("--"):
            axes.append(words.pop(0))
        # Where none follows, the next word is refused; that says what a grid looks like.
        grids.append(parse_grid(axes or words[:1]))
    return grids, others


def _check_keys(settings: Settings) -> None:
    """Keys that the sweep sets itself, and keys that are fixed and varied at once."""
    fixed = dict(settings.pairs)
    varied = [key for grid in settings.grids for key in grid]
    for key in [*fixed, *varied]:
        if key in _OWN:
            raise UserError(
                f"{key}: a sweep names the folders of its runs itself. Give the folder of them "
                "all with --outdir DIR"
            )
        if key in fixed and key in varied:
            raise UserError(
                f"{key} is in the grid and among the settings of all points ({fixed[key]}). "
                "Leave it out of one"
            )

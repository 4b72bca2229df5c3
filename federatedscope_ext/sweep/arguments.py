"""The command line of a sweep: flags, grids, presets and ``section.key value`` pairs in any order.

The pairs and presets are the runtime's own and are handed on to every point, so they are read the
way the runtime reads them.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from federatedscope_ext.sweep.errors import SweepError
from federatedscope_ext.sweep.grid import Grid, parse_grid

__all__ = ["Settings", "parse_tokens", "sweep_parser"]

_KEY = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
_OWN = ("outdir", "expname", "expname_tag")
_TAKES_VALUE = ("--cfg", "--client_cfg", "--outdir", "--jobs", "--metric")
_PLAIN = ("--dry-run", "--help")
_OF_THE_RUNTIME = ("--check", "--quiet", "--version", "--local_rank", "--local-rank")

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


@dataclass(frozen=True)
class Settings:
    """What the command line asks for.

    Attributes
    ----------
    cfg, client_cfg : str
        Files, as written; ``client_cfg`` may be empty.
    outdir : Path
        The sweep's folder.
    grids : list of Grid
        At least one.
    pairs : list of (str, str)
        Settings that all points share.
    presets : list of str
        Flags for the runtime, as ``--embedded``.
    jobs : int or None
        Runs at a time; ``None`` chooses.
    dry_run : bool
        Check and show, run nothing.
    metric : str or None
        What the comparison is by; ``None`` is the runs' own main metric.
    """

    cfg: str
    outdir: Path
    grids: list[Grid]
    client_cfg: str = ""
    pairs: list[tuple[str, str]] = field(default_factory=list)
    presets: list[str] = field(default_factory=list)
    jobs: int | None = None
    dry_run: bool = False
    metric: str | None = None


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
    SweepError
        A grid, a pair or a flag that cannot be, with what to write.
    SystemExit
        ``--help``, or a flag's value is missing or wrong (as of any command).
    """
    words = _Words()
    rest = list(tokens)
    while rest:
        words.take(rest.pop(0), rest)
    known = sweep_parser(prog).parse_args(words.flags)
    if not words.grids:
        raise SweepError("--grid is missing. Write for example --grid seed=0,1,2")
    grids = [parse_grid(axes) for axes in words.grids]
    _check_keys(grids, words.pairs)
    return Settings(
        cfg=known.cfg,
        client_cfg=known.client_cfg,
        outdir=known.outdir or Path("exp") / f"sweep_{Path(known.cfg).stem}",
        grids=grids,
        pairs=words.pairs,
        presets=list(dict.fromkeys(words.presets)),
        jobs=known.jobs,
        dry_run=known.dry_run,
        metric=known.metric,
    )


class _Words:
    """The words of the command line by their kind."""

    def __init__(self) -> None:
        self.flags: list[str] = []
        self.grids: list[list[str]] = []
        self.presets: list[str] = []
        self.pairs: list[tuple[str, str]] = []

    def take(self, word: str, rest: list[str]) -> None:
        """Sort in one word, and those of ``rest`` that belong to it."""
        if not _is_flag(word):
            self._take_pair(word, rest)
            return
        name, equals, value = word.partition("=")
        if name == "--grid":
            axes = [value] if equals else []
            while rest and not _is_flag(rest[0]) and "=" in rest[0]:
                axes.append(rest.pop(0))
            if not axes:
                parse_grid(rest[:1])  # raises; it says what a grid looks like
            self.grids.append(axes)
        elif name in _TAKES_VALUE:
            self.flags.append(word)
            if not equals and rest and not _is_flag(rest[0]):
                self.flags.append(rest.pop(0))
        elif name in _PLAIN or word == "-h":
            self.flags.append(word)
        elif name in _OF_THE_RUNTIME:
            raise SweepError(f"{name}: a flag of a single run. A sweep checks every point before "
                             "it starts; --dry-run ends after that")  # fmt: skip
        elif equals or "." in name:
            raise SweepError(f"{word}: keys are written without dashes: {word[2:]}")
        else:
            self.presets.append(name)

    def _take_pair(self, word: str, rest: list[str]) -> None:
        key, equals, value = word.partition("=")
        if not _KEY.fullmatch(key):
            raise SweepError(
                f"{word!r} is neither a flag nor the name of a key. Settings are pairs such as "
                "'train.optimizer.lr 0.01'; a value with blanks or brackets needs quotes around it"
            )
        if not equals:
            if not rest or _is_flag(rest[0]):
                raise SweepError(f"{key} has no value. Write: {key} VALUE")
            value = rest.pop(0)
        self.pairs.append((key, value))


def _is_flag(word: str) -> bool:
    """``--word`` or ``-h``; a negative number is not one."""
    return word == "-h" or (word.startswith("--") and word[2:3].isalpha())


def _check_keys(grids: Sequence[Grid], pairs: Sequence[tuple[str, str]]) -> None:
    """Keys that the sweep sets itself, and keys that are fixed and varied at once."""
    fixed = dict(pairs)
    for key in [*fixed, *(key for grid in grids for key in grid)]:
        if key in _OWN:
            raise SweepError(f"{key}: a sweep names the folders of its runs itself. Give the "
                             "folder of them all with --outdir DIR")  # fmt: skip
    for grid in grids:
        for key in grid:
            if key in fixed:
                raise SweepError(f"{key} is in the grid and among the settings of all points "
                                 f"({fixed[key]}). Leave it out of one")  # fmt: skip

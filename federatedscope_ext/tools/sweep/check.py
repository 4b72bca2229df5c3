"""Before anything starts: is every point one that runs, and what is left to do?

The configuration of every point is merged and checked as its run will do it. Data and model are
looked at once for points that differ only in their seed, and not for those that are finished.
"""

from __future__ import annotations

import contextlib
import io
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from federatedscope import register
from federatedscope.core.auxiliaries.metric_builder import get_metric
from federatedscope.core.cmd_args import parse_args
from federatedscope.core.configs.loading import build_config, check_run, client_config
from federatedscope.core.errors import UserError, is_user_error
from federatedscope.core.launch import prepare
from federatedscope.core.logging_setup import quiet_libraries
from federatedscope.core.monitors.metric_calculator import DEFAULT_METRICS
from federatedscope_ext.tools.catalog import is_own
from federatedscope_ext.tools.report.records import RunRecord
from federatedscope_ext.tools.report.summary import RunSummary
from federatedscope_ext.tools.sweep.differences import config_differences, merged_settings
from federatedscope_ext.tools.sweep.plan import Found, Point, Status, found_in, saved_run

__all__ = ["Verdict", "check_points", "examine", "figures_of", "is_among"]

CONFIG_FILE, CLIENT_CONFIG_FILE = "config.yaml", "client_config.yaml"
_MOST_SHOWN, _MOST_DIFFERENCES = 8, 10


@dataclass(frozen=True)
class Verdict:
    """What the runtime says about one configuration."""

    error: str = ""  # why it does not run
    config: dict[str, Any] | None = None  # see `merged_settings`; None where it is refused
    figures: list[str] = field(default_factory=list)  # once data and model were looked at


def examine(arguments: Sequence[str], full: bool) -> Verdict:
    """Merge and check what a run's arguments say; what is printed on the way is dropped.

    ``full`` also reads data and the model's shapes, as ``--check`` does.
    """
    config, figures = None, []
    quiet_libraries()
    dropped = io.StringIO()
    try:
        with contextlib.redirect_stdout(dropped), contextlib.redirect_stderr(dropped):
            settings = build_config(parse_args(arguments))
            check_run(settings)
            config = merged_settings(settings)
            if full:
                cfg, clients = prepare(settings).cfg, settings.client_cfgs
                numbers = [int(name.partition("_")[2]) for name in clients or ()]
                figures = figures_of([cfg, *(client_config(cfg, clients, k) for k in numbers)])
    except Exception as error:  # noqa: BLE001 - whatever fails is this point's result
        return Verdict(_told(error), config)
    return Verdict("", config, figures)


def _told(error: Exception) -> str:
    if is_user_error(error):
        return str(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({where.filename}, line {where.lineno})"


def check_points(
    points: Sequence[Point],
    metric: str | None = None,
    tell: Callable[[int], object] = lambda done: None,
) -> None:
    """Check every point and set what is known then; ``tell`` hears how many have been checked.

    Raises
    ------
    UserError
        Points that do not run, or whose folder holds another finished run, each with the reason;
        or a metric to compare by that no point measures.
    """
    problems: dict[str, list[str]] = {}
    # What came of looking at data and model, by the values without the seed.
    looked_at: dict[frozenset[tuple[str, str]], Verdict] = {}
    for number, point in enumerate(points, start=1):
        point.found = found_in(point.folder)
        alike = frozenset(item for item in point.values.items() if item[0] != "seed")
        full = point.found is not Found.FINISHED and alike not in looked_at
        verdict = examine(point.arguments, full)
        if full and verdict.config is not None:
            looked_at[alike] = verdict
        problem = verdict.error or _settle(point, verdict.config or {})
        if not problem and not point.skipped:
            problem = looked_at[alike].error
        if problem:
            problems.setdefault(problem, []).append(point.name)
        tell(number)
    if problems:
        raise UserError(_listed(problems, len(points)))
    if metric is not None:
        measured = [verdict.figures for verdict in looked_at.values()]
        measured += [_recorded(point.folder) for point in points if point.skipped]
        _check_metric(metric, measured)


def _settle(point: Point, config: dict[str, Any]) -> str:
    """Take a checked configuration over; the reason where a sweep cannot have it."""
    point.config = config
    save_to = str(config.get("federate.save_to", ""))
    if Path(save_to).is_absolute():
        return (
            f"federate.save_to = {save_to!r}: every point would write this file. Give a relative "
            "path, which lies in each run's own folder"
        )
    if config.get("expname") or config.get("expname_tag"):
        point.arguments += ["expname", "", "expname_tag", ""]  # the sweep names the folders
    return _check_finished(point) if point.found is Found.FINISHED else ""


def _check_finished(point: Point) -> str:
    """Skip a finished run if it is this point's; else say what differs."""
    advice = "Give another --outdir, or move the folder away"
    file, clients = point.folder / CONFIG_FILE, point.folder / CLIENT_CONFIG_FILE
    if not file.is_file():
        return f"its folder holds a finished run without {CONFIG_FILE}. {advice}"
    own = ["--client_cfg", str(clients)] if clients.is_file() else []
    saved = examine(["--cfg", str(file), *own, "--outdir", str(point.folder)], False)
    if saved.config is None:
        return f"{CONFIG_FILE} of its finished run cannot be read again: {saved.error} {advice}"
    differences = config_differences(point.config, saved.config)
    if differences:
        more = len(differences) - _MOST_DIFFERENCES
        shown = differences[:_MOST_DIFFERENCES] + ([f"and {more} more"] if more > 0 else [])
        lines = "".join(f"\n      {text}" for text in shown)
        return f"its folder holds a finished run with other settings. {advice}{lines}"
    point.status = Status.FINISHED
    point.seconds = saved_run(point.folder).get("seconds")
    return ""


def _listed(problems: dict[str, list[str]], points: int) -> str:
    """Each problem with the points that have it."""
    refused = sum(map(len, problems.values()))
    lines = [f"{refused} of {points} points cannot run, so nothing was started:"]
    for problem, names in list(problems.items())[:_MOST_SHOWN]:
        more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
        who = "; ".join(names[:_MOST_SHOWN]) + more
        lines.append(f"  {'all points' if len(names) == points > 1 else who}\n    {problem}")
    if len(problems) > _MOST_SHOWN:
        lines.append(f"  and {len(problems) - _MOST_SHOWN} other problems")
    return "\n".join(lines)


def figures_of(configs: Iterable[Any]) -> list[str]:
    """Names of the figures that a run will have measured, as ``val_acc``.

    One that ends in ``*`` stands for all that begin so. There are none where code from outside
    reports whatever it likes.

    Parameters
    ----------
    configs : iterable of CN
        The settled configurations of the run and of its clients with settings of their own.
    """
    free = (register.data_dict, register.trainer_dict, register.worker_dict)
    if not all(is_own(builder) for builders in free for builder in builders.values()):
        return []
    found: dict[str, None] = {}
    for cfg in configs:
        metrics = get_metric([*DEFAULT_METRICS, *cfg.eval.metrics])
        names = list(dict.fromkeys([*DEFAULT_METRICS, *metrics]))
        # A metric from outside may report `mine_recall` beside `mine`.
        names += [f"{name}*" for name, (function, _) in metrics.items() if not is_own(function)]
        found.update((f"{split}_{name}", None) for split in cfg.eval.split for name in names)
    return list(found)


def _recorded(folder: Path) -> list[str]:
    """The figures that a finished run has measured."""
    return RunSummary(RunRecord.load(folder)).metrics


def is_among(metric: str, figures: Iterable[str]) -> bool:
    """Whether the metric, with or without its split, is one of these figures."""
    names = (metric, f"val_{metric}", f"test_{metric}")  # what `compare` tries
    return any(
        name.startswith(figure[:-1]) if figure.endswith("*") else name == figure
        for figure in figures
        for name in names
    )


def _check_metric(metric: str, measured: Sequence[Sequence[str]]) -> None:
    """Refuse a metric that none of the points can have, before any of them runs."""
    if any(not figures or is_among(metric, figures) for figures in measured):
        return
    known = dict.fromkeys(name for names in measured for name in names if name[-1] != "*")
    raise UserError(
        f"--metric {metric}: no point measures it, so nothing was started. Write one of "
        f"{', '.join(known)}, or add it to eval.metrics"
    )

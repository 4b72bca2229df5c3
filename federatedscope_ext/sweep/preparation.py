"""Before anything starts: is every point one that runs, and what is left to do?

The configuration of every point is merged and checked. Data and model are looked at once for points
that differ only in their seed, and not for those that are finished.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from federatedscope_ext.sweep.arguments import Settings
from federatedscope_ext.sweep.check import Verdict
from federatedscope_ext.sweep.differences import config_differences, named_clients
from federatedscope_ext.sweep.errors import SweepError
from federatedscope_ext.sweep.figures import is_among
from federatedscope_ext.sweep.plan import (
    CLIENT_CONFIG_FILE,
    CONFIG_FILE,
    Found,
    Point,
    Status,
    found_in,
    saved_arguments,
    saved_run,
)

__all__ = ["check_points", "fit_to_one_gpu", "wants_gpu"]

_MOST_SHOWN = 8
_MOST_DIFFERENCES = 10


class _Asks(Protocol):
    """What is needed of a :class:`~federatedscope_ext.sweep.check.Checker`."""

    def check(self, argv: Sequence[str], full: bool, clients: int = 0) -> Verdict: ...


def check_points(
    points: Sequence[Point],
    settings: Settings,
    checker: _Asks,
    tell: Callable[[int], None] = lambda done: None,
) -> None:
    """Check every point, and mark those that are finished.

    Parameters
    ----------
    points : sequence of Point
        Their ``config``, ``figures``, ``found``, ``status`` and, where it must be, ``arguments``
        are set.
    settings : Settings
        The command.
    checker : Checker
        Asks the runtime.
    tell : callable
        Called with the number of points that have been checked.

    Raises
    ------
    SweepError
        Points that do not run, or whose folder holds another finished run, each with the reason;
        or a metric to compare by that no point measures.
    """
    problems: dict[str, str] = {}
    # What came of looking at data and model, by the values without the seed.
    looked_at: dict[frozenset[tuple[str, str]], str] = {}
    for number, point in enumerate(points, start=1):
        point.found = found_in(point.folder)
        alike = frozenset(item for item in point.values.items() if item[0] != "seed")
        full = point.found is not Found.FINISHED and alike not in looked_at
        problem = _check(point, settings, checker, full)
        if full:
            looked_at[alike] = problem
        problem = problem or ("" if point.skipped else looked_at.get(alike, ""))
        if problem:
            problems[point.name] = problem
        tell(number)
    if problems:
        raise SweepError(_listed(problems, len(points)))
    _check_metric(points, settings.metric)


def _check_metric(points: Sequence[Point], metric: str | None) -> None:
    """Refuse a metric that none of the points can have, before any of them runs."""
    if metric is None:
        return
    known: dict[str, None] = {}
    for point in points:
        if not point.figures or is_among(metric, point.figures):
            return
        known.update(dict.fromkeys(name for name in point.figures if not name.endswith("*")))
    raise SweepError(
        f"--metric {metric}: no point measures it, so nothing was started. Write one of "
        f"{', '.join(known)}, or add it to eval.metrics"
    )


def _check(point: Point, settings: Settings, checker: _Asks, full: bool) -> str:
    """Check one point; empty where it is sound."""
    clients = named_clients(settings.client_cfg, [*settings.pairs, *point.values.items()])
    verdict = checker.check(point.arguments, full, len(clients))
    if verdict.error is not None:
        return verdict.error
    point.config, point.figures = verdict.config or {}, verdict.figures
    save_to = str(point.config.get("federate", {}).get("save_to", ""))
    if Path(save_to).is_absolute():
        return (
            f"federate.save_to = {save_to!r}: every point would write this file. Give a relative "
            "path, which lies in each run's own folder"
        )
    if point.config.get("expname") or point.config.get("expname_tag"):
        point.arguments += ["expname", "", "expname_tag", ""]  # the sweep names the folders
    if point.found is Found.FINISHED:
        return _check_finished(point, _by_client(clients, verdict), checker)
    return ""


def _by_client(names: Sequence[str], verdict: Verdict) -> dict[str, Any]:
    """What is a client's own, by client; as many as the runtime told."""
    return dict(zip(names, verdict.clients, strict=False))


def _check_finished(point: Point, clients: Mapping[str, Any], checker: _Asks) -> str:
    """Skip a finished run if it is this point's; else say what differs."""
    advice = "Give another --outdir, or move the folder away"
    if not (point.folder / CONFIG_FILE).is_file():
        return f"its folder holds a finished run without {CONFIG_FILE}. {advice}"
    file = point.folder / CLIENT_CONFIG_FILE
    names = named_clients(file if file.is_file() else None)
    saved = checker.check(saved_arguments(point.folder), False, len(names))
    if saved.config is None:
        return f"{CONFIG_FILE} of its finished run cannot be read again: {saved.error} {advice}"
    differences = config_differences(point.config, saved.config)
    differences += config_differences(clients, _by_client(names, saved))
    if differences:
        more = len(differences) - _MOST_DIFFERENCES
        shown = [f"\n      {text}" for text in differences[:_MOST_DIFFERENCES]]
        shown += [f"\n      and {more} more"] if more > 0 else []
        return f"its folder holds a finished run with other settings. {advice}{''.join(shown)}"
    point.status, point.skipped = Status.FINISHED, True
    point.seconds = saved_run(point.folder).get("seconds")
    return ""


def _listed(problems: dict[str, str], points: int) -> str:
    """Each problem with the points that have it."""
    names: dict[str, list[str]] = {}
    for name, problem in problems.items():
        names.setdefault(problem, []).append(name)
    lines = [f"{len(problems)} of {points} points cannot run, so nothing was started:"]
    for problem, having in list(names.items())[:_MOST_SHOWN]:
        who = "all points" if len(having) == points > 1 else "; ".join(having[:_MOST_SHOWN])
        more = "" if who == "all points" else f" and {len(having) - _MOST_SHOWN} more"
        lines.append(f"  {who}{more if len(having) > _MOST_SHOWN else ''}\n    {problem}")
    if len(names) > _MOST_SHOWN:
        lines.append(f"  and {len(names) - _MOST_SHOWN} other problems")
    return "\n".join(lines)


def wants_gpu(points: Sequence[Point]) -> bool:
    """Whether any of these configurations would use a GPU."""
    return any(point.config.get("use_gpu") not in (False, None) for point in points)


def fit_to_one_gpu(points: Sequence[Point]) -> None:
    """Let a configuration that names the second GPU use the one that its process will see."""
    for point in points:
        for key in ("device", "eval_device"):
            if int(point.config.get(key, -1)) > 0:
                point.arguments += [key, "0"]

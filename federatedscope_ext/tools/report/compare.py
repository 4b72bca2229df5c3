"""Several runs side by side; runs that differ only in their seed become mean and spread.

Two runs are of one group when every setup field of their ``run.json`` is equal but the seed and
what is an outcome or a matter of the machine, and so is their ``config.yaml`` where both have one.
The spread of a group is the sample standard deviation over its runs (``n - 1``); a group of one
run has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.tools.report.compare_groups import Group, Run, telling_columns
from federatedscope_ext.tools.report.compare_notes import comparison_notes
from federatedscope_ext.tools.report.numbers import listed
from federatedscope_ext.tools.report.records import RunRecord, find_runs

__all__ = ["Comparison", "check_client", "compare", "load_runs"]

DERIVED = ("variant", "local_param", "adapter.scale", "evaluation.phases", "evaluation.scope",
           "partition", "adapter.target_modules", "weights", "ranks")  # fmt: skip
"""Fields that get a column only when the other columns do not determine them."""


@dataclass
class Comparison:
    """Groups of runs, the fields they differ in, and what to keep in mind."""

    groups: list[Group]
    columns: list[str]
    notes: list[str]

    @property
    def metric(self) -> str:
        """The metric compared; where the runs' own ones differ, all of them."""
        return " / ".join(dict.fromkeys(run.summary.metric for run in self.runs))

    @property
    def runs(self) -> list[Run]:
        """All runs, group after group."""
        return [run for group in self.groups for run in group.runs]

    @property
    def direction(self) -> str:
        """Whether ``larger`` or ``smaller`` values of the metric are better."""
        return "larger" if self.groups[0].runs[0].summary.larger_is_better else "smaller"


def load_runs(folders: Iterable[str | Path], metric: str | None = None) -> list[Run]:
    """Read the runs at and below the given folders, each once.

    Raises
    ------
    ExtensionError
        If a folder is no run and has none below it, or no run has the metric.
    """
    paths: dict[Path, Path] = {}
    for folder in folders:
        found = find_runs(folder)
        if not found:
            RunRecord.load(folder)  # raises with the reason
        for path in found:
            paths.setdefault(path.resolve(), path)
    runs = [Run(RunRecord.load(path), metric) for path in paths.values()]
    if metric is not None and not any(run.summary.headline for run in runs):
        known = sorted({name for run in runs for name in run.summary.metrics})
        raise ExtensionError(
            "--metric", metric, "none of these runs has measured it",
            "Write one of " + (", ".join(known) or "their metrics once they have been evaluated"),
        )  # fmt: skip
    return runs


def compare(runs: Sequence[Run], by: Sequence[str] = (), ignore: Sequence[str] = ()) -> Comparison:
    """Group runs and find what tells the groups apart.

    Parameters
    ----------
    runs : sequence of Run
        At least one.
    by : sequence of str
        Group by these fields only, whatever else differs (a note says what was pooled).
    ignore : sequence of str
        Fields (or sections, ``"optimizer"``) that do not separate groups. ``data_seed`` takes the
        partition of the rows with it.

    Raises
    ------
    ExtensionError
        If a field of ``by`` or ``ignore`` is in no run.
    """
    if not runs:
        raise ExtensionError("compare", [], "there is no run to compare", "Give run folders")
    _check_fields(runs, "--by", by)
    _check_fields(runs, "--ignore", ignore)
    keys = _keys(runs, by, ignore)
    members: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        members.setdefault(tuple(run.setup.get(key) for key in keys), []).append(run)
    groups = [Group(group) for group in members.values()]
    columns = _columns(groups, keys, bool(by))
    for group in groups:
        group.runs.sort(key=lambda run: (run.seed is None, run.seed))
        group.columns = {name: group.runs[0].setup.get(name) for name in columns}
    _shorten_models(groups)
    told_by = telling_columns(groups)
    for group in groups:
        group.told_by = told_by
    return Comparison(groups, columns, comparison_notes(groups, keys))


def check_client(comparison: Comparison, client: int) -> None:
    """Refuse a client that no run has evaluated.

    Raises
    ------
    ExtensionError
        With the clients that there are.
    """
    known: set[int] = set()
    for run in comparison.runs:
        for rounds in run.summary.tables.values():
            known = known.union(*rounds.values())
    if client not in known:
        ids = sorted(known)
        text = listed(ids, 30)
        if len(ids) > 3 and ids[-1] - ids[0] == len(ids) - 1:
            text = f"{ids[0]} to {ids[-1]}"
        raise ExtensionError(
            "--client", client, "no run has evaluated this client", f"Write one of {text}"
        )


def _check_fields(runs: Sequence[Run], option: str, names: Sequence[str]) -> None:
    """Refuse a field that no run has."""
    known = {name for run in runs for name in run.setup.all_names}
    for name in names:
        if name not in known and not any(key.startswith(f"{name}.") for key in known):
            shown = sorted({key for run in runs for key in run.setup.fields})
            raise ExtensionError(
                option, name, "no run has such a field",
                f"Write one of {', '.join(shown)}, or a key of config.yaml",
            )  # fmt: skip


def _keys(runs: Sequence[Run], by: Sequence[str], ignore: Sequence[str]) -> list[str]:
    """The fields that separate groups."""
    if by:
        return list(dict.fromkeys(by))
    ignored = set(ignore)
    if "data_seed" in ignored:
        ignored |= {"partition", "data.seed"}

    def counts(name: str) -> bool:
        return name not in ignored and not any(name.startswith(f"{one}.") for one in ignored)

    fields = [
        name for name in dict.fromkeys(n for r in runs for n in r.setup.fields) if counts(name)
    ]
    # A key of config.yaml counts only where run.json does not tell the runs apart already.
    alike: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        alike.setdefault(tuple(run.setup.get(name) for name in fields), []).append(run)
    config: dict[str, None] = {}
    for group in alike.values():
        if all(run.setup.config for run in group):
            names = dict.fromkeys(name for run in group for name in run.setup.config)
            config.update(
                dict.fromkeys(
                    name
                    for name in names
                    if counts(name) and len({run.setup.get(name) for run in group}) > 1
                )
            )
    return [*fields, *config]


def _columns(groups: Sequence[Group], keys: Sequence[str], chosen: bool) -> list[str]:
    """The fields to show: those that differ, without what the others determine."""
    if chosen:
        return list(keys)
    firsts = [group.runs[0].setup for group in groups]
    columns = [name for name in keys if len({setup.get(name) for setup in firsts}) > 1]
    arguments = [name for name in columns if name.startswith("adapter.arguments.")]
    for name in (*DERIVED, *arguments):
        others = [other for other in columns if other != name]
        if name in columns and others:
            seen = {(tuple(s.get(o) for o in others), s.get(name)) for s in firsts}
            if len(seen) == len({rest for rest, _ in seen}):
                columns.remove(name)
    return columns


def _shorten_models(groups: Sequence[Group]) -> None:
    """Show model paths by their end, where that still tells them apart."""
    short = {
        value: "/".join(value.partition("@")[0].split("/")[-2:])
        for group in groups
        if (value := group.columns.get("model")) is not None
    }
    if len(set(short.values())) == len(short):
        for group in groups:
            if "model" in group.columns:
                group.columns["model"] = short[group.columns["model"]]

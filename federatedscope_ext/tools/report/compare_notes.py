"""What to keep in mind when runs are compared: said as notes, never a refusal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from federatedscope_ext.tools.report.compare_groups import Group, Run

__all__ = ["comparison_notes"]

_INCOMPARABLE = {
    "task": "figures of different tasks are not comparable",
    "model": "a difference may come from the base model alone",
    "embedded": "a miniature run says nothing about the real task",
    "data_seed": "clients own different rows, so the baselines and the difficulty differ",
    "client_num": "more clients have fewer rows each",
    "rounds": "the best of more rounds is higher by chance alone; compare at equal rounds",
    "local_update_steps": "the clients trained for different numbers of steps",
    "batch_size": "the clients trained on different numbers of rows",
    "sample_client_num": "different numbers of clients train in a round",
    "head_rule": "whether the head is shared or private can change the figures more than the "
    "method does; compare rows of one head rule with each other",
    "main_metric": "the best round is chosen by different metrics",
    "evaluation.scope": "a personal figure and a global one answer different questions",
    "evaluation.phases": "the clients were evaluated at different moments",
}
_SHOWN = 4


def comparison_notes(groups: Sequence[Group], keys: Sequence[str]) -> list[str]:
    """Notes on what makes the groups hard to compare, most serious first."""
    runs = [run for group in groups for run in group.runs]
    notes = [*_nested(runs), *_unfinished(runs)]
    notes += [f"{run.record.outdir}: {text}" for run in runs for text in run.record.problems]
    for name, why in _INCOMPARABLE.items():
        values = list(dict.fromkeys(run.setup.get(name) for run in runs))
        if len(values) > 1:
            notes.append(f"{name} differs ({_listed(values)}): {why}.")
    notes += _evaluations(groups)
    notes += _partitions(runs)
    for group in groups:
        notes += _pooled(group, keys)
    devices = list(dict.fromkeys(f"{r.record.info.device}" for r in runs))
    if len(devices) > 1:
        notes.append(f"device differs ({_listed(devices)}): times are not comparable.")
    notes += _sampling(groups)
    return notes


def _nested(runs: Sequence[Run]) -> Iterator[str]:
    """Runs inside the folder of another: an outdir that was used again."""
    folders = {run.record.outdir.resolve(): run.record.outdir for run in runs}
    for path, name in folders.items():
        inside = sorted(str(other.relative_to(path)) for other in folders if path in other.parents)
        if inside:
            yield (
                f"{name} is a run and has {len(inside)} more inside ({_listed(inside)}): all of "
                "them are compared."
            )


def _unfinished(runs: Sequence[Run]) -> Iterator[str]:
    for run in runs:
        info = run.record.info
        if not run.finished:
            of = f" of {info.rounds}" if info.rounds else ""
            yield (
                f"{run.record.outdir} is not finished ({info.status}, "
                f"{run.summary.rounds_done}{of} rounds); its figures are of what there is."
            )
        if run.summary.headline is None:
            yield f"{run.record.outdir} has no evaluation of {run.summary.metric}."


def _evaluations(groups: Sequence[Group]) -> Iterator[str]:
    """Headline evaluations of different kinds, as they were measured and not as configured."""
    found = [run.summary.headline for group in groups for run in group.runs]
    kinds = list(dict.fromkeys(f"{s} ({s.scope})" for s in found if s is not None))
    if len(kinds) > 1:
        yield f"The headline evaluations are not of one kind: {_listed(kinds)}."


def _partitions(runs: Sequence[Run]) -> Iterator[str]:
    """Different partitions under one data seed: another splitter, or other data."""
    by_seed: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        key = (run.setup.get("data_seed"), run.setup.get("client_num"))
        by_seed.setdefault(key, set()).add(run.setup.get("partition"))
    if any(len(partitions) > 1 for partitions in by_seed.values()):
        yield (
            "The partition of rows over clients differs although the data seed is the same: "
            "another splitter, or another data set."
        )


def _pooled(group: Group, keys: Sequence[str]) -> Iterator[str]:
    """What differs inside a group besides the seed."""
    if len(group.runs) < 2:
        return
    names = [name for name in group.runs[0].setup.fields if name not in keys]
    differ = [name for name in names if len({run.setup.get(name) for run in group.runs}) > 1]
    if differ:
        yield f"The runs of '{group.label}' are pooled although they differ in {_listed(differ)}."
    seeds = [run.seed for run in group.runs]
    if len(set(seeds)) < len(seeds) and not differ:
        yield (
            f"The runs of '{group.label}' repeat a seed: the spread is smaller than over as many "
            "seeds."
        )


def _sampling(groups: Sequence[Group]) -> Iterator[str]:
    errors = [figure.mean for group in groups if (figure := group.figure("sampling_error"))]
    if errors and len(groups) > 1:
        yield (
            f"One run's mean has a sampling error of about {max(errors):.2g} from its finite "
            f"number of evaluation rows: differences under {2 * max(errors):.2g} mean little."
        )
        if any(len(group.runs) > 1 for group in groups):
            yield (
                "± is the spread over seeds, which train differently but are evaluated on the "
                "same rows: it does not contain that sampling error."
            )


def _listed(values: Sequence[str]) -> str:
    more = f", and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return ", ".join(values[:_SHOWN]) + more

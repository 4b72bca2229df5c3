"""Which figures a run will have measured, as far as its configuration tells: for ``--metric``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from federatedscope import register
from federatedscope_ext.tasks import GLUE_ALIASES, GLUE_TASKS, TEXT_TASKS

__all__ = ["figures_of", "is_among"]

_ALWAYS = ("loss", "avg_loss", "total")
# A file of one's own has labels or numbers; which of them is known when it is read.
_OF_A_FILE = ("accuracy", "pearson", "spearmanr")
# Code of others in these places may report whatever it likes.
_FREE = ("data", "trainer", "worker")
_SHORT = ("val", "test")  # the splits that `compare` tries for a name without one


def figures_of(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the figures; one that ends in ``*`` stands for all that begin so.

    Parameters
    ----------
    configs : sequence of dict
        The merged configurations of a run and of its clients with settings of their own. The
        extensions that they name have been imported.

    Returns
    -------
    list of str
        ``val_acc`` and so on; empty where they cannot be known.
    """
    if any(not _is_own(builder) for kind in _FREE for builder in _builders(kind)):
        return []
    found: dict[str, None] = {}
    for config in configs:
        names = _metrics(config)
        if names is None:
            return []
        found.update((f"{split}_{name}", None) for split in config["eval"]["split"]
                     for name in (*_ALWAYS, *names))  # fmt: skip
    return list(found)


def is_among(metric: str, figures: Iterable[str]) -> bool:
    """Whether the metric, with or without its split, is one of these figures."""
    names = [metric, *(f"{split}_{metric}" for split in _SHORT)]
    return any(
        name.startswith(figure[:-1]) if figure.endswith("*") else name == figure
        for figure in figures
        for name in names
    )


def _metrics(config: Mapping[str, Any]) -> list[str] | None:
    """What ``eval.metrics`` stands for, without splits; ``None`` if nobody can tell."""
    given = [str(name) for name in config["eval"]["metrics"]]
    if not given:
        return _of_task(str(config["data"]["type"]))
    names = list(given)
    for builder in _builders("metric"):
        for asked in (given, *([name] for name in given)):
            try:
                answer = builder(asked)
            except Exception:  # noqa: BLE001 - code of others; the run says what is wrong with it
                return None
            if answer is None:
                continue
            names.append(str(answer[0]))
            if not _is_own(builder):
                # It may report `mine_recall` beside `mine`.
                begins = [answer[0], *asked] if len(asked) == 1 else [answer[0]]
                names += [f"{begin}*" for begin in begins]
    # `rouge@l` is reported as `rouge_l` or the like.
    return names + [f"{name.partition('@')[0]}*" for name in given if "@" in name[1:]]


def _of_task(data: str) -> list[str] | None:
    """The metrics of a task, which count where ``eval.metrics`` is empty."""
    name, _, suffix = data.lower().rpartition("@")
    if suffix == "glue":
        task = GLUE_TASKS.get(GLUE_ALIASES.get(name, (name, None))[0])
        return list(task.metrics) if task else None
    if suffix == "text":
        return list(TEXT_TASKS[name].metrics if name in TEXT_TASKS else _OF_A_FILE)
    return []


def _builders(kind: str) -> list[Any]:
    return list(getattr(register, f"{kind}_dict", {}).values())


def _is_own(builder: object) -> bool:
    """Whether a builder is the project's own; ``contrib`` holds the user's."""
    module = str(getattr(builder, "__module__", ""))
    own = module.partition(".")[0] in ("federatedscope", "federatedscope_ext")
    return own and not module.startswith("federatedscope.contrib.")

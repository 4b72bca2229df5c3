"""The GLUE benchmark: ``data.type: TASK@glue``.

Rows come from a folder (``data.root``), else from the Hugging Face cache or hub. Training rows
are the task's training rows, validation rows its validation rows; test labels are not public, so
there is no test split. Rows are tokenised once.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

from federatedscope.core.data import BaseDataTranslator
from federatedscope.register import register_data
from federatedscope_ext.data.csv_rows import original_layout
from federatedscope_ext.data.folders import content, task_folder, why_not
from federatedscope_ext.data.hub import WAYS_OUT, load_from_hub, load_tokenizer
from federatedscope_ext.data.rows import TextRows
from federatedscope_ext.data.sources import FileSource, HubSource, Source, find_split
from federatedscope_ext.data.tokenise import cache_folder, encode_source
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.metrics.glue import check_metrics
from federatedscope_ext.tasks import GLUE_ALIASES, GLUE_TASKS, TextTask

__all__ = ["build_glue", "class_number", "encode_rows", "find_sources", "set_task"]

logger = logging.getLogger(__name__)


def build_glue(config: Any, client_cfgs: Any = None) -> tuple[dict[int, Any], Any] | None:
    """Data of all workers for ``TASK@glue``, ``None`` for other types.

    Sets ``data.num_labels``, ``data.label_list``, and ``eval.metrics`` where it is empty.

    Raises
    ------
    ExtensionError
        Unknown task, files that are not there, or a metric that the task does not have.
    """
    name, _, suffix = str(config.data.type).rpartition("@")
    if suffix.lower() != "glue":
        return None
    task, matched = _task(config, name.lower())
    set_task(config, task)
    split = task.validation[0 if matched else -1]
    if len(task.validation) > 1:
        logger.info("%s: validation rows are %s.", task.name, split)
    sources = find_sources(config, task, ("train", split), ("glue",))
    logger.info("%s: test labels are not public; only validation rows are evaluated.", task.name)
    train, val = encode_rows(config, task, sources)
    return BaseDataTranslator(config, client_cfgs)((train, val, [])), config


def _task(config: Any, name: str) -> tuple[TextTask, bool]:
    """The task and whether its matched validation rows are wanted."""
    name, matched = GLUE_ALIASES.get(name, (name, None))
    if name not in GLUE_TASKS:
        known = ", ".join(f"{task}@glue" for task in GLUE_TASKS)
        raise ExtensionError(
            "data.type", config.data.type, "there is no such GLUE task", f"Write one of {known}"
        )
    return GLUE_TASKS[name], config.data.get("matched", True) if matched is None else matched


def set_task(config: Any, task: TextTask) -> None:
    """Write what the task decides into the configuration, after checking what is there.

    Raises
    ------
    ExtensionError
        ``data.num_labels``, ``data.label_list`` or ``eval.metrics`` contradict the task.
    """
    if config.data.num_labels not in (0, task.num_labels):
        labels = f"its labels are {_listed(task)}" if task.labels else "its labels are real numbers"
        raise ExtensionError(
            "data.num_labels",
            config.data.num_labels,
            f"{task.name} has {task.num_labels} ({labels})",
            f"Write {task.num_labels}, or 0 to take it from the data",
        )
    given = [str(name) for name in config.data.label_list]
    if given and given != list(task.labels):
        raise ExtensionError(
            "data.label_list",
            given,
            f"the labels of {task.name} are {_listed(task) or 'real numbers'}, in this order",
            "Write [] to take them from the data",
        )
    check_metrics(config.eval.metrics, task)
    if not config.eval.metrics:
        config.eval.metrics = list(task.metrics)
    config.data.num_labels = task.num_labels
    config.data.label_list = list(task.labels)


def _listed(task: TextTask) -> str:
    """The task's labels as text, cut where there are many."""
    few = [label if len(label) <= 40 else f"{label[:40]}..." for label in task.labels[:20]]
    more = ["..."] if len(task.labels) > len(few) else []
    return ", ".join([*few, *more])


def find_sources(
    config: Any, task: TextTask, splits: tuple[str, ...], folders: tuple[str, ...] = ()
) -> list[Source]:
    """The splits of a task from ``data.root``, the cache or the hub.

    Parameters
    ----------
    config : CN
        Reads ``data.root``.
    task : TextTask
        The task.
    splits : tuple of str
        Names of the splits that are needed.
    folders : tuple of str
        Names of the folder above the task's own, in ``data.root`` or its ``data``. The files may
        also be as the hub has them, in a folder ``data``, or be what ``data.root`` itself is.

    Raises
    ------
    ExtensionError
        The folder lacks a split, or there is no folder and no hub.
    """
    root = Path(config.data.root).expanduser()
    folder = task_folder(root, task, splits, folders)
    if folder is not None:
        return [_local(folder, split, task) for split in splits]
    found = load_from_hub(task.hub)
    if found is None:
        layout = "/".join((*folders, task.name, "SPLIT.parquet"))
        raise ExtensionError(
            "data.root",
            str(config.data.root),
            f"{task.name} is neither in this folder ({why_not(root, task, splits, folders)}) nor "
            "in the Hugging Face cache, and the hub cannot be reached or does not have it",
            WAYS_OUT.format(layout=layout),
        )
    dataset, origin = found
    logger.info("%s: from %s", task.name, origin)
    return [HubSource(dataset[split], f"{task.name} {split}") for split in splits]


def _local(folder: Path, split: str, task: TextTask) -> Source:
    files = find_split(folder, split)
    if not files:
        raise ExtensionError(
            "data.root",
            str(folder),
            f"there is no {split} split in this folder, only {content(folder)}",
            f"Put {split}.parquet (or .jsonl, .csv) there, or give another data.root",
        )
    source = FileSource(files, original_layout(task))
    if source.is_original:
        logger.info(
            "%s: read as the original file: the first column is the class, counted from 1 (%s); "
            "the other two are the title and the text.",
            source.name,
            task.labels[0],
        )
    return source


def encode_rows(config: Any, task: TextTask, sources: list[Source]) -> list[TextRows]:
    """Tokenised rows of each source with the tokenizer of ``model.type``."""
    tokenizer = load_tokenizer(config)
    cache = cache_folder(config)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0

    def to_label(value: Any) -> int | float:
        return class_number(value, task)

    rows = []
    for source in sources:
        encoded = encode_source(
            source,
            tokenizer,
            task.sentence_keys,
            to_label,
            config.llm.tok_len,
            cache,
            label_tag=repr(task.labels),
            labels_are=_labels_are(task),
        )
        _mention_class_0(source, task, encoded.labels)
        rows.append(TextRows(encoded, pad, task.labels))
    return rows


def class_number(value: Any, task: TextTask) -> int | float:
    """A value of the label column as a class number (-1: none) or a regression's target.

    Raises
    ------
    ValueError
        It is no label of the task; the text says so, the caller knows the row.
    """
    # A name first, also where it looks like a number: data.label_list gives the order.
    if str(value) in task.labels:
        return task.labels.index(str(value))
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if task.is_regression and math.isfinite(number):
        return number
    if not (-1 <= number < task.num_labels and number == int(number)) or task.is_regression:
        problem = f"the label {value!r} is none of {_listed(task) or 'the real numbers'}"
        if math.isfinite(number) and _are_names(task):
            problem += f"; numbers count from 0 ({_numbers(task)})"
        raise ValueError(problem)
    return int(number)


def _are_names(task: TextTask) -> bool:
    """Whether labels have names that are not their numbers again."""
    return bool(task.labels) and task.labels != tuple(map(str, range(task.num_labels)))


def _numbers(task: TextTask) -> str:
    return f"{task.labels[0]} is 0, {task.labels[-1]} is {task.num_labels - 1}"


def _labels_are(task: TextTask) -> str:
    """A sentence on the values of the label column."""
    if not task.labels:
        return "The label is a real number"
    if not _are_names(task):
        return f"The label is a number from 0 to {task.num_labels - 1}"
    return f"The label is a name, or a number from 0 ({_numbers(task)})"


def _mention_class_0(source: Source, task: TextTask, labels: Any) -> None:
    """Say that no row has the first label: the file's numbers may count from 1."""
    if _are_names(task) and task.num_labels > 2 and labels.min() > 0:
        logger.warning(
            "%s: no row is of %s. Labels that are numbers count from 0 (%s).",
            source.name,
            task.labels[0],
            _numbers(task),
        )


register_data("glue", build_glue)

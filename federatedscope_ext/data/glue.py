"""The GLUE benchmark: ``data.type: TASK@glue``.

Rows come from a folder (``data.root``), else from the Hugging Face cache or hub. Training rows
are the task's training rows, validation rows its validation rows; test labels are not public, so
there is no test split. Rows are tokenised once.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from federatedscope.core.data import BaseDataTranslator
from federatedscope.register import register_data
from federatedscope_ext.data.folders import content, find_files, task_folder
from federatedscope_ext.data.glue_tsv import original_files
from federatedscope_ext.data.labels import check_hidden, check_order, listed
from federatedscope_ext.data.rows import TextRows
from federatedscope_ext.data.splits import Split, split_of_files, split_of_hub
from federatedscope_ext.data.tokenise import encode_split
from federatedscope_ext.data.tokenizer import WAYS_OUT, model_tokenizer
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.metrics.glue import check_metrics
from federatedscope_ext.tasks import GLUE_ALIASES, GLUE_TASKS, TextTask
from fedfiles.cache import cache_folder
from fedfiles.hub import load_dataset
from fedfiles.readers import raised_as

__all__ = ["build_glue", "encode_rows", "find_splits", "set_task"]

logger = logging.getLogger(__name__)


@raised_as(ExtensionError)
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
    splits = find_splits(config, task, ("train", split), ("glue", "GLUE", "glue_data"))
    logger.info("%s: test labels are not public; only validation rows are evaluated.", task.name)
    train, val = encode_rows(config, task, splits)
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
        labels = f"its labels are {listed(task)}" if task.labels else "its labels are real numbers"
        raise ExtensionError(
            "data.num_labels",
            config.data.num_labels,
            f"{task.name} has {task.num_labels} ({labels})",
            f"Write {task.num_labels}, or 0 to take it from the data",
        )
    given = [str(name).strip() for name in config.data.label_list]
    if given and given != list(task.labels):
        raise ExtensionError(
            "data.label_list",
            given,
            f"the labels of {task.name} are {listed(task) or 'real numbers'}, in this order",
            "Write [] to take them from the data",
        )
    check_metrics(config.eval.metrics, task)
    if not config.eval.metrics:
        config.eval.metrics = list(task.metrics)
    config.data.num_labels = task.num_labels
    config.data.label_list = list(task.labels)


def find_splits(
    config: Any, task: TextTask, splits: tuple[str, ...], folders: tuple[str, ...] = ()
) -> list[Split]:
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
    if isinstance(folder, Path):
        return [_local(folder, split, task) for split in splits]
    dataset = load_dataset(task.hub)
    if dataset is None:
        raise ExtensionError(
            "data.root",
            str(config.data.root),
            f"{task.name} is neither in this folder ({folder}) nor in the Hugging Face cache, and "
            "the hub cannot be reached or does not have it",
            WAYS_OUT.format(
                files="/".join((*folders[:1], task.name, "SPLIT.parquet")) + ", .jsonl or .csv"
            ),
        )
    return [split_of_hub(dataset[split], f"{task.name} {split}") for split in splits]


def _local(folder: Path, name: str, task: TextTask) -> Split:
    files = find_files(folder, name)
    if not files:
        raise ExtensionError(
            "data.root",
            str(folder),
            f"there is no {name} split in this folder, only {content(folder)}",
            f"Put {name}.parquet (or .jsonl, .csv, .tsv) there, or give another data.root",
        )
    split = split_of_files(files, original_files(task))
    if split.note:
        logger.info("%s: %s", split.name, split.note)
    return split


def encode_rows(config: Any, task: TextTask, splits: list[Split]) -> list[TextRows]:
    """Tokenised rows of each split with the tokenizer of ``model.type``."""
    tokenizer = model_tokenizer(config)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    rows = []
    for split in splits:
        check_order(split, task)
        encoded = encode_split(split, task, tokenizer, config.llm.tok_len, cache_folder(config))
        check_hidden(split, task, encoded["labels"])
        unlabelled = (split.name, int(encoded["unlabelled"][0]), "no label (-1)")
        rows.append(TextRows(encoded, pad, task.labels, [unlabelled]))
    return rows


register_data("glue", build_glue)

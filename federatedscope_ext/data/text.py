"""Classification of other texts: ``FILE.csv@text``, ``FILE.jsonl@text``, ``FOLDER@text``,
``NAME@text``.

An own file has the columns ``text`` (or ``sentence1`` and ``sentence2``) and ``label``. Labels are
names or numbers; real numbers make it a regression. The rows are split into training, validation
and test rows by ``data.splits``; a folder of ``save_to_disk`` may have validation and test rows of
its own. Named data sets are the entries of :data:`federatedscope_ext.tasks.TEXT_TASKS`.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Subset

from federatedscope.core.data import BaseDataTranslator
from federatedscope.register import register_data
from federatedscope_ext.data.glue import encode_rows, find_splits, set_task
from federatedscope_ext.data.labels import hidden_rows, label_names
from federatedscope_ext.data.splits import Split, split_of_files
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.tasks import TEXT_TASKS, TextTask
from fedfiles.readers import (
    check_single,
    is_own,
    is_table,
    own_file,
    own_splits,
    raised_as,
    shown,
)

__all__ = ["build_text"]

logger = logging.getLogger(__name__)

SENTENCE_COLUMNS = (("text",), ("sentence",), ("sentence1", "sentence2"))
_TEXTS = [key for keys in SENTENCE_COLUMNS for key in keys]


@raised_as(ExtensionError)
def build_text(config: Any, client_cfgs: Any = None) -> tuple[dict[int, Any], Any] | None:
    """Data of all workers for ``...@text``, ``None`` for other types.

    Sets ``data.num_labels``, ``data.label_list``, and ``eval.metrics`` where it is empty.

    Raises
    ------
    ExtensionError
        The file is not there, lacks columns, or has labels that do not fit.
    """
    name, _, suffix = str(config.data.type).rpartition("@")
    if suffix.lower() != "text":
        return None
    if name.lower() in TEXT_TASKS:
        rows = _named(config, TEXT_TASKS[name.lower()])
    else:
        rows = _own_file(config, name)
    return BaseDataTranslator(config, client_cfgs)(rows), config


def _named(config: Any, task: TextTask) -> tuple[Any, Any, Any]:
    set_task(config, task)
    given = [*task.validation[:1], *([task.test] if task.test else [])]
    train, *others = encode_rows(config, task, find_splits(config, task, ("train", *given)))
    test: Any = others.pop() if task.test else []
    if others:
        return train, others[0], test
    return *_validation_apart(config, train), test


def _validation_apart(config: Any, train: Any) -> tuple[Any, Any]:
    """Training and validation rows; ``data.splits`` says how many validate, and a share of test
    rows is not cut.
    """
    shares = [float(share) for share in config.data.splits[:2]]
    order = np.random.RandomState(config.data.seed).permutation(len(train))
    cut = round(len(train) * shares[0] / max(sum(shares), 1e-9))
    return Subset(train, order[:cut].tolist()), Subset(train, order[cut:].tolist())


def _own_file(config: Any, name: str) -> Any:
    """Rows to be split by ``data.splits``, or those of the splits that a folder has."""
    parts = own_splits(_locate(config, name))
    splits = {split: split_of_files([file]) for split, file in parts.items()}
    train = splits["train"]
    columns = train.columns
    keys = next((keys for keys in SENTENCE_COLUMNS if set(keys) <= set(columns)), None)
    if keys is None or "label" not in columns:
        raise _wrong_columns(config, train, columns)
    check_single(train.name, columns, [*keys, "label"])
    if unread := [name for name in _TEXTS if name in columns and name not in keys]:
        told = "%s: %s is read; these columns are not: %s."
        logger.warning(told, train.name, " and ".join(keys), shown(unread))
    names = label_names(config, train)
    metrics = ("accuracy",) if names else ("pearson", "spearmanr")
    task = TextTask(Path(name).name, "", keys, names, metrics)
    set_task(config, task)
    hidden = {name: hidden_rows(splits[name], task) for name in splits if name != "train"}
    used = {name: split for name, split in splits.items() if not hidden.get(name)}
    rows = dict(zip(used, encode_rows(config, task, [*used.values()]), strict=True))
    rows["train"].left_out += [(f"{k} rows", n, "no label") for k, n in hidden.items() if n]
    if len(rows) == 1:
        return rows["train"]
    if "validation" in rows:
        return rows["train"], rows["validation"], rows.get("test", [])
    return *_validation_apart(config, rows["train"]), rows["test"]


def _wrong_columns(config: Any, split: Split, columns: list[str]) -> ExtensionError:
    problem = f"the file's columns are {shown(columns)}" if columns else "the file is empty"
    if is_table(Path(split.name)) and columns and not {"label", *_TEXTS} & {*columns}:
        # The first row is no header line where somebody forgot it.
        problem += " (the first line of a CSV file has to name them"
        problem += ", with a comma, semicolon, tab or | between)" if len(columns) == 1 else ")"
    remedy = "Name them text (or sentence1 and sentence2) and label"
    return ExtensionError("data.type", config.data.type, problem, remedy)


def _locate(config: Any, name: str) -> Path:
    """The file or folder: as it is, or in ``data.root``."""
    if is_own(config.data.root, name):
        return own_file(config.data.root, name, "text")
    raise ExtensionError(
        "data.type",
        config.data.type,
        "there is no such data set, and the name is not one of a data file",
        "Write FILE.csv@text (.tsv, .jsonl, .json, .parquet; .csv.gz), FOLDER@text of save_to_disk "
        "or one of "
        f"{', '.join(f'{task}@text' for task in TEXT_TASKS)}",
    )


register_data("text", build_text)

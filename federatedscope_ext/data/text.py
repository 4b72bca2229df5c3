"""Classification of other texts: ``FILE.csv@text``, ``FILE.jsonl@text``, ``NAME@text``.

An own file has the columns ``text`` (or ``sentence1`` and ``sentence2``) and ``label``. Labels are
names or numbers; real numbers make it a regression. The rows are split into training, validation
and test rows by ``data.splits``. Named data sets are the entries of
:data:`federatedscope_ext.tasks.TEXT_TASKS`.
"""

from __future__ import annotations

import logging
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Subset

from federatedscope.core.data import BaseDataTranslator
from federatedscope.register import register_data
from federatedscope_ext.data.csv_rows import shown
from federatedscope_ext.data.glue import encode_rows, find_sources, set_task
from federatedscope_ext.data.sources import SUFFIXES, FileSource
from federatedscope_ext.data.tokenise import is_missing
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.tasks import TEXT_TASKS, TextTask

__all__ = ["build_text"]

logger = logging.getLogger(__name__)

SENTENCE_COLUMNS = (("text",), ("sentence",), ("sentence1", "sentence2"))


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
    train, test = encode_rows(config, task, find_sources(config, task, ("train", task.test)))
    # The test rows are given; data.splits says how many of the others validate.
    shares = [float(share) for share in config.data.splits[:2]]
    order = np.random.RandomState(config.data.seed).permutation(len(train))
    cut = round(len(train) * shares[0] / max(sum(shares), 1e-9))
    return Subset(train, order[:cut].tolist()), Subset(train, order[cut:].tolist()), test


def _own_file(config: Any, name: str) -> Any:
    source = FileSource([_locate(config, name)])
    columns = source.columns
    keys = next((keys for keys in SENTENCE_COLUMNS if set(keys) <= set(columns)), None)
    if keys is None or "label" not in columns:
        raise _wrong_columns(config, source, columns)
    names = _label_names(config, source)
    metrics = ("accuracy",) if names else ("pearson", "spearmanr")
    task = TextTask(Path(name).name, "", keys, names, metrics, metrics[0])
    set_task(config, task)
    return encode_rows(config, task, [source])[0]


def _wrong_columns(config: Any, source: FileSource, columns: list[str]) -> ExtensionError:
    problem = f"the file's columns are {shown(columns)}" if columns else "the file is empty"
    known = {"label", *(key for keys in SENTENCE_COLUMNS for key in keys)}
    if source.name.endswith(".csv") and columns and not known & {*columns}:
        # The first row is no header line where somebody forgot it.
        problem += " (the first line of a CSV file has to name them)"
    return ExtensionError(
        "data.type",
        config.data.type,
        problem,
        "Name them text (or sentence1 and sentence2) and label",
    )


def _locate(config: Any, name: str) -> Path:
    """The file: as it is, or in ``data.root``."""
    path = Path(name).expanduser()
    candidates = [path] if path.is_absolute() else [Path(config.data.root) / path, path]
    if path.suffix not in SUFFIXES:
        raise ExtensionError(
            "data.type",
            config.data.type,
            "there is no such data set, and the name is not one of a data file",
            f"Write FILE.csv@text, FILE.jsonl@text or one of "
            f"{', '.join(f'{task}@text' for task in TEXT_TASKS)}",
        )
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise ExtensionError(
        "data.type",
        config.data.type,
        f"there is no file {' or '.join(str(c) for c in candidates)}",
        "Give the path in data.type, or its folder in data.root",
    )


def _label_names(config: Any, source: FileSource) -> tuple[str, ...]:
    """Names of the labels in order: ``data.label_list``, else those in the file, sorted.

    Empty for a regression (numbers that are not whole).
    """
    if config.data.label_list:
        return tuple(map(str, config.data.label_list))
    values = _distinct_labels(source)
    if not values:
        raise ExtensionError(
            "data.type", config.data.type, "the file has no rows", "Use another file"
        )
    numbers = [_number(value) for value in values]
    if any(number is None for number in numbers):
        return tuple(sorted(map(str, values)))
    whole = [number for number in numbers if number is not None]
    if not all(map(math.isfinite, whole)):
        raise ExtensionError(
            "data.type",
            config.data.type,
            "the labels are numbers, and inf is among them",
            "Write a number in its place, or leave the row out",
        )
    if any(number != round(number) for number in whole):
        return ()
    highest = int(max(whole, default=0))
    if not 0 < highest < 1000 or min(whole) < -1:
        raise ExtensionError(
            "data.type",
            config.data.type,
            f"the labels are numbers from {int(min(whole, default=0))} to {highest}",
            "Number the labels 0, 1, 2, ..., use names, or write real numbers (0.0, 0.5) for a "
            "regression",
        )
    return tuple(map(str, range(highest + 1)))


def _distinct_labels(source: FileSource) -> set[Any]:
    """All values of the label column, none of them missing."""
    values: set[Any] = set()
    first = 0
    for piece in source.pieces(["label"]):
        for row, value in enumerate(piece["label"], start=first):
            blank = isinstance(value, str) and value.strip().lower() in ("", "nan")
            # A list or an object cannot be a label either, nor be counted.
            if blank or is_missing(value) or not isinstance(value, str | int | float | Decimal):
                file, number = source.place(row)
                raise ExtensionError(
                    "data.type",
                    file,
                    f"row {number} has no label that can be used ({value!r})",
                    "Write a name or a number, or leave the row out",
                )
            values.add(value)
        first += len(piece["label"])
    return values


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


register_data("text", build_text)

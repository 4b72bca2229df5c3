"""Values of the column ``label``: class numbers, names, real numbers."""

from __future__ import annotations

import logging
import math
from decimal import Decimal
from typing import Any

from federatedscope_ext.data.splits import Split
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.tasks import TextTask
from fedfiles.readers import file_error, shown

__all__ = ["are_labels", "class_number", "is_missing", "label_names", "listed", "mention_class_0"]

logger = logging.getLogger(__name__)


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
    number = _number(value)
    if number is None:
        number = math.nan
    if task.is_regression and math.isfinite(number):
        return number
    if not (-1 <= number < task.num_labels and number == int(number)) or task.is_regression:
        problem = f"the label {value!r} is none of {listed(task) or 'the real numbers'}"
        if math.isfinite(number) and _are_names(task):
            problem += f"; numbers count from 0 ({_numbers(task)})"
        raise ValueError(problem)
    return int(number)


def listed(task: TextTask) -> str:
    """The task's labels as text, cut where there are many."""
    return shown(task.labels, most=20)


def are_labels(task: TextTask) -> str:
    """A sentence on the values of the label column."""
    if not task.labels:
        return "The label is a real number"
    if not _are_names(task):
        return f"The label is a number from 0 to {task.num_labels - 1}"
    return f"The label is a name, or a number from 0 ({_numbers(task)})"


def mention_class_0(split: Split, task: TextTask, labels: Any) -> None:
    """Say that no row has the first label: the file's numbers may count from 1."""
    if _are_names(task) and task.num_labels > 2 and labels.min() > 0:
        logger.warning(
            "%s: no row is of %s. Labels that are numbers count from 0 (%s).",
            split.name,
            task.labels[0],
            _numbers(task),
        )


def _are_names(task: TextTask) -> bool:
    """Whether labels have names that are not their numbers again."""
    return bool(task.labels) and task.labels != tuple(map(str, range(task.num_labels)))


def _numbers(task: TextTask) -> str:
    return f"{task.labels[0]} is 0, {task.labels[-1]} is {task.num_labels - 1}"


def label_names(config: Any, split: Split) -> tuple[str, ...]:
    """Names of the labels in order: ``data.label_list``, else those in the file, sorted.

    Empty for a regression (numbers that are not whole).

    Raises
    ------
    ExtensionError
        There are no rows, or the labels are numbers that count nothing.
    """
    if config.data.label_list:
        return tuple(map(str, config.data.label_list))
    values = {_usable(*place, row["label"]) for place, row in split.rows(["label"])}
    numbers = [number for value in values if (number := _number(value)) is not None]
    if len(numbers) < len(values):
        return tuple(sorted(map(str, values)))
    if not values:
        problem, remedy = "the file has no rows", "Use another file"
    elif not all(map(math.isfinite, numbers)):
        problem = "the labels are numbers, and inf is among them"
        remedy = "Write a number in its place, or leave the row out"
    elif any(number != round(number) for number in numbers):
        return ()
    elif 0 < max(numbers) < 1000 and min(numbers) >= -1:
        return tuple(map(str, range(int(max(numbers)) + 1)))
    else:
        problem = f"the labels are numbers from {int(min(numbers))} to {int(max(numbers))}"
        remedy = (
            "Number the labels 0, 1, 2, ..., use names, or write real numbers (0.0, 0.5) for a "
            "regression"
        )
    raise ExtensionError("data.type", config.data.type, problem, remedy)


def _usable(file: str, number: int, value: Any) -> Any:
    """A label; one that is missing, a list or an object cannot be counted."""
    blank = isinstance(value, str) and value.strip().lower() in ("", "nan")
    if blank or is_missing(value) or not isinstance(value, str | int | float | Decimal):
        raise file_error(
            file,
            f"row {number} has no label that can be used ({value!r})",
            "Write a name or a number, or leave the row out",
        )
    return value


def is_missing(value: Any) -> bool:
    """Whether a cell is empty: null, or the NaN that tables of numbers have in its place."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None

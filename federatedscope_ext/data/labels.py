"""Values of the column ``label``: class numbers, names, real numbers."""

from __future__ import annotations

import logging
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from federatedscope_ext.data.splits import Split
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.tasks import TextTask
from fedfiles.readers import file_error, not_text, shown

__all__ = [
    "are_labels",
    "check_hidden",
    "check_order",
    "class_number",
    "hidden_rows",
    "is_missing",
    "label_names",
    "listed",
]

logger = logging.getLogger(__name__)

# What tables write where there is nothing; pandas reads these words so, whatever their case.
_NOTHING = {
    "", "nan", "-nan", "na", "n/a", "#n/a", "#na", "<na>", "none", "null", "-1.#ind", "1.#qnan",
}  # fmt: skip
_MOST_CLASSES = 1000
# What can stand between the words of a name.
_BETWEEN = re.compile(r"\s+|(?<=[^\W_])[-_]+(?=[^\W_])")


def class_number(value: Any, task: TextTask) -> int | float:
    """A value of the label column as a class number (-1: none) or a regression's target.

    Raises
    ------
    ValueError
        It is no label of the task; the text says so, the caller knows the row.
    """
    # A name first, also where it looks like a number: data.label_list gives the order.
    name = str(value).strip()
    if name in task.labels:
        return task.labels.index(name)
    number = _number(value)
    if task.is_regression and math.isfinite(number):
        return number
    place = None if task.is_regression else _by_number(task.labels).get(number)
    if place is None and (number != -1 or task.is_regression):
        problem = f"the label {value!r} is none of {listed(task) or 'the real numbers'}"
        if math.isfinite(number) and _are_names(task):
            problem += f"; numbers count from 0 ({_numbers(task)})"
        raise ValueError(problem)
    return -1 if place is None else place


@cache
def _by_number(labels: tuple[str, ...]) -> Mapping[float, int]:
    """The label that a number means: one of this name where all names are numbers (-1 and 1, 1 to
    5), else the one at this place, from 0.
    """
    numbers = [_number(name) for name in labels]
    if not all(map(math.isfinite, numbers)):
        numbers = [float(i) for i in range(len(labels))]
    return {number: i for i, number in enumerate(numbers)}


def listed(task: TextTask) -> str:
    """The task's labels as text, cut where there are many."""
    return shown(task.labels, most=20)


def are_labels(task: TextTask) -> str:
    """A sentence on the values of the label column."""
    if not task.labels:
        return "The label is a real number"
    if not _are_names(task):
        return f"The label is one of the numbers {listed(task)}"
    return f"The label is a name, or a number from 0 ({_numbers(task)})"


def check_hidden(split: Split, task: TextTask, labels: Any) -> None:
    """Say or refuse that no row has one of the labels, where the file may number them otherwise.

    Parameters
    ----------
    split, task
        The rows and what their labels are.
    labels : array of shape (rows,)
        Labels of the rows that have one.

    Raises
    ------
    FileError
        There are rows of -1, and a label that no row has: -1 may be that label's number, as in -1
        and 1 or -1, 0 and 1, and the rows would be left out.
    """
    absent = [] if task.is_regression else sorted({*range(task.num_labels)} - {*np.unique(labels)})
    if not absent:
        return
    rows = (class_number(row["label"], task) for _, row in split.rows(["label"]))
    if hidden := sum(label == -1 for label in rows):
        raise file_error(
            split.name,
            f"{hidden} rows have the label -1, which says that a row has none, {len(labels)} have "
            f"another one, and none is of {shown(task.labels[i] for i in absent)}. -1 seems to "
            "stand for a class",
            f"Write the names or numbers of the labels ({_numbers(task)}), or take the rows of -1 "
            "out; FILE@text with -1 in data.label_list reads it as a class",
        )
    if absent[0] == 0 and task.num_labels > 2 and _are_names(task):
        logger.warning(
            "%s: no row is of %s. Labels that are numbers count from 0 (%s).",
            split.name,
            task.labels[0],
            _numbers(task),
        )


def check_order(split: Split, task: TextTask) -> None:
    """Refuse a file that numbers the task's labels in another order and says so: each of its
    numbers would be taken for another label.
    """
    theirs, ours = ([n.casefold() for n in names] for names in (split.label_names, task.labels))
    if theirs != ours and sorted(theirs) == sorted(ours):
        raise file_error(
            split.name,
            f"its labels are numbered {shown(split.label_names)}, those of {task.name} "
            f"{listed(task)}",
            "Write the labels' names in place of the numbers, or number them in this order",
        )


def hidden_rows(split: Split, task: TextTask) -> int:
    """Rows of a split whose labels are kept back: it has none, or they are all -1 or missing. 0 for
    other splits.
    """
    column = "label" if "label" in split.columns else task.sentence_keys[0]
    values = [row[column] for _, row in split.rows([column])]
    if column == "label" and any(
        not is_missing(value) and (_number(value) != -1 or "-1" in task.labels) for value in values
    ):
        return 0
    logger.warning("%s: its rows have no labels; it is not used.", split.name)
    return len(values)


def _are_names(task: TextTask) -> bool:
    """Whether labels have names that are no numbers."""
    return not all(map(_is_number, task.labels))


def _numbers(task: TextTask) -> str:
    if not _are_names(task):
        return f"{task.labels[0]} to {task.labels[-1]}"
    return f"{task.labels[0]} is 0, {task.labels[-1]} is {task.num_labels - 1}"


def label_names(config: Any, split: Split) -> tuple[str, ...]:
    """Names of the labels in order: ``data.label_list``, else those that the file gives to its
    numbers, else those in its rows, sorted.

    Empty for a regression (numbers that are not whole). Whole numbers are classes from 0, where -1
    says that a row has no label; -1 and 1 alone are two classes, and so are 1 to n alone n.
    ``data.num_labels`` decides where it is the number of different ones, which then are the
    classes, or 1 (a regression).

    Raises
    ------
    ExtensionError
        There are no rows, there is one label only, names that differ in case or spaces only, or
        numbers that count nothing.
    """
    if config.data.label_list:
        return _given_names(config)
    rows = Counter(_usable(*place, row["label"]) for place, row in split.rows(["label"]))
    numbers: Counter[float] = Counter()
    for name, count in rows.items():
        numbers[_number(name)] += count
    are_numbers = not any(map(math.isnan, numbers))
    different = len(numbers) if are_numbers else len(rows)
    refuse = _Refusal(config, rows, are_numbers)
    if different < 2:
        if not rows:
            raise refuse("the file has no rows", "Use another file")
        problem = f"there is only one label, {next(iter(rows))} ({rows.total()} rows)"
        raise refuse(problem, "Use a file whose rows have two labels or more; a regression needs "
                     "targets that differ")  # fmt: skip
    wanted = config.data.num_labels
    if are_numbers and split.label_names and not all(_is_number(n) for n in split.label_names):
        names = split.label_names
    elif are_numbers:
        names = _from_numbers(refuse, numbers, wanted)
    else:
        names = _from_names(refuse, rows)
    if names:
        logger.info("%s: %d labels: %s.", split.name, len(names), refuse.counts)
    else:
        low, high = min(numbers), max(numbers)
        logger.info("%s: a regression; targets are from %g to %g.", split.name, low, high)
    return names


class _Refusal:
    """Errors about the labels of a file, with how many rows have each."""

    def __init__(self, config: Any, rows: Counter[str], are_numbers: bool) -> None:
        self.value = config.data.type
        order = sorted(sorted(rows), key=_number) if are_numbers else sorted(rows)
        self.counts = counted(rows, order)
        self.as_list = f"data.label_list: [{shown(map(repr, order))}]"

    def __call__(self, problem: str, remedy: str) -> ExtensionError:
        return ExtensionError("data.type", self.value, problem, remedy)


def counted(rows: Mapping[str, int], names: Any) -> str:
    """Names with their rows, cut where there are many."""
    return shown(f"{name} ({rows[name]} rows)" for name in names)


def _given_names(config: Any) -> tuple[str, ...]:
    """``data.label_list``, two names or more, each once."""
    names = tuple(str(name).strip() for name in config.data.label_list)
    problem = ""
    if len(names) == 1:
        problem = f"{names[0]} is the only label: there is nothing to tell apart"
    elif len({*names}) < len(names) or len(_by_number(names)) < len(names):
        problem = "a label is there twice"
    elif "" in names:
        problem = "a label is empty"
    if problem:
        remedy = "Name every label once, two or more, or write [] to take them from the data"
        raise ExtensionError("data.label_list", list(names), problem, remedy)
    return names


def _from_names(refuse: _Refusal, rows: Counter[str]) -> tuple[str, ...]:
    """Names of which no two are the same word."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in sorted(rows):
        word = _BETWEEN.sub(" ", unicodedata.normalize("NFKC", name)).casefold()
        alike[word.strip(" .'\"") or word].append(name)
    twice = next((same for same in alike.values() if len(same) > 1), [])
    if twice:
        problem = "labels differ only in case or spaces, or in marks that stand for these: "
        problem += counted(rows, twice)
        remedy = "Write them alike in the file"
        raise refuse(problem, f"{remedy}; if they are different classes, set {refuse.as_list}")
    if all(_is_number(name.replace(",", ".")) for name in rows):
        problem = f"the labels are numbers with a comma for the point: {refuse.counts}"
        raise refuse(problem, "Write them with a point (0.5)")
    if numbers := [name for name in rows if _is_number(name)]:
        told = "%s: some labels are numbers and others names; every one is a class of its own: %s."
        logger.warning(told, refuse.value, counted(rows, [*numbers, *({*rows} - {*numbers})]))
    return tuple(sorted(rows))


def _from_numbers(refuse: _Refusal, numbers: Counter[float], wanted: int) -> tuple[str, ...]:
    """Labels that are numbers: as names in order, empty for a regression."""
    low, high = min(numbers), max(numbers)
    if not all(map(math.isfinite, numbers)):
        remedy = "Write a number in its place, or leave the row out"
        raise refuse("the labels are numbers, and inf is among them", remedy)
    if wanted == 1 or any(number != round(number) for number in numbers):
        return ()
    from_one = {*numbers} == {*range(1, len(numbers) + 1)}  # stars, for example
    if {*numbers} == {-1.0, 1.0} or from_one or len(numbers) == wanted:
        return tuple(f"{number:.0f}" for number in sorted(numbers))
    if low < -1 or high >= _MOST_CLASSES:
        problem = f"the labels are numbers from {int(low)} to {int(high)}"
        remedy = "Number the labels 0, 1, 2, ..., use names, name the numbers in data.label_list, "
        raise refuse(problem, f"{remedy}or set data.num_labels: 1 for a regression")
    if low == -1:
        classes = sorted({*numbers} - {-1.0})
        if len(classes) < 2 or classes != list(range(len(classes))):
            raise refuse(
                f"the labels are {refuse.counts}; -1 says that a row has no label where the others "
                "count from 0 without a gap, which they do not",
                f"Set {refuse.as_list} if -1 is a class, or number the labels from 0",
            )
        logger.warning(
            "%s: %d rows of the label -1 are left out: they are taken for rows without a label. "
            "If -1 is a class, set %s.", refuse.value, numbers[-1.0], refuse.as_list,
        )  # fmt: skip
    names = tuple(map(str, range(int(high) + 1)))
    if absent := [name for name in names if float(name) not in numbers]:
        logger.warning(
            "%s: no row has the label %s; the labels are taken for the numbers from 0 to %d. If "
            "there are no others, set %s.", refuse.value, shown(absent), high, refuse.as_list,
        )  # fmt: skip
    return names


def _usable(file: str, number: int, value: Any) -> str:
    """A label as text; one that is missing, a list or an object cannot be counted."""
    name = str(value).strip()
    is_name = not not_text(value)
    if is_missing(value) or not is_name or name.casefold() in _NOTHING:
        remedy = "Write a name or a number, or leave the row out"
        if is_name and name and not is_missing(value):
            remedy += f"; if {name} is a class, name it with the others in data.label_list"
        problem = f"row {number} has no label that can be used ({value!r})"
        raise file_error(file, problem, remedy)
    return name


def is_missing(value: Any) -> bool:
    """Whether a cell is empty: null, or the NaN that tables of numbers have in its place."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _number(value: Any) -> float:
    """A number, NaN for what is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _is_number(value: Any) -> bool:
    return math.isfinite(_number(value))

"""Natural Instructions as its own repository has them: one file per task.

https://github.com/allenai/natural-instructions: ``tasks/taskNNN_name.json`` holds a task's
``Definition``, its ``Instances`` with ``input`` and ``output`` (a list of right answers), and its
``Categories``; ``splits/default/excluded_tasks.txt`` names tasks that the authors leave out, one a
line. The lists of training and test tasks beside it are not read: each task is a client, and
``federate.unseen_clients_rate`` says how many of them are held out.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from federatedscope.core.data.base_translator import split_sizes
from federatedscope.core.errors import ConfigError
from federatedscope.core.seeding import derived_seed
from federatedscope.llm.dataset.instructions import Instruction, to_instructions
from fedfiles.readers import raised_as, reading_text

__all__ = ["Division", "TaskFiles", "joined", "task_files"]

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
_FILE = re.compile(r"task(\d+)_.*\.json")
_COLUMNS = {"instruction": "Definition", "category": "Categories"}
_REMEDY = "Copy the file again from github.com/allenai/natural-instructions"


@dataclass(frozen=True)
class Division:
    """How the instances of a task become training, validation and test rows.

    Attributes
    ----------
    shares : sequence of float
        ``data.splits``.
    seed : int
        ``data.seed``; every task has a stream of its own, named by the task.
    limits : mapping of str to int
        Most rows of a task in a split; 0 takes all.
    """

    shares: Sequence[float] = (0.8, 0.1, 0.1)
    seed: int = 0
    limits: Mapping[str, int] = field(default_factory=dict)

    def of(self, task: str, rows: int) -> dict[str, npt.NDArray[np.int64]]:
        """Numbers of the rows in each split, ascending."""
        train, val = split_sizes(rows, self.shares)
        rng = np.random.default_rng(derived_seed(self.seed, "task", task))
        pieces = np.split(rng.permutation(rows), [train, train + val])
        return {
            split: np.sort(piece[: self.limits.get(split) or rows])
            for split, piece in zip(SPLITS, pieces, strict=True)
        }

    def unread(self, rows: int) -> int:
        """Training rows of a task beyond the limit."""
        train = split_sizes(rows, self.shares)[0]
        return max(0, train - (self.limits.get("train") or train))


class TaskFiles:
    """``taskNNN_name.json``, a client each, in the order of the tasks' numbers.

    Parameters
    ----------
    folder : path
        Where the files are; ``splits/default`` is looked for beside it.
    division : Division
        Which instances are training, validation and test rows.

    Attributes
    ----------
    unread : int
        Training rows that the division's limit has left out so far.

    Raises
    ------
    ConfigError
        Every task is named in ``excluded_tasks.txt``.
    """

    def __init__(self, folder: Path, division: Division) -> None:
        self.division = division
        listed = folder.parent / "splits" / "default" / "excluded_tasks.txt"
        excluded = _names(listed)
        found = task_files(folder)
        self.files = [file for file in found if file.stem not in excluded]
        if not self.files:
            raise ConfigError(
                "data.root",
                str(folder),
                f"{listed} excludes every task that is here",
                "Put other tasks there, or take that file away",
            )
        if len(self.files) < len(found):
            logger.info("%d tasks are left out (%s).", len(found) - len(self.files), listed)
        self.unread = 0
        self._read: dict[tuple[str, int], list[Instruction]] = {}

    @property
    def clients(self) -> list[int]:
        """Numbers of the clients: places in the order of the tasks, from 0."""
        return list(range(len(self.files)))

    def read(
        self, split: str, chosen: Sequence[int]
    ) -> tuple[list[Instruction], npt.NDArray[np.int64]]:
        """The rows of some clients, and whose each is."""
        for client in chosen:
            # Files are large: each is parsed once, and its other splits are kept till asked for.
            if (split, client) not in self._read:
                parts = self._parts(self.files[client])
                self._read |= {(name, client): part for name, part in parts.items()}
        return joined(chosen, [self._read.pop((split, client)) for client in chosen])

    def _parts(self, file: Path) -> dict[str, list[Instruction]]:
        """The rows of a task by split."""
        content = _content(file)
        categories = content.get("Categories")
        if isinstance(categories, list):
            categories = categories[0] if categories else None
        same = {"Definition": content["Definition"], "Categories": categories}
        instances = content["Instances"]
        self.unread += self.division.unread(len(instances))
        return {
            split: to_instructions(
                [{**instances[row], **same} for row in rows.tolist()], _COLUMNS, file, rows + 1
            )
            for split, rows in self.division.of(file.stem, len(instances)).items()
        }


def joined(
    clients: Sequence[int], rows: Sequence[list[Instruction]]
) -> tuple[list[Instruction], npt.NDArray[np.int64]]:
    """The rows of all clients one after the other, and whose each is."""
    owners = np.repeat(np.asarray(clients, dtype=np.int64), [len(mine) for mine in rows])
    return [row for mine in rows for row in mine], owners


def task_files(folder: Path) -> list[Path]:
    """Files of tasks in a folder, in the order of the tasks' numbers."""
    found = [(m, file) for file in folder.glob("*.json") if (m := _FILE.fullmatch(file.name))]
    return [file for m, file in sorted(found, key=lambda pair: (int(pair[0][1]), pair[1].name))]


@raised_as(ConfigError)
def _names(file: Path) -> set[str]:
    """Names of tasks, one a line; none where the file is not there."""
    with reading_text(file, _REMEDY):
        lines = file.read_text(encoding="utf-8-sig").splitlines() if file.is_file() else []
    return {line.strip().removesuffix(".json") for line in lines}


@raised_as(ConfigError)
def _content(file: Path) -> dict[str, Any]:
    """What the file of a task holds, with a definition and a list of instances."""
    with reading_text(file, _REMEDY):
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    problem = _what_lacks(content)
    if problem:
        raise ConfigError(
            "data.root",
            str(file),
            f"this is no task of Natural Instructions: {problem}",
            f"{_REMEDY}, or take it out of the folder",
        )
    return dict(content)


def _what_lacks(content: Any) -> str:
    if not isinstance(content, dict):
        return "it holds no object"
    for key in ("Definition", "Instances"):
        if key not in content:
            return f"it has no {key}"
    if not isinstance(content["Instances"], list):
        return "its Instances are no list"
    for number, instance in enumerate(content["Instances"], start=1):
        if not isinstance(instance, dict):
            return f"instance {number} is no object"
    return ""

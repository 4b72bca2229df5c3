"""Natural Instructions: one task per client, ``data.type: natural_instructions@llm``.

Wang et al., *Super-NaturalInstructions*, EMNLP 2022, https://arxiv.org/abs/2204.07705, divided
into 1,613 clients as by Bai et al., *Federated Fine-tuning of Large Language Models under
Heterogeneous Tasks and Client Resources* (FlexLoRA), NeurIPS 2024,
https://arxiv.org/abs/2402.11505. Three forms below ``data.root`` (or its folder
``natural_instructions``) are read:

- tables ``train``, ``validation``, ``test`` (.parquet) with the columns ``client_id``,
  ``instruction``, ``input``, ``output`` and ``category``, read from ``natural_instructions``;
- the files that come with FlexLoRA, ``local_training_K.json``, ``local_eval_K.json`` and
  ``local_test_K.json`` for client K from 0, in ``1613``. A file that is not there means that the
  client has no such rows. The folder has files of one number more than the paper has clients;
  those of number 1613 are left out, as by FlexLoRA's own program;
- the repository of the data set, ``tasks/taskNNN_name.json`` in ``natural-instructions``. Its
  instances are divided by ``data.splits``, see :mod:`federatedscope.llm.dataset.task_files`.

Client ``K`` of the files is client ``K + 1`` of a run of all of them.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from federatedscope.core.data.utils import take
from federatedscope.core.errors import ConfigError
from federatedscope.llm.dataset.instruction_files import read_files
from federatedscope.llm.dataset.instruction_rows import InstructionRows
from federatedscope.llm.dataset.instructions import Instruction, to_instructions
from federatedscope.llm.dataset.task_files import Division, TaskFiles, joined, task_files
from fedfiles.cache import cache_folder
from fedfiles.readers import raised_as, reading_parquet, shown

__all__ = ["CLIENTS", "NAME", "choose_clients", "load"]

logger = logging.getLogger(__name__)

NAME = "natural_instructions"
REPOSITORY = "natural-instructions"
CLIENTS = 1613
TABLES = {"train": "train", "val": "validation", "test": "test"}
FILES = {"train": "local_training", "val": "local_eval", "test": "local_test"}
_COLUMNS = ("instruction", "input", "output", "category")

IntArray = npt.NDArray[np.int64]


class ClientRows(Protocol):
    """Rows of all clients in one of the forms."""

    @property
    def clients(self) -> list[int]:
        """Numbers of the clients in the files, ascending."""

    def read(self, split: str, chosen: Sequence[int]) -> tuple[list[Instruction], IntArray]:
        """The rows of some clients, and whose each is."""


class Tables:
    """``train.parquet``, ``validation.parquet``, ``test.parquet`` with a column ``client_id``.

    Parameters
    ----------
    folder : path
        Where they are; the training table has to be there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _file(self, split: str) -> Path:
        return self.folder / f"{TABLES[split]}.parquet"

    @raised_as(ConfigError, "data.root")
    def _columns(self, split: str, names: Sequence[str]) -> tuple[Any, IntArray]:
        """Some columns of a table, and whose each row is."""
        import pyarrow.parquet

        remedy = f"It needs the columns client_id, {', '.join(_COLUMNS)}; copy it again"
        with reading_parquet(self._file(split), remedy):
            table = pyarrow.parquet.read_table(self._file(split), columns=["client_id", *names])
        owners = table["client_id"].to_pylist()
        for row, value in enumerate(owners):
            # Where one is missing, pandas writes whole numbers as 3.0.
            if isinstance(value, float) and value.is_integer():
                owners[row] = value = int(value)
            if type(value) is not int or not 0 <= value < 2**63:
                shown = "nothing (null)" if value is None else repr(value)
                raise ConfigError(
                    "data.root",
                    str(self._file(split)),
                    f"the column client_id has {shown} in row {row + 1}",
                    "Write the clients' numbers in it: whole numbers from 0",
                )
        return table, np.asarray(owners, dtype=np.int64)

    @property
    def clients(self) -> list[int]:
        """Numbers of the clients in the files, ascending."""
        there = [split for split in TABLES if self._file(split).is_file()]
        return sorted({k for split in there for k in self._columns(split, [])[1].tolist()})

    def read(self, split: str, chosen: Sequence[int]) -> tuple[list[Instruction], IntArray]:
        """The rows of some clients, and whose each is."""
        if not self._file(split).is_file():
            return [], np.empty(0, dtype=np.int64)
        table, owners = self._columns(split, _COLUMNS)
        kept = np.flatnonzero(np.isin(owners, np.asarray(chosen, dtype=np.int64)))
        rows = table.take(kept).to_pylist()
        return to_instructions(rows, {}, self._file(split), kept + 1), owners[kept]


class Files:
    """``local_training_K.json``, ``local_eval_K.json``, ``local_test_K.json`` for each client.

    Parameters
    ----------
    folder : path
        Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def clients(self) -> list[int]:
        """Numbers of the clients in the files, ascending."""
        pattern = re.compile(rf"({'|'.join(FILES.values())})_(\d+)\.json")
        matches = (pattern.fullmatch(file.name) for file in self.folder.iterdir())
        found = {int(match[2]) for match in matches if match is not None}
        return sorted(number for number in found if number < CLIENTS)

    def read(self, split: str, chosen: Sequence[int]) -> tuple[list[Instruction], IntArray]:
        """The rows of some clients, and whose each is."""
        files = [self.folder / f"{FILES[split]}_{client}.json" for client in chosen]
        return joined(chosen, [read_files([f] if f.is_file() else [], {}) for f in files])


def find(root: str, division: Division | None = None) -> ClientRows:
    """The data below ``data.root``; ``division`` is for tasks that come undivided.

    Raises
    ------
    ConfigError
        They are in none of the places.
    """
    base = Path(root).expanduser()
    folders = [base / NAME, base, base / "data" / NAME]
    tables = [f for f in folders if (f / "train.parquet").is_file() and f.name == NAME]
    inner = [part for folder in (*folders, base / "data") for part in (folder / "1613", folder)]
    files = [folder for folder in inner if any(folder.glob("local_training_*.json"))]
    repositories = [base / REPOSITORY, *folders, base / "data" / REPOSITORY]
    tasks = [part for top in repositories for part in (top / "tasks", top) if task_files(part)]
    first, *others = [str(folder) for folder in (*tables, *files, *tasks)] or [root]
    if others:
        there = shown(others, length=400)
        logger.warning("%s is read; there is also %s, which is not.", first, there)
    if tables:
        return Tables(tables[0])
    if files:
        return Files(files[0])
    if tasks:
        return TaskFiles(tasks[0], division or Division())
    raise ConfigError(
        "data.root",
        root,
        f"Natural Instructions is not in this folder (looked for {NAME}/train.parquet, "
        f"1613/local_training_0.json and {REPOSITORY}/tasks/task001_....json)",
        "Put one of them there: FlexLoRA's repository has the local_ files in its folder data, "
        "github.com/allenai/natural-instructions the tasks; --embedded runs the built-in "
        "miniature, which needs no files",
    )


def choose_clients(clients: Sequence[int], wanted: int, seed: int) -> list[int]:
    """All clients (``wanted`` 0), or so many of them drawn with ``seed``, ascending.

    Not the first ones: tasks of one source have numbers next to each other.

    Raises
    ------
    ConfigError
        There are fewer.
    """
    if wanted == 0 or wanted == len(clients):
        return list(clients)
    if wanted > len(clients):
        raise ConfigError(
            "federate.client_num",
            wanted,
            f"{NAME} has {len(clients)} clients here",
            f"Write {len(clients)} or fewer, or 0 to take all",
        )
    drawn = np.random.RandomState(seed).choice(len(clients), size=wanted, replace=False)
    return [clients[i] for i in sorted(drawn.tolist())]


def load(config: Any, tokenizer: Any) -> Any:
    """The rows of all clients, tokenised.

    Parameters
    ----------
    config : CN
        Reads ``data.root``, ``data.splitter``, ``data.seed``, ``data.subsample``, ``llm.tok_len``
        and ``federate.client_num``, which becomes the number of clients; of tasks that come
        undivided also ``data.splits``, ``data.rows_per_client`` and ``eval.max_rows``. With a
        ``data.splitter`` the rows of all tasks are pooled and spread anew.
    tokenizer : PreTrainedTokenizerBase
        The model's tokenizer.

    Returns
    -------
    dict or tuple
        Client (0: the server, which holds all rows) to its splits; or training, validation and
        test rows of all, to be split.

    Raises
    ------
    ConfigError
        The data are not there, or have fewer clients.
    """
    source = find(config.data.root, _division(config))
    pooled = bool(config.data.splitter)
    wanted = 0 if pooled else config.federate.client_num
    chosen = choose_clients(source.clients, wanted, config.data.seed)
    cache = cache_folder(config)
    rows: dict[str, Any] = {}
    parts: dict[str, list[IntArray]] = {}
    for split in TABLES:
        records, owners = source.read(split, chosen)
        if records:
            rows[split] = InstructionRows(records, tokenizer, config.llm.tok_len, cache)
            order = np.argsort(owners, kind="stable")
            ends = np.searchsorted(owners[order], chosen, side="right")
            parts[split] = np.split(order, ends[:-1])
    if pooled or config.federate.method.lower() == "global":
        return tuple(rows.get(split, []) for split in TABLES)
    config.federate.client_num = len(chosen)
    logger.info("%s: %d clients, one task each", NAME, len(chosen))
    if unread := getattr(source, "unread", 0):
        why = f"data.rows_per_client {config.data.rows_per_client}"
        rows["train"].left_out.append(("train rows", unread, why))
    _subsample(parts, config, rows)
    data: dict[int, Any] = {0: rows}
    for number in range(len(chosen)):
        mine = {split: parts[split][number] for split in parts}
        data[number + 1] = {s: take(rows[s], index) for s, index in mine.items() if len(index)}
    return data


def _division(config: Any) -> Division:
    """How tasks that come undivided are divided.

    A task can have thousands of instances. What no client is going to use (``limit_rows`` in
    :mod:`federatedscope.core.data.participation`) is left out before it costs time and memory;
    rows that are pooled, or evaluated at the server, are used whatever a client's limit.
    """
    limits: dict[str, int] = {}
    if not config.data.splitter and config.federate.method.lower() != "global":
        # data.subsample takes its share first, and leaves the limit of what is read here.
        limits["train"] = math.ceil(config.data.rows_per_client / config.data.subsample - 1e-9)
        if not config.federate.make_global_eval:
            limits["val"] = limits["test"] = int(config.eval.max_rows)
    return Division(tuple(config.data.splits), config.data.seed, limits)


def _subsample(parts: dict[str, list[IntArray]], config: Any, rows: dict[str, Any]) -> None:
    """``data.subsample`` of every client's training rows, one row at least."""
    share = config.data.subsample
    if share == 1.0 or "train" not in parts:
        return
    rng = np.random.RandomState(config.data.seed)
    parts["train"] = [
        np.sort(rng.permutation(part)[: max(1, int(share * len(part) + 1e-9))])
        for part in parts["train"]
    ]
    lost = len(rows["train"]) - sum(map(len, parts["train"]))
    rows["train"].left_out.append(("train rows", lost, f"data.subsample {share}"))

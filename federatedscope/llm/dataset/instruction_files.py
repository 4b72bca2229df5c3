"""Instruction data: which files, which columns."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from federatedscope.core.errors import ConfigError
from federatedscope.llm.dataset.instructions import WANTED, Instruction, to_instructions
from federatedscope.llm.dataset.layouts import check_columns, columns_of
from fedfiles.hub import load_dataset
from fedfiles.readers import (
    SAVED,
    Row,
    column_names,
    format_of,
    own_file,
    own_splits,
    raised_as,
    read_rows,
    shown,
)

__all__ = ["INSTRUCTION_DATA", "InstructionData", "read_files", "read_named", "read_own_file"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InstructionData:
    """A named data set of instructions.

    Attributes
    ----------
    name : str
        Name in ``data.type`` before ``@llm``.
    title : str
        One line for lists.
    files : tuple of str
        Files below ``data.root``, the first that is there is read; ``*`` stands for any text,
        all matching files are read.
    columns : dict
        Column of ``instruction``, ``input``, ``output`` and ``category`` where it has another
        name.
    test_files : tuple of str
        The same for an official test split.
    hub : tuple of (str, str or None) or None
        Repository and subset on the Hugging Face hub.
    """

    name: str
    title: str
    files: tuple[str, ...]
    columns: Mapping[str, str] = field(default_factory=dict)
    test_files: tuple[str, ...] = ()
    hub: tuple[str, str | None] | None = None


INSTRUCTION_DATA: dict[str, InstructionData] = {
    data.name: data
    for data in (
        InstructionData(
            "gsm8k", "school arithmetic in words with a chain of reasoning",
            ("gsm8k_train.jsonl", "gsm8k/train.parquet", "gsm8k/train.jsonl"),
            {"instruction": "question", "output": "answer"},
            ("gsm8k_test.jsonl", "gsm8k/test.parquet", "gsm8k/test.jsonl"),
            ("openai/gsm8k", "main"),
        ),
        InstructionData(
            "alpaca", "52,000 generated instructions",
            ("alpaca_data.json", "alpaca/train.parquet"),
            hub=("tatsu-lab/alpaca", None),
        ),
        InstructionData(
            "alpaca_cleaned", "Alpaca's instructions, corrected",
            ("alpaca_data_cleaned.json", "alpaca_cleaned/train.parquet"),
            hub=("yahma/alpaca-cleaned", None),
        ),
        InstructionData(
            "dolly-15k", "15,000 written instructions in eight categories",
            ("databricks-dolly-15k.jsonl", "dolly_15k/train.parquet", "dolly-15k/train.parquet"),
            {"input": "context", "output": "response"},
            hub=("databricks/databricks-dolly-15k", None),
        ),
        InstructionData(
            "rosetta_alpaca", "programming tasks in several languages",
            ("rosetta_alpaca.json", "rosetta_alpaca/train.parquet"),
            {"category": "input"},
        ),
        InstructionData(
            "code_search_net", "functions and their descriptions in six languages",
            ("*/final/jsonl/train/*_train_*.jsonl.gz", "code_search_net.jsonl",
             "code_search_net/train.parquet"),
            {"instruction": "docstring", "input": "language", "output": "code",
             "category": "language"},
        ),
    )
}  # fmt: skip


def read_named(root: str, data: InstructionData) -> dict[str, list[Instruction]]:
    """Rows by split: ``train``, and the official ``test`` where there are any.

    Parameters
    ----------
    root : str
        ``data.root``.
    data : InstructionData
        The data set.

    Raises
    ------
    ConfigError
        It is neither below ``root`` nor on a hub that answers.
    """
    base = Path(root).expanduser()
    files = _find(base, data.files)
    if files:
        found = {"train": files, "test": _find(base, data.test_files)}
        return {split: read_files(part, data.columns) for split, part in found.items() if part}
    splits = load_dataset([data.hub]) if data.hub else None
    if splits is None:
        example = next(name for name in data.files if "*" not in name)
        other = ", or let the hub deliver it on a machine that reaches it" if data.hub else ""
        raise ConfigError(
            "data.root",
            root,
            f"{data.name} is not in this folder (looked for {', '.join(data.files)})"
            + (" nor in the Hugging Face cache, and the hub cannot be reached" if data.hub else ""),
            f"Put {example} there or give another data.root{other}; --embedded runs the built-in "
            "miniature, which needs no files",
        )
    names = ("train", "test") if data.test_files and "test" in splits else ("train",)
    return {name: to_instructions(splits[name], data.columns) for name in names}


@raised_as(ConfigError)
def read_own_file(root: str, name: str) -> dict[str, list[Instruction]]:
    """Rows of an own file, or of a folder of ``save_to_disk`` (as it is, or below ``root``), by
    split: ``train``, and of a folder also ``validation`` and ``test``.

    Raises
    ------
    ConfigError
        The file is not there or has no instruction and answer.
    """
    parts = own_splits(own_file(root, name, "llm"))
    rows = {split: read_files([file], columns_of(file)) for split, file in parts.items()}
    for split, file in parts.items():
        if empty := sum(not row["output"].strip() for row in rows[split]):
            told = "%s: %d of %d rows have an empty answer; they teach that nothing is to be said."
            logger.warning(told, file, empty, len(rows[split]))
    return rows


def _find(root: Path, patterns: Iterable[str]) -> list[Path]:
    """The files of the first pattern that has any."""
    every = [found for name in patterns if (found := sorted(root.glob(name)))]
    if len(every) > 1:
        others = shown((str(found[0]) for found in every[1:]), length=400)
        logger.warning("%s is read; there is also %s, which is not.", every[0][0], others)
    return every[0] if every else []


@raised_as(ConfigError)
def read_files(files: Iterable[Path], columns: Mapping[str, str]) -> list[Instruction]:
    """The rows of all files, in their order, as text."""
    return [row for file in files for row in to_instructions(_rows(file, columns), columns, file)]


def _rows(file: Path, columns: Mapping[str, str]) -> Iterator[Row]:
    """Rows with the columns that are read, where the format can; none of these twice."""
    used = [columns.get(key, key) for key in WANTED]
    if format_of(file) in (".parquet", SAVED):
        there = column_names(file)
        check_columns(file, there, columns)
        used = [name for name in used if name in there]
    return read_rows(file, used)

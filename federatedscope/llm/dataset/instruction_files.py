"""Instruction data: which files, which columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from federatedscope.core.errors import ConfigError
from federatedscope.llm.dataset.instructions import Instruction, to_instructions
from fedfiles.hub import load_dataset
from fedfiles.readers import own_file, raised_as, read_rows

__all__ = ["INSTRUCTION_DATA", "InstructionData", "read_files", "read_named", "read_own_file"]


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


def read_named(
    root: str, data: InstructionData
) -> tuple[list[Instruction], list[Instruction] | None]:
    """Training rows, and those of the official test split where there are any.

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
        test = _find(base, data.test_files)
        return read_files(files, data.columns), read_files(test, data.columns) if test else None
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
    test_rows = splits["test"] if data.test_files and "test" in splits else None
    return (
        to_instructions(splits["train"], data.columns),
        None if test_rows is None else to_instructions(test_rows, data.columns),
    )


@raised_as(ConfigError)
def read_own_file(root: str, name: str) -> list[Instruction]:
    """Rows of ``FILE.json`` or ``FILE.jsonl`` (as it is, or below ``root``).

    Raises
    ------
    ConfigError
        The file is not there or has no ``instruction`` and ``output``.
    """
    return read_files([own_file(root, name, "llm")], {})


def _find(root: Path, patterns: Iterable[str]) -> list[Path]:
    return next((found for name in patterns if (found := sorted(root.glob(name)))), [])


@raised_as(ConfigError)
def read_files(files: Iterable[Path], columns: Mapping[str, str]) -> list[Instruction]:
    """The rows of all files, in their order, as text."""
    return [row for file in files for row in to_instructions(read_rows(file), columns, file)]

"""Instruction data: which files, which columns."""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from federatedscope.core.errors import ConfigError
from federatedscope.llm.dataset.records import Record, to_records
from federatedscope.llm.hub import hub_is_reachable, offline

__all__ = ["INSTRUCTION_DATA", "InstructionData", "read_own_file", "read_records"]

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
            "gsm8k",
            "school arithmetic in words with a chain of reasoning",
            ("gsm8k_train.jsonl", "gsm8k/train.parquet", "gsm8k/train.jsonl"),
            {"instruction": "question", "output": "answer"},
            ("gsm8k_test.jsonl", "gsm8k/test.parquet", "gsm8k/test.jsonl"),
            ("openai/gsm8k", "main"),
        ),
        InstructionData(
            "alpaca",
            "52,000 generated instructions",
            ("alpaca_data.json", "alpaca/train.parquet"),
            hub=("tatsu-lab/alpaca", None),
        ),
        InstructionData(
            "alpaca_cleaned",
            "Alpaca's instructions, corrected",
            ("alpaca_data_cleaned.json", "alpaca_cleaned/train.parquet"),
            hub=("yahma/alpaca-cleaned", None),
        ),
        InstructionData(
            "dolly-15k",
            "15,000 written instructions in eight categories",
            ("databricks-dolly-15k.jsonl", "dolly_15k/train.parquet", "dolly-15k/train.parquet"),
            {"input": "context", "output": "response"},
            hub=("databricks/databricks-dolly-15k", None),
        ),
        InstructionData(
            "rosetta_alpaca",
            "programming tasks in several languages",
            ("rosetta_alpaca.json", "rosetta_alpaca/train.parquet"),
            {"category": "input"},
        ),
        InstructionData(
            "code_search_net",
            "functions and their descriptions in six languages",
            (
                "*/final/jsonl/train/*_train_*.jsonl.gz",
                "code_search_net.jsonl",
                "code_search_net/train.parquet",
            ),
            {
                "instruction": "docstring",
                "input": "language",
                "output": "code",
                "category": "language",
            },
        ),
    )
}


def read_records(root: str, data: InstructionData) -> tuple[list[Record], list[Record] | None]:
    """Training records, and those of the official test split where there are any.

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
    splits = _from_hub(data)
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
        to_records(splits["train"], data.columns),
        None if test_rows is None else to_records(test_rows, data.columns),
    )


def read_own_file(root: str, name: str) -> list[Record]:
    """Records of ``FILE.json`` or ``FILE.jsonl`` (as it is, or below ``root``).

    Raises
    ------
    ConfigError
        The file is not there or has no ``instruction`` and ``output``.
    """
    path = Path(name).expanduser()
    candidates = [path] if path.is_absolute() else [Path(root).expanduser() / path, path]
    for candidate in candidates:
        if candidate.is_file():
            return read_files([candidate], {})
    raise ConfigError(
        "data.type",
        f"{name}@llm",
        f"there is no file {' or '.join(map(str, candidates))}",
        "Give the path in data.type, or its folder in data.root",
    )


def _find(root: Path, patterns: Iterable[str]) -> list[Path]:
    for pattern in patterns:
        found = sorted(root.glob(pattern))
        if found:
            return found
    return []


def read_files(files: list[Path], columns: Mapping[str, str]) -> list[Record]:
    return [record for file in files for record in to_records(_rows(file), columns, file)]


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    """Rows of a Parquet, JSON, JSON-lines or gzipped JSON-lines file."""
    if file.suffix == ".parquet":
        yield from _parquet(file)
        return
    opener = gzip.open if file.suffix == ".gz" else open
    with reading(file), opener(file, "rt", encoding="utf-8-sig") as stream:
        if file.suffix == ".json":
            yield from _objects(file, json.load(stream))
        else:
            yield from _lines(file, stream)


@contextmanager
def reading(file: Path, remedy: str = "") -> Iterator[None]:
    """Say which file cannot be read as JSON, and why.

    Parameters
    ----------
    file : path
        What is read in the block.
    remedy : str
        What to do about it; by default, which layouts there are.

    Raises
    ------
    ConfigError
        It is damaged, no JSON, or not in UTF-8.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        raise _unreadable(file, f"{error}", "Save the file as UTF-8") from error
    # A gzip file that breaks off is an EOFError, one with damaged content a zlib.error.
    except (
        json.JSONDecodeError,
        RecursionError,
        gzip.BadGzipFile,
        EOFError,
        zlib.error,
    ) as error:
        raise _unreadable(file, f"{error}", remedy) from error


def _unreadable(file: Path, problem: str, remedy: str = "") -> ConfigError:
    return ConfigError(
        "data.type",
        str(file),
        f"the file cannot be read ({problem})",
        remedy or "Use a list of JSON objects (.json), or one JSON object a line (.jsonl)",
    )


def _parquet(file: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as parquet:
            for piece in parquet.iter_batches():
                yield from piece.to_pylist()
    # Damaged pages are an OSError, anything else that is no Parquet an ArrowException.
    except (pyarrow.lib.ArrowException, OSError) as error:
        raise ConfigError(
            "data.root",
            str(file),
            f"the file cannot be read as Parquet ({error})",
            "Copy or download it again, or write it anew",
        ) from error


def _lines(file: Path, stream: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Objects of a JSON-lines file."""
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            # The parser has seen one line only; the user has to find it among all.
            raise _unreadable(file, f"line {number}: {error.msg}, column {error.colno}") from error
        if not isinstance(value, dict):
            raise _unreadable(file, f"line {number} is no JSON object")
        yield value


def _objects(file: Path, content: Any) -> Iterator[dict[str, Any]]:
    """Objects of a JSON file, which has to be a list of them."""
    if not isinstance(content, list):
        kind = "one object" if isinstance(content, dict) else "one value"
        raise _unreadable(file, f"it holds {kind}, not a list")
    for number, value in enumerate(content, start=1):
        if not isinstance(value, dict):
            raise _unreadable(file, f"item {number} of the list is no JSON object")
        yield value


def _from_hub(data: InstructionData) -> Any:
    """The splits from the hub or its cache, ``None`` where they cannot be had."""
    if data.hub is None:
        return None
    import datasets

    with offline(not hub_is_reachable()):
        try:
            return datasets.load_dataset(*data.hub)
        except (OSError, ValueError, RuntimeError) as error:
            logger.debug("%s: %s", data.hub[0], error)
            return None

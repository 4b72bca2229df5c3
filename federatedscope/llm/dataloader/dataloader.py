"""Tokenizer, collator and readers, under the names that extension modules import."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from federatedscope.llm.dataset.instruction_dataset import LLMDataCollator
from federatedscope.llm.dataset.llm_dataset import load_llm_dataset
from federatedscope.llm.dataset.tokenizer import get_tokenizer

__all__ = ["LLMDataCollator", "get_tokenizer", "load_json", "load_jsonl", "load_llm_dataset"]

Record = dict[str, Any]


def load_json(
    file_path: str | Path,
    instruction: str = "instruction",
    input: str = "input",
    output: str = "output",
    category: str = "category",
) -> list[Record]:
    """Records of a json file that holds one list.

    Parameters
    ----------
    file_path : path
        The file.
    instruction, input, output, category : str
        The file's names of these keys.

    Returns
    -------
    list of dict
        ``instruction``, ``input``, ``output`` and ``category``; ``None`` where a record has none.
    """
    text = Path(file_path).read_text(encoding="utf-8")
    return _renamed(json.loads(text), instruction, input, output, category)


def load_jsonl(
    file_path: str | Path,
    instruction: str = "instruction",
    input: str = "input",
    output: str = "output",
    category: str = "category",
    is_gzip: bool = False,
) -> list[Record]:
    """Records of a file with one json object per line, as :func:`load_json` gives them.

    Parameters
    ----------
    file_path, instruction, input, output, category
        See :func:`load_json`.
    is_gzip : bool
        The file is compressed with gzip.
    """
    with (gzip.open if is_gzip else open)(file_path, "rt", encoding="utf-8") as file:
        records = [json.loads(line) for line in file if line.strip()]
    return _renamed(records, instruction, input, output, category)


def _renamed(
    records: Iterable[Mapping[str, Any]], instruction: str, input: str, output: str, category: str
) -> list[Record]:
    return [
        {
            "instruction": record.get(instruction),
            "input": record.get(input),
            "output": record.get(output),
            "category": record.get(category),
        }
        for record in records
    ]

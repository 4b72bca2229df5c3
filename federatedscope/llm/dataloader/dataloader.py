"""Tokenizer, collator and readers, under the names that extension modules import."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from federatedscope.llm.dataset.instruction_rows import LLMDataCollator
from federatedscope.llm.dataset.llm_dataset import load_llm_dataset
from federatedscope.llm.dataset.tokenizer import get_tokenizer

__all__ = ["LLMDataCollator", "get_tokenizer", "load_json", "load_jsonl", "load_llm_dataset"]


def load_json(
    file_path: str | Path,
    instruction: str = "instruction",
    input: str = "input",
    output: str = "output",
    category: str = "category",
) -> list[dict[str, Any]]:
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
    records = json.loads(Path(file_path).read_text(encoding="utf-8"))
    names = {"instruction": instruction, "input": input, "output": output, "category": category}
    return [{key: record.get(name) for key, name in names.items()} for record in records]


def load_jsonl(
    file_path: str | Path,
    instruction: str = "instruction",
    input: str = "input",
    output: str = "output",
    category: str = "category",
    is_gzip: bool = False,
) -> list[dict[str, Any]]:
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
    names = {"instruction": instruction, "input": input, "output": output, "category": category}
    return [{key: record.get(name) for key, name in names.items()} for record in records]

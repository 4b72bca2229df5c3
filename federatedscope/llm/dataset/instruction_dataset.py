"""Instruction data under the names and with the arguments that extension modules use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from federatedscope.llm.dataset.instruction_rows import IGNORE_INDEX, LLMDataCollator, encode
from federatedscope.llm.dataset.prompts import PROMPT_DICT

__all__ = ["DefaultToken", "LLMDataCollator", "LLMDataset"]


class DefaultToken(Enum):
    """Special tokens for a tokenizer that has none, and the label that the loss leaves out."""

    PAD_TOKEN = "[PAD]"
    EOS_TOKEN = "</s>"
    BOS_TOKEN = "<s>"
    UNK_TOKEN = "<unk>"
    IGNORE_INDEX = IGNORE_INDEX


class LLMDataset(Dataset[dict[str, Any]]):
    """Tokenised prompts and answers of a list of records, with prompts of one's own.

    Rows are cut to the tokenizer's ``model_max_length`` as those of
    :class:`~federatedscope.llm.dataset.InstructionRows` are to ``llm.tok_len``.

    Parameters
    ----------
    list_data_dict : sequence of mapping
        ``instruction``, ``output``, and where there are any ``input`` and ``category``.
    tokenizer : PreTrainedTokenizerBase
        The model's tokenizer.
    prompt_input, prompt_no_input : str
        Templates with the records' keys in braces, for records with and without an ``input``.

    Attributes
    ----------
    input_ids, labels : list of int64 tensor of shape (tokens,)
        The rows; labels are -100 on the prompt.
    categories : list of int
        Codes of the categories in alphabetical order, -1 without one.
    lengths : int64 array of shape (rows,)
        Tokens per row.
    cut, left : int array of shape (rows,)
        Tokens that were cut off each row, and those of its answer that are left to learn from.
    """

    def __init__(
        self,
        list_data_dict: Sequence[Mapping[str, Any]],
        tokenizer: Any,
        prompt_input: str = PROMPT_DICT["prompt_input"],
        prompt_no_input: str = PROMPT_DICT["prompt_no_input"],
    ) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.collate_fn = LLMDataCollator(tokenizer)

        def prompt_of(record: Mapping[str, Any]) -> str:
            return (prompt_input if record.get("input") else prompt_no_input).format_map(record)

        arrays = encode(list_data_dict, tokenizer, tokenizer.model_max_length, prompt_of)
        tokens, self.lengths = arrays["tokens"].astype(np.int64), np.diff(arrays["offsets"])
        self.cut = arrays["cut"]
        self.left = np.maximum(self.lengths - np.maximum(arrays["answers"], 1), 0)
        rows = zip(arrays["offsets"], arrays["offsets"][1:], strict=False)
        self.input_ids = [torch.from_numpy(tokens[start:stop]) for start, stop in rows]
        self.labels = [row.clone() for row in self.input_ids]
        for labels, prompt in zip(self.labels, arrays["answers"], strict=True):
            labels[:prompt] = IGNORE_INDEX
        names = [record.get("category") for record in list_data_dict]
        codes = {name: i for i, name in enumerate(sorted({n for n in names if n is not None}))}
        self.categories = [-1 if name is None else codes[name] for name in names]

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "input_ids": self.input_ids[index],
            "labels": self.labels[index],
            "categories": self.categories[index],
        }

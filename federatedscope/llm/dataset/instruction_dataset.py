"""Instruction data under the names and with the arguments that extension modules use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from federatedscope.llm.dataset.instruction_rows import IGNORE_INDEX, _fit, _without_end
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
        self.input_ids: list[torch.Tensor] = []
        self.labels: list[torch.Tensor] = []
        for record in list_data_dict:
            template = prompt_input if record.get("input") else prompt_no_input
            self._add(template.format_map(record), str(record["output"]))
        names = [record.get("category") for record in list_data_dict]
        codes = {name: i for i, name in enumerate(sorted({n for n in names if n is not None}))}
        self.categories = [-1 if name is None else codes[name] for name in names]
        self.lengths = np.asarray([len(row) for row in self.input_ids], dtype=np.int64)

    def _add(self, prompt: str, output: str) -> None:
        tokenizer = self.tokenizer
        end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        before = _without_end(tokenizer(prompt, verbose=False)["input_ids"], tokenizer)
        after = tokenizer(output, add_special_tokens=False, verbose=False)["input_ids"]
        before, after = _fit(
            before, [*after, *end], tokenizer.model_max_length, tokenizer.bos_token_id
        )
        row = torch.tensor([*before, *after], dtype=torch.int64)
        labels = row.clone()
        labels[: len(before)] = IGNORE_INDEX
        self.input_ids.append(row)
        self.labels.append(labels)

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "input_ids": self.input_ids[index],
            "labels": self.labels[index],
            "categories": self.categories[index],
        }


class LLMDataCollator:
    """Pads rows to the longest of a batch.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Its padding token fills ``input_ids``, token 0 where it has none.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, instances: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Make a batch of rows.

        Parameters
        ----------
        instances : sequence of mapping
            ``input_ids`` and ``labels``, int64 of shape ``(tokens,)``.

        Returns
        -------
        dict
            ``input_ids``, ``labels`` (-100 on the padding) and ``attention_mask``, each of shape
            ``(batch, longest)``. The mask comes from the rows' lengths: the padding token may be
            a real one, as the end of text.
        """
        pad = self.tokenizer.pad_token_id
        rows = [row["input_ids"] for row in instances]
        return {
            "input_ids": _padded(rows, 0 if pad is None else int(pad)),
            "labels": _padded([row["labels"] for row in instances], IGNORE_INDEX),
            "attention_mask": _padded([torch.ones_like(row) for row in rows], 0),
        }


def _padded(rows: list[torch.Tensor], value: int) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)

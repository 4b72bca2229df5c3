"""Tokenised rows of a classification or regression of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

__all__ = ["TextRows"]


class TextRows(Dataset[dict[str, Any]]):
    """Rows as dicts of tensors without padding.

    Parameters
    ----------
    arrays : mapping of str to array
        ``input_ids``, int32 of shape ``(tokens,)``, of all rows one after the other; ``offsets``,
        int64 of shape ``(rows + 1,)``, where each begins; ``labels`` of shape ``(rows,)``, int64
        classes or float32 targets; ``cut`` and ``left`` (see below); for models that take it
        ``token_type_ids``, uint8 of shape ``(tokens,)``, which sentence of a pair a token is of.
    pad_token_id : int
        What batches are padded with; the attention mask is 0 there.
    label_names : sequence of str
        Names of the labels in order; empty for a regression.
    left_out : sequence of tuple
        Rows that are not among these: ``(file, number of rows, reason)``.

    Attributes
    ----------
    labels : array of shape (rows,)
        One label per row.
    lengths : int64 array of shape (rows,)
        Tokens per row.
    cut, left : int32 array of shape (rows,)
        Tokens that ``llm.tok_len`` took from each row, and those of its text that are left.
    tokens, offsets : array
        ``input_ids`` and ``offsets`` as given.
    """

    def __init__(
        self,
        arrays: Mapping[str, npt.NDArray[Any]],
        pad_token_id: int = 0,
        label_names: Sequence[str] = (),
        left_out: Sequence[tuple[str, int, str]] = (),
    ) -> None:
        self.tokens, self.offsets = arrays["input_ids"], arrays["offsets"]
        self._per_token = {k: arrays[k] for k in ("input_ids", "token_type_ids") if k in arrays}
        self.pad_token_id = pad_token_id
        self.label_names = list(label_names)
        self.labels = arrays["labels"]
        self.lengths = np.diff(self.offsets)
        self.cut, self.left = arrays.get("cut"), arrays.get("left")
        self.left_out = list(left_out)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index < 0:
            index += len(self)
        start, stop = int(self.offsets[index]), int(self.offsets[index + 1])
        # astype copies, so that a read-only file in memory is never handed to torch.
        item: dict[str, Any] = {
            key: torch.from_numpy(values[start:stop].astype(np.int64))
            for key, values in self._per_token.items()
        }
        mask = torch.ones(stop - start, dtype=torch.int64)
        return item | {"attention_mask": mask, "label": self.labels[index].item()}

    def collate_fn(self, items: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Pad to the longest row of the batch.

        Returns
        -------
        dict
            ``input_ids``, ``attention_mask`` (and ``token_type_ids``) int64 of shape
            ``(batch, longest)``; ``labels`` and ``label``, one tensor of shape ``(batch,)``,
            int64 for classes, float32 for a regression.
        """
        batch = {
            key: pad_sequence(
                [item[key] for item in items], True, self.pad_token_id if key == "input_ids" else 0
            )
            for key in (*self._per_token, "attention_mask")
        }
        dtype = torch.int64 if self.label_names else torch.float32
        labels = torch.tensor([item["label"] for item in items], dtype=dtype)
        return {**batch, "labels": labels, "label": labels}

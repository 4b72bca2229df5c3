"""Tokenised rows of a classification or regression of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

__all__ = ["EncodedText", "TextRows"]


@dataclass(frozen=True)
class EncodedText:
    """Token numbers of all rows, one after the other.

    Attributes
    ----------
    input_ids : int32 array of shape (tokens,)
        Tokens of all rows.
    offsets : int64 array of shape (rows + 1,)
        Row ``i`` is ``input_ids[offsets[i]:offsets[i + 1]]``.
    labels : int64 or float32 array of shape (rows,)
        Classes, or the targets of a regression.
    token_type_ids : uint8 array of shape (tokens,) or None
        Which sentence of a pair a token is of, for models that take it.
    """

    input_ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    labels: npt.NDArray[Any]
    token_type_ids: npt.NDArray[np.uint8] | None = None


class TextRows(Dataset[dict[str, Any]]):
    """A dataset over :class:`EncodedText`; items are dicts of tensors without padding.

    Parameters
    ----------
    encoded : EncodedText
        The rows.
    pad_token_id : int
        What batches are padded with; the attention mask is 0 there.
    label_names : sequence of str
        Names of the labels in order; empty for a regression.

    Attributes
    ----------
    labels : array of shape (rows,)
        One label per row.
    lengths : int64 array of shape (rows,)
        Tokens per row.
    """

    def __init__(
        self, encoded: EncodedText, pad_token_id: int = 0, label_names: Sequence[str] = ()
    ) -> None:
        self.encoded = encoded
        self.pad_token_id = pad_token_id
        self.label_names = list(label_names)
        self.labels = encoded.labels
        self.lengths = np.diff(encoded.offsets)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        rows = self.encoded
        if index < 0:
            index += len(self)
        span = slice(int(rows.offsets[index]), int(rows.offsets[index + 1]))
        # astype copies, so that a read-only file in memory is never handed to torch.
        item: dict[str, Any] = {
            "input_ids": torch.from_numpy(rows.input_ids[span].astype(np.int64)),
            "attention_mask": torch.ones(span.stop - span.start, dtype=torch.int64),
            "label": self.labels[index].item(),
        }
        if rows.token_type_ids is not None:
            item["token_type_ids"] = torch.from_numpy(rows.token_type_ids[span].astype(np.int64))
        return item

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
            key: pad_sequence([item[key] for item in items], True, fill)
            for key, fill in (("input_ids", self.pad_token_id), ("attention_mask", 0),
                              ("token_type_ids", 0))
            if key in items[0]
        }  # fmt: skip
        dtype = torch.int64 if self.label_names else torch.float32
        labels = torch.tensor([item["label"] for item in items], dtype=dtype)
        return {**batch, "labels": labels, "label": labels}

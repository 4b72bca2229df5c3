"""Instructions and answers as rows for a causal language model."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from federatedscope.core.errors import ConfigError
from federatedscope.llm.dataset.instructions import Instruction
from federatedscope.llm.dataset.prompts import PROMPT_DICT, build_prompt
from fedfiles.cache import cached_arrays
from fedfiles.readers import PIECE
from fedfiles.tokenizers import tokenizer_text

__all__ = ["IGNORE_INDEX", "InstructionRows", "LLMDataCollator", "encode"]

logger = logging.getLogger(__name__)

IGNORE_INDEX = -100


class InstructionRows(Dataset[dict[str, Any]]):
    """Tokenised prompts and answers; the loss is on the answer only.

    A row is the prompt's tokens, the answer's and the end-of-text token. A row longer than
    ``tok_len`` loses the end of its answer; where the prompt would leave less than a quarter of
    ``tok_len`` for the answer, the beginning of the prompt goes first, so that there is always
    something to learn from.

    Parameters
    ----------
    records : sequence of dict
        What :func:`~federatedscope.llm.dataset.instructions.to_instructions` makes.
    tokenizer : PreTrainedTokenizerBase
        The model's tokenizer.
    tok_len : int
        Longest row in tokens.
    cache : path, optional
        Folder to keep the tokens in, for the next start.

    Raises
    ------
    ConfigError
        ``tok_len`` leaves no row a token of its answer to learn from.

    Attributes
    ----------
    labels : array of str of shape (rows,) or None
        The categories, for splitters; ``None`` where rows have none.
    lengths : int64 array of shape (rows,)
        Tokens per row.
    cut, left : int array of shape (rows,)
        Tokens that ``tok_len`` took from each row, and those of its answer that it still has to
        learn from.
    left_out : list of tuple
        Rows of the data that are not among these: ``(file, number of rows, reason)``.
    tokens, offsets : int array
        Tokens of all rows one after the other, and where each begins, of shape ``(rows + 1,)``.
    tokenizer : PreTrainedTokenizerBase
        As given.
    """

    def __init__(
        self,
        records: Sequence[Instruction],
        tokenizer: Any,
        tok_len: int,
        cache: Path | None = None,
    ) -> None:
        self.records = list(records)
        self.tokenizer = tokenizer
        self.collate_fn = LLMDataCollator(tokenizer)
        self.labels = _categories(self.records)
        codes = np.unique([] if self.labels is None else self.labels, return_inverse=True)[1]
        self._codes = None if self.labels is None else codes
        arrays = _tokens_of(self.records, tokenizer, tok_len, cache)
        self.tokens, self.offsets = arrays["tokens"], arrays["offsets"]
        self._answers = arrays["answers"]
        self.lengths = np.diff(self.offsets)
        # The first token of a row is never predicted, so it is none to learn from.
        self.left = np.maximum(self.lengths - np.maximum(self._answers, 1), 0)
        self.cut = arrays["cut"]
        self.left_out: list[tuple[str, int, str]] = []
        _check_cuts(self.cut, arrays["answer_cut"], self.left, tok_len)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index < 0:
            index += len(self)
        start, stop = int(self.offsets[index]), int(self.offsets[index + 1])
        input_ids = torch.from_numpy(self.tokens[start:stop].astype(np.int64))
        labels = input_ids.clone()
        labels[: int(self._answers[index])] = IGNORE_INDEX
        item: dict[str, Any] = {"input_ids": input_ids, "labels": labels}
        if self._codes is not None:
            item["categories"] = int(self._codes[index])
        return item

    def raw(self, index: int) -> dict[str, Any]:
        """The text of a row, for generation.

        Returns
        -------
        dict
            ``instruction``, ``input``, ``output``, ``category``, and what the model sees:
            ``prompt`` and ``answer``; ``references``, all right answers, ``answer`` first.
        """
        record = self.records[index]
        references = json.loads(record.get("references", "null")) or [record["output"]]
        return {
            **record,
            "prompt": build_prompt(record),
            "answer": record["output"],
            "references": references,
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
        labels = [row["labels"] for row in instances]
        return {
            "input_ids": pad_sequence(rows, True, 0 if pad is None else int(pad)),
            "labels": pad_sequence(labels, True, IGNORE_INDEX),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], True, 0),
        }


def _categories(records: Sequence[Instruction]) -> npt.NDArray[Any] | None:
    if not any(record.get("category") for record in records):
        return None
    return np.asarray([record.get("category", "") for record in records])


def _tokens_of(
    records: Sequence[Instruction], tokenizer: Any, tok_len: int, cache: Path | None
) -> Mapping[str, npt.NDArray[Any]]:
    """The rows' tokens, from the cache where there is one."""
    if cache is None:
        return encode(records, tokenizer, tok_len)
    digest = hashlib.sha256()
    for record in records:
        digest.update(json.dumps(record, sort_keys=True).encode())
    key = repr((4, digest.hexdigest(), tokenizer_text(tokenizer), PROMPT_DICT, tok_len))
    arrays, known = cached_arrays(
        cache / "instructions", key, lambda: encode(records, tokenizer, tok_len)
    )
    if known:
        logger.info("%d rows, tokenised before (%s)", len(records), cache)
    return arrays


def encode(
    records: Sequence[Mapping[str, Any]],
    tokenizer: Any,
    tok_len: int,
    prompt_of: Callable[[Mapping[str, Any]], str] = build_prompt,
) -> dict[str, npt.NDArray[Any]]:
    """Tokenise prompts and answers.

    Returns
    -------
    dict
        ``tokens`` of all rows one after the other; ``offsets`` of shape ``(rows + 1,)``, where each
        begins; ``answers``, tokens of each prompt; ``cut`` and ``answer_cut``, tokens that a row
        lost, and those of them that were its answer's.
    """
    started = time.perf_counter()
    tokens, offsets, answers = array("i"), [0], array("i")
    cut, answer_cut = array("i"), array("i")
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    for start in range(0, len(records), PIECE):
        piece = records[start : start + PIECE]
        # Not verbose: rows are cut below, so their length is no reason for a warning.
        prompts = tokenizer([prompt_of(r) for r in piece], verbose=False)["input_ids"]
        outputs = [str(r["output"]) for r in piece]
        outputs = tokenizer(outputs, add_special_tokens=False, verbose=False)["input_ids"]
        for prompt, output in zip(prompts, outputs, strict=True):
            prompt, whole = _without_end(prompt, tokenizer), [*output, *end]
            kept_prompt, answer = _fit(prompt, whole, tok_len, tokenizer.bos_token_id)
            answer_cut.append(len(whole) - len(answer))
            cut.append(answer_cut[-1] + len(prompt) - len(kept_prompt))
            tokens.extend(kept_prompt)
            tokens.extend(answer)
            offsets.append(len(tokens))
            answers.append(len(kept_prompt))
    seconds = time.perf_counter() - started
    logger.info("%d rows tokenised in %.1f s (%d tokens)", len(records), seconds, len(tokens))
    return {
        "tokens": np.asarray(tokens, dtype=np.int32),
        "offsets": np.asarray(offsets, dtype=np.int64),
        "answers": np.asarray(answers, dtype=np.int32),
        "cut": np.asarray(cut, dtype=np.int32),
        "answer_cut": np.asarray(answer_cut, dtype=np.int32),
    }


def _check_cuts(
    cut: npt.NDArray[Any], answer_cut: npt.NDArray[Any], learned: npt.NDArray[Any], tok_len: int
) -> None:
    """Say how many rows were too long; refuse when none has a token left to learn from.

    Parameters
    ----------
    cut, answer_cut : int array of shape (rows,)
        Tokens that rows lost, and those of their answers among them.
    learned : int array of shape (rows,)
        Tokens per row that the loss is on.
    tok_len : int
        Longest row in tokens.
    """
    if not np.any(cut):
        return
    empty = int(np.sum(learned < 1))
    if empty == len(learned):
        raise ConfigError(
            "llm.tok_len",
            tok_len,
            f"no token of an answer is left to learn from in any of the {empty} rows",
            "Write a larger one: it has to hold the prompt and the answer",
        )
    # The run's summary counts them by client.
    logger.info(
        "llm.tok_len %d cuts %d of %d rows: %d lose the end of their answer (%d all of it that "
        "could be learned), the others the beginning of their prompt.",
        tok_len,
        np.count_nonzero(cut),
        len(cut),
        np.count_nonzero(answer_cut),
        empty,
    )


def _without_end(prompt: list[int], tokenizer: Any) -> list[int]:
    """A prompt without the closing token that some tokenizers append; the answer follows."""
    closing = {tokenizer.eos_token_id, tokenizer.sep_token_id} - {None}
    return prompt[:-1] if prompt and prompt[-1] in closing else prompt


def _fit(
    prompt: list[int], answer: list[int], tok_len: int, bos: int | None
) -> tuple[list[int], list[int]]:
    """Prompt and answer in at most ``tok_len`` tokens, with something left of the answer."""
    if len(prompt) + len(answer) <= tok_len:
        return prompt, answer
    reserved = min(len(answer), max(1, tok_len // 4))
    room = tok_len - reserved
    if len(prompt) > room:
        first = [bos] if bos is not None and room > 0 and prompt[0] == bos else []
        prompt = first + prompt[len(prompt) - (room - len(first)) :]
    return prompt, answer[: tok_len - len(prompt)]

"""Text to token numbers, once: the result is kept on disk for the next start."""

from __future__ import annotations

import logging
import time
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from federatedscope_ext.data.labels import are_labels, class_number, is_missing
from federatedscope_ext.data.splits import Split
from federatedscope_ext.data.tokenizer import fill_empty, mention_empty
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.tasks import TextTask
from fedfiles.cache import cached_arrays
from fedfiles.readers import PIECE, file_error, shown
from fedfiles.tokenizers import tokenizer_text

__all__ = ["encode_split"]

logger = logging.getLogger(__name__)


def encode_split(
    split: Split, task: TextTask, tokenizer: Any, tok_len: int, cache: Path
) -> Mapping[str, npt.NDArray[Any]]:
    """Tokenise one split, or read what an earlier start left in the cache.

    Parameters
    ----------
    split : Split
        The rows.
    task : TextTask
        Its columns of text, and its labels; -1 drops a row.
    tokenizer : PreTrainedTokenizerBase
        The model's tokenizer.
    tok_len : int
        Rows are cut to this many tokens.
    cache : path
        Folder of the cache; it need not be writable.

    Returns
    -------
    mapping
        The arrays of :class:`~federatedscope_ext.data.rows.TextRows`.

    Raises
    ------
    FileError
        A column is missing, a row lacks its text or has a wrong label, or there are no labelled
        rows.
    ExtensionError
        ``tok_len`` is less than the tokens that the tokenizer adds to every text.
    """
    _refuse_columns(split, task)
    _refuse_length(task, tokenizer, tok_len)
    key = repr((5, split.fingerprint(), tokenizer_text(tokenizer), tok_len, task.sentence_keys,
                task.labels))  # fmt: skip
    arrays, known = cached_arrays(
        cache / "tokenised", key, lambda: _encode(split, task, tokenizer, tok_len)
    )
    mention_empty(split.name, arrays, tokenizer)
    if known:
        rows = len(arrays["labels"])
        logger.info("%s: %d rows, tokenised before (%s)", split.name, rows, cache)
    return arrays


def _refuse_columns(split: Split, task: TextTask) -> None:
    """Refuse a split that lacks one of the columns."""
    there, wanted = split.columns, (*task.sentence_keys, "label")
    missing = [key for key in wanted if key not in there]
    if not missing:
        return
    columns = ", ".join(wanted)
    problem = f"the columns {', '.join(missing)} are missing; there are {shown(there)}"
    remedy = f"Name the columns {columns}"
    if not there:
        problem, remedy = "the file is empty", f"Write rows with the columns {columns} into it"
    elif split.name.endswith(".csv") and not {name.strip().lower() for name in there} & {*wanted}:
        problem = (
            f"its first line names none of the columns {columns}; it reads {shown(there)}. Either "
            "the file has no header line, or one with other names"
        )
        remedy = f"Write a first line with the names of all columns, {columns} among them, with "
        remedy += f"commas between. {are_labels(task)}"
    raise file_error(split.name, problem, remedy)


def _added(task: TextTask, tokenizer: Any) -> int:
    """Tokens of a row that are none of its text."""
    return int(tokenizer.num_special_tokens_to_add(pair=len(task.sentence_keys) == 2))


def _refuse_length(task: TextTask, tokenizer: Any, tok_len: int) -> None:
    """Tokenizers do not cut at all to a length that their own tokens exceed."""
    added = _added(task, tokenizer)
    if tok_len < added:
        raise ExtensionError(
            "llm.tok_len",
            tok_len,
            f"the tokenizer adds {added} tokens to every row of {task.name}, and the text needs "
            "room beside them",
            "Write a larger one, for example 128",
        )


def _encode(
    split: Split, task: TextTask, tokenizer: Any, tok_len: int
) -> dict[str, npt.NDArray[Any]]:
    """Tokenise piece by piece, so that the text is never in memory as a whole."""
    started = time.perf_counter()
    tokens, types, ends = array("i"), array("B"), array("q", [0])
    labels: list[int | float] = []
    cut = array("i")
    typed = "token_type_ids" in tokenizer.model_input_names
    unlabelled = Counter[str]()
    rows = _labelled(split, task, unlabelled)
    while piece := list(islice(rows, PIECE)):
        labels.extend(label for _, label in piece)
        texts = [list(column) for column in zip(*(texts for texts, _ in piece), strict=True)]
        batch = tokenizer(*texts, truncation=True, max_length=tok_len, padding=False)
        cut.extend(_cut(texts, batch["input_ids"], tokenizer, tok_len))
        fill_empty(batch, tokenizer, split.name)
        for row, ids in enumerate(batch["input_ids"]):
            tokens.extend(ids)
            ends.append(len(tokens))
            if typed:
                types.extend(batch["token_type_ids"][row])
    lengths = np.diff(ends)
    logger.info(
        "%s: %d rows tokenised in %.1f s (%d tokens, longest %d, %d rows cut to llm.tok_len %d)",
        split.name,
        len(lengths),
        time.perf_counter() - started,
        lengths.sum(),
        lengths.max(),
        np.count_nonzero(cut),
        tok_len,
    )
    arrays: dict[str, npt.NDArray[Any]] = {
        "input_ids": np.asarray(tokens, dtype=np.int32),
        "offsets": np.asarray(ends, dtype=np.int64),
        "labels": np.asarray(labels, dtype=np.float32 if task.is_regression else np.int64),
        "cut": np.asarray(cut, dtype=np.int32),
        "left": np.asarray(lengths - _added(task, tokenizer), dtype=np.int32),
        "unlabelled": np.asarray([unlabelled.total()], dtype=np.int64),
    }
    if typed:
        arrays["token_type_ids"] = np.asarray(types, dtype=np.uint8)
    return arrays


def _cut(
    texts: Sequence[list[str]], kept: Sequence[Sequence[int]], tokenizer: Any, tok_len: int
) -> list[int]:
    """Tokens that every row lost; only those that fill ``tok_len`` can have lost any."""
    full = [row for row, ids in enumerate(kept) if len(ids) >= tok_len]
    lost = [0] * len(kept)
    if full:
        columns = ([column[row] for row in full] for column in texts)
        # Not verbose: these are not what the model gets.
        whole = tokenizer(*columns, truncation=False, padding=False, verbose=False)["input_ids"]
        for row, ids in zip(full, whole, strict=True):
            lost[row] = len(ids) - len(kept[row])
    return lost


def _labelled(
    split: Split, task: TextTask, unlabelled: Counter[str]
) -> Iterator[tuple[list[str], int | float]]:
    """Texts and label of each row that has one; what is wrong gets its place.

    The others are counted in ``unlabelled`` by their file.
    """
    kept = 0
    for (file, number), row in split.rows([*task.sentence_keys, "label"]):
        try:
            label = class_number(row["label"], task)
        except ValueError as error:
            remedy = "Use the label numbers or names in this order, -1 for rows without a label"
            if task.is_regression:
                remedy = "Write a number, or leave the row out"
            raise file_error(file, f"row {number}: {error}", remedy) from error
        # Of a regression of one's own it is a number as any other.
        if label == -1 and (task.labels or task.hub):
            unlabelled[file] += 1
            continue
        for key in task.sentence_keys:
            # As words, 'None' and 'nan' would be trained on.
            if is_missing(row[key]):
                remedy = "Fill it in or leave the row out (an empty text is '')"
                raise file_error(file, f"row {number} has no {key}", remedy)
        kept += 1
        yield [str(row[key]) for key in task.sentence_keys], label
    if unlabelled:
        told = "%s: %d rows without a label (-1) are left out."
        logger.info(told, split.name, unlabelled.total())
    if not kept:
        problem = "there are no rows with a label" if unlabelled else "the file has no rows"
        raise file_error(split.name, problem, "Use another split or file")

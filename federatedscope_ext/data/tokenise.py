"""Text to token numbers, once: the result is kept on disk for the next start."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import shutil
import tempfile
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from federatedscope_ext.data.csv_rows import shown
from federatedscope_ext.data.rows import EncodedText
from federatedscope_ext.data.sources import Source
from federatedscope_ext.errors import ExtensionError

__all__ = ["cache_folder", "encode_source", "is_missing"]

logger = logging.getLogger(__name__)

FORMAT = "2"
_ARRAYS = ("input_ids", "offsets", "labels", "token_type_ids")


def cache_folder(config: Any) -> Path:
    """Where processed data are kept.

    ``data.cache_dir``, else the environment's ``FEDERATEDSCOPE_CACHE``, else
    ``federatedscope`` in the user's cache folder.
    """
    named = config.data.get("cache_dir", "") or os.environ.get("FEDERATEDSCOPE_CACHE", "")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "federatedscope"


def encode_source(
    source: Source,
    tokenizer: Any,
    sentence_keys: Sequence[str],
    to_label: Callable[[Any], int | float],
    tok_len: int,
    cache: Path,
    label_key: str = "label",
    label_tag: str = "",
    labels_are: str = "",
) -> EncodedText:
    """Tokenise one split, or read what an earlier start left in the cache.

    Parameters
    ----------
    source : Source
        The rows.
    tokenizer : PreTrainedTokenizerBase
        The model's tokenizer.
    sentence_keys : sequence of str
        One or two columns of text.
    to_label : callable
        From a value of the label column to a class number or a target; -1 drops the row. A
        ``ValueError`` says why the value is no label.
    tok_len : int
        Rows are cut to this many tokens.
    cache : path
        Folder of the cache; it need not be writable.
    label_key : str
        Column of the label.
    label_tag : str
        Text that changes with the meaning of ``to_label``; part of the cache's key.
    labels_are : str
        A sentence on the values that labels may have, for messages.

    Returns
    -------
    EncodedText

    Raises
    ------
    ExtensionError
        A column is missing, a row lacks its text or has a wrong label, or there are no labelled
        rows.
    """
    _refuse_columns(source, (*sentence_keys, label_key), labels_are)
    parts = (FORMAT, source.fingerprint(), _tokenizer_hash(tokenizer), tok_len)
    key = repr((*parts, tuple(sentence_keys), label_key, label_tag))
    folder = cache / "tokenised" / hashlib.sha256(key.encode()).hexdigest()[:32]
    encoded = _read(folder)
    if encoded is not None:
        logger.info("%s: %d rows, tokenised before (%s)", source.name, len(encoded.labels), folder)
        return encoded
    started = time.perf_counter()
    encoded = _encode(source, tokenizer, sentence_keys, to_label, tok_len, label_key)
    lengths = np.diff(encoded.offsets)
    logger.info(
        "%s: %d rows tokenised in %.1f s (%d tokens, longest %d, %d rows at llm.tok_len %d)",
        source.name,
        len(lengths),
        time.perf_counter() - started,
        lengths.sum(),
        lengths.max(),
        int(np.sum(lengths == tok_len)),
        tok_len,
    )
    _write(folder, encoded)
    return encoded


def _refuse_columns(source: Source, wanted: tuple[str, ...], labels_are: str) -> None:
    """Refuse a source that lacks one of the columns."""
    there = source.columns
    missing = [key for key in wanted if key not in there]
    if not missing:
        return
    columns = ", ".join(wanted)
    problem = f"the columns {', '.join(missing)} are missing; there are {shown(there)}"
    remedy = f"Name the columns {columns}"
    if not there:
        problem, remedy = "the file is empty", f"Write rows with the columns {columns} into it"
    elif source.name.endswith(".csv") and not {name.strip().lower() for name in there} & {*wanted}:
        problem = (
            f"its first line names none of the columns {columns}; it reads {shown(there)}. Either "
            "the file has no header line, or one with other names"
        )
        remedy = f"Write a first line with the names of all columns, {columns} among them, with "
        remedy += f"commas between. {labels_are}"
    raise ExtensionError("data.type", source.name, problem, remedy)


def _encode(
    source: Source,
    tokenizer: Any,
    sentence_keys: Sequence[str],
    to_label: Callable[[Any], int | float],
    tok_len: int,
    label_key: str,
) -> EncodedText:
    """Tokenise piece by piece, so that the text is never in memory as a whole."""
    tokens, types, ends = array("i"), array("B"), [0]
    labels: list[int | float] = []
    dropped = seen = 0
    typed = "token_type_ids" in tokenizer.model_input_names
    for piece in source.pieces([*sentence_keys, label_key]):
        values = _labels(source, seen, piece[label_key], to_label)
        kept = [i for i, value in enumerate(values) if value != -1]
        _refuse_missing(source, seen, {key: piece[key] for key in sentence_keys}, kept)
        seen += len(values)
        dropped += len(values) - len(kept)
        if not kept:
            continue
        labels.extend(values[i] for i in kept)
        texts = [[str(piece[key][i]) for i in kept] for key in sentence_keys]
        batch = tokenizer(*texts, truncation=True, max_length=tok_len, padding=False)
        for row, ids in enumerate(batch["input_ids"]):
            tokens.extend(ids)
            ends.append(len(tokens))
            if typed:
                types.extend(batch["token_type_ids"][row])
    if dropped:
        logger.info("%s: %d rows without a label (-1) are left out.", source.name, dropped)
    if not labels:
        problem = "there are no rows with a label" if seen else "the file has no rows"
        raise ExtensionError("data.type", source.name, problem, "Use another split or file")
    return EncodedText(
        np.asarray(tokens, dtype=np.int32),
        np.asarray(ends, dtype=np.int64),
        np.asarray(labels, dtype=np.float32 if isinstance(labels[0], float) else np.int64),
        np.asarray(types, dtype=np.uint8) if typed else None,
    )


def _labels(
    source: Source, first: int, values: Sequence[Any], to_label: Callable[[Any], int | float]
) -> list[int | float]:
    """The labels of a piece that begins at row ``first``; what is wrong gets its place."""
    labels = []
    for row, value in enumerate(values, start=first):
        try:
            labels.append(to_label(value))
        except ValueError as error:
            file, number = source.place(row)
            raise ExtensionError(
                "data.type",
                file,
                f"row {number}: {error}",
                "Use the label numbers or names in this order, -1 for rows without a label",
            ) from error
    return labels


def _refuse_missing(
    source: Source, first: int, texts: Mapping[str, Sequence[Any]], rows: Sequence[int]
) -> None:
    """Refuse rows without a text: as words, 'None' and 'nan' would be trained on."""
    for key, values in texts.items():
        for row in rows:
            if is_missing(values[row]):
                file, number = source.place(first + row)
                raise ExtensionError(
                    "data.type",
                    file,
                    f"row {number} has no {key}",
                    "Fill it in or leave the row out (an empty text is '')",
                )


def is_missing(value: Any) -> bool:
    """Whether a cell is empty: null, or the NaN that tables of numbers have in its place."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _tokenizer_hash(tokenizer: Any) -> str:
    """SHA-256 of everything that decides what the tokenizer does."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        # Left from an earlier call; every call sets them again.
        backend.no_truncation()
        backend.no_padding()
        content = backend.to_str()
    else:
        content = repr(sorted(tokenizer.get_vocab().items()))
    text = f"{type(tokenizer).__name__}\n{tokenizer.truncation_side}\n{content}"
    return hashlib.sha256(text.encode()).hexdigest()


def _read(folder: Path) -> EncodedText | None:
    """The arrays of a cache folder, mapped into memory; ``None`` where it is not complete."""
    try:
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in _ARRAYS
            if name != "token_type_ids" or (folder / f"{name}.npy").is_file()
        }
    except (OSError, ValueError):
        return None
    return EncodedText(**arrays)


def _write(folder: Path, encoded: EncodedText) -> None:
    """Write the arrays into a new folder and move it into place in one step."""
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
        for name in _ARRAYS:
            values = getattr(encoded, name)
            if values is not None:
                np.save(temporary / f"{name}.npy", values, allow_pickle=False)
        os.replace(temporary, folder)
    except OSError as error:
        # Another process may have been first; a cache that cannot be written costs only time.
        if not folder.is_dir():
            logger.info("The tokenised rows are not cached: %s", error)
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)

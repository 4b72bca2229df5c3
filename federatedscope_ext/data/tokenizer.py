"""The tokenizer of ``model.type``, and what to do where there is none."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from federatedscope_ext.errors import ExtensionError
from fedfiles.hub import is_path
from fedfiles.readers import file_error
from fedfiles.tokenizers import UnreadableTokenizer, load_tokenizer

__all__ = ["WAYS_OUT", "fill_empty", "mention_empty", "model_tokenizer"]

logger = logging.getLogger(__name__)

WAYS_OUT = (
    "Three ways out: data.root PATH (a folder with {files}), "
    "model.type /path/to/model@huggingface_llm for the model, "
    "or --embedded for the built-in miniature, which needs no files"
)


def model_tokenizer(config: Any) -> Any:
    """The tokenizer of ``model.type``: a local folder, the hub's cache, or the hub.

    Parameters
    ----------
    config : CN
        Reads ``model.type`` (the name is the text before the last ``@``), ``model.revision`` and
        ``llm.cache.model``.

    Raises
    ------
    ExtensionError
        No tokenizer can be had; found out within seconds.
    """
    from transformers import AutoTokenizer

    name = str(config.model.type).rpartition("@")[0] or str(config.model.type)
    folder = Path(name).expanduser()
    remedy = WAYS_OUT.format(files="glue/TASK/SPLIT.parquet")
    if folder.is_dir():
        name = str(folder)
    elif is_path(name):
        raise ExtensionError("model.type", config.model.type, "there is no such folder", remedy)
    options = {"revision": config.model.revision} if config.model.get("revision", "") else {}
    try:
        return load_tokenizer(
            AutoTokenizer, name, cache_dir=config.llm.cache.model or None, **options
        )
    except UnreadableTokenizer as error:
        problem = f"its tokenizer cannot be read: {error}" if folder.is_dir() else str(error)
        if folder.is_dir():
            remedy = (
                "Put the files of the model's tokenizer into this folder (tokenizer.json, or its "
                "vocabulary, and tokenizer_config.json), or give another folder"
            )
        raise ExtensionError("model.type", config.model.type, problem, remedy) from error


def fill_empty(batch: Mapping[str, list[list[int]]], tokenizer: Any, file: str) -> None:
    """Let a row without any token be its beginning or end token alone: a model needs one to read.

    Tokenizers that add nothing (GPT-2's, Qwen's) make no token of an empty text.

    Parameters
    ----------
    batch : mapping
        What the tokenizer made of texts, changed in place.
    tokenizer : PreTrainedTokenizerBase
        Has the token.
    file : str
        What to name in an error.

    Raises
    ------
    FileError
        There is such a row, and the tokenizer has no special token.
    """
    for row, ids in enumerate(batch["input_ids"]):
        if ids:
            continue
        if (token := _standing_in(tokenizer)) is None:
            problem = "a text is empty, and the model's tokenizer has no token to stand in for it"
            raise file_error(file, problem, "Leave the row out, or write something into it")
        batch["input_ids"][row] = [token]
        if "token_type_ids" in batch:
            batch["token_type_ids"][row] = [0]


def _standing_in(tokenizer: Any) -> int | None:
    roles = ("bos", "eos", "cls", "sep", "unk", "pad")
    tokens = (getattr(tokenizer, f"{role}_token_id") for role in roles)
    return next((token for token in tokens if token is not None), None)


def mention_empty(file: str, arrays: Mapping[str, npt.NDArray[Any]], tokenizer: Any) -> None:
    """Say how many texts :func:`fill_empty` gave a token."""
    if tokenizer.num_special_tokens_to_add():
        return
    token, begins = _standing_in(tokenizer), arrays["offsets"][:-1]
    alone = np.diff(arrays["offsets"]) == 1
    if count := int(np.sum(alone & (arrays["input_ids"][begins] == token))):
        name = tokenizer.convert_ids_to_tokens(token)
        logger.warning("%s: %d empty texts, which stand as the token %s.", file, count, name)

"""The tokenizer of ``model.type``, and what to do where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from federatedscope_ext.errors import ExtensionError
from fedfiles.hub import is_path
from fedfiles.tokenizers import UnreadableTokenizer, load_tokenizer

__all__ = ["WAYS_OUT", "model_tokenizer"]

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

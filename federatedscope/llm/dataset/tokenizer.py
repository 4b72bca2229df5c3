"""The tokenizer of a language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from federatedscope.core.errors import ConfigError
from federatedscope.llm.model_files import check_model_source, modelscope
from fedfiles.tokenizers import UnreadableTokenizer, load_tokenizer

__all__ = ["get_tokenizer"]


def get_tokenizer(
    model_name: str,
    cache_dir: str | None = None,
    tok_len: int = 128,
    pkg: str = "huggingface_llm",
    revision: str = "",
) -> tuple[Any, int]:
    """Load a tokenizer from a local folder, the cache or the hub.

    Parameters
    ----------
    model_name : str
        Hub name or path.
    cache_dir : str, optional
        Folder of the hub's cache; the library's own by default.
    tok_len : int
        Longest row; becomes the tokenizer's ``model_max_length``.
    pkg : str
        ``huggingface_llm`` or ``modelscope_llm``.
    revision : str
        Version on the hub; empty for the newest.

    Returns
    -------
    tuple
        The tokenizer, and the number of tokens added to its vocabulary: always 0. It pads with
        :func:`fedfiles.tokenizers.padding_token`; batches carry the attention mask of the true
        lengths, so the choice has no effect.

    Raises
    ------
    ConfigError
        There is no such tokenizer, or ``pkg`` is not installed or unknown.
    """
    options: dict[str, Any] = {"revision": revision} if revision else {}
    options |= {
        "cache_dir": cache_dir or None,
        "model_max_length": tok_len,
        "padding_side": "right",
    }
    loader = _tokenizer_class(pkg)
    try:
        tokenizer = load_tokenizer(loader, model_name, **options)
    except UnreadableTokenizer as error:
        if not (Path(model_name).expanduser() / "config.json").is_file():
            check_model_source("model.type", model_name, cache_dir or "", revision or None)
        raise ConfigError(
            "model.type",
            f"{model_name}@{pkg}",
            f"its tokenizer cannot be loaded ({error})",
            "Give a local folder that has the tokenizer's files (tokenizer.json, or its "
            "vocabulary, and tokenizer_config.json), or another model",
        ) from error
    return tokenizer, 0


def _tokenizer_class(pkg: str) -> Any:
    if pkg == "modelscope_llm":
        return modelscope(f"...@{pkg}").AutoTokenizer
    if pkg != "huggingface_llm":
        problem, remedy = "there is no such source of models", "Write @huggingface_llm"
        raise ConfigError("model.type", f"...@{pkg}", problem, remedy)
    from transformers import AutoTokenizer

    return AutoTokenizer

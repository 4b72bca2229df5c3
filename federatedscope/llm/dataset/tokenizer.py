"""The tokenizer of a language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from federatedscope.core.errors import ConfigError
from federatedscope.llm.hub import check_model_source

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
        The tokenizer, and the number of tokens added to its vocabulary: always 0. A tokenizer
        without a padding token (LLaMA) pads with its end-of-text token; batches carry the
        attention mask of the true lengths, so the choice has no effect.

    Raises
    ------
    ConfigError
        There is no such tokenizer, or ``pkg`` is not installed or unknown.
    """
    options: dict[str, Any] = {
        "cache_dir": cache_dir or None,
        "model_max_length": tok_len,
        "padding_side": "right",
    }
    if revision:
        options["revision"] = revision
    tokenizer = _load(_tokenizer_class(pkg), model_name, pkg, options)
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, 0


def _load(loader: Any, name: str, pkg: str, options: dict[str, Any]) -> Any:
    try:
        # The cache first: with a hub that does not answer, asking it costs minutes of retries.
        return _read(loader, name, local_files_only=True, **options)
    except _UnreadableTokenizer as error:
        folder = Path(name).expanduser()
        if (folder / "config.json").is_file():
            raise _unusable(name, pkg, error) from error
        check_model_source("model.type", name, options["cache_dir"] or "", options.get("revision"))
    try:
        return _read(loader, name, **options)
    except _UnreadableTokenizer as error:
        raise _unusable(name, pkg, error) from error


def _unusable(name: str, pkg: str, error: Exception) -> ConfigError:
    return ConfigError(
        "model.type",
        f"{name}@{pkg}",
        f"its tokenizer cannot be loaded ({error})",
        "Give a local folder that has the tokenizer's files (tokenizer.json, or its vocabulary, "
        "and tokenizer_config.json), or another model",
    )


class _UnreadableTokenizer(Exception):
    """The files of a tokenizer are missing or broken; the text says how."""


#: what transformers lets through of files that are missing, or hold other JSON than it expects
_BROKEN_FILES = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError)


def _read(loader: Any, name: str, **options: Any) -> Any:
    try:
        tokenizer = loader.from_pretrained(name, **options)
    except Exception as error:
        # The parser of tokenizer.json, in Rust, raises Exception itself and none of its kinds.
        if not isinstance(error, _BROKEN_FILES) and type(error) is not Exception:
            raise
        raise _UnreadableTokenizer(f"{type(error).__name__}: {error}") from error
    # Where no vocabulary is there, transformers makes up a tokenizer that has only the special
    # tokens (and a mark of the beginning of words): all text would be unknown to it.
    special = set(tokenizer.all_special_tokens)
    if not any(piece.strip("\u2581\u0120 ") for piece in set(tokenizer.get_vocab()) - special):
        raise _UnreadableTokenizer(
            "it knows nothing but its special tokens; tokenizer.json or the vocabulary is missing"
        )
    return tokenizer


def _tokenizer_class(pkg: str) -> Any:
    if pkg == "huggingface_llm":
        from transformers import AutoTokenizer

        return AutoTokenizer
    if pkg == "modelscope_llm":
        try:
            from modelscope import AutoTokenizer as ModelScopeTokenizer
        except ImportError as error:
            raise ConfigError(
                "model.type",
                f"...@{pkg}",
                "the package modelscope is not installed",
                "Install it (pip install modelscope), or write NAME_OR_PATH@huggingface_llm",
            ) from error
        return ModelScopeTokenizer
    raise ConfigError(
        "model.type", f"...@{pkg}", "there is no such source of models", "Write @huggingface_llm"
    )

"""Tokenizers: from a folder, the cache or the hub, and never one that knows no words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedfiles.hub import from_pretrained, hub_is_reachable

__all__ = ["UnreadableTokenizer", "load_tokenizer", "padding_token", "tokenizer_text"]

# What stands in for a padding token, best first.
_ROLES = ("pad", "eos", "bos", "unk", "sep", "cls")

# What transformers lets through of files that are missing, or hold other JSON than it expects.
_BROKEN_FILES = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError)


class UnreadableTokenizer(Exception):
    """The files of a tokenizer are missing or broken; the text says how."""


def load_tokenizer(loader: Any, name: str, **options: Any) -> Any:
    """``loader.from_pretrained``, from folder or cache where possible, else from the hub.

    It pads with :func:`padding_token`. No code of a model's folder is run.

    Raises
    ------
    UnreadableTokenizer
        There is none in the folder, or neither in the cache nor on a hub that answers.
    """
    tokenizer = _from_folder_or_hub(loader, name, options | {"trust_remote_code": False})
    pad = padding_token(tokenizer, _embedding_rows(name, options))
    if pad is not None and pad != tokenizer.pad_token_id:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    return tokenizer


def padding_token(tokenizer: Any, rows: int | None = None) -> int | None:
    """The token that fills batches, in tokenizer, model and generation alike.

    The tokenizer's own padding token, else its end-of-text token, else another special one: the
    first that the model's embedding has a row for. ``None`` where there is no such token.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        The model's tokenizer.
    rows : int, optional
        Rows of the model's embedding, where they are known.
    """
    tokens = (getattr(tokenizer, f"{role}_token_id") for role in _ROLES)
    fitting = (t for t in tokens if t is not None and t >= 0 and (rows is None or t < rows))
    return next(fitting, None)


def _embedding_rows(name: str, options: dict[str, Any]) -> int | None:
    """Tokens that the model beside a tokenizer knows; ``None`` where there is no model."""
    from transformers import AutoConfig

    where = {key: options[key] for key in ("cache_dir", "revision") if key in options}
    try:
        config = from_pretrained(AutoConfig, name, trust_remote_code=False, **where)
    except (OSError, ValueError):
        return None
    return getattr(config.get_text_config(), "vocab_size", None)


def _from_folder_or_hub(loader: Any, name: str, options: dict[str, Any]) -> Any:
    try:
        return _read(loader, name, local_files_only=True, **options)
    except UnreadableTokenizer:
        if Path(name).is_dir():
            raise
    if not hub_is_reachable():
        raise UnreadableTokenizer(
            "it is not in the local cache and the Hugging Face hub cannot be reached"
        )
    try:
        return _read(loader, name, **options)
    except UnreadableTokenizer as error:
        raise UnreadableTokenizer(f"the hub has no tokenizer for it ({error})") from error


def _read(loader: Any, name: str, **options: Any) -> Any:
    try:
        tokenizer = loader.from_pretrained(name, **options)
    except Exception as error:
        # The parser of tokenizer.json, in Rust, raises Exception itself and none of its kinds.
        if not isinstance(error, _BROKEN_FILES) and type(error) is not Exception:
            raise
        if "trust_remote_code" in str(error):
            raise UnreadableTokenizer("it needs code of its own, which is never run") from error
        raise UnreadableTokenizer(f"{type(error).__name__}: {error}") from error
    # Where no vocabulary is there, transformers makes up a tokenizer that has only the special
    # tokens (and a mark of the beginning of words): all text would be unknown to it.
    special = set(tokenizer.all_special_tokens)
    if not any(piece.strip("\u2581\u0120 ") for piece in set(tokenizer.get_vocab()) - special):
        raise UnreadableTokenizer(
            "it knows nothing but its special tokens; tokenizer.json or the vocabulary is missing"
        )
    return tokenizer


def tokenizer_text(tokenizer: Any) -> str:
    """Everything that decides what a tokenizer does, for the key of a cache."""
    kind = f"{type(tokenizer).__name__} {tokenizer.truncation_side} "
    kind += f"{tokenizer.bos_token_id} {tokenizer.eos_token_id}"
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return f"{kind} {sorted(tokenizer.get_vocab().items())}"
    # Left from an earlier call; every call sets them again.
    backend.no_truncation()
    backend.no_padding()
    return f"{kind} {backend.to_str()}"

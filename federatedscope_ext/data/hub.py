"""The Hugging Face hub and its cache, with an answer within seconds where neither helps."""

from __future__ import annotations

import logging
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from federatedscope_ext.errors import ExtensionError

__all__ = ["WAYS_OUT", "hub_is_reachable", "load_from_hub", "load_tokenizer"]

logger = logging.getLogger(__name__)

TIMEOUT = 4.0

WAYS_OUT = (
    "Three ways out: data.root PATH (a folder with {layout}), "
    "model.type /path/to/model@huggingface_llm for the model, "
    "or --embedded for the built-in miniature, which needs no files"
)


def hub_is_reachable(timeout: float = TIMEOUT) -> bool:
    """Whether the hub answers within ``timeout`` seconds; through a proxy where one is set."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or os.environ.get("HF_DATASETS_OFFLINE", "0") not in ("", "0"):
        return False
    answer: list[bool] = []
    # In a thread, because looking up a name has no time limit of its own.
    thread = threading.Thread(
        target=lambda: answer.append(_answers(constants.ENDPOINT, timeout)), daemon=True
    )
    thread.start()
    thread.join(timeout + 1)
    return bool(answer) and answer[0]


def _answers(url: str, timeout: float) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout):
            return True
    except urllib.error.HTTPError as error:
        # 403 and 407 come from proxies that do not let anything through.
        return error.code < 500 and error.code not in (403, 407)
    except (OSError, ValueError):
        return False


@contextmanager
def _offline(wanted: bool) -> Iterator[None]:
    """Tell the hub's libraries not to try the network, so that they do not retry for minutes."""
    import datasets.config
    import huggingface_hub.constants as constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    if wanted:
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def load_from_hub(repositories: Sequence[tuple[str, str | None]]) -> tuple[Any, str] | None:
    """A data set from the hub or its local cache.

    Parameters
    ----------
    repositories : sequence of (str, str or None)
        Repository and subset, tried in order.

    Returns
    -------
    tuple of (DatasetDict, str) or None
        The splits and where they are from; ``None`` when none of the repositories can be had.
    """
    import datasets

    online = hub_is_reachable()
    with _offline(not online):
        for repository, subset in repositories:
            try:
                found = datasets.load_dataset(repository, subset)
            except (OSError, ValueError, RuntimeError) as error:
                logger.debug("%s %s: %s", repository, subset, error)
                continue
            return found, f"{repository} ({'hub' if online else 'cache'})"
    return None


def load_tokenizer(config: Any) -> Any:
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
    name = str(config.model.type).rpartition("@")[0] or str(config.model.type)
    options: dict[str, Any] = {"cache_dir": config.llm.cache.model or None}
    if config.model.get("revision", ""):
        options["revision"] = config.model.revision
    folder = Path(name).expanduser()
    if folder.is_dir():
        name = str(folder)
    elif folder.is_absolute() or name.startswith((".", "~")):
        raise _no_tokenizer(config, "there is no such folder")
    try:
        return _read_tokenizer(name, local_files_only=True, **options)
    except _UnreadableTokenizer as error:
        if folder.is_dir():
            raise ExtensionError(
                "model.type",
                str(config.model.type),
                f"its tokenizer cannot be read: {error}",
                "Put the files of the model's tokenizer into this folder (tokenizer.json, or its "
                "vocabulary, and tokenizer_config.json), or give another folder",
            ) from error
    if not hub_is_reachable():
        raise _no_tokenizer(
            config, "it is not in the local cache and the Hugging Face hub cannot be reached"
        )
    try:
        return _read_tokenizer(name, **options)
    except _UnreadableTokenizer as error:
        raise _no_tokenizer(config, f"the hub has no tokenizer for it ({error})") from error


class _UnreadableTokenizer(Exception):
    """The files of a tokenizer are missing or broken; the text says how."""


#: what transformers lets through of files that are missing, or hold other JSON than it expects
_BROKEN_FILES = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError)


def _read_tokenizer(name: str, **options: Any) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
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


def _no_tokenizer(config: Any, problem: str) -> ExtensionError:
    layout = "glue/TASK/SPLIT.parquet"
    return ExtensionError(
        "model.type", str(config.model.type), problem, WAYS_OUT.format(layout=layout)
    )

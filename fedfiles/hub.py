"""The Hugging Face hub and its cache, with an answer within seconds where neither helps."""

from __future__ import annotations

import logging
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from huggingface_hub.errors import StrictDataclassError

__all__ = ["from_pretrained", "hub_is_reachable", "is_path", "load_dataset"]

logger = logging.getLogger(__name__)


def is_path(name: str) -> bool:
    """Whether a model's name can only be that of a folder."""
    return Path(name).expanduser().is_absolute() or name.startswith((".", "~"))


def hub_is_reachable(timeout: float = 4.0) -> bool:
    """Whether the hub answers within ``timeout`` seconds, through a proxy if one is set."""
    if constants.HF_HUB_OFFLINE:
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
        # 403 and 407 come from proxies that let nothing through.
        return error.code < 500 and error.code not in (403, 407)
    except (OSError, ValueError):
        return False


@contextmanager
def _offline(wanted: bool) -> Iterator[None]:
    """Tell the hub's libraries not to try the network, so that they do not retry for minutes."""
    import datasets.config

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    if wanted:
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def load_dataset(repositories: Iterable[tuple[str, str | None]]) -> Any:
    """A data set of the hub or its cache.

    Parameters
    ----------
    repositories : iterable of (str, str or None)
        Repository and subset, tried in order.

    Returns
    -------
    DatasetDict or None
        The splits; ``None`` when none of the repositories can be had.
    """
    import datasets

    wanted = os.environ.get("HF_DATASETS_OFFLINE", "0") in ("", "0")
    online = wanted and hub_is_reachable()
    with _offline(not online):
        for repository, subset in repositories:
            try:
                found = datasets.load_dataset(repository, subset)
            except (OSError, ValueError, RuntimeError) as error:
                logger.debug("%s %s: %s", repository, subset, error)
                continue
            logger.info("From %s (%s)", repository, "hub" if online else "cache")
            return found
    return None


def from_pretrained(loader: Any, name: str | None, **options: Any) -> Any:
    """``loader.from_pretrained``, from folder or cache where possible, else from the hub.

    The cache is asked first because a hub that does not answer costs minutes of retries. Values of
    ``config.json`` that do not fit are a ``ValueError``.
    """
    try:
        try:
            return loader.from_pretrained(name, local_files_only=True, **options)
        except OSError:
            if not hub_is_reachable():
                raise
        return loader.from_pretrained(name, **options)
    except StrictDataclassError as error:
        raise ValueError(" ".join(str(error).split())) from error

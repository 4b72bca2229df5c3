"""Is a model at hand? Answered in seconds, before anything else is started."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import constants, try_to_load_from_cache
from safetensors import SafetensorError, safe_open

from federatedscope.core.errors import ConfigError

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
WAYS_OUT = (
    "Give a local folder in Hugging Face format (model.type /path/to/model@huggingface_llm), or "
    "run the built-in miniature with --embedded, or unset HF_HUB_OFFLINE on a machine that reaches "
    "the hub"
)


def hub_is_reachable(timeout: float = 3.0) -> bool:
    """Whether the Hugging Face hub answers within ``timeout`` seconds, through a proxy if set."""
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
def offline(wanted: bool) -> Iterator[None]:
    """Tell the hub's libraries not to try the network, so that they do not retry for minutes."""
    import datasets.config

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    if wanted:
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def check_model_source(
    field: str, name: str, cache_dir: str = "", revision: str | None = None
) -> None:
    """Make sure that a Hugging Face model is a local folder, in the cache, or can be fetched.

    Parameters
    ----------
    field : str
        Configuration key to name in the error.
    name : str
        Hub ID or path.
    cache_dir : str
        Folder of the cache (``llm.cache.model``); the hub's own when empty.
    revision : str, optional
        Branch, tag or commit (``model.revision``).

    Raises
    ------
    ConfigError
        None of the three.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ConfigError(
                field,
                name,
                "the folder has no config.json, so it is no Hugging Face model",
                WAYS_OUT,
            )
        _check_weights(field, name, folder)
        return
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ConfigError(field, name, "there is no such folder", WAYS_OUT)
    cached = try_to_load_from_cache(
        name, "config.json", cache_dir=cache_dir or None, revision=revision or None
    )
    if isinstance(cached, str):
        return
    if not hub_is_reachable():
        raise ConfigError(
            field,
            name,
            "the model is neither a local folder nor in the Hugging Face cache, and the hub "
            "cannot be reached",
            WAYS_OUT,
        )


def _check_weights(field: str, name: str, folder: Path) -> None:
    """A folder has weights, and those in safetensors are whole."""
    files = [file for pattern in WEIGHTS for file in folder.glob(pattern)]
    if not files:
        raise ConfigError(field, name, f"the folder has no weights ({WEIGHTS[0]})", WAYS_OUT)
    for file in files:
        if file.suffix != ".safetensors":
            continue
        try:
            # Reads the header only, and compares it with the file's size.
            with safe_open(str(file), framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise ConfigError(field, name, f"{file} is damaged ({error})", WAYS_OUT) from error


def from_pretrained(loader: Any, name: str, **options: Any) -> Any:
    """``loader.from_pretrained``, from folder or cache where possible, else from the hub.

    The cache is asked first because a hub that does not answer costs minutes of retries.
    """
    try:
        return loader.from_pretrained(name, local_files_only=True, **options)
    except OSError:
        if not hub_is_reachable():
            raise
    return loader.from_pretrained(name, **options)

"""Is a model at hand? Answered in seconds, before anything else is started."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError, safe_open

from federatedscope.core.errors import ConfigError
from fedfiles.hub import hub_is_reachable, is_path

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
WAYS_OUT = (
    "Give a local folder in Hugging Face format (model.type /path/to/model@huggingface_llm), or "
    "run the built-in miniature with --embedded, or unset HF_HUB_OFFLINE on a machine that reaches "
    "the hub"
)


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
        problem = _what_lacks(folder)
    elif is_path(name) or name.count("/") > 1:
        problem = "there is no such folder"
    else:
        where = {"cache_dir": cache_dir or None, "revision": revision or None}
        cached = try_to_load_from_cache(name, "config.json", **where)
        problem = "" if isinstance(cached, str) or hub_is_reachable() else (
            "the model is neither a local folder nor in the Hugging Face cache, and the hub "
            "cannot be reached"
        )  # fmt: skip
    if problem:
        raise ConfigError(field, name, problem, WAYS_OUT)


def _what_lacks(folder: Path) -> str:
    """What is missing or damaged in a folder; nothing where it has weights, and whole ones."""
    if not (folder / "config.json").is_file():
        return "the folder has no config.json, so it is no Hugging Face model"
    files = [file for pattern in WEIGHTS for file in folder.glob(pattern)]
    for file in files:
        try:
            if file.suffix == ".safetensors":
                # Reads the header only, and compares it with the file's size.
                with safe_open(str(file), framework="pt"):
                    pass
        except (SafetensorError, OSError) as error:
            return f"{file} is damaged ({error})"
    return "" if files else f"the folder has no weights ({WEIGHTS[0]})"


def modelscope(model_type: str) -> Any:
    """The package of the other hub.

    Raises
    ------
    ConfigError
        It is not installed.
    """
    try:
        return importlib.import_module("modelscope")
    except ImportError as error:
        raise ConfigError(
            "model.type",
            model_type,
            "the package modelscope is not installed",
            "Install it (pip install modelscope), or use a Hugging Face name or folder with "
            "@huggingface_llm",
        ) from error

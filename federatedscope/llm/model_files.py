"""Is a model at hand? Answered in seconds, before anything else is started."""

from __future__ import annotations

import importlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError, safe_open

from federatedscope.core.errors import ConfigError
from fedfiles.hub import from_pretrained, hub_is_reachable, is_path

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
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
        None of the three; files that are missing or damaged; or the model needs code of its own, or
        a package for its quantised weights.
    """
    folder = Path(name).expanduser()
    file: Any = folder / "config.json"
    if folder.is_dir():
        problem = _what_lacks(folder)
    elif is_path(name) or name.count("/") > 1:
        problem = "there is no such folder"
    else:
        where = {"cache_dir": cache_dir or None, "revision": revision or None}
        file = try_to_load_from_cache(name, "config.json", **where)
        problem = "" if isinstance(file, str) or hub_is_reachable() else (
            "the model is neither a local folder nor in the Hugging Face cache, and the hub "
            "cannot be reached"
        )  # fmt: skip
    if problem:
        raise ConfigError(field, name, problem, WAYS_OUT)
    if isinstance(file, str | Path):
        _refuse_what_needs_more(field, name, _json(file))
        _check_config(field, name, Path(file).parent)


def _check_config(field: str, name: str, folder: Path) -> None:
    """Here, since whatever reads a tokenizer or weights reads the configuration first."""
    from transformers import AutoConfig

    try:
        from_pretrained(AutoConfig, str(folder), trust_remote_code=False)
    except (OSError, ValueError) as error:
        problem = f"its configuration cannot be loaded ({str(error).splitlines()[0]})"
        remedy = "Mend its config.json, or fetch the model again"
        raise ConfigError(field, name, problem, remedy) from error


def _json(file: str | Path) -> dict[str, Any]:
    """Content of a JSON file; empty where it is broken, which transformers says better."""
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _refuse_what_needs_more(field: str, name: str, config: dict[str, Any]) -> None:
    """Refuse code of the model's own, and quantised weights without the package that reads them."""
    if "auto_map" in config:
        from transformers import CONFIG_MAPPING

        if (kind := config.get("model_type")) not in CONFIG_MAPPING:
            raise ConfigError(
                field,
                name,
                f"transformers has no architecture {kind!r}, and code that a model brings along "
                "(auto_map) is never run",
                "Give a model of an architecture that transformers has, if need be a converted "
                "copy of this one, or a newer transformers",
            )
    if (quantised := config.get("quantization_config")) is not None:
        from transformers.quantizers import AutoHfQuantizer

        try:
            quantiser = AutoHfQuantizer.from_config(dict(quantised), pre_quantized=True)
            quantiser.validate_environment(device_map=None, dtype=torch.float32)
        except (ImportError, RuntimeError, ValueError, TypeError) as error:
            method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
            raise ConfigError(
                field,
                name,
                f"its weights are quantised ({method}), and cannot be read here: "
                f"{' '.join(str(error).split())}",
                "Install what it names, or give the model with its full weights",
            ) from error


def _what_lacks(folder: Path) -> str:
    """What is missing or damaged in a folder; nothing where it has weights, and whole ones."""
    if (folder / "adapter_config.json").is_file():
        # transformers would load its base and put the adapter on it, silently.
        return "it is the folder of an adapter (adapter_config.json); merge it into its base"
    if not (folder / "config.json").is_file():
        return "the folder has no config.json, so it is no Hugging Face model"
    files = [folder / whole for whole in WEIGHTS if (folder / whole).is_file()]
    for whole in WEIGHTS:
        index = folder / f"{whole}.index.json"
        for part in sorted(set(_json(index).get("weight_map", {}).values())):
            if not (folder / part).is_file():
                return f"the folder lacks {part}, which {index.name} names"
            files.append(folder / part)
    for file in files:
        try:
            _check_head(file)
        except (SafetensorError, OSError, ValueError) as error:
            return f"{file} is damaged ({error})"
    return "" if files else f"the folder has no weights ({' or '.join(WEIGHTS)}, whole or in parts)"


def _check_head(file: Path) -> None:
    """Is a file of weights what its name says, and whole? Reads its head only."""
    if file.suffix == ".safetensors":
        # Compares its head with its size.
        with safe_open(str(file), framework="pt"):
            return
    with file.open("rb") as stream:
        old = stream.read(1) == b"\x80"
    if not old and not zipfile.is_zipfile(file):
        raise ValueError("no archive of PyTorch's, or not all of it")


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


def weights_without_storage(
    name: str, cache_dir: str | None = None, revision: str | None = None
) -> dict[str, torch.Tensor]:
    """Names and shapes of a model's weights, read from the heads of its files.

    Returns
    -------
    dict of str to tensor
        On the meta device; empty where the weights are neither in a folder nor in the cache.
    """
    from transformers.utils import cached_file

    def locate(part: str) -> str | None:
        found = cached_file(
            name,
            part,
            cache_dir=cache_dir,
            revision=revision,
            local_files_only=True,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        return None if found is None else str(found)

    for whole in WEIGHTS:
        index = locate(f"{whole}.index.json")
        parts = sorted(set(_json(index).get("weight_map", {}).values())) if index else [whole]
        files = [locate(part) for part in parts]
        if files and None not in files:
            try:
                return dict(tensor for file in files for tensor in _tensors(str(file)))
            except Exception:  # noqa: BLE001 - what is wrong with them is said by those who read them
                return {}
    return {}


def _tensors(file: str) -> Iterator[tuple[str, torch.Tensor]]:
    if file.endswith(".bin"):
        # Files of old are no archives, and have to be read as a whole.
        lazy = zipfile.is_zipfile(file)
        yield from torch.load(file, map_location="meta", weights_only=True, mmap=lazy).items()
        return
    with safe_open(file, framework="pt") as weights:
        for key in weights.keys():  # noqa: SIM118 - no mapping
            yield key, torch.empty(weights.get_slice(key).get_shape(), device="meta")

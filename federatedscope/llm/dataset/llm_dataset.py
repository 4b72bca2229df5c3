"""``data.type: NAME@llm``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np

from federatedscope.core.data.base_translator import BaseDataTranslator
from federatedscope.core.data.dummy_translator import DummyDataTranslator
from federatedscope.core.data.utils import take
from federatedscope.core.errors import ConfigError
from federatedscope.llm.dataset import natural_instructions
from federatedscope.llm.dataset.instruction_dataset import DefaultToken, LLMDataset
from federatedscope.llm.dataset.instruction_files import INSTRUCTION_DATA, read_named, read_own_file
from federatedscope.llm.dataset.instruction_rows import InstructionRows
from federatedscope.llm.dataset.instructions import Instruction
from federatedscope.llm.dataset.prompts import PROMPT_DICT
from federatedscope.llm.dataset.tokenizer import get_tokenizer
from fedfiles.cache import cache_folder
from fedfiles.readers import is_own

__all__ = ["PROMPT_DICT", "DefaultToken", "LLMDataset", "load_llm_dataset"]

logger = logging.getLogger(__name__)


def load_llm_dataset(config: Any) -> tuple[Any, Any]:
    """Instruction data, tokenised for the model of ``model.type``.

    Parameters
    ----------
    config : CN
        Reads ``data.type``, ``data.root``, ``data.splits``, ``data.seed``, ``data.splitter``,
        ``model.type`` and ``llm.tok_len``.

    Returns
    -------
    tuple
        One dataset, to be split by ``data.splits``, or ``(train, val, test)`` where the data have
        a test split (the validation rows are then cut from the training rows) or all three, or a
        mapping of client to splits where the data come divided into clients; and the
        configuration.

    Raises
    ------
    ConfigError
        The data or the tokenizer cannot be found.
    """
    name = str(config.data.type).rpartition("@")[0]
    if name.lower() == natural_instructions.NAME:
        return natural_instructions.load(config, _tokenizer(config)), config
    splits = _named_or_own(config, name)
    kept = _of_enough_rows(config, name, splits["train"])
    too_few = len(splits["train"]) - len(kept)
    splits["train"] = kept
    tokenizer = _tokenizer(config)
    cache = cache_folder(config)
    made = {
        split: InstructionRows(records, tokenizer, config.llm.tok_len, cache)
        for split, records in splits.items()
    }
    rows = made["train"]
    if too_few:
        rows.left_out.append((name, too_few, "too few of their category for a client"))
    if len(made) == 1:
        return rows, config
    if "validation" in made:
        return (rows, made["validation"], made.get("test", [])), config
    shares = [float(share) for share in config.data.splits[:2]]
    # Floor, as data.splits is applied everywhere else.
    held_out = int(len(rows) * shares[1] / max(sum(shares), 1e-9) + 1e-9)
    order = np.random.RandomState(config.data.seed).permutation(len(rows))
    logger.info("%s: the test rows are the official ones (%d).", name, len(made["test"]))
    return (take(rows, order[held_out:]), take(rows, order[:held_out]), made["test"]), config


def split_llm_dataset(config: Any, client_cfgs: Any) -> tuple[dict[int, Any], Any]:
    """The data of all workers for ``data.type: NAME@llm``; see :func:`load_llm_dataset`."""
    dataset, config = load_llm_dataset(config)
    divided = isinstance(dataset, Mapping)
    translator = DummyDataTranslator if divided else BaseDataTranslator
    return translator(config, client_cfgs)(dataset), config


def _tokenizer(config: Any) -> Any:
    """The tokenizer of ``model.type``."""
    model, _, hub = str(config.model.type).rpartition("@")
    return get_tokenizer(
        model or hub,
        config.llm.cache.model or None,
        config.llm.tok_len,
        hub if model else "huggingface_llm",
        config.model.revision,
    )[0]


def _named_or_own(config: Any, name: str) -> dict[str, list[Instruction]]:
    """Records of each split by the name of the data set, with what each needs done to it."""
    root = config.data.root
    if name.lower() not in INSTRUCTION_DATA and is_own(root, name):
        return read_own_file(root, name)
    name = name.lower()
    if name not in INSTRUCTION_DATA:
        known = ", ".join(f"{data}@llm" for data in (*INSTRUCTION_DATA, natural_instructions.NAME))
        raise ConfigError(
            "data.type",
            config.data.type,
            "there is no such instruction data set",
            f"Write one of {known}, FILE.json@llm, FILE.jsonl@llm (.csv, .tsv, .parquet; "
            ".json.gz), or FOLDER@llm of save_to_disk",
        )
    splits = read_named(root, INSTRUCTION_DATA[name])
    if name == "gsm8k":
        for record in chain(*splits.values()):
            record["output"] = record["output"].replace("####", "The answer is")
    if name == "code_search_net":
        for record in splits["train"]:
            record["instruction"] = f"{record['category']} {record['instruction']}"
    return splits


def _of_enough_rows(config: Any, name: str, records: list[Instruction]) -> list[Instruction]:
    """The records without those that are too few to be a client of their own."""
    if name.lower() != "rosetta_alpaca" or config.data.splitter != "meta":
        return records
    return [record for record in records if record["category"] != "X86-64 Assembly"]

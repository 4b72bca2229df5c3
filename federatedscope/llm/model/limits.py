"""What a model can take in: positions, and tokens that its embedding has a row for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from federatedscope.core.data.base_data import SPLITS
from federatedscope.core.data.utils import dataset_of, rows_of
from federatedscope.core.errors import ConfigError
from federatedscope.core.monitors.metric_calculator import MetricCalculator, text_kind
from federatedscope.core.task import CAUSAL_LM, SEQ_CLS, adapter_arguments, task_type

__all__ = ["check_positions", "check_precision", "check_rows", "positions"]

_FULL_PRECISION = ("deberta",)
# The metric of generated text that the trainer itself has.
_NUMBER_MATCH = "acc"


def check_precision(model: torch.nn.Module, cfg: Any) -> None:
    """Refuse half precision for architectures that cannot compute in it.

    Raises
    ------
    ConfigError
        DeBERTa's first version, whose mask takes fp32's smallest number whatever it is added to.
    """
    kind = getattr(getattr(model, "config", None), "model_type", "")
    if kind in _FULL_PRECISION and cfg.train.is_enable_half and cfg.train.half_dtype != "fp32":
        raise ConfigError(
            "train.is_enable_half",
            True,
            f"transformers' {kind} cannot compute in {cfg.train.half_dtype}",
            "Write False, or use another model, such as a deberta-v2 or -v3",
        )


def positions(model: torch.nn.Module) -> int | None:
    """Tokens that a model's table of positions has rows for; ``None`` where it has no table, as
    models with rotary, relative or ALiBi positions.

    Parameters
    ----------
    model : torch.nn.Module
        With or without storage. Of several tables (one in the encoder, one in the decoder) the
        smallest counts.
    """
    found = []
    for name, module in model.named_modules():
        place, _, last = name.removesuffix(".base_layer").rpartition(".")
        # An embedding, of torch or (I-BERT) of the family's own.
        if hasattr(module, "padding_idx") and ("position" in last or last == "wpe"):
            # RoBERTa counts from its padding token on, OPT and BART have an offset.
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            found.append(len(module.weight) - getattr(module, "offset", first))
            # Nystroemformer, YOSO and MRA have fewer numbers of rows than rows.
            numbers = getattr(model.get_submodule(place), "position_ids", None)
            found += [] if numbers is None else [numbers.shape[-1]]
    for name, buffer in model.named_buffers():
        # Sines and cosines that are looked up (GPT-J, CodeGen, CTRL).
        if name.endswith(("embed_positions", "pos_encoding")) and buffer.dim() == 2:
            found.append(len(buffer))
    config: Any = getattr(model, "config", None)
    if getattr(config, "model_type", "") == "mpt":
        # Its ALiBi is a table all the same.
        found.append(config.max_seq_len)
    return min(found, default=None)


def check_positions(model: torch.nn.Module, cfg: Any) -> list[str]:
    """Do rows, and prompts with their answers, fit the model's positions?

    Returns
    -------
    list of str
        Notes for the summary: prompts that will be cut, rows longer than the model was trained on.

    Raises
    ------
    ConfigError
        ``llm.tok_len`` or ``eval.max_new_tokens`` is beyond the table.
    """
    table = positions(model)
    config = getattr(model, "config", None)
    trained = getattr(config, "max_position_embeddings", None)
    tokens, new = cfg.llm.tok_len, cfg.eval.max_new_tokens
    arguments = adapter_arguments(cfg) if cfg.llm.adapter.use else {}
    virtual = int(arguments.get("num_virtual_tokens") or 0)
    if table is None:
        if isinstance(trained, int) and 0 < trained < tokens:
            return [
                f"llm.tok_len {tokens} is beyond the {trained} positions that the model was made "
                "for; it has no table of them and goes on, which it may not have learned."
            ]
        return []
    if tokens + virtual > table:
        beside = f" beside {virtual} virtual tokens of the adapter" if virtual else ""
        raise ConfigError(
            "llm.tok_len",
            tokens,
            f"the model has {table} positions{beside}",
            f"Write at most {table - virtual}; longer rows are cut",
        )
    if task_type(cfg) != CAUSAL_LM or not _generates(cfg):
        return []
    if new + virtual >= table:
        raise ConfigError(
            "eval.max_new_tokens",
            new,
            f"the model has {table} positions, which leaves none for a prompt",
            f"Write less than {table - virtual}, and leave room for the prompts",
        )
    if tokens + new + virtual > table:
        return [
            f"The model has {table} positions: with eval.max_new_tokens {new}, prompts lose their "
            f"beginning from {table - new - virtual} tokens on when answers are generated."
        ]
    return []


def _generates(cfg: Any) -> bool:
    """Whether evaluation lets the model write."""
    wanted = MetricCalculator(cfg.eval.metrics).eval_metric
    kinds = {text_kind(function) for function, _ in wanted.values()}
    return "generated" in kinds or _NUMBER_MATCH in wanted


def check_rows(cfg: Any, model: torch.nn.Module, data: Mapping[int, Any]) -> None:
    """Can the model take the rows' tokens?

    Parameters
    ----------
    cfg : CN
        The settled configuration.
    model : torch.nn.Module
        With or without storage.
    data : mapping of int to data
        Of all participants. Datasets without ``tokens`` and ``offsets`` are not looked at.

    Raises
    ------
    ConfigError
        A token that the embedding has no row for, or a text with end tokens inside where the model
        pools at the one end token.
    """
    holders = (dataset_of(holder, split) for holder in data.values() for split in SPLITS)
    bases = {id(base): base for base in (rows_of(h)[0] for h in holders if h is not None)}
    for base in bases.values():
        tokens = getattr(base, "tokens", None)
        if tokens is not None and len(tokens):
            _check_embedding(cfg, model, tokens)
            _check_ends(cfg, model, base)


def _check_embedding(cfg: Any, model: Any, tokens: npt.NDArray[Any]) -> None:
    try:
        rows = model.get_input_embeddings().weight.shape[0]
    except (AttributeError, NotImplementedError):
        return  # CANINE has an embedding of another kind
    if (largest := int(tokens.max())) >= rows:
        raise ConfigError(
            "model.type",
            cfg.model.type,
            f"its tokenizer makes token {largest} of the rows, and its embedding has {rows} rows "
            f"(0 to {rows - 1})",
            "Give a model that was resized to its tokenizer (model.resize_token_embeddings("
            "len(tokenizer)), then save_pretrained), or take the added tokens out of the tokenizer",
        )


def _check_ends(cfg: Any, model: Any, rows: Any) -> None:
    """BART's and T5's classifiers look at the last end token, and want as many in each row."""
    config = model.config
    if task_type(cfg) != SEQ_CLS or not config.is_encoder_decoder:
        return
    if isinstance(config.eos_token_id, list):
        raise ConfigError(
            "model.type",
            cfg.model.type,
            f"its config.json has the end tokens {config.eos_token_id}, and a {config.model_type} "
            "classifies at one",
            "Write the one that the tokenizer closes a text with (eos_token_id)",
        )
    if getattr(rows, "pad_token_id", None) == config.eos_token_id:
        raise ConfigError(
            "model.type",
            cfg.model.type,
            f"its tokenizer has no padding token but the end token, at which a {config.model_type} "
            "classifies",
            "Give it one of its own (pad_token in tokenizer_config.json)",
        )
    is_end = np.asarray(rows.tokens) == config.eos_token_id
    counts = np.add.reduceat(is_end, rows.offsets[:-1], dtype=np.int64)
    usual = int(np.bincount(counts).argmax())
    if usual and (counts == usual).all():
        return
    row = int(np.argmax(counts != usual)) if usual else 0
    raise ConfigError(
        "data.type",
        cfg.data.type,
        f"row {row + 1} of those with a label has {counts[row]} end token(s) (number "
        f"{config.eos_token_id}), and a {config.model_type}, which classifies at the last one, "
        f"wants {usual or 1} in each row",
        "Take the text of the end token (such as </s>) out of the file, or give a tokenizer that "
        "closes each text with one",
    )

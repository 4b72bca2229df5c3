"""Tiny random models and tokenizers of the families that ``families.py`` runs; nothing is fetched.

A family is a line of ``FAMILIES``: the kind of tokenizer, and what its configuration needs beside
``SIZES``. Of a configuration's field that a class does not know, transformers makes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

__all__ = ["FAMILIES", "WORDS", "build_family"]

WORDS = [
    *["good", "fine", "great", "lovely", "bright", "warm", "happy", "superb"],
    *["bad", "poor", "awful", "dull", "grim", "cold", "sad", "dreadful"],
    *[
        "the",
        "a",
        "film",
        "story",
        "scene",
        "actor",
        "music",
        "plot",
        "was",
        "seemed",
        "felt",
        "write",
        "about",
        "it",
    ],
    *(f"w{i}" for i in range(40)),
]
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
}

# By kind of tokenizer: special tokens in the order of their numbers, the roles that they have, and
# the template of a text and of a pair.
BERT = ("[PAD] [UNK] [CLS] [SEP] [MASK]", "pad unk cls sep mask", "[CLS] $A [SEP]",
        "[CLS] $A [SEP] $B:1 [SEP]:1")  # fmt: skip
ROBERTA = ("<s> <pad> </s> <unk> <mask>", "bos pad eos unk mask", "<s> $A </s>",
           "<s> $A </s> </s> $B </s>")  # fmt: skip
T5 = ("<pad> </s> <unk>", "pad eos unk", "$A </s>", "$A </s> $B </s>")
XLNET = ("<unk> <s> </s> <cls> <sep> <pad>", "unk bos eos cls sep pad", "$A <sep> <cls>",
         "$A <sep> $B <sep> <cls>")  # fmt: skip
LLAMA = ("<unk> <s> </s>", "unk bos eos", "<s> $A", "<s> $A $B")
GPT = ("<|endoftext|>", "eos", "$A", "$A $B")
QWEN = ("<|endoftext|> <|im_start|> <|im_end|>", "pad additional eos", "$A", "$A $B")
LLAMA3 = ("<|begin|> <|end|> <|eot|>", "bos additional eos", "<|begin|> $A", "<|begin|> $A $B")
GEMMA = ("<pad> <eos> <bos> <unk>", "pad eos bos unk", "<bos> $A", "<bos> $A $B")

NONE = object()  # leaves a field of SIZES out
GROUPED: dict[str, Any] = {"num_key_value_heads": 2, "head_dim": 8}
EXPERTS: dict[str, Any] = {"num_local_experts": 2, "num_experts": 2, "num_experts_per_tok": 1}

FAMILIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "bert": (BERT, {}),
    "roberta": (ROBERTA, {"max_position_embeddings": 130}),
    "xlm-roberta": (ROBERTA, {"max_position_embeddings": 130}),
    "camembert": (ROBERTA, {"max_position_embeddings": 130}),
    "distilbert": (BERT, {}),
    "albert": (BERT, {"embedding_size": 16}),
    "electra": (BERT, {"embedding_size": 16}),
    "deberta": (BERT, {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    "deberta-v2": (BERT, {"relative_attention": True, "position_buckets": 8,
                          "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}),
    "mpnet": (ROBERTA, {"max_position_embeddings": 130}),
    "modernbert": (BERT, {"local_attention": 16, "cls_token_id": 2, "sep_token_id": 3}),
    "longformer": (ROBERTA, {"max_position_embeddings": 130, "attention_window": [8, 8]}),
    "big_bird": (BERT, {"attention_type": "original_full"}),
    "xlnet": (XLNET, {"max_position_embeddings": NONE, "d_head": 8}),
    "bart": (ROBERTA, {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
                       "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "encoder_attention_heads": 4,
                       "decoder_attention_heads": 4}),
    "t5": (T5, {"d_kv": 8, "d_ff": 64, "decoder_start_token_id": 0}),
    "mt5": (T5, {"d_kv": 8, "d_ff": 64, "decoder_start_token_id": 0}),
    "gpt2": (GPT, {}),
    "gpt_neo": (GPT, {"num_layers": 2, "attention_types": [[["global", "local"], 1]],
                      "window_size": 16}),
    "gptj": (GPT, {"rotary_dim": 4}),
    "gpt_neox": (GPT, {}),
    "gpt_bigcode": (GPT, {}),
    "codegen": (GPT, {"rotary_dim": 4}),
    "opt": (ROBERTA, {"ffn_dim": 64, "word_embed_proj_dim": 32}),
    "bloom": (GEMMA, {}),
    "falcon": (GPT, {"new_decoder_architecture": False, "alibi": False}),
    "mpt": (GPT, {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 128}),
    "llama": (LLAMA, GROUPED),
    "llama3": (LLAMA3, {**GROUPED, "model_type": "llama", "eos_token_id": [1, 2]}),
    "mistral": (LLAMA, {**GROUPED, "sliding_window": 32}),
    "mixtral": (LLAMA, {**GROUPED, **EXPERTS}),
    "qwen2": (QWEN, GROUPED),
    "qwen2_moe": (QWEN, {**GROUPED, **EXPERTS, "moe_intermediate_size": 16,
                         "shared_expert_intermediate_size": 16}),
    "qwen3": (QWEN, GROUPED),
    "phi": (GPT, {}),
    "phi3": (LLAMA, {**GROUPED, "pad_token_id": 2}),
    "gemma": (GEMMA, GROUPED),
    "gemma2": (GEMMA, {**GROUPED, "query_pre_attn_scalar": 8, "sliding_window": 16}),
    "gemma3_text": (GEMMA, {**GROUPED, "query_pre_attn_scalar": 8, "sliding_window": 16}),
    "cohere": (LLAMA3, GROUPED),
    "granite": (GPT, GROUPED),
    "olmo": (GPT, {**GROUPED, "pad_token_id": 1}),
    "olmo2": (GPT, {**GROUPED, "pad_token_id": 1}),
    "stablelm": (GPT, GROUPED),
    "starcoder2": (GPT, {**GROUPED, "sliding_window": None}),
    "mamba": (GPT, {"state_size": 4, "expand": 2}),
}  # fmt: skip


def build_family(name: str, folder: Path) -> Path:
    """Write a tiny random model with its tokenizer.

    Parameters
    ----------
    name : str
        A key of :data:`FAMILIES`.
    folder : path
        Parent of the model's folder, which has the family's name.

    Returns
    -------
    path
        The folder, as a user would give it in ``model.type``.
    """
    from transformers import AutoConfig

    kind, own = FAMILIES[name]
    tokenizer = _tokenizer(*kind)
    roles = {
        role: getattr(tokenizer, role) for role in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    settings = {**SIZES, **roles, "vocab_size": len(tokenizer), **own}
    settings = {key: value for key, value in settings.items() if value is not NONE}
    config = AutoConfig.for_model(settings.pop("model_type", name), **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = _pretraining_class(config)(config)
    model.save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / name)
    return folder / name


def _pretraining_class(config: Any) -> Any:
    """What a family's checkpoints are saved from."""
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

    order: tuple[Any, ...] = (AutoModelForMaskedLM, AutoModelForCausalLM)
    if config.is_encoder_decoder:
        order = (AutoModelForSeq2SeqLM,)
    found = next(
        auto._model_mapping[type(config)] for auto in order if type(config) in auto._model_mapping
    )
    return found[0] if isinstance(found, tuple) else found


def _tokenizer(special: str, roles: str, single: str, pair: str) -> Any:
    """A word-level tokenizer with a family's special tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokens = special.split()
    named: Mapping[str, str] = dict(zip(roles.split(), tokens, strict=True))
    if "additional" in named and "pad" in named:
        inner = _pieces(tokens)
    else:
        vocabulary = {word: i for i, word in enumerate([*tokens, *WORDS, "<other>"])}
        inner = Tokenizer(models.WordLevel(vocabulary, unk_token=named.get("unk", "<other>")))
        inner.pre_tokenizer = pre_tokenizers.Whitespace()
    used = [(token, i) for i, token in enumerate(tokens) if token in f"{single} {pair}"]
    inner.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=used
    )
    given: dict[str, Any] = {f"{r}_token": t for r, t in named.items() if r != "additional"}
    if "additional" in named:
        given["additional_special_tokens"] = [named["additional"]]
    types = ["token_type_ids"] if "cls" in named else []
    inputs = ["input_ids", *types, "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_input_names=inputs, **given)


def _pieces(tokens: list[str]) -> Any:
    """Byte pairs: transformers takes no other tokenizer for Qwen2."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    return inner

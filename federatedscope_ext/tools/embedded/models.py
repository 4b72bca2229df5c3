"""Architectures and tokenizers of the miniature's base models, before any training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

ENCODER_LENGTH = 128
LLAMA_LENGTH = 1024

#: sizes of the encoder; the names are those of `transformers.RobertaConfig`
ENCODER_SIZES: dict[str, Any] = {
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "intermediate_size": 256,
}

#: sizes of the LLaMA; the names are those of `transformers.LlamaConfig`
LLAMA_SIZES: dict[str, Any] = {
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 256,
}

#: module names of the miniature for each role that a LoRA target can have
ENCODER_ROLES: dict[str, tuple[str, ...]] = {
    "q": ("query",),
    "k": ("key",),
    "v": ("value",),
    "o": ("attention.output.dense",),
    "up": ("intermediate.dense",),
    "gate": ("intermediate.dense",),
    "down": tuple(f"{i}.output.dense" for i in range(ENCODER_SIZES["num_hidden_layers"])),
}
LLAMA_ROLES: dict[str, tuple[str, ...]] = {
    "q": ("q_proj",),
    "k": ("k_proj",),
    "v": ("v_proj",),
    "o": ("o_proj",),
    "up": ("up_proj",),
    "gate": ("gate_proj",),
    "down": ("down_proj",),
}


def _vocabulary(tokenizer: Any, texts: Iterable[str], special: Iterable[str]) -> dict[str, int]:
    """Special tokens, printable characters and the words of ``texts``, numbered in this order.

    Not by the library's trainer, which breaks ties between pieces differently in every process.
    """
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    inside = [f"##{letter}" for letter in letters if letter.isalnum()]
    words: set[str] = set()
    for text in texts:
        normal = tokenizer.normalizer.normalize_str(text)
        words.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal))
    tokens = [*special, *letters, *inside, *sorted(words - set(letters))]
    return {token: index for index, token in enumerate(tokens)}


def encoder_tokenizer(texts: Iterable[str]) -> Any:
    """A WordPiece tokenizer over the words of ``texts``; pairs as BERT's, with token types.

    Returns
    -------
    transformers.PreTrainedTokenizerFast
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.model = models.WordPiece(_vocabulary(inner, texts, special.values()), unk_token="[UNK]")
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_max_length=ENCODER_LENGTH,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **{f"{role}_token": token for role, token in special.items()},
    )


def encoder(vocabulary: int) -> Any:
    """An untrained encoder of RoBERTa's architecture with token types and language-model head.

    Returns
    -------
    transformers.RobertaForMaskedLM
    """
    from transformers import RobertaConfig, RobertaForMaskedLM

    config = RobertaConfig(
        vocab_size=vocabulary,
        # RoBERTa counts positions from pad_token_id + 1.
        max_position_embeddings=ENCODER_LENGTH + 2,
        type_vocab_size=2,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        initializer_range=0.05,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **ENCODER_SIZES,
    )
    return RobertaForMaskedLM(config)


def llama_tokenizer(texts: Iterable[str]) -> Any:
    """A byte-level BPE tokenizer trained on ``texts``; numbers below 100 are one token each.

    Returns
    -------
    transformers.PreTrainedTokenizerFast
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d{1,2}"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    inner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=1500,
            special_tokens=["<unk>", "<s>", "</s>", "<pad>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_max_length=LLAMA_LENGTH,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
    )


def llama(vocabulary: int) -> Any:
    """An untrained LLaMA with grouped-query attention and tied embeddings.

    Returns
    -------
    transformers.LlamaForCausalLM
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        max_position_embeddings=LLAMA_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
        initializer_range=0.05,
        **LLAMA_SIZES,
    )
    return LlamaForCausalLM(config)

"""Architectures and tokenizers of the miniature's base models, before any training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

ENCODER_LENGTH = 128
LLAMA_LENGTH = 1024

#: sizes of both models; the names are those of transformers' configurations
SIZES: dict[str, Any] = {
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "intermediate_size": 256,
    "initializer_range": 0.05,
}

#: module names of the miniature for each role that a LoRA target can have
ENCODER_ROLES: dict[str, tuple[str, ...]] = {
    "q": ("query",),
    "k": ("key",),
    "v": ("value",),
    "o": ("attention.output.dense",),
    "up": ("intermediate.dense",),
    "gate": ("intermediate.dense",),
    "down": tuple(f"{i}.output.dense" for i in range(SIZES["num_hidden_layers"])),
}
LLAMA_ROLES: dict[str, tuple[str, ...]] = {role: (f"{role}_proj",) for role in ENCODER_ROLES}


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


def _fast(inner: Any, special: dict[str, str], length: int, **options: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    tokens = {f"{role}_token": token for role, token in special.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, model_max_length=length, **tokens, **options
    )


def encoder_tokenizer(texts: Iterable[str]) -> Any:
    """A fast WordPiece tokenizer over the words of ``texts``; pairs as BERT's, with token types."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

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
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return _fast(inner, special, ENCODER_LENGTH, model_input_names=inputs)


def encoder(vocabulary: int) -> Any:
    """An untrained `RobertaForMaskedLM` with token types."""
    from transformers import RobertaConfig, RobertaForMaskedLM

    config = RobertaConfig(
        vocab_size=vocabulary,
        # RoBERTa counts positions from pad_token_id + 1.
        max_position_embeddings=ENCODER_LENGTH + 2,
        type_vocab_size=2,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **SIZES,
    )
    return RobertaForMaskedLM(config)


def llama_tokenizer(texts: Iterable[str]) -> Any:
    """A fast byte-level BPE tokenizer for ``texts``; numbers below 100 are one token each."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    special = {"unk": "<unk>", "bos": "<s>", "eos": "</s>", "pad": "<pad>"}
    numbers = pre_tokenizers.Split(Regex(r"\d{1,2}"), behavior="isolated")
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        special_tokens=list(special.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence([numbers, pieces])
    inner.decoder = decoders.ByteLevel()
    inner.train_from_iterator(texts, trainer)
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    inputs = ["input_ids", "attention_mask"]
    plain = {"model_input_names": inputs, "clean_up_tokenization_spaces": False}
    return _fast(inner, special, LLAMA_LENGTH, **plain)


def llama(vocabulary: int) -> Any:
    """An untrained `LlamaForCausalLM` with grouped-query attention and tied embeddings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        max_position_embeddings=LLAMA_LENGTH,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
        **SIZES,
    )
    return LlamaForCausalLM(config)

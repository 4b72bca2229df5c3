"""Answers written by a model, and whether they end in the right number (GSM8K)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from federatedscope.core.data.utils import rows_of

_MARKER = re.compile(r"\bthe\s+answer\s+is\b|####", re.IGNORECASE)
# The signs are hyphens, the minus and the en dash; after a word or a bracket they subtract or join.
_NUMBER = re.compile(
    r"""(?:(?<![\w)\]}%])(?P<sign>[-\u2010\u2011\u2212\u2013\uff0d]))?
        (?:\\?[$\u20ac\u00a3\u00a5\u20b9][ ]?)?
        (?P<digits>(?:\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d)|\d+)(?:\.\d+)?|(?<![\w.])\.\d+)
        (?P<exponent>e[-+\u2212]?\d{1,2}(?!\w))?""",
    re.VERBOSE | re.IGNORECASE,
)
# Where the line of a marker says nothing, its number may begin the next one.
_NEXT_LINE = re.compile(r"[\s:*=]*\n[\s*]*(?=[^\w\s]*\d)")

# Architectures that take an attention mask and do not heed it.
_MASKLESS = ("rwkv",)


@dataclass(frozen=True)
class Answer:
    """What a model wrote for one row, and what it could have written.

    Attributes
    ----------
    text : str
        The model's answer.
    references : list of str
        Right answers, one at least.
    """

    text: str
    references: list[str]


def final_number(text: str) -> float | None:
    """The number that an answer ends in, in English notation.

    The first number after the first ``the answer is`` (in any case) or ``####``, on the line of
    that marker, or at the beginning of the next one where the marker ends its line; ``None`` where
    none follows. What comes later does not count: a model that misses its end writes further
    questions and answers. Without a marker the last number of the text; ``None`` where there is
    none.

    ``-$1,234.50``, ``.5``, ``1e3`` and the Unicode minus are read as what they mean; ``50%`` is 50,
    ``1,2`` are two numbers, ``3-5`` is 3 and 5, and a comma is never a decimal point.
    """
    marker = _MARKER.search(text)
    if marker is None:
        *_, last = [None, *_NUMBER.finditer(text)]
        return _as_number(last)
    tail = _MARKER.split(text[marker.end() :], maxsplit=1)[0]
    beyond = _NEXT_LINE.match(tail)
    return _as_number(_NUMBER.search(tail[beyond.end() if beyond else 0 :].partition("\n")[0]))


def _as_number(found: re.Match[str] | None) -> float | None:
    if found is None:
        return None
    exponent = (found["exponent"] or "").replace("\u2212", "-")
    value = float(found["digits"].replace(",", "") + exponent)
    return -value if found["sign"] else value


@torch.no_grad()
def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    device: Any,
    max_prompt_tokens: int,
    max_new_tokens: int,
) -> list[str]:
    """Continue prompts greedily, each up to its first end token.

    End tokens are the tokenizer's and those of the model's ``generation_config``. Nothing else of
    the latter counts: a folder that asks for sampling or for a repetition penalty is still read
    greedily.

    Parameters
    ----------
    model, tokenizer
        Hugging Face's.
    prompts : sequence of str
        One batch.
    device : str or torch.device
        Where the model is.
    max_prompt_tokens, max_new_tokens : int
        Longer prompts lose their beginning, but not the tokens that the tokenizer puts before
        every text.

    Returns
    -------
    list of str
        The continuations without the prompts.
    """
    rows = [torch.tensor(_prompt_ids(tokenizer, p, max_prompt_tokens)).long() for p in prompts]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    pad = pad or 0
    # Padded on the left, so that every row's continuation begins at the same place.
    padded, mask = (
        pad_sequence(tensors, True, fill, "left").to(device)
        for tensors, fill in ((rows, pad), ([torch.ones_like(row) for row in rows], 0))
    )
    with _greedy(model, tokenizer, pad, max_new_tokens) as settings:
        output = model.generate(input_ids=padded, attention_mask=mask, generation_config=settings)
    written = output[:, padded.shape[1] :].tolist()
    # Behind an end there is padding, which is a word where a tokenizer has no padding token.
    ends = set(settings.eos_token_id or ())
    cut = [list(takewhile(lambda token: token not in ends, row)) for row in written]
    return list(tokenizer.batch_decode(cut, skip_special_tokens=True))


def _prompt_ids(tokenizer: Any, prompt: str, longest: int) -> list[int]:
    """A prompt's tokens without an end; of a long one those put before every text, and the last."""
    # Not verbose: prompts are cut, so their length is no reason for a warning.
    ids: list[int] = tokenizer(prompt, verbose=False)["input_ids"]
    # Some tokenizers close every text; the answer has to follow without an end in between.
    closing = {tokenizer.eos_token_id, tokenizer.sep_token_id} - {None}
    while ids and ids[-1] in closing:
        ids.pop()
    if len(ids) <= longest:
        return ids
    plain = tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"]
    starts = (i for i in range(len(ids)) if ids[i:] == plain[: len(ids) - i])
    before = next(starts, 0)
    kept = ids[:before] if before < longest else []
    return [*kept, *ids[len(ids) - longest + len(kept) :]]


@contextmanager
def _greedy(model: Any, tokenizer: Any, pad: int, max_new_tokens: int) -> Iterator[Any]:
    """Settings of a greedy continuation, for a while the model's only ones.

    Transformers fills in from the model's own what the settings of a call leave at their defaults.
    """
    from transformers import GenerationConfig

    base = getattr(model, "get_base_model", lambda: model)()
    own = getattr(base, "generation_config", None)
    ends = getattr(own, "eos_token_id", None)
    ends = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id} - {None}
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        pad_token_id=pad,
        eos_token_id=sorted(ends) or None,
    )
    base.generation_config = settings
    try:
        yield settings
    finally:
        base.generation_config = own


def generated_answers(model: Any, dataset: Any, cfg: Any, device: Any) -> list[Answer]:
    """What a model writes for the rows of a data set, in their order.

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
        In evaluation behaviour.
    dataset : InstructionDataset or Subset of one
        Rows with ``prompt``, ``answer``, and ``references`` where there are several answers.
    cfg : CN
        Reads ``eval.max_new_tokens``, ``eval.max_generated_rows``, ``eval.batch_size``,
        ``llm.tok_len``.
    device : str or torch.device
        Where the model is.
    """
    base, indices = rows_of(dataset)
    limit = cfg.eval.max_generated_rows or len(indices)
    chosen = [base.raw(int(i)) for i in indices[:limit]]
    size = (cfg.eval.batch_size or cfg.dataloader.batch_size) if _heeds_padding(model) else 1
    # Prompts of like length together: less padding, the same answers.
    order = sorted(range(len(chosen)), key=lambda i: len(chosen[i]["prompt"]))
    texts = [""] * len(chosen)
    for start in range(0, len(chosen), size):
        batch = order[start : start + size]
        written = generate(
            model,
            base.tokenizer,
            [chosen[i]["prompt"] for i in batch],
            device,
            _prompt_room(model, cfg),
            cfg.eval.max_new_tokens,
        )
        for i, text in zip(batch, written, strict=True):
            texts[i] = text
    return [
        Answer(text, list(row.get("references") or [row["answer"]]))
        for text, row in zip(texts, chosen, strict=True)
    ]


def _heeds_padding(model: Any) -> bool:
    """Whether padding before a prompt changes nothing of what is written.

    Virtual tokens stand before the padding, and PEFT gives their models no positions that leave it
    out.
    """
    kind = getattr(getattr(model, "config", None), "model_type", "")
    adapter = getattr(model, "active_peft_config", None)
    return kind not in _MASKLESS and not getattr(adapter, "is_prompt_learning", False)


def _prompt_room(model: Any, cfg: Any) -> int:
    """Longest prompt in tokens: ``llm.tok_len``, less where prompt and answer would together be
    longer than what the model has positions for.
    """
    positions = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    room = cfg.llm.tok_len
    if isinstance(positions, int) and positions > cfg.eval.max_new_tokens:
        room = min(room, positions - cfg.eval.max_new_tokens)
    return int(room)


def number_match(answers: Sequence[Answer]) -> float:
    """Share of answers that end in the number of a reference; one without a number matches none."""
    right = 0
    for answer in answers:
        found = final_number(answer.text)
        right += found is not None and found in map(final_number, answer.references)
    return right / max(1, len(answers))


def forced_answers(logits: torch.Tensor, labels: torch.Tensor, tokenizer: Any) -> list[Answer]:
    """The likeliest token at each place of the reference, given the reference up to there.

    No text that a model would write by itself, but what evaluation inside a training library
    compares; it costs nothing beside the loss.

    Parameters
    ----------
    logits : tensor of shape (batch, tokens, vocabulary)
        Of the prompts and references.
    labels : int tensor of shape (batch, tokens)
        The references' tokens, -100 elsewhere.
    tokenizer : PreTrainedTokenizerBase
        Turns tokens into text.
    """
    # Virtual tokens of prompt tuning stand before the rows' own and have logits too.
    targets, guesses = labels[:, 1:], logits[:, -labels.shape[1] : -1].argmax(-1)
    answers = []
    for target, guess in zip(targets, guesses, strict=True):
        kept = target >= 0
        texts = tokenizer.batch_decode(
            [guess[kept].tolist(), target[kept].tolist()], skip_special_tokens=True
        )
        answers.append(Answer(texts[0], [texts[1]]))
    return answers

"""Answers written by a model, and whether they end in the right number (GSM8K)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from federatedscope.core.data.utils import rows_of

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_MARKERS = ("The answer is", "####")


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
    """The number that an answer ends in.

    The first number after the last ``The answer is`` or ``####``; without such a marker the last
    number of the text; ``None`` where there is none.
    """
    for marker in _MARKERS:
        _, found, tail = text.rpartition(marker)
        if found:
            match = _NUMBER.search(tail)
            return _as_number(match.group()) if match else None
    numbers = _NUMBER.findall(text)
    return _as_number(numbers[-1]) if numbers else None


def _as_number(text: str) -> float:
    return float(text.replace(",", ""))


@torch.no_grad()
def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    device: Any,
    max_prompt_tokens: int,
    max_new_tokens: int,
) -> list[str]:
    """Continue prompts greedily.

    Parameters
    ----------
    model, tokenizer
        Hugging Face's.
    prompts : sequence of str
        One batch.
    device : str or torch.device
        Where the model is.
    max_prompt_tokens, max_new_tokens : int
        Longer prompts lose their beginning.

    Returns
    -------
    list of str
        The continuations without the prompts.
    """
    closing = {tokenizer.eos_token_id, tokenizer.sep_token_id} - {None}
    rows = []
    for prompt in prompts:
        # Not verbose: prompts are cut below, so their length is no reason for a warning.
        ids = tokenizer(prompt, verbose=False)["input_ids"]
        # Some tokenizers close every text; the answer has to follow without an end in between.
        while ids and ids[-1] in closing:
            ids.pop()
        rows.append(torch.tensor(ids[-max_prompt_tokens:], dtype=torch.int64))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    pad = pad or 0
    # Padded on the left, so that every row's continuation begins at the same place.
    padded, mask = (
        pad_sequence(tensors, True, fill, "left").to(device)
        for tensors, fill in ((rows, pad), ([torch.ones_like(row) for row in rows], 0))
    )
    output = model.generate(
        input_ids=padded,
        attention_mask=mask,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=pad,
    )
    return tokenizer.batch_decode(output[:, padded.shape[1] :], skip_special_tokens=True)


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
    size = cfg.eval.batch_size or cfg.dataloader.batch_size
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
    """Share of answers that end in the number of their reference."""
    right = 0
    for answer in answers:
        target = final_number(answer.references[0])
        right += target is not None and final_number(answer.text) == target
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

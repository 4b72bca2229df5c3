"""Brief pretraining of the encoder on generated, unlabelled text.

None of its objectives sees a downstream label:

* masked words (Devlin et al., 2019, arXiv 1810.04805), rare words masked more often;
* exchanged words (ELECTRA; Clark et al., 2020, arXiv 2003.10555): which word of a sentence was
  replaced by a similar one, so that it no longer agrees with the sentence before?
* sentence distance (ERNIE 2.0; Sun et al., 2020, arXiv 1907.12412): are two sentences neighbours,
  further apart in one document, or does the second not belong there (of another document on the
  same topic, or with a word exchanged)?
* from the first token of a sentence, the words of the sentence that follows it, in any order.

Word embeddings start from counts (`vectors`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from federatedscope_ext.tools.embedded import models
from federatedscope_ext.tools.embedded.corpora.documents import Document, encoder_documents
from federatedscope_ext.tools.embedded.vectors import (
    SEED,
    SIMILAR,
    SPECIAL,
    count_vectors,
    similar_words,
    start_from_counts,
)

#: called with the finished share of the work, 0 to 1
Report = Callable[[float], None]

PAD, MASK = 0, 4
ALONE = -100


@dataclass(frozen=True)
class EncoderSchedule:
    """How the encoder is pretrained.

    Attributes
    ----------
    documents, steps, batch
        Documents to generate, optimizer steps, and examples of each step.
    lr, warmup
        AdamW's peak learning rate and the steps that lead up to it.
    mask
        Largest probability of masking a word.
    exchange
        Probability of exchanging a word in a pair of neighbours.
    exchange_weight, distance_weight
        Weights of these two losses; the others have 1.
    """

    documents: int = 35000
    steps: int = 1100
    batch: int = 64
    lr: float = 3e-3
    warmup: int = 50
    mask: float = 0.3
    exchange: float = 0.5
    exchange_weight: float = 2.0
    distance_weight: float = 2.0


@dataclass(frozen=True)
class Examples:
    """Tokenised examples, padded with zeros.

    Attributes
    ----------
    ids
        Tokens, ``(n, length)``.
    types
        0 in the first sentence, 1 in the second, ``(n, length)``.
    following
        Words of the next sentence where the example is a single one, ``(n, length)``.
    distance
        0 neighbours, 1 same document, 2 another document, -100 for single sentences, ``(n,)``.
    story
        Whether a word of the second sentence may be exchanged: neighbours in a scene, ``(n,)``.
    """

    ids: Tensor
    types: Tensor
    following: Tensor
    distance: Tensor
    story: Tensor


#: topic mark of documents in which the second sentence answers the first
ANSWERED = "?"


def _pick_pair(
    rng: random.Random, document: Document, same_topic: Sequence[Document]
) -> tuple[str, str, int]:
    """Two sentences and how far apart they stand."""
    later = document.sentences[2:]
    distance = rng.choices((0, 1, 2), (0.5, 0.3, 0.2))[0] if later else rng.choice((0, 2))
    if distance == 2:
        other = rng.choice(same_topic)
        return document.sentences[0], rng.choice(other.sentences[1:]), 2
    return document.sentences[0], document.sentences[1 + distance], distance


def make_examples(documents: Sequence[Document], tokenizer: Any) -> Examples:
    """One example of each document: a pair of a scene's or an answer's, else a single sentence."""
    rng = random.Random("examples")
    by_topic: dict[str, list[Document]] = {}
    for document in documents:
        by_topic.setdefault(document.topic, []).append(document)
    texts: list[str | tuple[str, str]] = []
    following, distances, story = [], [], []
    for document in documents:
        told = len(document.sentences) > 2
        if told or document.topic.endswith(ANSWERED):
            first, second, distance = _pick_pair(rng, document, by_topic[document.topic])
            texts.append((first, second))
            following.append("")
        else:
            distance = ALONE
            texts.append(document.sentences[0])
            following.append(document.sentences[1])
        distances.append(distance)
        story.append(told and distance == 0)
    inner = tokenizer.backend_tokenizer
    encoded = inner.encode_batch(texts)
    words = inner.encode_batch(following, add_special_tokens=False)
    return Examples(
        _padded([item.ids for item in encoded]),
        _padded([item.type_ids for item in encoded]),
        _padded([item.ids for item in words]),
        torch.tensor(distances),
        torch.tensor(story),
    )


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Rows of different lengths as one matrix, filled up with zeros."""
    out = np.zeros((len(rows), max(1, max(map(len, rows)))), dtype=np.int64)
    for index, row in enumerate(rows):
        out[index, : len(row)] = row
    return torch.from_numpy(out)


def masking_rates(ids: Tensor, vocabulary: int, most: float) -> Tensor:
    """Probability of masking each word, ``(vocabulary,)``: common words are masked rarely."""
    counts = torch.bincount(ids.flatten(), minlength=vocabulary).double()
    counts[:SPECIAL] = 0.0
    share = counts / counts.sum()
    rates = (most * torch.sqrt(0.004 / share.clamp_min(1e-9))).clamp(0.04, most)
    rates[:SPECIAL] = 0.0
    return rates.float()


class Objectives(nn.Module):
    """The encoder with the heads that only pretraining needs.

    Parameters
    ----------
    model
        The encoder.
    rates
        `masking_rates`.
    similar
        `similar_words`.
    schedule
        Weights and probabilities.
    """

    def __init__(
        self, model: Any, rates: Tensor, similar: Tensor, schedule: EncoderSchedule
    ) -> None:
        super().__init__()
        width = model.config.hidden_size
        self.model = model
        self.rates = rates
        self.similar = similar
        self.schedule = schedule
        self.next_words = nn.Linear(width, width)
        self.distance = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 3))
        self.exchanged = nn.Linear(width, 1)

    def forward(self, batch: Examples, generator: torch.Generator) -> Tensor:
        """The weighted sum of the losses of a batch."""
        ids = batch.ids
        # A masked word may be the very one that sets two sentences apart: one task per example.
        masked = torch.rand(len(ids), generator=generator) < 0.5
        chosen = masked[:, None] & (torch.rand(ids.shape, generator=generator) < self.rates[ids])
        shown = self._mask(ids, chosen, generator)
        story = batch.story & ~masked
        exchanged = self._choose(batch, story, generator)
        kind = torch.randint(SIMILAR, ids.shape, generator=generator)
        shown = torch.where(exchanged, self.similar[ids, kind], shown)
        hidden = self.model.roberta(
            input_ids=shown, token_type_ids=batch.types, attention_mask=ids != PAD
        ).last_hidden_state
        loss = functional.cross_entropy(self.model.lm_head(hidden[chosen]), ids[chosen])
        looked = story[:, None] & (batch.types == 1) & (ids >= SPECIAL)
        if bool(looked.any()):
            loss = loss + self.schedule.exchange_weight * self._exchange_loss(
                hidden[looked], exchanged[looked]
            )
        pairs = ~masked & (batch.distance >= 0)
        if bool(pairs.any()):
            target = torch.where(exchanged.any(1), 2, batch.distance)
            scores = self.distance(hidden[pairs, 0])
            distance = functional.cross_entropy(scores, target[pairs])
            loss = loss + self.schedule.distance_weight * distance
        alone = batch.distance == ALONE
        if bool(alone.any()):
            loss = loss + self._next_loss(hidden[alone, 0], batch.following[alone])
        return torch.as_tensor(loss)

    def _mask(self, ids: Tensor, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """The chosen words hidden: 85 % masks, 7 % random words, 8 % as they are."""
        kind = torch.rand(ids.shape, generator=generator)
        noise = torch.randint(SPECIAL, len(self.rates), ids.shape, generator=generator)
        shown = torch.where(chosen & (kind < 0.85), MASK, ids)
        return torch.where(chosen & (kind > 0.93), noise, shown)

    def _choose(self, batch: Examples, story: Tensor, generator: torch.Generator) -> Tensor:
        """Where a word is exchanged: at most one of a second sentence, ``(batch, length)``."""
        second = (batch.types == 1) & (batch.ids >= SPECIAL)
        draw = self.rates[batch.ids] * torch.rand(batch.ids.shape, generator=generator)
        spot = torch.where(second, draw, -1.0).argmax(1)
        rows = story & (torch.rand(len(spot), generator=generator) < self.schedule.exchange)
        return functional.one_hot(spot, batch.ids.shape[1]).bool() & rows[:, None]

    def _exchange_loss(self, hidden: Tensor, exchanged: Tensor) -> Tensor:
        # One word in a dozen is exchanged.
        return functional.binary_cross_entropy_with_logits(
            self.exchanged(hidden)[:, 0], exchanged.float(), pos_weight=torch.tensor(4.0)
        )

    def _next_loss(self, first: Tensor, words: Tensor) -> Tensor:
        table = self.model.roberta.embeddings.word_embeddings.weight
        scores = (self.next_words(first) @ table.T).log_softmax(-1)
        weight = self.rates[words]
        return -(scores.gather(1, words) * weight).sum() / weight.sum()


def batches_of(lengths: np.ndarray, size: int) -> list[np.ndarray]:
    """Rows in batches of similar length."""
    jitter = np.random.default_rng(SEED).random(len(lengths)) * 4
    order = np.argsort(lengths + jitter)
    return [order[i : i + size] for i in range(0, len(order) - size + 1, size)]


def _take(examples: Examples, rows: np.ndarray, length: int) -> Examples:
    index = torch.from_numpy(rows)
    return Examples(
        examples.ids[index, :length],
        examples.types[index, :length],
        examples.following[index],
        examples.distance[index],
        examples.story[index],
    )


def optimizer_of(
    module: nn.Module, lr: float, warmup: int, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW with weight decay on matrices, and a schedule of warm-up, plateau and decay."""
    parameters = list(module.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.02},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))

    def factor(step: int) -> float:
        return min((step + 1) / warmup, 1.0, max(0.01, 1.5 * (1.0 - step / steps)))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def train_encoder(folder: Path, report: Report, schedule: EncoderSchedule | None = None) -> None:
    """Pretrain an encoder and save it with its tokenizer.

    Parameters
    ----------
    folder
        Where to save, in Hugging Face's format.
    report
        Told the finished share.
    schedule
        Defaults to `EncoderSchedule`'s own values.
    """
    schedule = schedule or EncoderSchedule()
    documents = encoder_documents("encoder", schedule.documents)
    tokenizer = models.encoder_tokenizer(s for doc in documents for s in doc.sentences)
    examples = make_examples(documents, tokenizer)
    # The caller's random numbers are his own.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = models.encoder(len(tokenizer))
        whole = torch.cat([examples.ids, examples.following], 1)[examples.distance <= 1]
        vectors = count_vectors(whole.numpy(), len(tokenizer), model.config.hidden_size)
        start_from_counts(model, vectors)
        rates = masking_rates(examples.ids, len(tokenizer), schedule.mask)
        objectives = Objectives(model, rates, similar_words(vectors), schedule)
        _fit(objectives, examples, schedule, report)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _fit(
    objectives: Objectives, examples: Examples, schedule: EncoderSchedule, report: Report
) -> None:
    lengths = (examples.ids != PAD).sum(1).numpy()
    batches = batches_of(lengths, schedule.batch)
    optimizer, scheduler = optimizer_of(objectives, schedule.lr, schedule.warmup, schedule.steps)
    generator = torch.Generator().manual_seed(SEED)
    order = np.random.default_rng(SEED)
    objectives.train()
    step = 0
    while step < schedule.steps:
        for index in order.permutation(len(batches))[: schedule.steps - step]:
            rows = batches[index]
            batch = _take(examples, rows, int(lengths[rows].max()))
            optimizer.zero_grad()
            objectives(batch, generator).backward()
            nn.utils.clip_grad_norm_(objectives.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            step += 1
            if step % 50 == 0:
                report(step / schedule.steps)

"""Brief pretraining of the encoder on generated, unlabelled text.

Three objectives, none of which sees a downstream label:

* masked words (Devlin et al., 2019, arXiv 1810.04805), rare words masked more often than common
  ones;
* sentence distance (ERNIE 2.0; Sun et al., 2020, arXiv 1907.12412): are two sentences neighbours,
  apart in the same document, or of different documents on one topic?
* from the first token of a sentence, the words of the sentence that follows it, in any order.

Word embeddings start from the co-occurrence counts of the text (Levy and Goldberg, 2014): a
minute of training would otherwise go into learning which words are alike.
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

from federatedscope_ext.embedded import models
from federatedscope_ext.embedded.corpora.documents import Document, encoder_documents

#: called with the finished share of the work, 0 to 1
Report = Callable[[float], None]

SPECIAL = 5
SEED = 1
PAD, MASK = 0, 4


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
    single
        Share of examples that are one sentence, the others are pairs.
    """

    documents: int = 16000
    steps: int = 600
    batch: int = 64
    lr: float = 3e-3
    warmup: int = 50
    mask: float = 0.3
    single: float = 0.25


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
    """

    ids: Tensor
    types: Tensor
    following: Tensor
    distance: Tensor


def _pick_pair(
    rng: random.Random, document: Document, same_topic: Sequence[Document]
) -> tuple[str, str, int]:
    """Two sentences and how far apart they stand."""
    later = document.sentences[2:]
    distance = rng.choice((0, 1, 2)) if later else rng.choice((0, 2))
    if distance == 2:
        other = rng.choice(same_topic)
        return document.sentences[0], rng.choice(other.sentences[1:]), 2
    return document.sentences[0], document.sentences[1 + distance], distance


def make_examples(
    documents: Sequence[Document], tokenizer: Any, schedule: EncoderSchedule
) -> Examples:
    """One example of each document."""
    rng = random.Random("examples")
    by_topic: dict[str, list[Document]] = {}
    for document in documents:
        by_topic.setdefault(document.topic, []).append(document)
    texts: list[str | tuple[str, str]] = []
    following: list[str] = []
    distances: list[int] = []
    for document in documents:
        if rng.random() < schedule.single:
            texts.append(document.sentences[0])
            following.append(document.sentences[1])
            distances.append(-100)
        else:
            first, second, distance = _pick_pair(rng, document, by_topic[document.topic])
            texts.append((first, second))
            following.append("")
            distances.append(distance)
    inner = tokenizer.backend_tokenizer
    encoded = inner.encode_batch(texts)
    return Examples(
        _padded([item.ids for item in encoded]),
        _padded([item.type_ids for item in encoded]),
        _padded([i.ids for i in inner.encode_batch(following, add_special_tokens=False)]),
        torch.tensor(distances),
    )


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Rows of different lengths as one matrix, filled up with zeros."""
    out = np.zeros((len(rows), max(1, max(map(len, rows)))), dtype=np.int64)
    for index, row in enumerate(rows):
        out[index, : len(row)] = row
    return torch.from_numpy(out)


def _information(counts: np.ndarray) -> np.ndarray:
    """Positive pointwise mutual information of a matrix of co-occurrence counts."""
    total = counts.sum()
    expected = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / total
    ratio = counts / np.maximum(expected, 1e-9)
    return np.asarray(np.log(np.maximum(ratio, 1.0)))


def count_embeddings(examples: Examples, vocabulary: int, width: int, scale: float) -> Tensor:
    """Word vectors from co-occurrence in documents and in windows of two words to either side.

    Returns
    -------
    Tensor
        Shape ``(vocabulary, width)``; rows have the norm of a normal vector of standard deviation
        ``scale``.
    """
    keep = (examples.distance <= 1).numpy()
    ids = np.concatenate([examples.ids.numpy(), examples.following.numpy()], 1)[keep]
    near = np.zeros((vocabulary, vocabulary))
    for gap in (1, 2):
        np.add.at(near, (ids[:, :-gap].ravel(), ids[:, gap:].ravel()), 1.0)
    present = np.zeros((len(ids), vocabulary), dtype=np.float32)
    np.put_along_axis(present, ids, 1.0, 1)
    together = (present.T @ present).astype(np.float64)
    np.fill_diagonal(together, 0.0)
    for matrix in (near, together):
        matrix[:SPECIAL] = 0.0
        matrix[:, :SPECIAL] = 0.0
    near = 0.5 * _information(near)
    features = np.concatenate([_information(together), near, near.T], 1)
    values, vectors = np.linalg.eigh(features @ features.T)
    vectors = vectors[:, -width:] * np.maximum(values[-width:], 0.0) ** 0.25
    vectors -= vectors[SPECIAL:].mean(0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-6
    rng = np.random.default_rng(SEED)
    # A random rotation spreads every direction over all attention heads.
    turn = np.linalg.qr(rng.normal(size=(width, width)))[0]
    # Half of a word is what it shares with others like it, half is its own.
    own = rng.normal(size=vectors.shape) / np.sqrt(width)
    vectors = (vectors @ turn + own) * np.sqrt(width / 2.0) * scale
    vectors[:SPECIAL] = rng.normal(size=(SPECIAL, width)) * scale
    return torch.from_numpy(vectors.astype(np.float32))


def masking_rates(ids: Tensor, vocabulary: int, most: float) -> Tensor:
    """Probability of masking each word, ``(vocabulary,)``: common words are masked rarely."""
    counts = torch.bincount(ids.flatten(), minlength=vocabulary).double()
    counts[:SPECIAL] = 0.0
    share = counts / counts.sum()
    rates = (most * torch.sqrt(0.004 / share.clamp_min(1e-9))).clamp(0.04, most)
    rates[:SPECIAL] = 0.0
    return rates.float()


def attend_to_same_words(model: Any) -> None:
    """Let half of the first layer's heads look, at first, for words like the one they stand at.

    Equal queries and keys (Trockman and Kolter, 2023, arXiv 2305.09828): which words of two
    sentences belong together need not be found out from nothing.
    """
    attention = model.roberta.encoder.layer[0].attention.self
    rows = attention.query.weight.shape[0] // 2
    with torch.no_grad():
        shared = nn.init.orthogonal_(torch.empty_like(attention.key.weight))[:rows]
        attention.query.weight[:rows] = shared
        attention.key.weight[:rows] = shared


class Objectives(nn.Module):
    """The encoder with the heads that only pretraining needs."""

    def __init__(self, model: Any, rates: Tensor) -> None:
        super().__init__()
        width = model.config.hidden_size
        self.model = model
        self.rates = rates
        self.next_words = nn.Linear(width, width)
        self.distance = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 3))

    def forward(self, batch: Examples, generator: torch.Generator) -> Tensor:
        """The sum of the three losses of a batch."""
        ids = batch.ids
        # A masked word may be the very one that sets two sentences apart: one task per example.
        masked = torch.rand(len(ids), 1, generator=generator) < 0.5
        chosen = masked & (torch.rand(ids.shape, generator=generator) < self.rates[ids])
        kind = torch.rand(ids.shape, generator=generator)
        noise = torch.randint(SPECIAL, len(self.rates), ids.shape, generator=generator)
        shown = torch.where(chosen & (kind < 0.85), MASK, ids)
        shown = torch.where(chosen & (kind > 0.93), noise, shown)
        hidden = self.model.roberta(
            input_ids=shown, token_type_ids=batch.types, attention_mask=ids != PAD
        ).last_hidden_state
        loss = functional.cross_entropy(self.model.lm_head(hidden[chosen]), ids[chosen])
        first = hidden[:, 0]
        pairs, whole = batch.distance >= 0, ~masked[:, 0]
        if bool((pairs & whole).any()):
            loss = loss + functional.cross_entropy(
                self.distance(first[pairs & whole]), batch.distance[pairs & whole]
            )
        alone = ~pairs & whole
        if bool(alone.any()):
            words = batch.following[alone]
            table = self.model.roberta.embeddings.word_embeddings.weight
            scores = (self.next_words(first[alone]) @ table.T).log_softmax(-1)
            weight = self.rates[words]
            loss = loss - (scores.gather(1, words) * weight).sum() / weight.sum()
        return torch.as_tensor(loss)


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
    examples = make_examples(documents, tokenizer, schedule)
    # The caller's random numbers are his own.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = models.encoder(len(tokenizer))
        table = model.roberta.embeddings.word_embeddings.weight
        vectors = count_embeddings(
            examples, len(tokenizer), table.shape[1], model.config.initializer_range
        )
        with torch.no_grad():
            table.copy_(vectors)
        attend_to_same_words(model)
        rates = masking_rates(examples.ids, len(tokenizer), schedule.mask)
        _fit(Objectives(model, rates), examples, schedule, report)
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

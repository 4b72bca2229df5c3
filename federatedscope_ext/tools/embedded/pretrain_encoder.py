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
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from federatedscope_ext.tools.embedded import models, vectors
from federatedscope_ext.tools.embedded.corpora import documents as texts
from federatedscope_ext.tools.embedded.pretrain import Report, fit
from federatedscope_ext.tools.embedded.vectors import SEED, SIMILAR, SPECIAL

#: documents to generate, optimizer steps, and examples of each step
DOCUMENTS, STEPS, BATCH = 35000, 1100, 64
#: largest probability of masking a word, and that of exchanging one in a pair of neighbours
MASKED, EXCHANGED = 0.3, 0.5
#: of the losses of exchanged words and of distance; the others have 1
WEIGHT = 2.0
PAD, MASK = 0, 4
#: in place of a distance, of examples of a single sentence
ALONE = -100


class Examples(NamedTuple):
    """Tokenised examples: three of ``(n, length)``, padded with zeros, and two of ``(n,)``."""

    ids: Tensor
    #: 0 in the first sentence, 1 in the second
    types: Tensor
    #: words of the next sentence where the example is a single one
    following: Tensor
    #: 0 neighbours, 1 same document, 2 another document, `ALONE` for single sentences
    distance: Tensor
    #: whether a word of the second sentence may be exchanged: neighbours in a scene
    story: Tensor


def _second(
    rng: random.Random, document: texts.Document, same_topic: Sequence[texts.Document]
) -> tuple[str, int]:
    """A sentence to go with the document's first, and how far apart they stand."""
    later = document.sentences[2:]
    distance = rng.choices((0, 1, 2), (0.5, 0.3, 0.2))[0] if later else rng.choice((0, 2))
    if distance == 2:
        return rng.choice(rng.choice(same_topic).sentences[1:]), distance
    return document.sentences[1 + distance], distance


def _padded(rows: list[list[int]]) -> Tensor:
    return pad_sequence([torch.tensor(row, dtype=torch.int64) for row in rows], batch_first=True)


def make_examples(documents: Sequence[texts.Document], tokenizer: Any) -> Examples:
    """One example of each document: a pair of a scene's or an answer's, else a single sentence."""
    rng = random.Random("examples")
    by_topic: defaultdict[str, list[texts.Document]] = defaultdict(list)
    for document in documents:
        by_topic[document.topic].append(document)
    shown: list[str | tuple[str, str]] = []
    following, distances, story = [], [], []
    for document in documents:
        first, after, *later = document.sentences
        distance = ALONE
        if later or document.topic.endswith(texts.ANSWERED):
            second, distance = _second(rng, document, by_topic[document.topic])
        shown.append(first if distance == ALONE else (first, second))
        following.append(after if distance == ALONE else "")
        distances.append(distance)
        story.append(bool(later) and distance == 0)
    inner = tokenizer.backend_tokenizer
    encoded = inner.encode_batch(shown)
    words = inner.encode_batch(following, add_special_tokens=False)
    return Examples(
        _padded([item.ids for item in encoded]),
        _padded([item.type_ids for item in encoded]),
        _padded([item.ids for item in words]),
        torch.tensor(distances),
        torch.tensor(story),
    )


def masking_rates(ids: Tensor, vocabulary: int) -> Tensor:
    """Probability of masking each word, ``(vocabulary,)``: common words are masked rarely."""
    counts = torch.bincount(ids.flatten(), minlength=vocabulary).double()
    counts[:SPECIAL] = 0.0
    share = counts / counts.sum()
    rates = (MASKED * torch.sqrt(0.004 / share.clamp_min(1e-9))).clamp(0.04, MASKED)
    rates[:SPECIAL] = 0.0
    return rates.float()


class Objectives(nn.Module):
    """The encoder with the heads that only pretraining needs."""

    def __init__(self, model: Any, rates: Tensor, similar: Tensor) -> None:
        super().__init__()
        width = model.config.hidden_size
        self.model = model
        self.rates = rates
        self.similar = similar
        self.next_words = nn.Linear(width, width)
        self.distance = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 3))
        self.exchanged = nn.Linear(width, 1)
        # One word in a dozen is exchanged.
        self.exchange_loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(4.0))

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
            scores, target = self.exchanged(hidden[looked])[:, 0], exchanged[looked].float()
            loss = loss + WEIGHT * self.exchange_loss(scores, target)
        pairs = ~masked & (batch.distance >= 0)
        if bool(pairs.any()):
            target = torch.where(exchanged.any(1), 2, batch.distance)
            scores = self.distance(hidden[pairs, 0])
            loss = loss + WEIGHT * functional.cross_entropy(scores, target[pairs])
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
        rows = story & (torch.rand(len(spot), generator=generator) < EXCHANGED)
        return functional.one_hot(spot, batch.ids.shape[1]).bool() & rows[:, None]

    def _next_loss(self, first: Tensor, words: Tensor) -> Tensor:
        table = self.model.roberta.embeddings.word_embeddings.weight
        scores = (self.next_words(first) @ table.T).log_softmax(-1)
        weight = self.rates[words]
        return -(scores.gather(1, words) * weight).sum() / weight.sum()


def batches_of(examples: Examples) -> Iterator[Examples]:
    """Batches of examples of similar length, in a new order every epoch, without end."""
    lengths = (examples.ids != PAD).sum(1).numpy()
    jitter = np.random.default_rng(SEED).random(len(lengths)) * 4
    order = np.argsort(lengths + jitter)
    batches = [order[i : i + BATCH] for i in range(0, len(order) - BATCH + 1, BATCH)]
    epochs = np.random.default_rng(SEED)
    while True:
        for index in epochs.permutation(len(batches)):
            rows = torch.from_numpy(batches[index])
            batch = Examples(*(column[rows] for column in examples))
            length = int(lengths[batches[index]].max())
            yield batch._replace(ids=batch.ids[:, :length], types=batch.types[:, :length])


def train_encoder(folder: Path, report: Report) -> None:
    """Pretrain an encoder and save it with its tokenizer, in Hugging Face's format."""
    documents = texts.encoder_documents("encoder", DOCUMENTS)
    tokenizer = models.encoder_tokenizer(s for doc in documents for s in doc.sentences)
    examples = make_examples(documents, tokenizer)
    generator = torch.Generator().manual_seed(SEED)
    # The caller's random numbers are his own.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = models.encoder(len(tokenizer))
        whole = torch.cat([examples.ids, examples.following], 1)[examples.distance <= 1]
        words = vectors.count_vectors(whole.numpy(), len(tokenizer), model.config.hidden_size)
        vectors.start_from_counts(model, words)
        rates = masking_rates(examples.ids, len(tokenizer))
        objectives = Objectives(model, rates, vectors.similar_words(words))
        losses = (objectives(batch, generator) for batch in batches_of(examples))
        fit(objectives, losses, STEPS, report)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

"""Words before any training: vectors from counts, and an encoder that starts from them.

Positive pointwise mutual information, then its largest directions (Levy and Goldberg, 2014, *Neural
Word Embedding as Implicit Matrix Factorization*). A minute of training would otherwise go into
learning which words are alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

#: the first tokens of the vocabulary are no words
SPECIAL = 5
SEED = 1
#: how many similar words one may be exchanged for
SIMILAR = 8


def _information(counts: np.ndarray) -> np.ndarray:
    """Positive pointwise mutual information of a matrix of co-occurrence counts of words."""
    counts[:SPECIAL] = 0.0
    counts[:, :SPECIAL] = 0.0
    expected = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / counts.sum()
    ratio = counts / np.maximum(expected, 1e-9)
    return np.asarray(np.log(np.maximum(ratio, 1.0)))


def count_vectors(ids: np.ndarray, vocabulary: int, width: int) -> np.ndarray:
    """Word vectors from co-occurrence in documents and in windows of two words to either side.

    ``ids`` are the tokens of one document a row, filled up with zeros, ``(documents, length)``; the
    vectors, ``(vocabulary, width)``, have norm 1, and their cosines say how alike words are.
    """
    near = np.zeros((vocabulary, vocabulary))
    for gap in (1, 2):
        np.add.at(near, (ids[:, :-gap].ravel(), ids[:, gap:].ravel()), 1.0)
    present = np.zeros((len(ids), vocabulary), dtype=np.float32)
    np.put_along_axis(present, ids, 1.0, 1)
    together = (present.T @ present).astype(np.float64)
    np.fill_diagonal(together, 0.0)
    near = 0.5 * _information(near)
    features = np.concatenate([_information(together), near, near.T], 1)
    values, vectors = np.linalg.eigh(features @ features.T)
    vectors = vectors[:, -width:] * np.maximum(values[-width:], 0.0) ** 0.25
    vectors -= vectors[SPECIAL:].mean(0)
    return np.asarray(vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-6))


def similar_words(vectors: np.ndarray) -> Tensor:
    """The ``SIMILAR`` words that are most alike to each, ``(vocabulary, SIMILAR)``."""
    alike = vectors @ vectors.T
    np.fill_diagonal(alike, -1.0)
    alike[:, :SPECIAL] = -1.0
    return torch.from_numpy(np.argsort(-alike, axis=1)[:, :SIMILAR].copy())


def start_from_counts(model: Any, vectors: np.ndarray) -> None:
    """Initialise the encoder so that like words look alike and find each other.

    Half of a word's embedding is what it shares with words like it, half is its own. Half of the
    first layer's heads have equal queries and keys (Trockman and Kolter, 2023, arXiv 2305.09828),
    so they look for words like the one they stand at; position and sentence stand back at first.
    """
    rng = np.random.default_rng(SEED)
    width, scale = vectors.shape[1], model.config.initializer_range
    # A random rotation spreads every direction over all attention heads.
    turn = np.linalg.qr(rng.normal(size=(width, width)))[0]
    own = rng.normal(size=vectors.shape) / np.sqrt(width)
    words = (vectors @ turn + own) * np.sqrt(width / 2.0) * scale
    words[:SPECIAL] = rng.normal(size=(SPECIAL, width)) * scale
    tables = model.roberta.embeddings
    attention = model.roberta.encoder.layer[0].attention.self
    rows = width // 2
    with torch.no_grad():
        tables.word_embeddings.weight.copy_(torch.from_numpy(words.astype(np.float32)))
        tables.position_embeddings.weight.mul_(0.3)
        tables.token_type_embeddings.weight.mul_(0.6)
        shared = 1.4 * nn.init.orthogonal_(torch.empty_like(attention.key.weight))[:rows]
        attention.query.weight[:rows] = shared
        attention.key.weight[:rows] = shared

"""Rouge-L: the longest common subsequence of an answer and a reference.

Lin, *ROUGE: A Package for Automatic Evaluation of Summaries*, 2004,
https://aclanthology.org/W04-1013. With m words of the reference, n of the answer and a longest
common subsequence of length l, recall is l / m, precision l / n, and the score their harmonic mean,
F = 2 l / (m + n). Words are runs of the letters a to z and digits of the text in lower case, with
no stemming, as in the package rouge-score, whose figures these are; with several references the
best counts. The figure of a data set is the mean over its rows, between 0 and 1.

``rougeL`` compares what the model writes by itself. ``rougeL_forced`` compares the likeliest token
at each place of the reference, given the reference up to there, as FlexLoRA's program does it: no
generation, and much higher figures, since every error is corrected before the next word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from federatedscope.register import register_metric
from federatedscope_ext.errors import ExtensionError

__all__ = ["longest_common_subsequence", "rouge_l", "rouge_words"]

_WORD = re.compile(r"[a-z0-9]+")


def rouge_words(text: str) -> list[str]:
    """The words of a text as Rouge counts them."""
    return _WORD.findall(text.lower())


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest sequence that both contain, in order, with gaps.

    In machine words rather than a table (Hyyrö, *Bit-parallel LCS-length computation revisited*,
    2004): bit i of ``row`` is 0 where the length grows at word i of ``first``.
    """
    places: dict[str, int] = {}
    for spot, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << spot
    everywhere = (1 << len(first)) - 1
    row = everywhere
    for word in second:
        matches = row & places.get(word, 0)
        row = ((row + matches) | (row - matches)) & everywhere
    return len(first) - row.bit_count()


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """Rouge-L F of an answer against the reference that suits it best.

    Parameters
    ----------
    answer : str
        The text to judge.
    references : sequence of str
        Right answers.

    Returns
    -------
    float
        From 0 to 1; 0 where either text has no word.
    """
    words = rouge_words(answer)
    best = 0.0
    for reference in references:
        wanted = rouge_words(reference)
        common = longest_common_subsequence(wanted, words)
        if common:
            best = max(best, 2 * common / (len(wanted) + len(words)))
    return best


def _mean(y_true: Any, y_pred: Any, metric: str) -> float:
    texts = isinstance(y_pred, list) and all(isinstance(text, str) for text in y_pred)
    if not texts or not isinstance(y_true, list):
        raise ExtensionError(
            "eval.metrics",
            metric,
            "it compares answers with references, and this trainer or model gives none",
            "Use it with trainer.type: llmtrainer and a data.type that ends in @llm",
        )
    scores = [rouge_l(text, references) for text, references in zip(y_pred, y_true, strict=True)]
    return sum(scores) / len(scores) if scores else float("nan")


def generated_rouge_l(y_true: Any, y_pred: Any, metric: str = "rougeL", **kwargs: Any) -> float:
    """Mean Rouge-L F of generated answers."""
    return _mean(y_true, y_pred, metric)


def forced_rouge_l(y_true: Any, y_pred: Any, metric: str = "rougeL_forced", **kwargs: Any) -> float:
    """Mean Rouge-L F of the likeliest tokens, the reference being given word by word."""
    return _mean(y_true, y_pred, metric)


# Name to (function, the text that it compares); read by the trainer.
ROUGE_METRICS: dict[str, tuple[Callable[..., float], str]] = {
    "rougeL": (generated_rouge_l, "generated"),
    "rougeL_forced": (forced_rouge_l, "forced"),
}


def _builder(name: str, function: Callable[..., float]) -> Callable[[Iterable[str]], Any]:
    def build(types: Iterable[str]) -> tuple[str, Callable[..., float], bool] | None:
        return (name, function, True) if name in types else None

    return build


for _name, (_function, _kind) in ROUGE_METRICS.items():
    vars(_function)["text"] = _kind
    register_metric(_name, _builder(_name, _function))

"""Classification tasks: one entry each.

GLUE: Wang et al., *GLUE: A Multi-Task Benchmark and Analysis Platform for Natural Language
Understanding*, ICLR 2019, https://arxiv.org/abs/1804.07461.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GLUE_ALIASES", "GLUE_TASKS", "TEXT_TASKS", "TextTask"]


@dataclass(frozen=True)
class TextTask:
    """A data set of labelled sentences or pairs of sentences.

    Attributes
    ----------
    name : str
        Name of the task, also of its folder.
    title : str
        One line for lists.
    sentence_keys : tuple of str
        Columns of the text: one, or two for pairs.
    labels : tuple of str
        Names of the labels in order; empty for a regression.
    metrics : tuple of str
        The task's official metrics; the first is the one to quote.
    validation : tuple of str
        Names of the validation splits; empty where rows of ``train`` serve as such. Of several,
        GLUE's ``data.matched`` chooses, other tasks take the first.
    test : str
        Name of the labelled test split, ``""`` where test labels are not public.
    hub : tuple of (str, str or None)
        Repository and subset on the Hugging Face hub, tried in order.
    """

    name: str
    title: str
    sentence_keys: tuple[str, ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    validation: tuple[str, ...] = ("validation",)
    test: str = ""
    hub: tuple[tuple[str, str | None], ...] = ()

    @property
    def is_regression(self) -> bool:
        """Whether the labels are real numbers."""
        return not self.labels

    @property
    def num_labels(self) -> int:
        """Outputs of the model's head: 1 for a regression."""
        return len(self.labels) or 1


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _glue(
    name: str,
    title: str,
    keys: str,
    labels: str,
    metrics: str = "accuracy",
    validation: str = "validation",
) -> TextTask:
    """A task of GLUE; lists are words of a text."""
    hub = (("nyu-mll/glue", name), ("glue", name))
    lists = (_words(keys), _words(labels), _words(metrics), _words(validation))
    return TextTask(name, title, *lists, hub=hub)


def _topics(name: str, title: str, keys: str, labels: str) -> TextTask:
    """A task whose validation rows are cut from the training rows by ``data.splits``."""
    hub = ((f"fancyzhx/{name}", None), (name, None))
    return TextTask(name, title, _words(keys), _words(labels), ("accuracy",), (), "test", hub)


_PAIR, _ENTAILMENT, _F1 = "sentence1 sentence2", "entailment not_entailment", "f1 accuracy"

GLUE_TASKS: dict[str, TextTask] = {
    task.name: task
    for task in (
        _glue(
            "cola", "grammatical acceptability of a sentence", "sentence",
            "unacceptable acceptable", "matthews_correlation",
        ),
        _glue("sst2", "sentiment of a film review", "sentence", "negative positive"),
        _glue(
            "mrpc", "whether two sentences are paraphrases", _PAIR,
            "not_equivalent equivalent", _F1,
        ),
        _glue(
            "stsb", "similarity of two sentences from 0 to 5 (regression)", _PAIR, "",
            "pearson spearmanr",
        ),
        _glue(
            "qqp", "whether two questions ask the same", "question1 question2",
            "not_duplicate duplicate", _F1,
        ),
        _glue(
            "mnli",
            "whether a premise entails a hypothesis (data.matched chooses the validation rows)",
            "premise hypothesis", "entailment neutral contradiction",
            validation="validation_matched validation_mismatched",
        ),
        _glue("qnli", "whether a sentence answers a question", "question sentence", _ENTAILMENT),
        _glue("rte", "whether a text entails a sentence", _PAIR, _ENTAILMENT),
        _glue("wnli", "what a pronoun refers to", _PAIR, "not_entailment entailment"),
    )
}  # fmt: skip

# Other spellings of TASK@glue; the second entry is the data.matched that the name implies.
GLUE_ALIASES: dict[str, tuple[str, bool | None]] = {
    "sst-2": ("sst2", None),
    "sts-b": ("stsb", None),
    "mnli-m": ("mnli", True),
    "mnli-matched": ("mnli", True),
    "mnli-mm": ("mnli", False),
    "mnli-mismatched": ("mnli", False),
}

# NAME@text.
TEXT_TASKS: dict[str, TextTask] = {
    task.name: task
    for task in (
        _topics(
            "ag_news", "topic of a news item, four topics", "text", "World Sports Business Sci/Tech"
        ),
        _topics(
            "dbpedia_14", "topic of an encyclopaedia entry, 14 topics", "title content",
            "Company EducationalInstitution Artist Athlete OfficeHolder MeanOfTransportation "
            "Building NaturalPlace Village Animal Plant Album Film WrittenWork",
        ),
    )
}  # fmt: skip

"""What can be chosen, with a line each: methods, tasks, models, splitters, metrics.

``python -m federatedscope_ext list`` prints it. What other modules have put into the registry is
listed beside it, by the key it was registered under.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from federatedscope import register as registry
from federatedscope_ext.methods import METHODS, Method
from federatedscope_ext.tasks import GLUE_TASKS, TEXT_TASKS, TextTask

__all__ = ["CATALOG", "Entry", "Section", "is_own", "print_section", "registered"]

_WIDE = 120


@dataclass(frozen=True)
class Entry:
    """One thing that can be chosen.

    Parameters
    ----------
    name : str
        What to write in the configuration.
    about : str
        What it does, in one line.
    details : tuple of str
        Further columns, as many as the section has titles beyond name and about.
    """

    name: str
    about: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """One kind of choice: where it is written, its entries, its kinds in the registry."""

    name: str
    key: str
    titles: tuple[str, ...]
    entries: Callable[[], list[Entry]]
    kinds: tuple[str, ...]
    hint: str = ""


def _entry(method: Method) -> Entry:
    """A method's line."""
    variant, head = method.variants[0], ("head",)
    trains = ", ".join(variant.trains + head)
    sends = ", ".join(variant.sends + (head if method.head == "shared" else ()))
    names = ", ".join(v.name for v in method.variants if not v.name.endswith("(rsLoRA)"))
    # A sentence goes on in small letters, unless it begins with a factor.
    first = method.note.split(maxsplit=1)[0]
    note = method.note if len(first) == 1 else method.note[0].lower() + method.note[1:]
    return Entry(
        method.key,
        f"{names}: {note.rstrip('.')}",
        (trains, sends, method.paper.rpartition(", ")[2]),
    )


# What the runtime has itself.
_BASELINES = [
    Entry(
        "fedavg",
        "weighted mean of both factors; with AdamW at the clients this is FedIT",
        ("A, B, head", "A, B, head", "arXiv 1602.05629; FedIT 2305.05644"),
    ),
    Entry("local", "every client trains alone", ("A, B, head", "nothing", "")),
    Entry("global", "one worker trains on everybody's rows", ("A, B, head", "nothing", "")),
    Entry(
        "fedopt",
        "an optimizer at the server applies the mean update (fedopt.optimizer: FedAdam, FedYogi, "
        "FedAdagrad, or one of PyTorch's)",
        ("A, B, head", "A, B, head", "arXiv 2003.00295"),
    ),
    Entry(
        "fedprox",
        "fedavg with a pull towards the received state (fedprox.mu)",
        ("A, B, head", "A, B, head", "arXiv 1812.06127"),
    ),
    Entry(
        "krum",
        "the upload closest to its neighbours (aggregator.robust_rule: krum)",
        ("A, B, head", "A, B, head", "arXiv 1703.02757"),
    ),
    Entry(
        "median",
        "coordinate-wise median (aggregator.robust_rule: median)",
        ("A, B, head", "A, B, head", "arXiv 1803.01498"),
    ),
    Entry(
        "trimmedmean",
        "coordinate-wise mean without the extremes (aggregator.robust_rule: trimmedmean)",
        ("A, B, head", "A, B, head", "arXiv 1803.01498"),
    ),
    Entry(
        "bulyan",
        "trimmed mean of the uploads that Krum picks (aggregator.robust_rule: bulyan)",
        ("A, B, head", "A, B, head", "arXiv 1802.07927"),
    ),
    Entry(
        "normbounding",
        "mean of updates clipped to a norm (aggregator.robust_rule: normbounding)",
        ("A, B, head", "A, B, head", "arXiv 1911.07963"),
    ),
]

_OWN_TEXT = [
    Entry(
        "FILE@text",
        "your own rows (.csv, .tsv, .json, .jsonl, .parquet): text (or sentence1, sentence2) and "
        "label; real numbers make a regression",
        ("accuracy; pearson, spearmanr",),
    ),
]

_INSTRUCTIONS = [
    Entry("gsm8k@llm", "school arithmetic in words, with a chain of reasoning", ("acc, loss",)),
    Entry("alpaca@llm", "generated instructions", ("rougeL, loss",)),
    Entry("alpaca_cleaned@llm", "Alpaca's instructions, corrected", ("rougeL, loss",)),
    Entry(
        "dolly-15k@llm", "instructions written by people, in eight categories", ("rougeL, loss",)
    ),
    Entry(
        "natural_instructions@llm",
        "1,613 tasks, each a client of its own (federate.client_num: 0)",
        ("rougeL, loss",),
    ),
    Entry("rosetta_alpaca@llm", "programming tasks in several languages", ("loss",)),
    Entry("code_search_net@llm", "functions with their descriptions, six languages", ("loss",)),
    Entry(
        "FILE@llm",
        "your own rows (the same formats): instruction, input, output, category",
        ("rougeL, acc, loss",),
    ),
]

_MODELS = [
    Entry(
        "NAME@huggingface_llm",
        "any encoder (for NAME@glue, NAME@text) or decoder (for NAME@llm) of the Hugging Face hub",
    ),
    Entry("/PATH/TO/MODEL@huggingface_llm", "the same from a local folder; needs no hub"),
    Entry("NAME@modelscope_llm", "from ModelScope, when its package is installed"),
    Entry("--embedded", "the built-in miniature instead of the yaml's model and data; no download"),
]

_SPLITTERS = [
    Entry("iid", "rows are dealt out at random, evenly"),
    Entry(
        "lda",
        "label proportions drawn from Dirichlet(alpha): splitter_args: [{'alpha': 0.5}]; "
        "smaller is more skewed",
    ),
    Entry("meta", "a client is one or more of the rows' categories"),
    Entry(
        "lda_quality",
        "a share of the clients has balanced labels, the others skewed ones, all of one size: "
        "splitter_args: [{'alpha': 0.1, 'balanced_share': 0.1}]",
    ),
]

_METRICS = [
    Entry(
        "loss, avg_loss, total",
        "sum and mean of the loss over rows, number of rows; always there. Of language models the "
        "mean is over all answer tokens of the split, the sum that times the rows",
    ),
    Entry(
        "acc, accuracy, correct",
        "share and number of right classes; acc on GSM8K: generated answers with the right number",
    ),
    Entry(
        "rougeL, rougeL_forced",
        "longest common subsequence of answer and reference: generated answers; or the likeliest "
        "token at each place of the reference (no generation, higher figures)",
    ),
    Entry(
        "f1, f1_binary",
        "f1: F1 of class 1 for MRPC and QQP and GLUE's other tasks of two classes, everywhere else "
        "(FILE@text) the plain mean of every class's F1 (macro); f1_binary: always of class 1",
    ),
    Entry("matthews_correlation", "Matthews correlation (CoLA)"),
    Entry("pearson, spearmanr", "correlation of predicted and true numbers (STS-B)"),
    Entry("mse, rmse", "squared error and its root, for regressions"),
    Entry(
        "roc_auc, ap",
        "area under the ROC curve, of more classes than two the mean of each against the others; "
        "average precision of the predicted class, for labels 0 and 1",
    ),
]


def _task_entries() -> list[Entry]:
    """Tasks by ``data.type``, each with its official metrics."""

    def entry(task: TextTask, suffix: str) -> Entry:
        return Entry(f"{task.name}@{suffix}", task.title, (", ".join(task.metrics),))

    glue = [entry(task, "glue") for task in GLUE_TASKS.values()]
    named = [entry(task, "text") for task in TEXT_TASKS.values()]
    return [*glue, *named, *_OWN_TEXT, *_INSTRUCTIONS]


CATALOG: tuple[Section, ...] = (
    Section(
        "methods",
        "federate.method",
        ("trained at the client", "sent", "paper"),
        lambda: [*(_entry(METHODS[key]) for key in sorted(METHODS)), *_BASELINES],
        ("worker", "aggregator"),
        "A and B are the factors of LoRA (FedSA-VeRA: d and b). personalization.head: auto is "
        "local for fedsa and shared for the others; a local head is not sent. federate.freeze_A: "
        "True with fedavg is ffa.",
    ),
    Section("tasks", "data.type", ("metrics",), _task_entries, ("data",)),
    Section("models", "model.type", (), lambda: list(_MODELS), ("model",)),
    Section("splitters", "data.splitter", (), lambda: list(_SPLITTERS), ("splitter",)),
    Section("metrics", "eval.metrics", (), lambda: list(_METRICS), ("metric",)),
)


def registered(section: Section) -> dict[str, list[str]]:
    """Keys that modules outside of this project have registered for a section's kinds.

    Returns
    -------
    dict
        Kind to keys, in the order of registration; kinds without any are left out.
    """
    found = {}
    for kind in section.kinds:
        builders = getattr(registry, f"{kind}_dict")
        keys = [str(key) for key, builder in builders.items() if not is_own(builder)]
        if keys:
            found[kind] = keys
    return found


def is_own(builder: object) -> bool:
    """Whether a builder is the project's own; ``contrib`` holds the user's."""
    module = str(getattr(builder, "__module__", ""))
    own = module.partition(".")[0] in ("federatedscope", "federatedscope_ext")
    return own and not module.startswith("federatedscope.contrib.")


def print_section(section: Section, console: Console) -> None:
    """One list, then what is registered besides; details get their own columns where they fit."""
    console.print(f"\n[bold]{section.name}[/bold] ({escape(section.key)})")
    wide = console.width >= _WIDE
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=wide)
    table.add_column("name", style="bold", no_wrap=True)
    table.add_column("about")
    for title in section.titles if wide else ():
        table.add_column(title)
    for entry in section.entries():
        details = (*entry.details, *[""] * (len(section.titles) - len(entry.details)))
        cells = [entry.name, entry.about, *details]
        if not wide:
            pairs = zip(section.titles, details, strict=True)
            rest = "; ".join(f"{title}: {text}" for title, text in pairs if text)
            cells = [entry.name, f"{entry.about}\n  {rest}" if rest else entry.about]
        table.add_row(*map(escape, cells))
    console.print(table)
    if section.hint:
        console.print(escape(section.hint))
    for kind, keys in registered(section).items():
        console.print(f"registered by other modules ({kind}): {escape(', '.join(keys))}")

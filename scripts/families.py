"""One round of every model family, for each task and precision: what runs, and what is refused how.

    python scripts/families.py
    python scripts/families.py --families bert,llama --tasks classification --precisions fp32,bf16

Tiny random models are built in a temporary folder; nothing is fetched. A cell of the table is `ok`,
the one-paragraph refusal, or the last line of a traceback; the exit code is 1 where there is one of
these.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from family_models import FAMILIES, WORDS, build_family  # noqa: E402

TASKS = ("classification", "generation")
PRECISIONS = ("fp32", "bf16")
COMMON = {
    "use_gpu": "False",
    "federate.total_round_num": "1",
    "federate.client_num": "2",
    "train.local_update_steps": "2",
    "train.optimizer.lr": "0.01",
    "data.splitter": "iid",
    "data.splitter_args": "[]",
    "dataloader.batch_size": "4",
    "llm.tok_len": "64",
    "eval.freq": "1",
    "eval.batch_size": "8",
    "llm.adapter.args": "[{'adapter_package': 'peft', 'adapter_method': 'lora', 'r': 2, "
    "'lora_alpha': 4, 'target_modules': 'all-linear'}]",
}
OF_TASK = {
    "classification": {},
    "generation": {
        "eval.metrics": "['rougeL', 'loss']",
        "eval.max_new_tokens": "4",
        "eval.max_generated_rows": "4",
    },
}


@dataclass(frozen=True)
class Cell:
    """One run: how it ended is ``ok``, ``refused`` or ``traceback``."""

    family: str
    task: str
    precision: str
    outcome: str
    message: str = ""


def run_cell(family: str, task: str, precision: str, model: Path, folder: Path) -> Cell:
    """One round in this process.

    Parameters
    ----------
    family, task, precision : str
        What is run.
    model : path
        Folder of the model.
    folder : path
        Where the data lie; runs are written below it.
    """
    from federatedscope.core.launch import EXIT_OK, EXIT_USER_ERROR, main

    classify = task == "classification"
    options = COMMON | OF_TASK[task] | {
        "data.type": f"{folder / ('rows.csv@text' if classify else 'rows.jsonl@llm')}",
        "model.type": f"{model}@huggingface_llm",
        "train.is_enable_half": str(precision != "fp32"),
        "train.half_dtype": precision,
        "outdir": str(folder / "runs" / f"{family}-{task}-{precision}"),
    }  # fmt: skip
    yaml = ROOT / "yamls" / ("minilm.yaml" if classify else "fedsa_dolly.yaml")
    words = ["--cfg", str(yaml), "--quiet", *(word for pair in options.items() for word in pair)]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            code = main(words)
    except Exception as error:  # noqa: BLE001 - a traceback is what is looked for
        return Cell(family, task, precision, "traceback", _last(f"{type(error).__name__}: {error}"))
    lines = [line for line in said.getvalue().splitlines() if line.startswith("Error: ")]
    text = lines[-1].removeprefix("Error: ").replace(f"{model}", family) if lines else ""
    if code == EXIT_OK:
        return Cell(family, task, precision, "ok")
    if code == EXIT_USER_ERROR and text:
        return Cell(family, task, precision, "refused", text)
    return Cell(family, task, precision, "traceback", text or _last(said.getvalue()))


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no message"


def run_family(family: str, tasks: Sequence[str], precisions: Sequence[str]) -> list[Cell]:
    """All cells of a family, in a temporary folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["FEDERATEDSCOPE_CACHE"] = str(folder / "cache")
        write_rows(folder)
        with contextlib.redirect_stderr(io.StringIO()):
            model = build_family(family, folder)
        return [
            run_cell(family, task, precision, model, folder)
            for task in tasks
            for precision in precisions
        ]


def write_rows(folder: Path) -> None:
    """Texts of unequal length with two labels, and instructions with answers."""
    texts = [" ".join(WORDS[i % 16 :: 3 + i % 7]) for i in range(48)]
    rows = [f"{text},{i % 2}" for i, text in enumerate(texts)]
    (folder / "rows.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    records = [
        {"instruction": text, "input": "", "output": WORDS[i % 16]} for i, text in enumerate(texts)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n")


def table(cells: Iterable[Cell]) -> str:
    """Markdown: a row a family, a column for each task and precision, the refusals below."""
    cells = list(cells)
    columns = list(dict.fromkeys((cell.task, cell.precision) for cell in cells))
    found = {(cell.family, cell.task, cell.precision): cell for cell in cells}
    messages = list(dict.fromkeys(cell.message for cell in cells if cell.message))
    lines = [
        "| family | " + " | ".join(f"{task}, {precision}" for task, precision in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for family in dict.fromkeys(cell.family for cell in cells):
        shown = []
        for column in columns:
            cell = found[(family, *column)]
            mark = f" [{messages.index(cell.message) + 1}]" if cell.message else ""
            shown.append(cell.outcome + mark)
        lines.append(f"| {family} | " + " | ".join(shown) + " |")
    notes = [f"{number}. {message}" for number, message in enumerate(messages, 1)]
    return "\n".join([*lines, "", *notes])


def _names(text: str, known: Iterable[str]) -> list[str]:
    names = text.split(",") if text else list(known)
    if unknown := sorted(set(names) - {*known}):
        sys.exit(f"There is no {', '.join(unknown)}; there are {', '.join(known)}")
    return names


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cells that are asked for and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for name, known in (("families", FAMILIES), ("tasks", TASKS), ("precisions", PRECISIONS)):
        parser.add_argument(f"--{name}", default="", help=f"of {', '.join(known)}; all by default")
    parser.add_argument("--json", default="", help="also write the cells to this file")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    args = parser.parse_args(argv)
    families = _names(args.families, FAMILIES)
    tasks, precisions = _names(args.tasks, TASKS), _names(args.precisions, PRECISIONS)
    run = partial(run_family, tasks=tasks, precisions=precisions)
    cells = []
    # Each process runs a few families, so that none of them depends on all before it.
    with get_context("spawn").Pool(args.jobs, maxtasksperchild=8) as pool:
        for of_family in pool.imap(run, families):
            cells += of_family
            found = ", ".join(f"{c.task} {c.precision} {c.outcome}" for c in of_family)
            print(f"{of_family[0].family}: {found}", file=sys.stderr)
    print(table(cells))
    if args.json:
        Path(args.json).write_text(json.dumps([asdict(cell) for cell in cells], indent=1) + "\n")
    return int(any(cell.outcome == "traceback" for cell in cells))


if __name__ == "__main__":
    sys.exit(main())

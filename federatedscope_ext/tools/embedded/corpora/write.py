"""Write the corpora in the layout and with the columns of the real data sets.

``ROOT/<set>[/<task>]/<split>.parquet``, and the JSON files that go by the name of the download.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from federatedscope_ext.tools.embedded.corpora import (
    arithmetic,
    instructions,
    pairs,
    sentences,
    tasks,
)
from federatedscope_ext.tools.embedded.corpora.lexicon import MISMATCHED
from federatedscope_ext.tools.embedded.corpora.rows import Maker, Row

_SETS: dict[str, tuple[Maker, dict[str, int]]] = {
    "glue/mnli": (pairs.mnli, {"train": 6000, "validation_matched": 600}),
    "glue/sst2": (sentences.sst2, {"train": 6000, "validation": 600}),
    "glue/cola": (sentences.cola, {"train": 4000, "validation": 500}),
    "glue/mrpc": (pairs.mrpc, {"train": 3000, "validation": 400}),
    "glue/qqp": (pairs.qqp, {"train": 6000, "validation": 600}),
    "glue/qnli": (pairs.qnli, {"train": 6000, "validation": 600}),
    "glue/rte": (pairs.rte, {"train": 2500, "validation": 400}),
    "glue/wnli": (pairs.wnli, {"train": 800, "validation": 200}),
    "glue/stsb": (pairs.stsb, {"train": 4000, "validation": 500}),
    "ag_news": (sentences.ag_news, {"train": 4000, "test": 600}),
    "dbpedia_14": (sentences.dbpedia_14, {"train": 4200, "test": 700}),
    "gsm8k": (arithmetic.gsm8k, {"train": 3000, "test": 200}),
    "dolly_15k": (instructions.dolly, {"train": 3000}),
    "code_search_net": (instructions.code, {"train": 1800}),
    "natural_instructions": (tasks.natural_instructions, tasks.SIZES),
}

#: table -> (maker, rows)
TABLES: dict[str, tuple[Maker, int]] = {
    **{
        f"{group}/{split}": (maker, rows)
        for group, (maker, splits) in _SETS.items()
        for split, rows in splits.items()
    },
    "glue/mnli/validation_mismatched": (partial(pairs.mnli, genres=MISMATCHED), 600),
}

#: file by the name of its download -> (maker, rows)
JSON_FILES: dict[str, tuple[Maker, int]] = {
    "alpaca_data.json": (instructions.alpaca, 3000),
    "alpaca_data_cleaned.json": (instructions.alpaca, 3000),
    "rosetta_alpaca.json": (instructions.rosetta, 1800),
}
#: file by the name of its download -> the table whose rows it holds
JSON_LINES = {"gsm8k_train.jsonl": "gsm8k/train", "gsm8k_test.jsonl": "gsm8k/test"}

#: draws of a split for evaluation, of which rows that stand in the training split are left out
MOST_DRAWS = 20

UNNUMBERED = ("gsm8k", "dolly_15k", "code_search_net", "natural_instructions")


def table(name: str) -> list[Row]:
    """The rows of one table, e.g. ``'glue/mnli/train'``; always the same."""
    maker, rows = TABLES[name]
    group, _, split = name.rpartition("/")
    # Natural Instructions keep their splits apart by themselves.
    alone = split == "train" or group == "natural_instructions"
    made = maker(name, rows) if alone else _held_out(name, f"{group}/train")
    if group not in UNNUMBERED:
        made = [{**row, "idx": index} for index, row in enumerate(made)]
    return made


def text_of(row: Row) -> tuple[Any, ...]:
    """What a model reads of a row: all columns but the answer."""
    return tuple(value for key, value in row.items() if key not in ("label", "answer", "idx"))


def _class_of(row: Row) -> int:
    """The class of a row, 0 where the answer is a number or a text."""
    label = row.get("label")
    return label if isinstance(label, int) else 0


def _held_out(name: str, train: str) -> list[Row]:
    """Rows for evaluation: each text once, none of it in ``train``, each class equally often."""
    maker, rows = TABLES[name]
    known = {text_of(row) for row in TABLES[train][0](train, TABLES[train][1])}
    classes = sorted({_class_of(row) for row in maker(name, rows)})
    room = {label: (rows + spot) // len(classes) for spot, label in enumerate(classes)}
    kept: list[Row] = []
    for draw in range(MOST_DRAWS):
        # The first seed is the table's name, so that most rows are those of one plain draw.
        for row in maker(f"{name} {draw}" if draw else name, rows):
            label = _class_of(row)
            if room[label] and text_of(row) not in known:
                room[label] -= 1
                known.add(text_of(row))
                kept.append(row)
        if len(kept) == rows:
            return kept
    raise RuntimeError(f"{name}: too few texts that {train} has not")


def write_all(root: Path, report: Callable[[float], None] = lambda share: None) -> None:
    """Write every corpus below ``root``, a folder that exists and becomes a ``data.root``.

    ``report`` is told the finished share.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in TABLES:
        target = root / f"{name}.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        columns = pa.Table.from_pylist(table(name))
        if "idx" in columns.column_names:
            spot = columns.column_names.index("idx")
            columns = columns.set_column(spot, "idx", columns["idx"].cast(pa.int32()))
        pq.write_table(columns, target, compression="zstd")
    for file, (maker, rows) in JSON_FILES.items():
        (root / file).write_text(json.dumps(maker(file, rows), indent=1), encoding="utf-8")
    for file, name in JSON_LINES.items():
        lines = "".join(f"{json.dumps(row)}\n" for row in table(name))
        (root / file).write_text(lines, encoding="utf-8")
    report(1.0)

"""Write the corpora in the layout and with the columns of the real data sets.

``ROOT/<set>[/<task>]/<split>.parquet``, and the JSON files that go by the name of the download.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
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

Row = dict[str, Any]
Maker = Callable[[str, int], list[Row]]

#: file -> (maker, rows)
TABLES: dict[str, tuple[Maker, int]] = {
    "glue/mnli/train": (pairs.mnli, 6000),
    "glue/mnli/validation_matched": (pairs.mnli, 600),
    "glue/mnli/validation_mismatched": (partial(pairs.mnli, genres=MISMATCHED), 600),
    "glue/sst2/train": (sentences.sst2, 6000),
    "glue/sst2/validation": (sentences.sst2, 600),
    "glue/cola/train": (sentences.cola, 4000),
    "glue/cola/validation": (sentences.cola, 500),
    "glue/mrpc/train": (pairs.mrpc, 3000),
    "glue/mrpc/validation": (pairs.mrpc, 400),
    "glue/qqp/train": (pairs.qqp, 6000),
    "glue/qqp/validation": (pairs.qqp, 600),
    "glue/qnli/train": (pairs.qnli, 6000),
    "glue/qnli/validation": (pairs.qnli, 600),
    "glue/rte/train": (pairs.rte, 2500),
    "glue/rte/validation": (pairs.rte, 400),
    "glue/wnli/train": (pairs.wnli, 800),
    "glue/wnli/validation": (pairs.wnli, 200),
    "glue/stsb/train": (pairs.stsb, 4000),
    "glue/stsb/validation": (pairs.stsb, 500),
    "ag_news/train": (sentences.ag_news, 4000),
    "ag_news/test": (sentences.ag_news, 600),
    "dbpedia_14/train": (sentences.dbpedia_14, 4200),
    "dbpedia_14/test": (sentences.dbpedia_14, 700),
    "gsm8k/train": (arithmetic.gsm8k, 3000),
    "gsm8k/test": (arithmetic.gsm8k, 200),
    "dolly_15k/train": (instructions.dolly, 3000),
    "code_search_net/train": (instructions.code, 1800),
    **{
        f"natural_instructions/{split}": (tasks.natural_instructions, rows)
        for split, rows in tasks.SIZES.items()
    },
}

#: file by the name of its download -> (maker, rows)
JSON_FILES: dict[str, tuple[Maker, int]] = {
    "alpaca_data.json": (instructions.alpaca, 3000),
    "alpaca_data_cleaned.json": (instructions.alpaca, 3000),
    "rosetta_alpaca.json": (instructions.rosetta, 1800),
    "gsm8k_train.jsonl": (arithmetic.gsm8k, 3000),
    "gsm8k_test.jsonl": (arithmetic.gsm8k, 200),
}

#: draws of a split for evaluation, of which rows that stand in the training split are left out
MOST_DRAWS = 20

UNNUMBERED = ("gsm8k", "dolly_15k", "code_search_net", "natural_instructions")
#: makers that keep the splits apart by themselves
SPLIT_BY_MAKER = ("natural_instructions",)


def rows_of(name: str) -> int:
    """Rows of a table or JSON file, e.g. ``rows_of('glue/mnli/train')``."""
    return {**TABLES, **JSON_FILES}[name][1]


def table(name: str) -> list[Row]:
    """The rows of one table, always the same."""
    maker, rows = TABLES[name]
    group, _, split = name.rpartition("/")
    if split == "train" or group in SPLIT_BY_MAKER:
        made = maker(name, rows)
    else:
        made = _held_out(name, f"{group}/train")
    if name.split("/")[0] not in UNNUMBERED:
        made = [{**row, "idx": index} for index, row in enumerate(made)]
    return made


def text_of(row: Row) -> tuple[Any, ...]:
    """What a model reads of a row: all columns but the answer."""
    return tuple(value for key, value in row.items() if key not in ("label", "answer", "idx"))


def _class_of(row: Row) -> int | None:
    """The class of a row, ``None`` where the answer is a number or a text."""
    label = row.get("label")
    return label if isinstance(label, int) else None


def _held_out(name: str, train: str) -> list[Row]:
    """Rows for evaluation: each text once, none of it in ``train``, each class equally often."""
    maker, rows = TABLES[name]
    known = {text_of(row) for row in TABLES[train][0](train, TABLES[train][1])}
    classes = sorted({_class_of(row) or 0 for row in maker(name, rows)})
    room = {label: (rows + spot) // len(classes) for spot, label in enumerate(classes)}
    kept: list[Row] = []
    for draw in range(MOST_DRAWS):
        # The first seed is the table's name, so that most rows are those of one plain draw.
        for row in maker(f"{name} {draw}" if draw else name, rows):
            label = _class_of(row) or 0
            if room[label] and text_of(row) not in known:
                room[label] -= 1
                known.add(text_of(row))
                kept.append(row)
        if len(kept) == rows:
            return kept
    raise RuntimeError(f"{name}: too few texts that {train} has not")


def _json(name: str) -> str:
    maker, rows = JSON_FILES[name]
    if name.endswith(".jsonl"):
        # The JSON forms of GSM8K hold the rows of the table.
        made = table(name.removesuffix(".jsonl").replace("_", "/"))
        return "".join(f"{json.dumps(row)}\n" for row in made)
    return json.dumps(maker(name, rows), indent=1)


def write_all(root: Path) -> None:
    """Write every corpus below ``root``.

    Parameters
    ----------
    root
        A folder that exists; becomes a ``data.root``.
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
    for name in JSON_FILES:
        (root / name).write_text(_json(name), encoding="utf-8")


def listing() -> Iterator[str]:
    """Names of all files that `write_all` makes, relative to its root."""
    yield from (f"{name}.parquet" for name in TABLES)
    yield from JSON_FILES

"""What a run's description says about rows: what ``llm.tok_len`` cuts, and which are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from federatedscope.core.data.base_data import SPLITS
from federatedscope.core.data.utils import IntArray, bases_of, count_rows, dataset_of, numbers_of
from federatedscope.core.records import ClientInfo, LeftOut, Truncation
from federatedscope.core.task import task_type

__all__ = ["describe_left_out", "describe_truncation", "truncation_notes"]

# From this share of cut rows on, and from this one at a single client, a note says so.
MANY, MANY_OF_ONE = 0.1, 0.5


def describe_truncation(holder: Any) -> dict[str, Truncation] | None:
    """What a client's rows lose, by split; ``None`` where its data sets do not say."""
    found = {}
    for split in SPLITS:
        dataset = dataset_of(holder, split)
        if dataset is None or not len(dataset) or (cut := numbers_of(dataset, "cut")) is None:
            continue
        left = numbers_of(dataset, "left")
        empty = 0 if left is None else np.count_nonzero((cut > 0) & (left < 1))
        rows, tokens, lengths = int(np.count_nonzero(cut)), int(cut.sum()), _lengths(dataset)
        found[split] = Truncation(rows, tokens, int(empty), len(cut), int(lengths.sum()))
    return found or None


def _lengths(dataset: Any) -> IntArray:
    """Tokens of each row before anything was cut, of shape ``(rows,)``."""
    lengths, cut = (numbers_of(dataset, name) for name in ("lengths", "cut"))
    if lengths is None or cut is None:
        return np.empty(0, dtype=np.int64)
    return np.asarray(lengths, dtype=np.int64) + cut


def truncation_notes(
    cfg: Any, data: Mapping[int, Any], clients: tuple[ClientInfo, ...]
) -> list[str]:
    """A sentence where many rows are cut, or nothing is left of some, and what would hold them."""
    total = sum((client.cut for client in clients), Truncation())
    most = max((c.cut.rows / c.cut.all_rows for c in clients if c.cut.all_rows), default=0.0)
    if not total.empty and total.rows <= MANY * total.all_rows and most <= MANY_OF_ONE:
        return []
    lengths = np.concatenate([_lengths(rows) for _, rows in _splits(data)])
    wanted, longest = int(np.quantile(lengths, 0.99, method="higher")), int(lengths.max())
    what = "answer" if task_type(cfg) == "CAUSAL_LM" else "text"
    told = f"llm.tok_len {cfg.llm.tok_len} cuts {total.rows / total.all_rows:.0%} of the rows"
    if total.empty:
        told += f", and of {total.empty} nothing of the {what} is left"
    enough = f"{wanted} would hold 99 % of them, {longest} all" if wanted < longest else ""
    return [f"{told}; {enough or f'{longest} would hold all'}."]


def describe_left_out(cfg: Any, data: Mapping[int, Any]) -> tuple[LeftOut, ...]:
    """Rows that are not used, by where they are and why, as loaders and translators tell it."""
    counts: Counter[tuple[str, str]] = Counter()
    told = [one for holder in data.values() for one in getattr(holder, "left_out", ())]
    bases = {id(base): base for _, rows in _splits(data, 0) for base in bases_of(rows)}
    told += [one for base in bases.values() for one in getattr(base, "left_out", ())]
    told += _last_batches(cfg, data)
    for where, rows, reason in told:
        counts[where, reason] += rows
    if task_type(cfg) == "CAUSAL_LM":
        for split, rows in _splits(data):
            left = numbers_of(rows, "left")
            if left is not None:
                reason = "no token of the answer to learn from"
                counts[f"{split} rows", reason] += int(np.count_nonzero(left < 1))
    return tuple(LeftOut(where, rows, why) for (where, why), rows in counts.items() if rows)


def _last_batches(cfg: Any, data: Mapping[int, Any]) -> Iterator[tuple[str, int, str]]:
    """Training rows that ``dataloader.drop_last`` leaves out of every epoch."""
    for worker, holder in data.items():
        loader = (getattr(holder, "client_cfg", None) or cfg).dataloader
        if worker and loader.drop_last:
            rows = count_rows(holder, "train") % loader.batch_size
            yield "train rows of every epoch", rows, "dataloader.drop_last"


def _splits(data: Mapping[int, Any], first: int = 1) -> Iterator[tuple[str, Any]]:
    """The data sets of all participants from number ``first`` on, each with its split."""
    for worker, holder in sorted(data.items()):
        for split in SPLITS if worker >= first else ():
            if len(rows := dataset_of(holder, split) or ()):
                yield split, rows

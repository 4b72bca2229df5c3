"""What a run's description says about each client: rows, labels, weight, baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from federatedscope.core.data.base_data import SPLITS
from federatedscope.core.data.utils import count_rows, dataset_of, label_histogram, listed
from federatedscope.core.participants import evaluated_clients, unseen_clients, untrained_clients
from federatedscope.core.preflight_rows import describe_truncation
from federatedscope.core.records import ClientInfo, Majority
from federatedscope.core.task import adapter_arguments, task_type
from federatedscope.core.trainers.utils import training_length
from fedlora.layouts import Layouts

__all__ = ["describe_clients", "expected_weight", "majority_baseline"]


def describe_clients(
    cfg: Any, data: Mapping[int, Any], layouts: Layouts | None = None
) -> list[ClientInfo]:
    """Rows, labels, rank, scale, weight and majority baseline of every client.

    A rank or scale that differs between modules is a tuple of those that occur.
    """
    unseen = set(unseen_clients(cfg))
    rows = {k: count_rows(v, "train") for k, v in data.items() if k}
    idle = set(untrained_clients(cfg))
    share = {k: 0.0 if k in idle else expected_weight(cfg, n) for k, n in rows.items()}
    total = sum(share.values()) or 1.0
    rank = adapter_arguments(cfg).get("r") if cfg.llm.adapter.use else None
    described = []
    for client, holder in sorted((k, v) for k, v in data.items() if k):
        histograms = {split: _histogram(holder, split) for split in SPLITS}
        classifies = task_type(cfg) != "CAUSAL_LM" and cfg.data.num_labels != 1
        described.append(
            ClientInfo(
                id=client,
                rows={split: count_rows(holder, split) for split in SPLITS},
                labels={k: v for k, v in histograms.items() if v} or None,
                rank=rank if layouts is None else _one(layouts.of(client).ranks),
                scale=None if layouts is None else _one(layouts.of(client).scales),
                weight=share[client] / total,
                majority=majority_baseline(histograms) if classifies else None,
                unseen=client in unseen,
                group=getattr(holder, "group", "") or None,
                truncated=describe_truncation(holder),
            )
        )
    return described


def participation_notes(cfg: Any, data: Mapping[int, Any]) -> list[str]:
    """Sentences about clients that never train, that are not evaluated, or form a group."""
    notes = []
    untrained = sorted(map(int, cfg.federate.untrained_clients))
    if untrained:
        notes.append(
            f"{len(untrained)} client(s) never train, weigh nothing and are only evaluated: "
            f"{listed(untrained)} (federate.untrained_clients, and clients without training rows)."
        )
    groups: dict[str, list[int]] = {}
    for client, holder in sorted(data.items()):
        group = str(getattr(holder, "group", ""))
        if client and group:
            groups.setdefault(group, []).append(client)
    notes += _private_notes(cfg)
    notes += [f"{len(ids)} client(s) {name}: {listed(ids)}." for name, ids in groups.items()]
    if cfg.eval.clients != "all":
        notes.append(f"Only the {cfg.eval.clients} clients are evaluated (eval.clients).")
    if cfg.eval.max_rows:
        notes.append(
            f"At most {cfg.eval.max_rows} validation and test rows of each client are used "
            "(eval.max_rows); means weighted by rows count these."
        )
    return notes


def _private_notes(cfg: Any) -> list[str]:
    """What clients that never train are scored with where others have tensors of their own."""
    private = list(cfg.personalization.local_param)
    isolated = cfg.federate.method.lower() == "local"
    everybody = range(1, cfg.federate.client_num + 1)
    never = evaluated_clients(cfg, everybody, unseen_clients(cfg)) & {*untrained_clients(cfg)}
    evaluates_clients = not cfg.federate.make_global_eval and not cfg.federate.shared_module
    if not never or not evaluates_clients or not (private or isolated):
        return []
    what = "the model as it was at the start"
    if not isolated:
        what = f"what is shared and, untrained, what stays on a client ({', '.join(private)})"
    first = ", fine-tuned on their own training rows" if cfg.finetune.before_eval else ""
    return [f"Client(s) {listed(sorted(never))} never train: scored with {what}{first}."]


def _one(values: Mapping[str, float]) -> Any:
    """The value of all modules, or those that occur."""
    distinct = tuple(sorted(set(values.values())))
    return distinct[0] if len(distinct) == 1 else distinct


def expected_weight(cfg: Any, rows: int) -> float:
    """What a client with that many rows weighs in the mean, before normalisation."""
    if cfg.federate.ignore_weight or cfg.aggregator.weights == "uniform":
        return 1.0
    loader = cfg.dataloader
    if cfg.aggregator.weights == "rows" or rows < (loader.batch_size if loader.drop_last else 1):
        return float(rows)
    full, last, epochs, _ = training_length(cfg, rows)
    size = loader.batch_size
    return float((epochs - 1) * min(full * size, rows) + min(last * size, rows))


def majority_baseline(histograms: Mapping[str, Mapping[str, int] | None]) -> Majority | None:
    """Accuracy of always answering the most frequent label of the training rows.

    Returns
    -------
    Majority or None
        The label, and its share of the validation and test rows (``None`` without rows).
    """
    train = histograms.get("train")
    if not train:
        return None
    label = max(sorted(train), key=lambda name: train[name])
    shares: dict[str, float] = {}
    for split in ("val", "test"):
        counts = histograms.get(split)
        if counts and (total := sum(counts.values())):
            shares[split] = counts.get(label, 0) / total
    return Majority(label, **shares)


def _histogram(holder: Any, split: str, most: int = 64) -> dict[str, int] | None:
    """Rows per label; ``None`` for continuous labels, for too many and for none at all."""
    counts = label_histogram(dataset_of(holder, split)) or {}
    return counts if 0 < len(counts) <= most else None

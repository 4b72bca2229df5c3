"""Everything that can be known and checked before weights are read.

The model is built without storage, so that names, shapes, sent parameters and memory are known in a
fraction of a second; the result is the run's description, ``run.json`` and the printed summary.
"""

from __future__ import annotations

import contextlib
import difflib
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from federatedscope.core.auxiliaries.trainer_builder import get_trainer_cls
from federatedscope.core.auxiliaries.worker_builder import get_server_cls
from federatedscope.core.data.base_data import SPLITS
from federatedscope.core.data.utils import count_rows, listed
from federatedscope.core.errors import ConfigError
from federatedscope.core.monitors.formatting import split_of
from federatedscope.core.monitors.monitor import Monitor
from federatedscope.core.participants import evaluated_clients, unseen_clients
from federatedscope.core.precision import Precision
from federatedscope.core.preflight_clients import (
    describe_clients,
    expected_weight,
    majority_baseline,
    participation_notes,
)
from federatedscope.core.preflight_options import method_options
from federatedscope.core.preflight_rows import describe_left_out, truncation_notes
from federatedscope.core.records import AdapterInfo, EvaluationInfo, Parameters, RunInfo, Swap
from federatedscope.core.sharing import head_rule
from federatedscope.core.task import (
    OTHER,
    adapter_arguments,
    adapter_method,
    is_isolated,
    task_type,
)
from federatedscope.core.trainers.utils import shared_part
from fedlora.layouts import Layouts, size_at

__all__ = [
    "check_sharing",
    "check_splits",
    "describe_clients",
    "describe_run",
    "estimate_memory",
    "expected_weight",
    "majority_baseline",
    "trainable_shapes",
]

Shapes = dict[str, torch.Size]
_PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "numpy")


def describe_run(
    cfg: Any,
    data: Mapping[int, Any],
    device: str,
    precision: Precision,
    threads: int,
    skeleton: torch.nn.Module | None,
    declared_local: Sequence[str] = (),
    layouts: Layouts | None = None,
) -> dict[str, Any]:
    """Check data against model and method, and describe the run: ``run.json`` at the start.

    Parameters
    ----------
    cfg : CN
        The settled configuration (see :func:`federatedscope.core.sharing.settled`).
    skeleton : torch.nn.Module, optional
        The model, with or without storage.
    declared_local : sequence of str
        The user's own ``personalization.local_param``; each keyword must match something.
    layouts : Layouts, optional
        Ranks and scales of LoRA modules; the skeleton has the server's.

    Raises
    ------
    ConfigError
        A ``local_param`` that matches nothing, nothing left to share, no rows to evaluate on.
    """
    get_trainer_cls(cfg.trainer.type)
    check_splits(cfg, data)
    if skeleton is not None:
        check_sharing(cfg, trainable_shapes(skeleton), declared_local)
    clients = tuple(describe_clients(cfg, data, layouts))
    notes = [*truncation_notes(cfg, data, clients), *_notes(cfg, precision, device, data)]
    return RunInfo(
        name=Path(cfg.outdir).name,
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **_describe_method(cfg),
        **_describe_model(cfg, skeleton, precision, device, threads, layouts),
        **_describe_training(cfg),
        clients=clients,
        left_out=describe_left_out(cfg, data),
        label_names=tuple(cfg.data.label_list) or None,
        embedded=bool(cfg.embedded.use),
        swaps=tuple(Swap(**swap) for swap in cfg.embedded.swaps),
        evaluation=_describe_evaluation(cfg, layouts is not None and layouts.vary),
        notes=(*notes, *getattr(skeleton, "notes", ())),
        versions=_versions(),
        command=" ".join(["python", *sys.argv]),
        last_round=0,
    ).to_json()


def check_splits(cfg: Any, data: Mapping[int, Any]) -> None:
    """Is there anything to evaluate on, and is the deciding metric among the results?"""
    holders = {client: holder for client, holder in data.items() if client}
    if cfg.federate.make_global_eval:
        evaluated = {0: _server_rows(cfg, data)}
    else:
        # As the server will choose them.
        chosen = evaluated_clients(cfg, holders, unseen_clients(cfg))
        evaluated = {client: holders[client] for client in chosen}
    present = _splits_with_rows(cfg, evaluated)
    # What only the clients that eval.clients leaves out have rows of.
    others = [split for split in _splits_with_rows(cfg, holders) if split not in present]
    if not present:
        if others and not cfg.federate.make_global_eval:
            raise _nobody_evaluated(cfg, evaluated, others)
        problem = "no participant has rows in any of these splits"
        remedy = "name a split that the data set has (GLUE: ['val']), or set data.splits"
        raise ConfigError("eval.split", list(cfg.eval.split), problem, remedy)
    key = cfg.eval.best_res_update_round_wise_key
    split = split_of(key)
    if split in SPLITS and split not in present:
        if split in others and not cfg.federate.make_global_eval:
            raise _nobody_evaluated(cfg, evaluated, [split])
        problem = f"the evaluated splits with rows are {present}"
        remedy = f"write {present[0]}_{key.split('_', 1)[-1]}"
        raise ConfigError("eval.best_res_update_round_wise_key", key, problem, remedy)


def _splits_with_rows(cfg: Any, holders: Mapping[int, Any]) -> list[str]:
    """The evaluated splits that any of the participants has rows of."""
    rows = {split: sum(count_rows(h, split) for h in holders.values()) for split in cfg.eval.split}
    return [split for split in rows if rows[split]]


def _nobody_evaluated(cfg: Any, evaluated: Iterable[int], splits: list[str]) -> ConfigError:
    """The rows to evaluate on are with clients that are not evaluated."""
    return ConfigError(
        "eval.clients",
        cfg.eval.clients,
        f"none of the evaluated clients ({listed(sorted(evaluated))}) has rows of "
        f"{' or '.join(splits)}",
        f"Write eval.clients: all, another seed (it is {cfg.seed}), or use more clients",
    )


def _server_rows(cfg: Any, data: Mapping[int, Any]) -> Any:
    """The server's data, which a global evaluation needs."""
    server = data.get(0)
    if any(count_rows(server, split) for split in SPLITS):
        return server
    remedy = "federate.merge_test_data: True, or federate.make_global_eval: False"
    if cfg.federate.merge_test_data:
        remedy = "both federate.merge_test_data and federate.make_global_eval: False"
    problem = "the data have no rows of the server's (entry 0)"
    raise ConfigError(
        "federate.make_global_eval", cfg.federate.make_global_eval, problem, f"Write {remedy}"
    )


def trainable_shapes(model: torch.nn.Module) -> Shapes:
    """Shapes of the trainable parameters by name."""
    return {name: p.shape for name, p in model.named_parameters() if p.requires_grad}


def check_sharing(cfg: Any, shapes: Shapes, declared_local: Sequence[str] = ()) -> None:
    """Does every keyword that the user declared local match one of the trainable parameters (those
    that a method adds need not), and is anything left to share?
    """
    for keyword in declared_local:
        if any(keyword in name for name in shapes):
            continue
        words = sorted({part for name in shapes for part in name.split(".")})
        near = difflib.get_close_matches(keyword, words, n=3) or words[-6:]
        problem = "it is in the name of no trainable parameter, so nothing would stay local"
        remedy = f"use a part of a parameter's name, e.g. {near}"
        raise ConfigError("personalization.local_param", keyword, problem, remedy)
    shared = shared_part(shapes, cfg.personalization.local_param)
    if not shared and not is_isolated(cfg):
        raise ConfigError(
            "personalization.local_param",
            list(cfg.personalization.local_param),
            "every trainable parameter stays local, so clients would exchange nothing",
            "drop a keyword, or write federate.method: local if that is what you want",
        )


def _describe_method(cfg: Any) -> dict[str, Any]:
    variant = getattr(get_server_cls(cfg), "variant", None)
    return {
        "method": cfg.federate.method.lower(),
        "variant": variant(cfg) if callable(variant) else cfg.federate.method,
        "task": cfg.data.type,
        "task_type": task_type(cfg),
        "head_rule": head_rule(cfg),
        "local_param": tuple(cfg.personalization.local_param),
        "shared_module": bool(cfg.federate.shared_module),
        "seed": cfg.seed,
        "data_seed": cfg.data.seed,
        "splitter": cfg.data.splitter,
        "splitter_args": tuple(dict(a) for a in cfg.data.splitter_args),
        "weights": "uniform" if cfg.federate.ignore_weight else cfg.aggregator.weights,
        "robust_rule": cfg.aggregator.robust_rule,
        "options": method_options(cfg),
        "sample_client_num": cfg.federate.sample_client_num,
    }


def _describe_training(cfg: Any) -> dict[str, Any]:
    return {
        "rounds": cfg.federate.total_round_num,
        "local_update_steps": cfg.train.local_update_steps,
        "batch_or_epoch": cfg.train.batch_or_epoch,
        "batch_size": cfg.dataloader.batch_size,
        "tok_len": cfg.llm.tok_len,
        "optimizer": dict(cfg.train.optimizer),
        "scheduler": dict(cfg.train.scheduler),
        "main_metric": cfg.eval.best_res_update_round_wise_key,
        "larger_is_better": Monitor(cfg).the_larger_the_better,
    }


def _describe_model(
    cfg: Any,
    skeleton: torch.nn.Module | None,
    precision: Precision,
    device: str,
    threads: int,
    layouts: Layouts | None,
) -> dict[str, Any]:
    described: dict[str, Any] = {
        "model": cfg.model.type,
        "device": device,
        "precision": precision.name,
        "precision_reason": precision.reason,
        "threads": threads,
    }
    if skeleton is None:
        return described
    trainable = trainable_shapes(skeleton)
    isolated = is_isolated(cfg)
    shared = {} if isolated else shared_part(trainable, cfg.personalization.local_param)
    counts = Parameters(
        total=sum(p.numel() for p in skeleton.parameters()),
        trainable=sum(shape.numel() for shape in trainable.values()),
        sent=sum(shape.numel() for shape in shared.values()),
    )
    described["parameters"] = counts
    described["new_tensors"] = tuple(getattr(skeleton, "new_tensors", ()))
    described["adapter"] = _describe_adapter(cfg, skeleton, layouts)
    described["memory_estimate_bytes"] = estimate_memory(cfg, skeleton, counts, precision)
    sent = mean_size(shared, layouts, cfg.federate.client_num) if layouts else counts.sent
    per_round = round(4 * sent * cfg.federate.sample_client_num)
    if not getattr(get_server_cls(cfg), "traffic_varies", False):
        described["bytes_per_round"] = {"up": per_round, "down": per_round}
    return described


def mean_size(shapes: Shapes, layouts: Layouts, clients: int) -> float:
    """Numbers that a client sends, on average over clients of different ranks; ``shapes`` of what
    is sent are those at the server's ranks.
    """
    sizes = {}
    for layout in (layouts.server, *layouts.distinct):
        each = (size_at(name, shape, layouts.server, layout) for name, shape in shapes.items())
        sizes[id(layout)] = sum(each)
    return sum(sizes[id(layouts.of(k))] for k in range(1, clients + 1)) / max(clients, 1)


def _describe_adapter(
    cfg: Any, skeleton: torch.nn.Module, layouts: Layouts | None
) -> AdapterInfo | None:
    peft_configs = getattr(skeleton, "peft_config", None)
    if not peft_configs:
        return None
    config = next(iter(peft_configs.values()))
    targets = getattr(config, "target_modules", None)
    # Of LoRA only; None where modules differ.
    scales = {None} if layouts is None else set(layouts.server.scales.values())
    return AdapterInfo(
        method=adapter_method(cfg),
        r=getattr(config, "r", None),
        alpha=getattr(config, "lora_alpha", None),
        rslora=bool(getattr(config, "use_rslora", False)),
        scale=scales.pop() if len(scales) == 1 else None,
        scale_rule=cfg.llm.adapter.scale_rule,
        target_modules=tuple(sorted(targets)) if isinstance(targets, set | list) else targets,
        arguments=adapter_arguments(cfg),
    )


def estimate_memory(
    cfg: Any, skeleton: torch.nn.Module, counts: Parameters, precision: Precision
) -> dict[str, int]:
    """Rough peak of a run, in bytes.

    Activations follow Korthikanti et al. (2022, arXiv 2205.05198): a transformer layer keeps
    ``s b h (34 + 5 a s / h)`` bytes in half precision, twice that in fp32, with s tokens, batch b,
    width h and a heads.
    """
    base_bytes = 2 if precision.name != "fp32" and cfg.llm.adapter.use else 4
    frozen = counts.total - counts.trainable
    names = ("hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size")
    config = getattr(skeleton, "config", None)
    h, a, layers, vocabulary = (getattr(config, name, 0) or 0 for name in names)
    s, b = cfg.llm.tok_len, cfg.dataloader.batch_size
    half = 1 if precision.name != "fp32" else 2
    activations = int(half * layers * s * b * (34 * h + 5 * a * s))
    if task_type(cfg) == "CAUSAL_LM":
        activations += 8 * s * b * vocabulary
    limit = int(cfg.federate.client_memory_mb) * 2**20
    state = 4 * counts.trainable
    clients = min(state * (cfg.federate.client_num + 1), limit)
    # Uploads of a round, the broadcast copy, gradients and two moments of Adam.
    clients += 4 * counts.sent * (cfg.federate.sample_client_num + 2) + 3 * state
    backbone = base_bytes * frozen + state
    return {
        "backbone": backbone,
        "client_state": clients,
        "activations": activations,
        "total": backbone + clients + activations,
    }


def _describe_evaluation(cfg: Any, ranks_vary: bool = False) -> EvaluationInfo:
    scope, note = "global", "Every client evaluates the same aggregated state on its own rows."
    if cfg.federate.make_global_eval:
        note = "The server evaluates its state on its own rows."
    elif cfg.personalization.local_param or cfg.federate.method.lower() == "local":
        scope = "personal"
        note = "Every client evaluates what it holds: its own local tensors with the shared ones."
    elif ranks_vary:
        note = "Every client evaluates the aggregated state, as far as its own rank holds it."
    return EvaluationInfo(scope, tuple(cfg.eval.phases), note)


def _notes(cfg: Any, precision: Precision, device: str, data: Mapping[int, Any]) -> list[str]:
    notes = []
    if cfg.federate.shared_module:
        notes.append(
            "federate.shared_module is on: server and clients are one module, nothing is private "
            "and every client is evaluated with the local tensors of the client trained last. "
            "This reproduces FederatedScope's behaviour and is no federated result."
        )
    if cfg.train.is_enable_half and precision.name == "fp32":
        notes.append(f"Runs in fp32: {precision.reason}.")
    if (index := cfg.eval_device) >= 0 and f"cuda:{index}" != device:
        notes.append(f"eval_device {index}: evaluation runs where training runs, {device}.")
    if cfg.federate.make_global_eval and cfg.personalization.local_param:
        notes.append(
            f"The server is evaluated, and what stays on the clients "
            f"({', '.join(cfg.personalization.local_param)}) is there as it was at the start. "
            "federate.make_global_eval: False evaluates what clients really use."
        )
    if "after" not in cfg.eval.phases:
        notes.append(
            "eval.phases leaves out 'after': there is no best round and no early stopping, which "
            "go by what clients hold after aggregation."
        )
    if task_type(cfg) == OTHER:
        notes.append("The model comes from a registered builder.")
    notes += participation_notes(cfg, data)
    size = cfg.dataloader.batch_size
    small = [k for k, v in data.items() if k and 0 < count_rows(v, "train") < size]
    if small:
        notes.append(
            f"{len(small)} client(s) have fewer training rows than a batch of "
            f"{size}; their batches are smaller (first: client {small[0]})."
        )
    return notes


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions

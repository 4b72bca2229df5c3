"""What was set up in a run, as flat fields: the basis on which runs are told apart."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import yaml

from federatedscope.core.records import RunInfo
from federatedscope_ext.tools.report.numbers import rank_text
from federatedscope_ext.tools.report.records import RunRecord

__all__ = ["RunSetup", "run_options", "setup_of"]

ABSENT = "-"

# Not setup: the seed, outcomes, the machine, and texts that follow from the setup.
_NOT_SETUP = frozenset(
    ["format", "name", "status", "stopped_by", "error", "started", "finished", "seconds", "seed",
     "outdir", "command", "device", "threads", "precision_reason", "parameters", "label_names",
     "memory_estimate_bytes", "bytes_per_round", "peak_memory_bytes", "versions", "notes", "swaps",
     "best_round", "best_round_weighted", "last_round", "clients", "left_out", "options",
     "new_tensors", "larger_is_better", "evaluation.note", "task_type"]
)  # fmt: skip
_NOT_SETUP_CONFIG = (
    "seed", "outdir", "expname", "expname_tag", "verbose", "print_decimal_digits", "device",
    "eval_device", "use_gpu", "wandb", "tensorboard", "cfg_file", "quiet", "cfg_check_funcs",
    "federate.save_to", "federate.save_freq", "federate.client_memory_mb",
)  # fmt: skip
_FIRST = ("method", "variant", "head_rule", "task", "model", "data_seed", "client_num")


@dataclass(frozen=True)
class RunSetup:
    """Setup fields of a run as text, by dotted name.

    Attributes
    ----------
    fields : dict
        From ``run.json``, with ``client_num``, ``partition`` (a fingerprint of who has which
        rows and labels) and ``ranks`` in place of the client list.
    config : dict
        From ``config.yaml``; empty where there is none that can be read.
    """

    fields: Mapping[str, str]
    config: Mapping[str, str] = field(default_factory=dict)

    def get(self, name: str) -> str:
        """A field, of ``run.json`` first; a dash where the run has no such field."""
        return self.fields.get(name, self.config.get(name, ABSENT))

    @cached_property
    def all_names(self) -> set[str]:
        """Names of all fields."""
        return set(self.fields) | set(self.config)


def setup_of(record: RunRecord) -> RunSetup:
    """The setup of a run, read from its ``run.json`` and ``config.yaml``."""
    info = record.info
    fields = {
        name: value
        for key, item in info.raw.items()
        if key not in _NOT_SETUP
        for name, value in _flatten(key, item)
        if name not in _NOT_SETUP
    }
    config = _config(record)
    # The rule and the shared module are fields of run.json already.
    fields |= {k: v for k, v in _options(info, config).items() if k not in fields}
    fields["client_num"] = str(len(info.clients))
    fields["partition"] = _partition(info)
    fields["ranks"] = _ranks(info)
    ordered = {name: fields[name] for name in _FIRST if name in fields}
    return RunSetup({**ordered, **fields}, config)


def run_options(record: RunRecord) -> dict[str, str]:
    """What a run has on beside its method, by name: ``{"fedprox": "mu 0.1", "finetune": "on"}``.

    From ``options`` of ``run.json``, or from ``config.yaml`` where an older run has none.
    """
    return _options(record.info, _config(record))


def _options(info: RunInfo, config: Mapping[str, str]) -> dict[str, str]:
    given = info.raw.get("options")
    if not isinstance(given, Mapping):
        given = _options_of_config(config)
        rule = str(info.raw.get("robust_rule", "fedavg"))
        if rule.lower() != "fedavg":
            given["robust_rule"] = rule
    return {str(name): _option_text(value) for name, value in given.items()}


def _options_of_config(config: Mapping[str, str]) -> dict[str, Any]:
    """As the runtime describes them in ``run.json``."""
    options: dict[str, Any] = {}
    if config.get("fedopt.use") == "True":
        names = {"optimizer": "type", "lr": "lr"}
        options["fedopt"] = {
            name: config.get(f"fedopt.optimizer.{key}", "?") for name, key in names.items()
        }
    if config.get("fedprox.use") == "True":
        options["fedprox"] = {"mu": config.get("fedprox.mu", "?")}
    if config.get("finetune.before_eval") == "True":
        options["finetune"] = True
    return options


def _option_text(value: Any) -> str:
    """``mu 0.1`` of ``{"mu": 0.1}``, ``on`` of ``True``."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {text}" for name, text in _flatten("", value))
    return "on" if value is True else _text(value)


def _flatten(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """``('optimizer.lr', '0.002')`` and so on; lists are one value."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flatten(f"{name}.{key}" if name else str(key), item)
    elif isinstance(value, list | tuple):
        simple = all(isinstance(item, str | int | float) for item in value)
        yield name, "/".join(map(_text, value)) or ABSENT if simple else _nested_text(value)
    else:
        yield name, _text(value)


def _nested_text(value: Sequence[Any]) -> str:
    """``alpha 0.5`` of the splitter's ``[{"alpha": 0.5}]``; JSON of anything else."""
    if len(value) == 1 and isinstance(value[0], Mapping):
        return ", ".join(f"{key} {text}" for key, text in _flatten("", value[0])) or ABSENT
    return json.dumps(value, default=str)


def _text(value: object) -> str:
    """One form for equal values: 1e-3 and 0.001 are the same learning rate."""
    if isinstance(value, float) and not isinstance(value, bool):
        return f"{value:.12g}"
    return ABSENT if value is None else str(value)


def _partition(info: RunInfo) -> str:
    """A short fingerprint of which client has how many rows of which label."""
    content = [
        [client.id, sorted(client.rows.items()),
         sorted((split, sorted(counts.items())) for split, counts in (client.labels or {}).items())]
        for client in info.clients
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:6]


def _ranks(info: RunInfo) -> str:
    """How many clients have which rank, for example ``8 (3)``."""
    counts = Counter(client.rank for client in info.clients if client.rank is not None)
    ordered = sorted(
        counts.items(), key=lambda one: one[0] if isinstance(one[0], tuple) else one[:1]
    )
    return ", ".join(f"{rank_text(rank)} ({number})" for rank, number in ordered) or ABSENT


def _config(record: RunRecord) -> dict[str, str]:
    """``config.yaml`` as flat fields; a file that cannot be read says nothing."""
    path = record.outdir / "config.yaml"
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    if not isinstance(tree, dict):
        return {}
    return {
        name: value
        for name, value in _flatten("", tree)
        if not any(name == one or name.startswith(f"{one}.") for one in _NOT_SETUP_CONFIG)
    }

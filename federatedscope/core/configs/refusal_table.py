"""The tables of what is refused: features that a key turns on, and names of methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = [
    "EXTENSION_METHODS",
    "OTHER_METHODS",
    "OTHER_WORDS",
    "OUTSIDE",
    "PLANNED",
    "REFUSALS",
    "Refusal",
]

OUTSIDE = "is outside this project"
PLANNED = "is planned and not in this version"


def _is_on(value: Any) -> bool:
    """Whether a switch, a name or a list asks for something."""
    return bool(value)


@dataclass(frozen=True)
class Refusal:
    """One feature that cannot be turned on.

    Attributes
    ----------
    field : str
        Dotted key.
    feature : str
        What the key asks for, as the subject of a sentence.
    remedy : str
        What to write instead.
    reason : str
        ``is outside this project`` or ``is planned and not in this version``.
    applies : callable
        ``applies(value)``: whether the key's value turns the feature on.
    """

    field: str
    feature: str
    remedy: str
    reason: str = OUTSIDE
    applies: Callable[[Any], bool] = _is_on


def _differs(default: Any) -> Callable[[Any], bool]:
    """A condition: the value, in any case, is not the default."""

    def applies(value: Any) -> bool:
        return str(value).lower() != str(default).lower()

    return applies


def _above_one(value: Any) -> bool:
    """A condition: more than one."""
    return bool(value > 1)


_ONE_PROCESS = "federate.mode: standalone with distribute.use: False simulates every client here"

REFUSALS = (
    Refusal("backend", "TensorFlow", "Write backend: torch", applies=_differs("torch")),
    Refusal(
        "federate.mode", "Distributed running", f"{_ONE_PROCESS}", PLANNED, _differs("standalone")
    ),
    Refusal("distribute.use", "Distributed running", f"{_ONE_PROCESS}", PLANNED),
    Refusal(
        "llm.deepspeed.use",
        "DeepSpeed",
        "Write llm.deepspeed.use: False; the frozen base in half precision"
        " (train.is_enable_half: True) saves most of the memory",
        PLANNED,
    ),
    Refusal(
        "federate.process_num",
        "A simulation in several processes",
        "Write federate.process_num: 1",
        applies=_above_one,
    ),
    Refusal(
        "train.data_para_dids",
        "DataParallel",
        "Write train.data_para_dids: [] and choose one GPU with device",
    ),
    Refusal(
        "llm.offsite_tuning.use",
        "Offsite tuning",
        "Write llm.offsite_tuning.use: False and llm.adapter.use: True to train an adapter",
    ),
    Refusal(
        "llm.offsite_tuning.emu_align.use",
        "Offsite tuning (emulator alignment)",
        "Write llm.offsite_tuning.emu_align.use: False",
    ),
    Refusal(
        "adapter.use",
        "The older adapter section",
        "Write adapter.use: False and describe the adapter under llm.adapter",
    ),
    Refusal("vertical.use", "Vertical federated learning", "Write vertical.use: False"),
    Refusal(
        "attack.attack_method",
        "The simulation of attacks",
        "Write attack.attack_method: ''; robust aggregation (aggregator.robust_rule) is here",
    ),
    Refusal("asyn.use", "Asynchronous aggregation", "Write asyn.use: False"),
    Refusal("nbafl.use", "Differential privacy by NbAFL", "Write nbafl.use: False"),
    Refusal("sgdmf.use", "Private matrix factorisation", "Write sgdmf.use: False"),
    Refusal("fedswa.use", "Stochastic weight averaging", "Write fedswa.use: False"),
    Refusal(
        "quantization.method",
        "Quantised messages",
        "Write quantization.method: none",
        applies=_differs("none"),
    ),
    Refusal("feat_engr.type", "Feature engineering", "Write feat_engr.type: ''"),
    Refusal("federate.use_ss", "Secret sharing", "Write federate.use_ss: False"),
    Refusal("federate.use_diff", "The exchange of differences", "Write federate.use_diff: False"),
    Refusal(
        "federate.sampler",
        "A client sampler other than uniform",
        "Write federate.sampler: uniform",
        applies=_differs("uniform"),
    ),
    Refusal(
        "federate.resource_info_file",
        "Simulated device speeds",
        "Write federate.resource_info_file: ''",
    ),
    Refusal(
        "federate.atc_vanilla",
        "Heterogeneous text tasks (ATC)",
        "Write federate.atc_vanilla: False",
    ),
    Refusal(
        "federate.atc_load_from",
        "Heterogeneous text tasks (ATC)",
        "Write federate.atc_load_from: ''",
    ),
    Refusal(
        "data.hetero_data_name", "Heterogeneous text tasks (ATC)", "Write data.hetero_data_name: []"
    ),
    Refusal(
        "data.num_of_client_for_data",
        "Heterogeneous text tasks (ATC)",
        "Write data.num_of_client_for_data: []",
    ),
    Refusal("model.stage", "Heterogeneous text tasks (ATC)", "Write model.stage: ''"),
    Refusal(
        "model.pretrain_tasks", "Heterogeneous text tasks (ATC)", "Write model.pretrain_tasks: []"
    ),
    Refusal(
        "model.downstream_tasks",
        "Heterogeneous text tasks (ATC)",
        "Write model.downstream_tasks: []",
    ),
    Refusal(
        "model.model_num_per_trainer",
        "A trainer with several models",
        "Write model.model_num_per_trainer: 1",
        applies=_above_one,
    ),
    Refusal(
        "dataloader.type",
        "A loader for graphs or matrices",
        "Write dataloader.type: base",
        applies=_differs("base"),
    ),
    Refusal(
        "data.loader",
        "A loader for graphs or matrices",
        "Write data.loader: ''",
        applies=lambda value: bool(value) and value != "base",
    ),
    Refusal(
        "finetune.simple_tuning",
        "Training a linear head before evaluation",
        "Write finetune.simple_tuning: False; finetune.before_eval: True trains the adapter",
    ),
    *(
        Refusal(f"hpo.{key}", "Hyper-parameter search", f"Leave hpo.{key} at its default")
        for key in ("ss", "fedex.use", "fts.use", "pfedhpo.use")
    ),
    Refusal(
        "hpo.scheduler", "Hyper-parameter search", "Write hpo.scheduler: rs", applies=_differs("rs")
    ),
)
"""Every feature that a key alone turns on."""

EXTENSION_METHODS = (
    "fedsa",
    "ffa",
    "flexlora",
    "replication_pad",
    "zero_pad",
    "hetlora",
    "flora",
    "fedex",
    "rolora",
    "fedsvd",
    "fedrot",
    "slora",
    "feddpa",
)

OTHER_METHODS = {
    "ditto": "Ditto",
    "fedem": "FedEM",
    "pfedme": "pFedMe",
    "fedrep": "FedRep",
    "fedgc": "FedGC (contrastive learning on images)",
    "fedgen": "FedGen",
    "fedsageplus": "FedSage+ (graphs)",
    "gcflplus": "GCFL+ (graphs)",
    "flitplus": "FLIT+ (graphs)",
    "gradascent": "the gradient-ascent attack",
    "vertical": "vertical federated learning",
    "atc": "ATC (heterogeneous text tasks)",
}

OTHER_WORDS = {
    "fedit": "Write federate.method: FedAvg with train.optimizer.type: AdamW",
    "fedbn": "Write federate.method: FedAvg and name the normalisation layers in"
    " personalization.local_param",
    "fedsa-lora": "Write federate.method: fedsa",
    "fedsa_lora": "Write federate.method: fedsa",
    "ffa-lora": "Write federate.method: ffa",
    "ffa_lora": "Write federate.method: ffa",
}

"""The tables of what is refused: features that a key turns on, and names of methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["OTHER_METHODS", "OTHER_WORDS", "OUTSIDE", "REFUSALS", "Refusal"]

OUTSIDE = "is outside this project"
PLANNED = "is planned and not in this version"


@dataclass(frozen=True)
class Refusal:
    """One feature that cannot be turned on.

    Attributes
    ----------
    field : str
        Dotted key.
    feature : str
        What the key asks for, as the subject of a sentence.
    off : object
        The value that does not turn it on; of numbers this one and those below it.
    instead : str
        What to write, where that is not just ``off``.
    reason : str
        ``is outside this project`` or ``is planned and not in this version``.
    harmless : str
        Another value that does not turn it on.
    """

    field: str
    feature: str
    off: Any = False
    instead: str = ""
    reason: str = OUTSIDE
    harmless: str = ""

    @property
    def remedy(self) -> str:
        """What to write instead."""
        off = self.off if self.off and isinstance(self.off, str) else repr(self.off)
        return self.instead or f"Write {self.field}: {off}"

    def applies(self, value: Any) -> bool:
        """Whether the key's value turns the feature on."""
        if type(self.off) is int:
            return bool(value > self.off)
        return str(value).lower() != str(self.off).lower() and value != (self.harmless or None)


# fmt: off
_ATC = "Heterogeneous text tasks (ATC)"
_ONE_PROCESS = "federate.mode: standalone with distribute.use: False simulates every client here"

REFUSALS = (
    Refusal("backend", "TensorFlow", "torch"),
    Refusal("federate.mode", "Distributed running", "standalone", _ONE_PROCESS, PLANNED),
    Refusal("distribute.use", "Distributed running", False, _ONE_PROCESS, PLANNED),
    Refusal("llm.deepspeed.use", "DeepSpeed", False,
            "Write llm.deepspeed.use: False; the frozen base in half precision"
            " (train.is_enable_half: True) saves most of the memory", PLANNED),
    Refusal("federate.process_num", "A simulation in several processes", 1),
    Refusal("train.data_para_dids", "DataParallel", [],
            "Write train.data_para_dids: [] and choose one GPU with device"),
    Refusal("llm.offsite_tuning.use", "Offsite tuning", False,
            "Write llm.offsite_tuning.use: False and llm.adapter.use: True to train an adapter"),
    Refusal("llm.offsite_tuning.emu_align.use", "Offsite tuning (emulator alignment)"),
    Refusal("adapter.use", "The older adapter section", False,
            "Write adapter.use: False and describe the adapter under llm.adapter"),
    Refusal("vertical.use", "Vertical federated learning"),
    Refusal("attack.attack_method", "The simulation of attacks", "",
            "Write attack.attack_method: ''; robust aggregation (aggregator.robust_rule) is here"),
    Refusal("asyn.use", "Asynchronous aggregation"),
    Refusal("nbafl.use", "Differential privacy by NbAFL"),
    Refusal("sgdmf.use", "Private matrix factorisation"),
    Refusal("fedswa.use", "Stochastic weight averaging"),
    Refusal("quantization.method", "Quantised messages", "none"),
    Refusal("feat_engr.type", "Feature engineering", ""),
    Refusal("federate.use_ss", "Secret sharing"),
    Refusal("federate.use_diff", "The exchange of differences"),
    Refusal("federate.sampler", "A client sampler other than uniform", "uniform"),
    Refusal("federate.resource_info_file", "Simulated device speeds", ""),
    Refusal("federate.atc_vanilla", _ATC),
    Refusal("federate.atc_load_from", _ATC, ""),
    Refusal("data.hetero_data_name", _ATC, []),
    Refusal("data.num_of_client_for_data", _ATC, []),
    Refusal("model.stage", _ATC, ""),
    Refusal("model.pretrain_tasks", _ATC, []),
    Refusal("model.downstream_tasks", _ATC, []),
    Refusal("model.model_num_per_trainer", "A trainer with several models", 1),
    Refusal("dataloader.type", "A loader for graphs or matrices", "base"),
    Refusal("data.loader", "A loader for graphs or matrices", "", harmless="base"),
    Refusal("finetune.simple_tuning", "Training a linear head before evaluation", False,
            "Write finetune.simple_tuning: False; finetune.before_eval: True trains the adapter"),
    Refusal("hpo.ss", "Hyper-parameter search", "", "Leave hpo.ss at its default"),
    *(Refusal(f"hpo.{key}", "Hyper-parameter search", False, f"Leave hpo.{key} at its default")
      for key in ("fedex.use", "fts.use", "pfedhpo.use")),
    Refusal("hpo.scheduler", "Hyper-parameter search", "rs"),
)
"""Every feature that a key alone turns on."""

OTHER_METHODS = {
    "ditto": "Ditto", "fedem": "FedEM", "pfedme": "pFedMe", "fedrep": "FedRep", "fedgen": "FedGen",
    "fedgc": "FedGC (contrastive learning on images)", "fedsageplus": "FedSage+ (graphs)",
    "gcflplus": "GCFL+ (graphs)", "flitplus": "FLIT+ (graphs)",
    "gradascent": "the gradient-ascent attack", "vertical": "vertical federated learning",
    "atc": "ATC (heterogeneous text tasks)",
}

OTHER_WORDS = {
    "fedit": "Write federate.method: FedAvg with train.optimizer.type: AdamW",
    "fedbn": "Write federate.method: FedAvg and name the normalisation layers in"
             " personalization.local_param",
    **dict.fromkeys(("fedsa-lora", "fedsa_lora"), "Write federate.method: fedsa"),
    **dict.fromkeys(("ffa-lora", "ffa_lora"), "Write federate.method: ffa"),
}

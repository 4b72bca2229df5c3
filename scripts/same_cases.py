"""The runs that ``same_figures.py`` compares: a name and what it sets on top of ``BASE``.

A new method is a line in ``CASES``. A value that is a list or a mapping is written as it is in a
yaml. A case of several runs is a list of them; ``LAST`` in a value is the folder of the run before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["BASE", "CASES", "covered", "runs_of"]

Options = Mapping[str, Any]


def adapter(**fields: Any) -> dict[str, Any]:
    """``llm.adapter.args`` with other fields than the base's."""
    common = {"adapter_package": "peft", "adapter_method": "lora", "r": 4, "lora_alpha": 8}
    return {"llm.adapter.args": [{**common, "lora_dropout": 0.05, **fields}]}


BASE: dict[str, Any] = {
    "federate.method": "fedavg",
    "federate.client_num": 4,
    "federate.total_round_num": 3,
    "federate.save_to": "model.ckpt",
    "federate.save_freq": 1,
    "federate.save_client_model": True,
    "seed": 5,
    "data.type": "sst2@glue",
    "data.splitter": "lda",
    "data.splitter_args": [{"alpha": 0.5}],
    "dataloader.batch_size": 8,
    "llm.tok_len": 32,
    "llm.adapter.use": True,
    **adapter(),
    "train.local_update_steps": 2,
    "train.batch_or_epoch": "batch",
    "train.optimizer.type": "AdamW",
    "train.optimizer.lr": 0.003,
    "criterion.type": "CrossEntropyLoss",
    "trainer.type": "gluetrainer",
    "early_stop.patience": 0,
    "eval.freq": 1,
    "eval.split": ["val"],
    "eval.max_rows": 16,
    "eval.metrics": ["accuracy"],
    "eval.best_res_update_round_wise_key": "val_accuracy",
}

# Clients of unequal rank, half of them in a round, evaluated before and after aggregation.
UNEQUAL: dict[str, Any] = {
    "llm.adapter.client_ranks": [2, 4, 8, 16],
    "llm.adapter.scale_rule": "proportional",
    "federate.sample_client_num": 2,
    "eval.phases": ["before", "after"],
}
PART: dict[str, Any] = {"federate.sample_client_num": 2, "federate.total_round_num": 4}
PROMOTION: dict[str, Any] = {
    "llm.adapter.scale_rule": "proportional",
    "llm.adapter.promotion.rank": 8,
    "llm.adapter.promotion.share": 0.3,
    "eval.phases": ["before", "after"],
}
# So large that four clients need more than a MiB.
LARGE = adapter(r=64, target_modules=["query", "key", "value", "intermediate.dense"])
SPILLED: dict[str, Any] = {**LARGE, "federate.client_memory_mb": 1, **PART}
MANY: dict[str, Any] = {"federate.client_num": 7}
TEXT: dict[str, Any] = {
    "data.type": "ag_news@text",
    "data.splitter": "lda_quality",
    "data.splitter_args": [{"alpha": 0.1, "balanced_share": 0.25}],
    "federate.client_num": 8,
    "federate.sample_client_rate": 0.5,
}
DECODER: dict[str, Any] = {
    "data.type": "dolly-15k@llm",
    "data.splits": [0.9, 0.1, 0.0],
    "data.splitter": "meta",
    "data.splitter_args": [],
    "llm.tok_len": 96,
    "trainer.type": "llmtrainer",
    "federate.total_round_num": 2,
    "dataloader.batch_size": 4,
    "eval.max_rows": 8,
    "eval.metrics": ["loss"],
    "eval.best_res_update_round_wise_key": "val_avg_loss",
}
GENERATED: dict[str, Any] = {
    **DECODER,
    "data.type": "natural_instructions@llm",
    "data.splits": [0.8, 0.1, 0.1],
    "data.splitter": "",
    "federate.client_num": 0,
    "federate.sample_client_num": 3,
    "federate.unseen_clients_rate": 0.3,
    "eval.clients": "unseen",
    "eval.max_rows": 2,
    "eval.max_new_tokens": 4,
    "eval.metrics": ["rougeL", "rougeL_forced"],
    "eval.best_res_update_round_wise_key": "val_rougeL",
}


def _method(name: str, *more: Options) -> dict[str, Any]:
    merged: dict[str, Any] = {"federate.method": name}
    for options in more:
        merged |= options
    return merged


def _robust(rule: str, faulty: int = 1) -> dict[str, Any]:
    return {**MANY, "aggregator.robust_rule": rule, "aggregator.byzantine_node_num": faulty}


METHODS = (
    *("fedavg", "fedsa", "ffa", "flexlora", "replication_pad", "zero_pad", "hetlora", "flora"),
    *("fedex", "rolora", "fedsvd", "fedrot", "slora", "feddpa", "local"),
)

CASES: dict[str, Options | list[Options]] = {
    **{name: _method(name) for name in METHODS},
    **{f"{name}_unequal": _method(name, UNEQUAL) for name in METHODS},
    **{f"{name}_part": _method(name, PART) for name in ("fedavg", "fedsa", "feddpa", "rolora")},
    "feddpa_alternate": _method("feddpa", UNEQUAL, {"feddpa.schedule": "alternate"}),
    "global": _method("global"),
    # Other adapters, other rules at the server, other losses at the clients
    "fedsa_rslora": _method("fedsa", adapter(use_rslora=True)),
    "fedsa_rslora_unequal": _method("fedsa", adapter(use_rslora=True), UNEQUAL,
                                    {"llm.adapter.scale_rule": "rslora"}),
    "fedsa_vera": _method("fedsa", {"llm.adapter.args": [
        {"adapter_package": "peft", "adapter_method": "vera", "r": 8, "vera_dropout": 0.05}]}),
    "ffa_rslora": _method("ffa", adapter(use_rslora=True)),
    "freeze_A": {"federate.freeze_A": True},
    "prompt": {"llm.adapter.args": [
        {"adapter_package": "peft", "adapter_method": "prompt", "num_virtual_tokens": 4}]},
    "no_adapter": {"llm.adapter.use": False, "federate.total_round_num": 2},
    "rank_pattern": _method("flexlora", adapter(
        rank_pattern={"0.attention.self.query": 6}, alpha_pattern={"0.attention.self.query": 3})),
    "fedopt": {"fedopt.use": True, "fedopt.optimizer.type": "Adam", "fedopt.optimizer.lr": 0.01},
    "fedprox": {"fedprox.use": True, "fedprox.mu": 0.1},
    "krum": _robust("krum"),
    "median": _robust("median"),
    "trimmedmean": _robust("trimmedmean"),
    "bulyan": _robust("bulyan"),
    "normbounding": {**_robust("normbounding"),
                     "aggregator.BFT_args": {"normbounding_norm_bound": 0.5}},
    # Promotion, pruning, SLoRA's stages
    "promotion_replication_pad": _method("replication_pad", PROMOTION),
    "promotion_zero_pad_part": _method("zero_pad", PROMOTION, PART),
    "promotion_flora": _method("flora", PROMOTION),
    "promotion_fedsa": _method("fedsa", PROMOTION),
    "hetlora_pruning": _method("hetlora", UNEQUAL, {"hetlora.gamma": 0.5,
                               "federate.total_round_num": 4, "hetlora.regularization": 0.05}),
    "slora_stages": _method("slora", UNEQUAL, {"slora.rounds": 2, "slora.density": 0.1,
                                               "federate.total_round_num": 4}),
    "flexlora_slora": _method("flexlora", {"slora.rounds": 1}),
    "flexlora_slora_unequal": _method("flexlora", UNEQUAL, {"slora.rounds": 1}),
    "flexlora_dense64": _method("flexlora", UNEQUAL, {"flexlora.dtype": "float64",
                                                      "flexlora.path": "dense"}),
    "fedrot_half": _method("fedrot", {"fedrot.strength": 0.5}),
    # Weights, heads, what is sent
    "weights_processed": {"aggregator.weights": "processed", "dataloader.drop_last": False},
    "weights_uniform": {"aggregator.weights": "uniform"},
    "ignore_weight": {"federate.ignore_weight": True},
    "online_aggr": {"federate.online_aggr": True},
    "head_local": {"personalization.head": "local"},
    "head_frozen": {"personalization.head": "frozen"},
    "fedsa_head_shared": _method("fedsa", {"personalization.head": "shared"}),
    "local_param": {"personalization.local_param": ["lora_A"]},
    "share_everything": {"personalization.share_non_trainable_para": True},
    # Who trains, who is evaluated, when
    "unseen": {**MANY, "federate.unseen_clients_rate": 0.3},
    "unseen_only": {**MANY, "federate.unseen_clients_rate": 0.3, "eval.clients": "unseen"},
    "untrained": _method("fedsa", {"federate.untrained_clients": [2]}),
    "untrained_unequal": _method("flora", UNEQUAL, {"federate.untrained_clients": [2]}),
    "eval_every_second": {"eval.freq": 2, "eval.phases": ["before", "after"]},
    "eval_splits": {**TEXT, "eval.split": ["val", "test"], "eval.batch_size": 4},
    "global_eval": {"federate.make_global_eval": True},
    "merged_eval": {**TEXT, "federate.merge_test_data": True, "eval.split": ["test"],
                    "eval.best_res_update_round_wise_key": "test_accuracy"},
    "finetune": {"finetune.before_eval": True, "finetune.local_update_steps": 2,
                 "finetune.batch_or_epoch": "batch"},
    "early_stop": {"early_stop.patience": 1, "federate.total_round_num": 6},
    "early_stop_local": _method("local", {"early_stop.patience": 1,
                                          "federate.total_round_num": 6}),
    "join_in_info": {"federate.join_in_info": ["num_sample"]},
    "own_settings": {"client_2.train.optimizer.lr": 0.01, "client_3.train.local_update_steps": 1},
    # Where clients' tensors lie
    "spilled_fedsa": _method("fedsa", SPILLED),
    "spilled_feddpa": _method("feddpa", SPILLED),
    "spilled_rolora": _method("rolora", SPILLED),
    "spilled_fedavg": _method("fedavg", SPILLED),
    "spilled_unequal": _method("fedsa", SPILLED, UNEQUAL, {
        "llm.adapter.client_ranks": [64, 64, 32, 64]}),
    "shared_module": _method("fedsa", {"federate.shared_module": True}),
    # Data and training
    "mnli": {"data.type": "mnli@glue"},
    "stsb": {"data.type": "stsb@glue", "data.splitter": "iid", "data.splitter_args": [],
             "eval.metrics": ["pearson", "spearmanr"], "criterion.type": "MSELoss",
             "eval.best_res_update_round_wise_key": "val_pearson"},
    "ag_news": TEXT,
    "ag_news_promotion": _method("replication_pad", TEXT, PROMOTION),
    "epochs": {"train.batch_or_epoch": "epoch", "train.local_update_steps": 1,
               "data.subsample": 0.1, "federate.total_round_num": 2},
    "schedule": {"train.scheduler.type": "linear_warmup", "train.scheduler.warmup_ratio": 0.3,
                 "grad.grad_clip": 0.5, "grad.grad_accum_count": 2,
                 "train.local_update_steps": 4},
    "sgd": {"train.optimizer.type": "SGD", "train.optimizer.lr": 0.1},
    "half": _method("fedex", UNEQUAL, {"train.is_enable_half": True, "train.half_dtype": "bf16"}),
    # The decoder
    "decoder_fedavg": DECODER,
    "decoder_fedsa": _method("fedsa", DECODER),
    "decoder_flexlora": _method("flexlora", DECODER, UNEQUAL),
    "decoder_generation": GENERATED,
    "decoder_slora": _method("flexlora", GENERATED, {
        "slora.rounds": 1, "llm.adapter.client_ranks": "heavy_tail_light"}),
    # Checkpoints
    "safetensors": _method("fedsa", {"federate.save_to": "model.safetensors"}),
    "restored": [{"federate.total_round_num": 2},
                 {"federate.restore_from": "LAST/checkpoints/2_model.ckpt"}],
    "restored_fedex": [_method("fedex", UNEQUAL, {"federate.total_round_num": 2}),
                       _method("fedex", UNEQUAL, {
                           "federate.restore_from": "LAST/checkpoints/2_model.ckpt"})],
}  # fmt: skip


def runs_of(name: str) -> list[dict[str, Any]]:
    """Every option of each run of a case, in order."""
    case = CASES[name]
    return [{**BASE, **options} for options in (case if isinstance(case, list) else [case])]


def covered() -> set[str]:
    """What of the catalogue's methods some case runs: methods, rules, optimizers, penalties."""
    found = set()
    for run in (run for name in CASES for run in runs_of(name)):
        found |= {str(run["federate.method"]), str(run.get("aggregator.robust_rule", ""))}
        found |= {key.partition(".")[0] for key in ("fedopt.use", "fedprox.use") if run.get(key)}
    return found

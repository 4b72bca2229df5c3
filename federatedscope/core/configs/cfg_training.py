"""Keys of local training."""

from __future__ import annotations

from federatedscope.core.configs.schema import Key, Section

__all__ = ["SECTIONS"]

# fmt: off

_UNIT = ("batch", "epoch")

_TRAIN = (
    Key("local_update_steps", 1, "Local steps per round, counted in batch_or_epoch."),
    Key("batch_or_epoch", "batch", "Unit of local_update_steps.", choices=_UNIT),
    Key("is_enable_half", False, "Frozen base in half precision; adapters and optimizer stay in"
        " float32."),
    Key("half_dtype", "auto", "Type behind is_enable_half: auto takes bf16 where the device"
        " computes in it, else fp16.", choices=("auto", "bf16", "fp16", "fp32")),
    Key("max_nonfinite_steps", 10, "Consecutive steps with a loss that is not finite before the"
        " run stops."),
    Key("data_para_dids", [], "GPUs for torch DataParallel; outside this project."),
)

_FINETUNE = (
    Key("before_eval", False, "Train locally for a moment before each evaluation."),
    Key("local_update_steps", 1, "Length of that training, counted in batch_or_epoch."),
    Key("batch_or_epoch", "epoch", "Unit of local_update_steps.", choices=_UNIT),
    Key("freeze_param", "", "Keyword of parameters that this training leaves alone."),
    Key("local_param", [], "Keywords of the parameters that this training changes."),
    Key("simple_tuning", False, "Train a linear head only."),
    Key("epoch_linear", 10, "Epochs of simple_tuning."),
    Key("lr_linear", 0.005, "Learning rate of simple_tuning."),
    Key("weight_decay", 0.0, "Weight decay of simple_tuning."),
)

_EARLY_STOP = (
    Key("patience", 5, "Evaluations without improvement before the run stops; 0 never stops."),
    Key("delta", 0.0, "Smallest change that counts as an improvement."),
    Key("improve_indicator_mode", "best", "Compare with the best value so far or with the mean of"
        " the last ones.", choices=("best", "mean")),
)

_OPTIMIZER = ("The optimizer; further keys are its own arguments", (
    Key("type", "SGD", "Name of a torch.optim class, or a registered optimizer."),
    Key("lr", 0.1, "Learning rate."),
))
_SCHEDULER = ("The schedule; further keys are its own arguments", (
    Key("type", "", "Learning-rate schedule; empty for a constant rate."),
    Key("warmup_ratio", 0.0, "Share of all steps with a rising learning rate."),
))

SECTIONS = (
    Section("trainer", "Which trainer runs the local steps", (
        Key("type", "general", "general, llmtrainer, gluetrainer, or a registered trainer."),
        Key("disp_freq", 50, "Steps between progress lines (ATC); outside this project."),
        Key("val_freq", 100000000, "Steps between validations (ATC); outside this project."),
    )),
    Section("trainer.sam", "Sharpness-aware minimisation; outside this project", (
        Key("adaptive", False, "Adaptive neighbourhood."),
        Key("rho", 1.0, "Radius of the neighbourhood."),
        Key("eta", 0.0, "Offset of the adaptive neighbourhood."),
    )),
    Section("trainer.local_entropy", "Local entropy; outside this project", (
        Key("gamma", 0.03, "Scope."),
        Key("inc_factor", 1.0, "Growth of the scope."),
        Key("eps", 1e-4, "Noise."),
        Key("alpha", 0.75, "Averaging factor."),
    )),
    Section("train", "Local training", _TRAIN),
    Section("train.optimizer", *_OPTIMIZER, free=True),
    Section("train.scheduler", *_SCHEDULER, free=True),
    Section("train.vera", "Separate rates for VeRA",
            (Key("lr_c", 1e-4, "Learning rate of the classification head with a VeRA adapter."),),
            free=True),
    Section("finetune", "Local training right before an evaluation", _FINETUNE),
    Section("finetune.optimizer", *_OPTIMIZER, free=True),
    Section("finetune.scheduler", *_SCHEDULER, free=True),
    Section("grad", "Gradients", (
        Key("grad_clip", -1.0, "Largest gradient norm; not positive for no limit."),
        Key("grad_accum_count", 1, "Batches whose gradients make one step."),
    )),
    Section("early_stop", "When to stop before the last round", _EARLY_STOP),
)

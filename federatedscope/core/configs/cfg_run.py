"""Top-level keys: the device, the seed, the run folder, extensions."""

from __future__ import annotations

from federatedscope.core.configs.schema import Key, Section

__all__ = ["SECTIONS"]

# fmt: off

SECTIONS = (
    Section("", "The run as a whole", (
        Key("backend", "torch", "Tensor library; PyTorch is the only one here."),
        Key("use_gpu", False, "Whether to compute on a GPU; 'auto' takes one when there is one.",
            choices=(True, False, "auto"), types=(bool, str)),
        Key("device", -1, "Index of the GPU; -1 takes the first one."),
        Key("eval_device", -1, "Index of the GPU for evaluation; -1 takes the training device."),
        Key("seed", 0, "Seed of initialisation, client sampling, batch order and dropout."),
        Key("outdir", "exp", "Folder that receives what the run leaves."),
        Key("expname", "", "Name of the run folder inside outdir; empty makes one up."),
        Key("expname_tag", "", "Text appended to expname to tell repetitions apart."),
        Key("cfg_file", "", "Path of the yaml file the run was started with."),
        Key("verbose", 1, "How much is printed: 0 results only, 1 normal, 2 everything."),
        Key("print_decimal_digits", 6, "Decimal places in printed and logged metrics."),
        Key("check_completeness", False, "Check before the start that every message a worker sends"
            " has a handler."),
        Key("extensions", ["federatedscope_ext"], "Python modules imported at the start; they"
            " register methods, data and models."),
    )),
    Section("embedded", "The built-in miniature that runs without downloads", (
        Key("use", False, "Replace model and data by built-in small ones."),
        Key("swaps", [], "What the miniature replaced: a list of {field, was, now, why}."),
    )),
)

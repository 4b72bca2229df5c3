"""Keys of language models and their adapters."""

from __future__ import annotations

from federatedscope.core.configs.schema import Key, Section, alike

__all__ = ["SECTIONS"]

# fmt: off

_OFF = "Offsite tuning; outside this project."

SECTIONS = (
    Section("llm", "Language models", (
        Key("tok_len", 128, "Longest input in tokens; longer ones are cut."),
        Key("retry_on_nan_loss", False, "Run a batch once more when its loss is NaN."),
    )),
    Section("llm.cache", "Local copies", (Key("model", "", "Folder for downloaded models."),)),
    Section("llm.chat", "Answers in a conversation", (
        Key("max_history_len", 10, "Turns of the conversation that are kept."),
        Key("max_len", 100, "Longest answer in tokens."),
    )),
    Section("llm.deepspeed", "DeepSpeed (planned)", (
        Key("use", False, "Train through DeepSpeed."),
        Key("ds_config", "", "DeepSpeed's own json file."),
    )),
    Section("llm.adapter", "The adapter that is trained", (
        Key("use", False, "Train an adapter and freeze the base model."),
        Key("args", [{}], "One mapping: adapter_package (peft), adapter_method (lora, vera,"
            " prefix, prompt, p-tuning) and PEFT's own fields such as r, lora_alpha, lora_dropout,"
            " target_modules."),
        Key("client_ranks", [], "LoRA ranks of clients 1, 2, ...: a list of ranks, e.g. [4, 4, 8,"
            " 64]; a mix over FlexLoRA's rank types (uniform, heavy_tail_light, heavy_tail_strong,"
            " normal); or a .yaml or .json file. Empty: everybody has the rank of args.",
            types=(list, str)),
        Key("scale_rule", "auto", "The scale s of s B A: alpha (lora_alpha / r), proportional"
            " (lora_alpha grows with r: every rank has the scale of args' r), rslora (lora_alpha /"
            " sqrt(r)), or auto (rslora with use_rslora, else alpha).",
            choices=("auto", "alpha", "proportional", "rslora")),
        Key("unequal_ranks", False, "Set by the run itself: whether clients' ranks differ."),
        Key("mv_to_cpu", False, "Keep idle adapters in main memory instead of on the GPU."),
    )),
    Section("llm.adapter.promotion", "A higher rank for the best clients (replication padding)", (
        Key("rank", 0, "Rank of promoted clients; 0 promotes nobody."),
        Key("share", 0.1, "Share of the clients that is promoted, the best ones."),
        Key("round", 1, "After which round's evaluation."),
        Key("metric", "val_avg_loss", "By what the best are found: the lowest loss, the highest"
            " value of others."),
    )),
    Section("llm.offsite_tuning", "Offsite tuning; outside this project", alike(
        _OFF, use=False, strategy="drop_layer", kwargs=[{}], emu_l=1, emu_r=10, eval_type="emu")),
    Section("llm.offsite_tuning.emu_align",
            "Offsite tuning: emulator alignment; outside this project",
            alike(_OFF, use=False, restore_from="", save_to="", exit_after_align=False)),
    Section("llm.offsite_tuning.emu_align.data", "Offsite tuning: data of the server", alike(
        _OFF, root="data", type="alpaca@llm", splits=[0.8, 0.1, 0.1])),
    Section("llm.offsite_tuning.emu_align.train", "Offsite tuning: training of the emulator", alike(
        _OFF, local_update_steps=10, batch_or_epoch="batch", lm_loss_weight=0.1,
        kd_loss_weight=0.9)),
    Section("llm.offsite_tuning.emu_align.train.optimizer",
            "Offsite tuning: optimizer of the emulator", alike(_OFF, type="SGD", lr=0.01),
            free=True),
)

"""Keys of evaluation and of what is recorded."""

from __future__ import annotations

from federatedscope.core.configs.schema import Key, Section

__all__ = ["SECTIONS"]

# fmt: off

_EVAL = (
    Key("freq", 1, "Rounds between evaluations."),
    Key("metrics", [], "Metrics besides the loss, for example ['acc']. Loss: avg_loss is the mean"
        " over rows, of language models over all answer tokens of the split; loss is avg_loss"
        " times the rows."),
    Key("split", ["test", "val"], "Parts of the data that are evaluated."),
    Key("clients", "all", "Which clients are evaluated after a round: all, seen (those that"
        " train), or unseen; the best round and early stopping go by the seen ones where they are"
        " evaluated.", choices=("all", "seen", "unseen")),
    Key("max_rows", 0, "Rows of each client's validation and test part that are used, drawn with"
        " data.seed; 0 takes all."),
    Key("report", ["weighted_avg", "avg", "fairness", "raw"], "Forms of the result lines."),
    Key("best_res_update_round_wise_key", "val_loss", "SPLIT_METRIC that decides the best round"
        " and early stopping."),
    Key("phases", ["after"], "When personal evaluation happens: before the round's aggregation,"
        " after it, or both."),
    Key("batch_size", 0, "Batch size of evaluation, on which no figure depends; 0 takes"
        " dataloader.batch_size."),
    Key("max_new_tokens", 256, "Longest generated answer, for metrics on generated text."),
    Key("max_generated_rows", 0, "Rows of a split to generate answers for; 0 takes all."),
    Key("monitoring", [], "Extra quantities to log, for example ['dissim']."),
    Key("count_flops", True, "Accepted; floating-point operations are not counted."),
)

SECTIONS = (
    Section("eval", "Evaluation", _EVAL, free=True),
    Section("tensorboard", "TensorBoard event files", (
        Key("use", False, "Write them; needs the tensorboard package."),
        Key("dir", "", "Their folder; empty puts them into the run folder."),
    )),
    Section("wandb", "Weights & Biases; needs the wandb package", (
        Key("use", False, "Send results to the service."),
        Key("name_user", "", "Account."),
        Key("name_project", "", "Project."),
        Key("online_track", True, "Send while running."),
        Key("client_train_info", False, "Send each client's training too."),
    )),
)

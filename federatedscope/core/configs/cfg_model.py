"""Keys of the model, the loss and the regularizer."""

from __future__ import annotations

from federatedscope.core.configs.schema import Key, Section

__all__ = ["SECTIONS"]

_OWN = "For models that extensions register: "
_TREE = "Tree models; outside this project."
_ATC = "Heterogeneous text tasks (ATC); outside this project."

_MODEL = (
    Key(
        "type",
        "lr",
        "NAME_OR_PATH@huggingface_llm, NAME_OR_PATH@modelscope_llm, or a registered model.",
    ),
    Key("revision", "", "Branch, tag or commit of the model on the hub; empty for the newest."),
    Key("task", "node", _OWN + "the kind of task."),
    Key("hidden", 256, _OWN + "width of hidden layers."),
    Key("layer", 2, _OWN + "number of layers."),
    Key("dropout", 0.5, _OWN + "dropout rate."),
    Key("use_bias", True, _OWN + "whether layers have a bias."),
    Key("in_channels", 0, _OWN + "input features; 0 takes them from the data."),
    Key("out_channels", 1, _OWN + "outputs."),
    Key("embed_size", 8, _OWN + "width of embeddings."),
    Key("input_shape", [], _OWN + "shape of one input."),
    Key("model_num_per_trainer", 1, "Models per client; one here."),
    Key("graph_pooling", "mean", "Graph models; outside this project."),
    Key("num_item", 0, "Recommender models; outside this project."),
    Key("num_user", 0, "Recommender models; outside this project."),
    Key("lambda_", 0.1, _TREE, types=(float,)),
    Key("gamma", 0, _TREE, types=(int, float)),
    Key("num_of_trees", 10, _TREE),
    Key("max_tree_depth", 3, _TREE),
    Key("stage", "", _ATC),
    Key("model_type", "google/bert_uncased_L-2_H-128_A-2", _ATC),
    Key("pretrain_tasks", [], _ATC),
    Key("downstream_tasks", [], _ATC),
    Key("num_labels", 1, _ATC),
    Key("max_length", 200, _ATC),
    Key("min_length", 1, _ATC),
    Key("no_repeat_ngram_size", 3, _ATC),
    Key("length_penalty", 2.0, _ATC),
    Key("num_beams", 5, _ATC),
    Key("label_smoothing", 0.1, _ATC),
    Key("n_best_size", 20, _ATC),
    Key("max_answer_len", 30, _ATC),
    Key("null_score_diff_threshold", 0.0, _ATC),
    Key("use_contrastive_loss", False, _ATC),
    Key("contrast_topk", 100, _ATC),
    Key("contrast_temp", 1.0, _ATC),
)

SECTIONS = (
    Section("model", "The model", _MODEL),
    Section(
        "criterion",
        "The loss",
        (Key("type", "MSELoss", "Name of a torch.nn loss; language models bring their own."),),
    ),
    Section(
        "regularizer",
        "A penalty added to the loss",
        (
            Key("type", "", "proximal_regularizer, or a registered one; empty for none."),
            Key("mu", 0.0, "Its strength."),
        ),
    ),
)

"""Keys of the model, the loss and the regularizer."""

from __future__ import annotations

from federatedscope.core.configs.schema import Key, Section, alike

__all__ = ["SECTIONS"]

# fmt: off

_OWN = "For models that extensions register: "
_TREE = "Tree models; outside this project."
_ATC = "Heterogeneous text tasks (ATC); outside this project."

_MODEL = (
    Key("type", "lr", "NAME_OR_PATH@huggingface_llm, NAME_OR_PATH@modelscope_llm, or a registered"
        " model."),
    Key("revision", "", "Branch, tag or commit of the model on the hub; empty for the newest."),
    Key("new_head", False, "Start with a new classification head where the model has one, as after"
        " fine-tuning for other labels."),
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
    *alike("Recommender models; outside this project.", num_item=0, num_user=0),
    Key("lambda_", 0.1, _TREE),
    Key("gamma", 0, _TREE, types=(int, float)),
    *alike(_TREE, num_of_trees=10, max_tree_depth=3),
    *alike(_ATC, stage="", model_type="google/bert_uncased_L-2_H-128_A-2", pretrain_tasks=[],
           downstream_tasks=[], num_labels=1, max_length=200, min_length=1, no_repeat_ngram_size=3,
           length_penalty=2.0, num_beams=5, label_smoothing=0.1, n_best_size=20, max_answer_len=30,
           null_score_diff_threshold=0.0, use_contrastive_loss=False, contrast_topk=100,
           contrast_temp=1.0),
)

SECTIONS = (
    Section("model", "The model", _MODEL),
    Section("criterion", "The loss",
            (Key("type", "MSELoss", "Name of a torch.nn loss; language models bring their own."),)),
    Section("regularizer", "A penalty added to the loss", (
        Key("type", "", "proximal_regularizer, or a registered one; empty for none."),
        Key("mu", 0.0, "Its strength."),
    )),
)

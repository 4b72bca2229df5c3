"""Keys of data sets, splitting among clients and loading."""

from __future__ import annotations

from federatedscope.core.configs.schema import Key, Section, alike

__all__ = ["MOVED", "SECTIONS"]

# fmt: off

_ATC = "Heterogeneous text tasks (ATC); outside this project."
_GRAPH = "Graph data; outside this project."
_FEAT = "Feature engineering; outside this project."

MOVED: dict[str, tuple[str, object]] = {
    "loader": ("type", ""), "batch_size": ("batch_size", 64), "shuffle": ("shuffle", True),
    "num_workers": ("num_workers", 0), "drop_last": ("drop_last", False),
    "walk_length": ("walk_length", 2), "num_steps": ("num_steps", 30), "sizes": ("sizes", [10, 5]),
}
"""Key of ``data`` -> its name in ``dataloader``, where it lives now, and the old default."""

_DATA = (
    Key("root", "data", "Folder of the data files."),
    Key("type", "toy", "Data set: TASK@glue, NAME@llm, FILE@llm or FILE@text (.csv, .tsv, .json,"
        " .jsonl, .parquet), or a registered one."),
    Key("file_path", "", "Path of a data file, for registered data sets that read one."),
    Key("args", [], "Arguments of the data set's loader: one mapping in a list."),
    Key("seed", 12345, "Seed of splitting and shuffling into clients; independent of seed."),
    Key("matched", True, "MNLI: evaluate on the matched validation rows (False: mismatched)."),
    Key("num_labels", 0, "Number of labels; 0 takes it from the data."),
    Key("label_list", [], "Names of the labels in order; empty takes them from the data."),
    Key("subsample", 1.0, "Share of the data that is used."),
    Key("rows_per_client", 0, "Training rows of each client that are used, drawn with data.seed; 0"
        " takes all."),
    Key("splits", [0.8, 0.1, 0.1], "Shares of training, validation and test rows."),
    Key("splitter", "", "How rows are spread over clients: iid, lda, meta, or a registered one."),
    Key("splitter_args", [], "Arguments of the splitter: one mapping in a list, for example"
        " [{'alpha': 0.5}]."),
    Key("consistent_label_distribution", True, "Draw each client's validation and test rows with"
        " the label shares of its training rows."),
    Key("server_holds_all", False, "Give the server all rows, for evaluation there."),
    Key("cache_dir", "", "Folder for processed data."),
    Key("save_data", False, "Keep generated toy data; outside this project."),
    Key("is_debug", False, _ATC),
    Key("transform", [], "Transforms of the inputs, for registered data sets."),
    Key("target_transform", [], "Transforms of the labels, for registered data sets."),
    Key("pre_transform", [], "Transforms applied once when the data are read."),
    Key("val_transform", [], "Like transform, validation rows only."),
    Key("val_target_transform", [], "Like target_transform, validation rows only."),
    Key("val_pre_transform", [], "Like pre_transform, validation rows only."),
    Key("test_transform", [], "Like transform, test rows only."),
    Key("test_target_transform", [], "Like target_transform, test rows only."),
    Key("test_pre_transform", [], "Like pre_transform, test rows only."),
    *alike(_ATC, hetero_data_name=[], num_of_client_for_data=[], max_seq_len=384, max_tgt_len=128,
           max_query_len=128, trunc_stride=128, hetero_synth_batch_size=32,
           hetero_synth_prim_weight=0.5, hetero_synth_feat_dim=128, num_contrast=0),
    Key("cSBM_phi", [0.5, 0.5, 0.5], _GRAPH),
    *(Key(old, default, f"Older name of dataloader.{new}; used when it differs from its default.")
      for old, (new, default) in MOVED.items()),
)

_DATALOADER = (
    Key("type", "base", "Kind of loader: base."),
    Key("batch_size", 64, "Rows per training batch."),
    Key("shuffle", True, "Shuffle the training rows."),
    Key("drop_last", False, "Leave out the last, smaller training batch."),
    Key("group_by_length", False, "Put rows of similar length into the same training batch."),
    Key("num_workers", 0, "Processes that prepare batches; 0 prepares them in this one."),
    Key("pin_memory", False, "Page-locked memory for faster copies to a GPU."),
    Key("theta", -1, "Privacy unit of matrix factorisation; outside this project."),
    *alike(_GRAPH, walk_length=2, num_steps=30, sizes=[10, 5]),
)

SECTIONS = (
    Section("data", "Data sets and how they are spread over clients", _DATA),
    Section("data.quadratic", "Generated quadratic problems; outside this project", (
        Key("dim", 1, "Dimension."),
        Key("min_curv", 0.02, "Smallest curvature."),
        Key("max_curv", 12.5, "Largest curvature."),
    )),
    Section("dataloader", "Batches", _DATALOADER),
    Section("feat_engr", "Feature engineering; outside this project", alike(
        _FEAT, type="", scenario="hfl", num_bins=5, selec_threshold=0.05,
        selec_woe_binning="quantile")),
    Section("feat_engr.secure", "Feature engineering: protection",
            alike(_FEAT, type="encrypt", key_size=3072)),
    Section("feat_engr.secure.encrypt", "Feature engineering: encryption",
            alike(_FEAT, type="dummy")),
    Section("feat_engr.secure.dp", "Feature engineering: differential privacy", free=True),
)

"""Names of FederatedScope's other domains, so that a configuration of one is refused by name."""

from __future__ import annotations

__all__ = [
    "FOREIGN_DATA",
    "FOREIGN_DATA_PACKAGES",
    "FOREIGN_MODELS",
    "FOREIGN_SPLITTERS",
    "FOREIGN_TRAINERS",
]


def _domains(names: dict[str, str]) -> dict[str, str]:
    """``{name: domain}`` of ``{domain: names with blanks between}``."""
    return {name: domain for domain, words in names.items() for name in words.split()}


_IMAGES, _GRAPHS, _TEXT = "images", "graphs", "text of FederatedScope's older kind"
_TREES, _MATRIX = "trees and vertical federated learning", "matrix factorisation"
_CONTRAST, _TOY = "contrastive learning on images", "toy problems"
_ATC = "heterogeneous text tasks (ATC)"

# fmt: off
FOREIGN_DATA = _domains({
    _TOY: "toy quadratic",
    _IMAGES: "femnist celeba",
    _CONTRAST: "cifar4cl cifar4lp",
    _TEXT: "shakespeare twitter subreddit synthetic",
    _ATC: "hetero_nlp_tasks",
    _GRAPHS: "cora citeseer pubmed dblp_conf dblp_org csbm csbm_data_feb_07_2022 ciao epinions"
             " fb15k-237 wn18 hiv proteins imdb-binary cikmcup graph_multi_domain_mol"
             " graph_multi_domain_small graph_multi_domain_biochem mini_graph_dc mini-graph-dc"
             " fb15k wn18rr",
    _TREES: "vertical_fl_data synthetic_vfl_data adult abalone credit blog xgb_data",
    _MATRIX: "vflmovielens1m vflmovielens10m hflmovielens1m hflmovielens10m vflnetflix hflnetflix",
})
"""Data set name in lower case -> the domain it belongs to."""

FOREIGN_DATA_PACKAGES = {
    "torchvision": _IMAGES, "torchtext": _TEXT, "torchaudio": "sound", "torch_geometric": _GRAPHS,
    "openml": "tables", "huggingface_datasets": _TEXT,
}
"""The part after ``@`` -> domain."""

FOREIGN_MODELS = _domains({
    _TOY: "lr mlp",
    _IMAGES: "convnet2 convnet5 vgg11 resnet18",
    _CONTRAST: "simclr simclr_linear supervised_local supervised_fedavg",
    _TEXT: "lstm",
    _ATC: "atc_model",
    _GRAPHS: "gcn sage gpr gat gin mpnn",
    _TREES: "xgb_tree gbdt_tree random_forest",
    _MATRIX: "vmfnet hmfnet",
})
"""Model name in lower case -> domain."""

FOREIGN_TRAINERS = _domains({
    _IMAGES: "cvtrainer",
    _TEXT: "nlptrainer",
    _CONTRAST: "cltrainer lptrainer",
    _ATC: "atc_trainer",
    _GRAPHS: "graphminibatch_trainer linkfullbatch_trainer linkminibatch_trainer"
             " nodefullbatch_trainer nodeminibatch_trainer flitplustrainer flittrainer"
             " fedvattrainer fedfocaltrainer",
    _TREES: "verticaltrainer none",
    _MATRIX: "mftrainer",
    "sharpness-aware minimisation": "sam_trainer",
    "local entropy": "local_entropy_trainer",
})
"""Trainer name in lower case -> domain."""

FOREIGN_SPLITTERS = _domains(
    {_GRAPHS: "louvain random rel_type graph_type scaffold scaffold_lda rand_chunk"})
"""Splitter name -> domain."""

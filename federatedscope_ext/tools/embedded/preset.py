"""The preset ``--embedded``: swap model and data of a configuration for the miniature.

Whatever else a yaml sets is kept unless the miniature could not be trained with it within
minutes. What is given on the command line is never swapped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from federatedscope_ext.tools.embedded import cache
from federatedscope_ext.tools.embedded.corpora.tasks import TASKS
from federatedscope_ext.tools.embedded.models import ENCODER_ROLES, LLAMA_ROLES, SIZES
from fedlora.heads import HEAD_MODULES

Swap = dict[str, Any]


class Budget(NamedTuple):
    """Settings that train the miniature within minutes on two cores."""

    #: at most so many rounds
    rounds: int
    #: smallest and largest batch that is kept; the largest is what others become
    batch: tuple[int, int]
    #: longest text in tokens
    tok_len: int


BUDGETS = {"encoder": Budget(30, (8, 32), 64), "llama": Budget(15, (8, 16), 192)}
#: at most so many local steps in a round, and rounds between evaluations
STEPS, EVAL_FREQ = 10, 5
#: learning rate of AdamW, and the range in which a yaml's own is kept
LR, LR_RANGE = 3e-3, (1e-3, 6e-3)
#: VeRA trains scales, not matrices, and needs larger steps; its head has a learning rate of its own
VERA_LR, VERA_RANGE, VERA_HEAD = 2e-2, (5e-3, 1e-1), 3e-3
MOST_CLIENTS, FEWEST_A_ROUND = 100, 8
GENERATED_ROWS, NEW_TOKENS = 20, 64
ADAPTIVE = ("adam", "adamw", "radam", "nadam", "adamax", "adagrad", "rmsprop")
SGD_ONLY = ("momentum", "nesterov", "dampening")

#: data that the miniature has under their own names
INSTRUCTIONS = ("gsm8k", "alpaca", "alpaca_cleaned", "dolly-15k", "rosetta_alpaca",
                "code_search_net", "natural_instructions")  # fmt: skip
TEXTS = ("ag_news", "dbpedia_14")

#: role of a module -> the names that model families give it
ROLE_NAMES: dict[str, tuple[str, ...]] = {
    "q": ("query", "q_proj", "q_lin", "q", "wq", "query_proj", "to_q", "query_key_value", "c_attn"),
    "k": ("key", "k_proj", "k_lin", "k", "wk", "key_proj"),
    "v": ("value", "v_proj", "v_lin", "v", "wv", "value_proj", "qkv_proj"),
    "o": ("o_proj", "out_lin", "out_proj", "o", "wo", "attention.output.dense", "dense", "c_proj"),
    "up": ("up_proj", "lin1", "wi", "w3", "intermediate.dense", "fc1", "c_fc", "dense_h_to_4h"),
    "gate": ("gate_proj", "w1", "wi_0", "gate_up_proj"),
    "down": ("down_proj", "lin2", "w2", "output.dense", "fc2", "dense_4h_to_h"),
}
#: modules that hold query, key and value in one
FUSED = ("query_key_value", "c_attn", "qkv_proj", "Wqkv")
HEADS = (*HEAD_MODULES, "pre_classifier")


def read(cfg: Any, name: str) -> Any:
    """Value at a dotted key, ``None`` where there is none."""
    for part in name.split("."):
        if part not in cfg:
            return None
        cfg = cfg[part]
    return cfg


@dataclass
class Swapper:
    """Changes a configuration in place and keeps the list of what it changed.

    What is ``given``, the dotted keys of the command line, is left alone.
    """

    cfg: Any
    given: set[str]
    swaps: list[Swap] = field(default_factory=list)

    def set(self, name: str, now: Any, why: str) -> None:
        """Set a key that exists, unless it was given or has this value already."""
        was = read(self.cfg, name)
        if name in self.given or was is None or was == now:
            return
        path, _, last = name.rpartition(".")
        (read(self.cfg, path) if path else self.cfg)[last] = now
        self.swaps.append({"field": name, "was": was, "now": now, "why": why})

    def at_most(self, name: str, most: int, why: str) -> None:
        """Lower a key to ``most``; other values than numbers above it stay."""
        was = read(self.cfg, name)
        if isinstance(was, int) and was > most:
            self.set(name, most, why)


def swaps(cfg: Any, given: set[str]) -> list[Swap]:
    """Run on the built-in miniature: small models and generated data that need no download.

    Parameters
    ----------
    cfg
        A configuration that is not frozen; changed in place. ``embedded.use`` and
        ``embedded.swaps`` are set. Where ``embedded.swaps`` has entries already, the configuration
        is a saved one: only the folders are made sure of.
    given
        Dotted keys given on the command line; never swapped.

    Returns
    -------
    list of dict
        ``{'field', 'was', 'now', 'why'}`` for each change.

    Raises
    ------
    ExtensionError
        The cache folder cannot be written.
    """
    kind = "llama" if str(cfg.data.type).lower().endswith("@llm") else "encoder"
    change = Swapper(cfg, set(given))
    if read(cfg, "embedded.swaps"):
        return _relocate(change, kind)
    _model_and_data(change, kind)
    _training(change, kind)
    _evaluation(change, kind)
    _hardware(change)
    _adapter(change, kind)
    cfg.embedded.use = True
    cfg.embedded.swaps = [dict(swap) for swap in change.swaps]
    return change.swaps


def _model_type(kind: str) -> str:
    return f"{cache.ensure(kind)}@huggingface_llm"


def _relocate(change: Swapper, kind: str) -> list[Swap]:
    """Make sure of the folders that a saved configuration names; they may lie elsewhere now."""
    saved = [dict(swap) for swap in change.cfg.embedded.swaps]
    for swap in saved:
        name = swap["field"]
        if name in change.given or read(change.cfg, name) != swap["now"]:
            continue
        if name in ("model.type", "data.root"):
            own = _model_type(kind) if name == "model.type" else str(cache.ensure("data"))
            change.set(name, own, "")
            swap["now"] = own
    change.cfg.embedded.use = True
    change.cfg.embedded.swaps = saved
    return saved


def _model_and_data(change: Swapper, kind: str) -> None:
    if "model.type" not in change.given:
        model = "LLaMA for generation" if kind == "llama" else "encoder for classification"
        change.set("model.type", _model_type(kind), f"the miniature's {model}; no download")
        change.set("model.revision", "", "the miniature has no revisions")
    if "data.root" in change.given:
        return
    root = str(cache.ensure("data"))
    change.set("data.root", root, "generated data in the layout of the real ones; no download")
    name, _, suffix = str(change.cfg.data.type).rpartition("@")
    lower = name.lower()
    if kind == "llama" and lower not in INSTRUCTIONS:
        own = "alpaca_data.json@llm" if lower.endswith((".json", ".jsonl")) else "dolly-15k@llm"
        change.set("data.type", own, "the miniature's instructions stand in for it")
    elif suffix.lower() == "text" and lower not in TEXTS:
        change.set("data.type", "ag_news@text", "the miniature's news stand in for it")


def _training(change: Swapper, kind: str) -> None:
    cfg, budget = change.cfg, BUDGETS[kind]
    change.at_most("federate.total_round_num", budget.rounds, "to end within minutes")
    if read(cfg, "train.batch_or_epoch") != "epoch":
        change.at_most("train.local_update_steps", STEPS, "to end within minutes")
    elif "train.local_update_steps" not in change.given:
        # A number of epochs says nothing about a number of batches.
        change.set("train.batch_or_epoch", "batch", "an epoch takes longer than a round should")
        change.set("train.local_update_steps", STEPS, "to end within minutes")
    change.at_most("llm.tok_len", budget.tok_len, "the miniature's texts are short")
    change.at_most("grad.grad_accum_count", 1, "the miniature's batches fit into memory")
    _clients_and_batch(change, budget)
    _optimizer(change)


def _clients_and_batch(change: Swapper, budget: Budget) -> None:
    cfg = change.cfg
    natural = str(cfg.data.type).lower().startswith("natural_instructions@")
    most = len(TASKS) if natural and "data.root" not in change.given else MOST_CLIENTS
    size = f"{most} tasks" if most < MOST_CLIENTS else "a few thousand rows"
    change.at_most("federate.client_num", most, f"the generated data has {size}")
    # 0 takes as many clients as the data have.
    clients = int(read(cfg, "federate.client_num") or 0) or most
    rate = float(read(cfg, "federate.sample_client_rate") or -1.0)
    if 0 < rate * clients < FEWEST_A_ROUND:
        share = min(1.0, FEWEST_A_ROUND / clients)
        change.set("federate.sample_client_rate", share, "fewer clients a round move little")
    change.at_most("federate.sample_client_num", clients, "there are fewer clients")
    low, high = budget.batch
    if clients >= 50:
        low, high = 1, low
    batch = int(read(cfg, "dataloader.batch_size"))
    if not low <= batch <= high:
        size = "rows are few" if clients >= 50 else "suits the miniature"
        change.set("dataloader.batch_size", high, f"a batch of {high} {size}")


def _optimizer(change: Swapper) -> None:
    cfg = change.cfg
    if "train.optimizer.type" in change.given:
        return
    vera = str(adapter_args(cfg).get("adapter_method", "")).lower() == "vera"
    best, (low, high) = (VERA_LR, VERA_RANGE) if vera else (LR, LR_RANGE)
    adaptive = str(cfg.train.optimizer.type).lower() in ADAPTIVE
    if not adaptive:
        slow = "SGD does not leave the majority class within these rounds"
        change.set("train.optimizer.type", "AdamW", slow)
        for name in SGD_ONLY:
            if name in cfg.train.optimizer:
                change.set(f"train.optimizer.{name}", None, "AdamW has no such option")
                del cfg.train.optimizer[name]
    if not adaptive or not low <= float(cfg.train.optimizer.lr) <= high:
        change.set("train.optimizer.lr", best, "trains the miniature within these rounds")
    if vera:
        change.set("train.vera.lr_c", VERA_HEAD, "trains the miniature's head within these rounds")


def _evaluation(change: Swapper, kind: str) -> None:
    rounds = int(read(change.cfg, "federate.total_round_num") or 1)
    change.at_most("eval.freq", max(1, min(EVAL_FREQ, rounds)), "there are fewer rounds")
    if kind == "llama":
        change.at_most("early_stop.patience", 0, "the first rounds may move nothing yet")
        change.at_most("eval.max_new_tokens", NEW_TOKENS, "the miniature's answers are short")
        if read(change.cfg, "eval.max_generated_rows") == 0:
            change.set("eval.max_generated_rows", GENERATED_ROWS, "generating answers takes time")


def _hardware(change: Swapper) -> None:
    import torch

    if torch.cuda.is_available() and read(change.cfg, "use_gpu"):
        return
    none = "there is no CUDA device" if not torch.cuda.is_available() else "use_gpu is off"
    if read(change.cfg, "use_gpu") is True:
        change.set("use_gpu", False, none)
    change.at_most("device", -1, none)
    change.at_most("eval_device", -1, none)
    slow = "half precision does not speed up a model this small on a CPU"
    change.set("train.is_enable_half", False, slow)
    change.set("llm.deepspeed.use", False, none)


def adapter_args(cfg: Any) -> Mapping[str, Any]:
    """The adapter's settings, empty where there are none."""
    listed = read(cfg, "llm.adapter.args") or [{}]
    return listed[0] if isinstance(listed[0], Mapping) else {}


def _adapter(change: Swapper, kind: str) -> None:
    """Rename modules that the miniature calls otherwise."""
    args = adapter_args(change.cfg)
    renamed = rename_modules(args, kind)
    if renamed != dict(args):
        now = [renamed, *list(change.cfg.llm.adapter.args)[1:]]
        change.set("llm.adapter.args", now, "the miniature's modules have other names")
    if kind == "encoder":
        local = list(read(change.cfg, "personalization.local_param") or [])
        kept = list(dict.fromkeys("classifier" if name in HEADS else name for name in local))
        change.set("personalization.local_param", kept, "the miniature's head is classifier")


def rename_modules(args: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """An adapter's settings with the names and number of the miniature's modules.

    ``kind`` is ``'encoder'`` or ``'llama'``.
    """
    head = "classifier" if kind == "encoder" else "lm_head"
    renamed = {
        "target_modules": lambda name: own_names(str(name), kind),
        "modules_to_save": lambda name: [head if name in (*HEADS, "lm_head") else name],
    }
    out = dict(args)
    for key, value in args.items():
        if key in renamed and isinstance(value, (list, tuple)):
            out[key] = list(dict.fromkeys(new for old in value for new in renamed[key](old)))
        elif key in ("rank_pattern", "alpha_pattern") and isinstance(value, Mapping):
            out[key] = {new: value[old] for old in value for new in own_names(str(old), kind)}
        elif key == "layers_to_transform" and isinstance(value, (list, tuple)):
            last = SIZES["num_hidden_layers"] - 1
            if all(isinstance(layer, int) for layer in value):  # others are refused later
                out[key] = sorted({min(layer, last) for layer in value})
    return out


def own_names(target: str, kind: str) -> Sequence[str]:
    """Names of the miniature's modules for a target module of any model family."""
    roles = LLAMA_ROLES if kind == "llama" else ENCODER_ROLES
    if any(target in names for names in roles.values()):
        return [target]
    last = target.rsplit(".", 1)[-1]
    if last in FUSED:
        return [*roles["q"], *roles["k"], *roles["v"]]
    for role, names in ROLE_NAMES.items():
        if target in names or last in names:
            return roles[role]
    return [target]

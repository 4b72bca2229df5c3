"""From the command line to a complete configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from federatedscope import register
from federatedscope.core.cmd_args import CommandLine, check_presets
from federatedscope.core.configs.config import CN, apply_registered_configs, global_cfg
from federatedscope.core.configs.merging import all_keys, nest, put, read_client_file
from federatedscope.core.configs.ranges import value_of
from federatedscope.core.configs.refusals import check_runnable
from federatedscope.core.configs.values import KeyInfo, coerce, free_value, literal, shown
from federatedscope.core.configs.yaml_io import read_yaml_file
from federatedscope.core.errors import ConfigError, within
from federatedscope.core.extensions import load_extensions

# fmt: off
__all__ = [
    "RunConfig", "build_config", "check_client_names", "check_run", "client_config",
    "load_client_cfgs",
]

_CLIENT = re.compile(r"client_([1-9]\d*)")

_ADAPTER = "llm.adapter.args"

PER_CLIENT = (
    "criterion.type", "dataloader.batch_size", "dataloader.drop_last", "dataloader.group_by_length",
    "dataloader.num_workers", "dataloader.pin_memory", "dataloader.shuffle", "dataloader.type",
    "eval.batch_size", "eval.max_generated_rows", "eval.max_new_tokens", "eval.metrics", "fedprox",
    "finetune.batch_or_epoch", "finetune.before_eval", "finetune.local_update_steps",
    "finetune.optimizer", "finetune.scheduler", "grad", _ADAPTER, "regularizer",
    "train.batch_or_epoch", "train.local_update_steps", "train.max_nonfinite_steps",
    "train.optimizer", "train.scheduler", "train.vera", "trainer.type",
)
# fmt: on
"""Keys and sections that a client reads for itself: its loaders (``core/data``), its trainer and
monitor (``core/trainers``, ``llm/trainer``), its adapter. All others of the project are read once,
for everybody; an extension says so of its own with ``of_client`` where it describes them.
"""

OWN_ADAPTER_FIELDS = ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern")
"""What a client's own ``llm.adapter.args`` may say."""

# Types of those that are needed before PEFT is at hand, and an example of each.
_SIZES: dict[str, tuple[tuple[type, ...], Any]] = {
    "r": ((int,), 8),
    "lora_alpha": ((int, float), 16),
    "use_rslora": ((bool,), True),
    "rank_pattern": ((dict,), {"query": 8}),
    "alpha_pattern": ((dict,), {"query": 16}),
    "lora_dropout": ((float,), 0.05),
    "num_virtual_tokens": ((int,), 20),
}

MOST_RANK = 65536
"""Above the smaller side of any layer; a higher rank is a slip that would take all memory."""

# What to write where the default of the key, an empty list, is no help.
_REMEDIES = {
    "llm.adapter.client_ranks": "Write a list with a rank for each client, as [4, 8, 8]; the name"
    " of a mix (uniform, heavy_tail_light, heavy_tail_strong, normal); or a .yaml or .json file"
    " that holds such a list or {client_1: 4}. A single client's rank can also stand in the file"
    " of --client_cfg: client_1.llm.adapter.args: [{'r': 4}]"
}


@dataclass(frozen=True)
class RunConfig:
    """A merged configuration, not yet checked.

    Attributes
    ----------
    cfg : CN
        Defaults, yaml, command line and presets, in that order. Not frozen.
    client_cfgs : CN or None
        ``client_N`` -> the keys that differ for client N, with the types of ``cfg``.
    given : frozenset of str
        Dotted keys that the user set, in yaml or on the command line.
    swaps : list of dict
        What presets changed: ``{'field', 'was', 'now', 'why'}``.
    """

    cfg: CN
    client_cfgs: CN | None = None
    given: frozenset[str] = frozenset()
    swaps: list[dict[str, Any]] = field(default_factory=list)


def build_config(args: CommandLine) -> RunConfig:
    """Import the extensions and merge everything the user gave.

    The result is to be checked by :func:`check_run`.

    Raises
    ------
    ConfigError, UserError
        Anything in file or command line that cannot be read or is unknown.
    """
    tree = read_yaml_file(args.cfg_file)[0] if args.cfg_file else {}
    overrides = nest(args.opts)
    load_extensions(extension_names(tree, overrides))
    check_presets(args.presets)
    cfg = global_cfg.clone()
    apply_registered_configs(cfg)
    try:
        if args.cfg_file:
            cfg.merge_from_file(args.cfg_file)
            cfg.cfg_file = str(args.cfg_file)
        cfg.merge_from_list(args.opts)
    except ConfigError as error:
        remedy = _REMEDIES.get(error.field, error.remedy)
        raise ConfigError(error.field, error.value, error.problem, remedy) from error
    cfg.llm.adapter.args = [_sized(entry) for entry in cfg.llm.adapter.args]
    own = [*all_keys(overrides, sections=False)]
    given = {*all_keys(tree, sections=False), *own}
    if args.outdir:
        cfg.outdir = args.outdir
        given.add("outdir")
    swaps: list[dict[str, Any]] = []
    miniature = ["embedded"] if cfg.embedded.use and "embedded" in register.preset_dict else []
    for name in dict.fromkeys([*args.presets, *miniature]):
        swaps += register.preset_dict[name](cfg, set(own)) or []
    clients = load_client_cfgs(args.client_cfg_file, args.client_opts, cfg)
    return RunConfig(cfg, clients, frozenset(given), swaps)


def extension_names(tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> list[str]:
    """The modules to import: command line before yaml before default."""
    value: Any = tree.get("extensions", global_cfg.extensions)
    if "extensions" in overrides:
        value = literal(str(shown(overrides["extensions"])))
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) for n in names):
        remedy = "Write ['federatedscope_ext']"
        raise ConfigError("extensions", value, "must be a list of module names", remedy)
    return [name for name in names if name]


def load_client_cfgs(path: str | None, opts: Sequence[str], cfg: CN) -> CN | None:
    """Settings of single clients, checked against the run's configuration.

    Parameters
    ----------
    path : str or None
        Yaml file with ``client_N:`` sections, or keys with dots.
    opts : sequence of str
        ``[client_N.section.key, value, ...]``; wins over the file.
    cfg : CN
        The run's merged configuration.

    Returns
    -------
    CN or None
        ``client_N`` -> the differing keys; ``None`` without any.

    Raises
    ------
    ConfigError
        A client that does not exist, an unknown key, a wrong type, or a key that cannot differ
        between clients.
    """
    result = CN(new_allowed=True)
    for source in (read_client_file(path) if path else {}, nest(opts)):
        for name, settings in source.items():
            _check_client_name(str(name), settings, cfg)
            node = result.setdefault(name, CN(new_allowed=True))
            for dotted, value in _checked_settings(str(name), settings or {}, cfg):
                put(node, dotted, value)
    return result or None


def client_config(cfg: CN, client_cfgs: CN | None, client: int, check: bool = True) -> CN:
    """The configuration of one client: the run's own object, or a copy with that client's settings.

    Parameters
    ----------
    cfg, client_cfgs
        The run's configuration, which is not changed, and what :func:`load_client_cfgs` gives.
    client : int
        Client ID, from 1.
    check : bool
        Run the checks, which need the number of clients and labels; derived values come from them.
    """
    own = client_cfgs.get(f"client_{client}") if client_cfgs else None
    if not own:
        return cfg
    twin = cfg.clone()
    twin.defrost()
    twin.merge_from_other_cfg(own)
    if check:
        twin.assert_cfg()
    if cfg.is_frozen():
        twin.freeze(check_cfg=False)
    return twin


def check_run(run: RunConfig) -> None:
    """Every check and refusal, for the run and for each client's own configuration.

    Values derived from others are written to ``run.cfg``.

    Raises
    ------
    ConfigError
        What cannot run, and what to write instead; for one client's setting the key starts with
        ``client_N.``.
    """
    check_runnable(run.cfg)
    run.cfg.assert_cfg()
    _check_adapter_ranks(run.cfg)
    for name in run.client_cfgs or ():
        with within(name):
            twin = client_config(run.cfg, run.client_cfgs, int(name.split("_")[1]))
            check_runnable(twin)
            _check_adapter_ranks(twin)


def _check_adapter_ranks(cfg: CN) -> None:
    """No rank of ``llm.adapter.args`` is above the bound."""
    if not cfg.llm.adapter.use:
        return
    entry = cfg.llm.adapter.args[0] if cfg.llm.adapter.args else {}
    patterns = entry.get("rank_pattern")
    ranks = {"r": entry.get("r"), **(patterns if isinstance(patterns, Mapping) else {})}
    for name, rank in ranks.items():
        if isinstance(rank, int) and rank > MOST_RANK:
            remedy = f"Write at most {MOST_RANK}"
            raise ConfigError(_ADAPTER, {name: rank}, "the rank is too large", remedy)


def check_client_names(client_cfgs: CN | None, cfg: CN) -> None:
    """Refuse settings of clients that the run does not have; called again once the data decided
    the number of clients.
    """
    for name, settings in (client_cfgs or {}).items():
        _check_client_name(str(name), settings.to_dict(), cfg)


def _check_client_name(name: str, settings: Any, cfg: CN) -> None:
    """The section names one of the clients."""
    match = _CLIENT.fullmatch(name)
    count = cfg.federate.client_num
    problem = ""
    if match is None:
        problem = "not the name of a client"
        remedy = "Write client_1, client_2, ... on the top level, or before the first dot of a key"
    elif count and int(match[1]) > count:
        problem, remedy = f"there are only {count} clients", f"Write client_1 to client_{count}"
    if problem:
        raise ConfigError(name, shown(settings), problem, remedy)


def _checked_settings(name: str, settings: Any, cfg: CN) -> Iterator[tuple[str, Any]]:
    """``(dotted key, value in the key's type)`` of one client's settings."""
    if not isinstance(settings, Mapping):
        remedy = "Write section: and below it key: value"
        raise ConfigError(name, shown(settings), "must hold sections", remedy)
    twin = cfg.clone()
    with within(name):
        twin.merge_from_other_cfg(settings)
        for dotted in all_keys(settings, sections=False):
            value = value_of(twin, dotted)
            if not _may_differ(twin, dotted):
                raise ConfigError(
                    dotted,
                    value,
                    "this key is the same for all clients; one client's own would not be read",
                    f"Set {dotted} for the whole run. What clients may have of their own: "
                    f"{', '.join(PER_CLIENT)}",
                )
            yield dotted, _own_adapter(value, cfg) if dotted == _ADAPTER else value


def _may_differ(cfg: CN, dotted: str) -> bool:
    """Whether clients read a key for themselves. Who adds keys without a word on them may."""
    section, _, key = dotted.rpartition(".")
    info = (value_of(cfg, section) if section else cfg).info(key)
    listed = any(dotted == name or dotted.startswith(f"{name}.") for name in PER_CLIENT)
    return listed or info.of_client or not info.declared


def _own_adapter(given: list[Any], cfg: CN) -> list[Any]:
    """A client's adapter arguments, the run's with its own rank and scale."""
    base = dict(cfg.llm.adapter.args[0]) if cfg.llm.adapter.args else {}
    entry = given[0] if len(given) == 1 and isinstance(given[0], Mapping) else None
    if entry is None:
        raise ConfigError(_ADAPTER, given, "must be a list of one mapping", "Write [{'r': 4}]")
    entry = _sized(entry)
    for key, value in entry.items():
        if key not in OWN_ADAPTER_FIELDS and value != base.get(key):
            problem = f"{key} is the same for all clients; ranks and scales may differ"
            remedy = f"Leave it out, or write one of {', '.join(OWN_ADAPTER_FIELDS)}"
            raise ConfigError(_ADAPTER, {key: value}, problem, remedy)
    return [{**base, **dict(entry)}]


def _sized(entry: Any) -> Any:
    """Adapter arguments with ranks, scales and sizes in their types; other entries as they are."""
    if not isinstance(entry, Mapping):
        return entry
    out = dict(entry)
    for key, (types, example) in _SIZES.items():
        if key not in out or (out[key] is None and dict in types):
            continue
        try:
            out[key] = free_value(coerce(key, out[key], KeyInfo(types=types, declared=True), None))
        except ConfigError as error:
            remedy = f"Write for example '{key}': {example!r}, or leave it out"
            raise ConfigError(f"{_ADAPTER}.{key}", out[key], error.problem, remedy) from error
    return out

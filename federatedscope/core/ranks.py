"""Who has which rank, settled once before weights are read.

Three sources, the later wins: ``llm.adapter.args`` for everybody, a registered plan
(``register_ranks``: ``llm.adapter.client_ranks`` and promotion), and a client's own
``client_N.llm.adapter.args``. The server gets every module at the largest rank that can occur.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from federatedscope import register
from federatedscope.core.configs.config import CN
from federatedscope.core.configs.loading import OWN_ADAPTER_FIELDS
from federatedscope.core.configs.ranges import method_of
from federatedscope.core.errors import ConfigError
from federatedscope.core.task import ADAPTER_FIELD as FIELD
from federatedscope.core.task import adapter_arguments
from fedlora.layers import layout_of_model
from fedlora.layouts import AdapterLayout, Layouts, layout_for
from fedlora.names import base_name, matches

Ranks = int | Mapping[str, int]


def settle_ranks(cfg: Any, client_cfgs: CN | None, skeleton: torch.nn.Module | None) -> Any:
    """The run's layouts; writes the server's ranks into ``llm.adapter.args``.

    Parameters
    ----------
    cfg : CN
        The settled, mutable configuration; ``llm.adapter.unequal_ranks`` is set.
    skeleton : torch.nn.Module or None
        The model with ``llm.adapter.args`` as the user wrote them, with or without storage; none
        for a model that a registered builder makes, which ranks it by itself.

    Returns
    -------
    Layouts or None
        ``None`` for models without LoRA layers; ranks for these, and unequal ones that a method
        cannot combine, are a :class:`ConfigError`.
    """
    modules = [] if skeleton is None else list(layout_of_model(skeleton).ranks)
    own = _own_arguments(client_cfgs, adapter_arguments(cfg))
    for client, arguments in own.items():
        _check_patterns(client, arguments, modules)
    if skeleton is None or not modules:
        _refuse_without_lora(cfg, own)
        return None
    _check_scale_rule(cfg)
    plan = register.first_answer(register.ranks_dict, cfg, modules)
    _check_answered(cfg, plan)
    if plan is None and not own and cfg.llm.adapter.scale_rule == "auto":
        # Nothing to settle: PEFT's own ranks and scales are everybody's.
        server = layout_of_model(skeleton)
        return Layouts(server, dict.fromkeys(range(1, cfg.federate.client_num + 1), server))
    layouts = build_layouts(cfg, modules, own, plan)
    if layouts.vary or not layouts.server.same_as(layout_of_model(skeleton)):
        _check_adapter(cfg)
    _write_server_ranks(cfg, layouts.server, modules)
    cfg.llm.adapter.client_ranks = []
    cfg.llm.adapter.unequal_ranks = layouts.vary
    if layouts.vary:
        check_combines(cfg)
    return layouts


def _check_answered(cfg: Any, plan: Any) -> None:
    """Refuse a name that no registered plan knows; pooled training has one rank anyway."""
    given = cfg.llm.adapter.client_ranks
    if plan is None and isinstance(given, str) and given and method_of(cfg) != "global":
        problem = "no mix, no file, and no registered plan of this name"
        remedy = "Write a list of ranks, or the name of a mix, a .yaml or a .json file"
        raise ConfigError("llm.adapter.client_ranks", given, problem, remedy)


def _check_scale_rule(cfg: Any) -> None:
    if cfg.llm.adapter.scale_rule == "alpha" and adapter_arguments(cfg).get("use_rslora"):
        problem = "llm.adapter.args says use_rslora, whose scale is lora_alpha / sqrt(r)"
        remedy = "Write scale_rule: auto or rslora, or leave use_rslora out"
        raise ConfigError("llm.adapter.scale_rule", "alpha", problem, remedy)


def build_layouts(
    cfg: Any, modules: Sequence[str], own: Mapping[int, Mapping[str, Any]], plan: Any = None
) -> Layouts:
    """Layouts of server and clients over the named LoRA modules: ``own`` has the complete adapter
    arguments of the clients that have their own, for ``plan`` see ``register_ranks``.
    """
    base, rule = adapter_arguments(cfg), cfg.llm.adapter.scale_rule
    count = cfg.federate.client_num
    checked = None if plan is None else _CheckedPlan(plan, modules, count)
    known: dict[str, AdapterLayout] = {}

    def make(ranks: Ranks | None = None, client: int = 0) -> AdapterLayout:
        key = repr((ranks, own.get(client)))
        if key not in known:
            known[key] = layout_for(modules, own.get(client, base), base, rule, ranks)
        return known[key]

    clients = {
        k: make(None, k) if k in own else make(checked.rank_of(k) if checked else None)
        for k in range(1, count + 1)
    }
    later = [make(ranks) for ranks in (checked.later_ranks() if checked else ())]
    occurring = [*{id(layout): layout for layout in clients.values()}.values(), *later]
    largest = {m: max(layout.ranks[m] for layout in occurring) for m in modules}
    server = make(largest)
    if checked is None or not later:
        return Layouts(server, clients, make)
    if not any(_is_above(more, layout) for more in later for layout in clients.values()):
        raise ConfigError(
            "llm.adapter.promotion.rank",
            cfg.llm.adapter.promotion.rank,
            "every client has this rank or a higher one already, so nobody could be promoted",
            "Write a higher rank, or 0 to promote nobody",
        )
    checked.most = server.ranks
    return Layouts(server, clients, make, checked.revise)


def _is_above(more: AdapterLayout, layout: AdapterLayout) -> bool:
    return any(rank > layout.ranks[module] for module, rank in more.ranks.items())


class _CheckedPlan:
    """A registered plan, whose answers are ranks before anybody computes with them."""

    def __init__(self, plan: Any, modules: Sequence[str], clients: int) -> None:
        self.plan = plan
        self.modules = modules
        self.clients = clients
        self.most: Mapping[str, int] = {}

    def rank_of(self, client: int) -> Ranks | None:
        return self._checked(self.plan.rank_of(client), f"rank_of({client})")

    def later_ranks(self) -> list[Ranks]:
        given = (self._checked(ranks, "later_ranks()") for ranks in self.plan.later_ranks())
        return [ranks for ranks in given if ranks is not None]

    def revise(self, rnd: int, metrics: Mapping[int, Mapping[str, float]]) -> dict[int, Ranks]:
        answer: dict[int, Ranks] = {}
        for client, ranks in dict(self.plan.revise(rnd, metrics) or {}).items():
            where = f"revise({rnd}, ...)[{client!r}]"
            if client not in range(1, self.clients + 1):
                raise self._refused(where, ranks, f"there are clients 1 to {self.clients}")
            checked = self._checked(ranks, where)
            if checked is None:
                continue
            wanted = checked if isinstance(checked, Mapping) else dict.fromkeys(self.most, checked)
            above = [module for module, rank in wanted.items() if rank > self.most[module]]
            if above:
                problem = f"the server holds rank {self.most[above[0]]} of {above[0]}"
                raise self._refused(where, ranks, f"{problem}; later_ranks() has to name more")
            answer[client] = checked
        return answer

    def _checked(self, ranks: Any, where: str) -> Ranks | None:
        if ranks is None:
            return None
        values = ranks.values() if isinstance(ranks, Mapping) else [ranks]
        if not all(_is_rank(rank) for rank in values):
            raise self._refused(where, ranks, "a rank is a whole number above 0")
        if not isinstance(ranks, Mapping):
            return int(ranks)
        unknown = [module for module in ranks if module not in self.modules]
        if unknown:
            raise self._refused(where, ranks, f"there is no LoRA module {unknown[0]!r}")
        return {module: int(rank) for module, rank in ranks.items()}

    def _refused(self, where: str, value: Any, problem: str) -> ConfigError:
        remedy = "A plan of register_ranks gives a rank, a rank by full module name, or None"
        return ConfigError(f"{type(self.plan).__name__}.{where}", value, problem, remedy)


def _is_rank(value: Any) -> bool:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return whole and bool(value > 0)


def _own_arguments(client_cfgs: CN | None, base: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Adapter arguments of the clients that have their own, complete."""
    own = {}
    for name in client_cfgs or ():
        given = adapter_arguments_of(client_cfgs[name]) if client_cfgs else None
        if given and any(given.get(key) != base.get(key) for key in OWN_ADAPTER_FIELDS):
            own[int(name.split("_")[1])] = {**base, **given}
    return own


def _check_patterns(client: int, arguments: Mapping[str, Any], modules: Sequence[str]) -> None:
    """Patterns of a client's own are numbers by names of modules that there are."""
    for field in ("rank_pattern", "alpha_pattern"):
        for pattern, value in (arguments.get(field) or {}).items():
            kinds = int if field == "rank_pattern" else (int, float)
            good = isinstance(value, kinds) and not isinstance(value, bool) and value > 0
            named = any(matches(re.escape(pattern), m) or matches(pattern, m) for m in modules)
            if good and (named or not modules):
                continue
            last = sorted({module.rsplit(".", 1)[-1] for module in modules})
            raise ConfigError(
                f"client_{client}.{FIELD}",
                {field: {pattern: value}},
                "no LoRA module has this name" if good else "not a positive number",
                f"Write positive numbers by the names of modules: {', '.join(last)}",
            )


def adapter_arguments_of(section: Any) -> dict[str, Any] | None:
    """``llm.adapter.args`` of one client's section, ``None`` where it has none."""
    entry: Any = section
    for part in ("llm", "adapter", "args"):
        entry = entry.get(part) if hasattr(entry, "get") else None
    return dict(entry[0]) if entry else None


def _refuse_without_lora(cfg: Any, own: Mapping[int, Any]) -> None:
    adapter = cfg.llm.adapter
    asked = {
        "llm.adapter.client_ranks": adapter.client_ranks,
        **{f"client_{client}.{FIELD}": own[client] for client in sorted(own)[:1]},
        "llm.adapter.promotion.rank": adapter.promotion.rank,
        "llm.adapter.scale_rule": adapter.scale_rule != "auto" and adapter.scale_rule,
    }
    for field, value in asked.items():
        if value:
            problem = "ranks and scales are for LoRA adapters, and the model has none"
            remedy = "Write llm.adapter.use: True with adapter_method 'lora', or leave it out"
            raise ConfigError(field, value, problem, remedy)


def _write_server_ranks(cfg: Any, server: AdapterLayout, modules: Sequence[str]) -> None:
    """Let the model be built at the server's ranks."""
    largest = max(server.ranks.values())
    others = {
        re.escape(base_name(module)): server.ranks[module]
        for module in modules
        if server.ranks[module] != largest
    }
    entry = {**adapter_arguments(cfg), "r": largest, "rank_pattern": others}
    cfg.llm.adapter.args = [{k: v for k, v in entry.items() if v or k != "rank_pattern"}]


def _check_adapter(cfg: Any) -> None:
    """Refuse adapters that cannot be cut to another rank, or be given another scale than PEFT's,
    without changing what they compute: a start with B other than zero, a bias, experts.
    """
    arguments = adapter_arguments(cfg)
    start, bias = arguments.get("init_lora_weights", True), bool(arguments.get("lora_bias"))
    refused = (
        ("init_lora_weights", start, start not in (True, "gaussian"),
         "with such a start an adapter of another rank or scale is another base model",
         "Leave it out (B starts at zero)"),
        ("lora_bias", bias, bias, "a bias of the adapter has no rank and no scale",
         "Leave it out"),
        ("target_parameters", arguments.get("target_parameters"),
         arguments.get("target_parameters"),
         "its factors have rows for every expert, which are not cut to another rank",
         "Name linear layers in target_modules instead"),
    )  # fmt: skip
    for field, value, hinders, problem, remedy in refused:
        if hinders:
            why = "clients have unequal ranks, or scales of llm.adapter.scale_rule"
            remedy += ", or give all clients one rank and leave scale_rule: auto"
            raise ConfigError(f"{FIELD}.{field}", value, f"{why}: {problem}", remedy)


def check_combines(cfg: Any) -> None:
    """Refuse what assumes that all clients' tensors have the same shapes: robust rules, FedOpt,
    whole state dicts, one shared module.
    """
    rule, method = cfg.aggregator.robust_rule, cfg.federate.method
    named = method.lower() == "fedopt"
    other = "fedopt.use: False and federate.method: flexlora"
    whole, shared = "personalization.share_non_trainable_para", "federate.shared_module"
    refused = (
        ("aggregator.robust_rule", rule != "fedavg" and rule, "aggregator.robust_rule: fedavg"),
        ("federate.method", named and method, other),
        ("fedopt.use", cfg.fedopt.use, other),
        (shared, cfg.federate.shared_module, f"{shared}: False"),
        (whole, cfg.personalization.share_non_trainable_para, f"{whole}: False"),
    )
    for field, value, remedy in refused:
        if value:
            problem = "clients have LoRA adapters of unequal rank, which it cannot combine"
            remedy = f"Write {remedy}, or give all clients one rank"
            raise ConfigError(field, value, problem, remedy)

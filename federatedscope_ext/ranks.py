"""Who gets which LoRA rank: lists, FlexLoRA's mixes, files, and promotion.

FlexLoRA (Bai et al., NeurIPS 2024, arXiv 2402.11505) gives attention (q, k, v, o) and feed-forward
modules (gate, up, down) a rank each. Its four types are 8/8, 30/30, 30/200 and 200/200, and a mix
says which share of the clients has which type.

Promotion (Byun and Lee, NAACL 2025, arXiv 2406.17477): all clients start low; after the first
round the share with the lowest validation loss gets a higher rank. New rows of A are random, new
columns of B zero, so the applied update stays what it was at that moment.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from federatedscope import register
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.rank_files import FIELD, read_rank_file
from fedlora.names import base_name, matched

__all__ = ["MIXES", "TYPES", "RankPlan", "group_of", "rank_plan"]

#: under which the plan is registered
NAME = "federatedscope_ext"

#: above the smaller side of any layer; a higher rank is a slip that would take all memory
MOST_RANK = 65536

#: ranks of attention and feed-forward modules
TYPES: dict[str, dict[str, int]] = {
    "type_1": {"attention": 8, "ffn": 8},
    "type_2": {"attention": 30, "ffn": 30},
    "type_3": {"attention": 30, "ffn": 200},
    "type_4": {"attention": 200, "ffn": 200},
}

#: share of the clients that has each type, in the order of `TYPES`
MIXES: dict[str, tuple[float, float, float, float]] = {
    "uniform": (0.25, 0.25, 0.25, 0.25),
    "heavy_tail_light": (0.80, 0.05, 0.05, 0.10),
    "heavy_tail_strong": (0.05, 0.05, 0.10, 0.80),
    "normal": (0.0575, 0.4425, 0.4425, 0.0575),
}

_FFN = re.compile(
    r"mlp|ffn|feed_forward|intermediate|\bfc[12]?\b|c_fc|lin[12]$|(gate|up|down)_proj$|dense_h_to|"
    r"dense_4h|w[123]$"
)
_ATTENTION = re.compile(r"attn|attention")

Ranks = int | dict[str, int]
GROUPS = ("attention", "ffn")


def group_of(module: str) -> str:
    """``ffn`` for feed-forward modules of the usual architectures, else ``attention``."""
    last = base_name(module)
    if _FFN.search(last):
        return "ffn"
    # BERT's `output.dense` ends the feed-forward block, its `attention.output.dense` does not.
    return "ffn" if "output.dense" in last and not _ATTENTION.search(last) else "attention"


def _larger_is_better(metric: str) -> bool:
    """As the runtime judges by name; upstream, which cannot, has no promotion either."""
    judge = getattr(register, "larger_is_better", None)
    return bool(judge(metric)) if judge is not None else "loss" not in metric


@dataclass(frozen=True)
class Promotion:
    """``llm.adapter.promotion``.

    Attributes
    ----------
    rank : int
        Rank of promoted clients.
    share : float
        Share of the clients that is promoted, at least one.
    round : int
        After which round's evaluation.
    metric : str
        The lowest values win where it is a loss, the highest of others.
    """

    rank: int
    share: float
    round: int
    metric: str

    def chosen(self, results: Mapping[int, Mapping[str, float]]) -> list[int]:
        """The best clients, ties by ID; clients without the figure are not considered."""
        sign = -1.0 if _larger_is_better(self.metric) else 1.0
        scored = [
            (sign * float(metrics[self.metric]), client)
            for client, metrics in results.items()
            if math.isfinite(float(metrics.get(self.metric, math.nan)))
        ]
        if not scored:
            known = sorted({name for metrics in results.values() for name in metrics})
            raise ExtensionError(
                "llm.adapter.promotion.metric",
                self.metric,
                "no client has this figure",
                f"Write one of {', '.join(known)}",
            )
        count = max(1, round(self.share * len(results)))
        return sorted(client for _, client in sorted(scored)[:count])


@dataclass(frozen=True)
class RankPlan:
    """Ranks of all clients of a run.

    Attributes
    ----------
    ranks : mapping of int to (int or dict)
        Client to one rank, or a rank for each module.
    promotion : Promotion, optional
        Who gets more later.
    """

    ranks: Mapping[int, Ranks]
    promotion: Promotion | None = None

    def rank_of(self, client: int) -> Ranks | None:
        """A client's rank at the start; ``None`` for that of ``llm.adapter.args``."""
        return self.ranks.get(client)

    def later_ranks(self) -> list[int]:
        """Ranks that a client may be given while the run goes on."""
        return [self.promotion.rank] if self.promotion else []

    def revise(
        self, completed: int, results: Mapping[int, Mapping[str, float]]
    ) -> dict[int, Ranks]:
        """New ranks after a round's evaluation."""
        if self.promotion is None or completed != self.promotion.round:
            return {}
        return dict.fromkeys(self.promotion.chosen(results), self.promotion.rank)


def rank_plan(cfg: Any, modules: Sequence[str]) -> RankPlan | None:
    """The plan that a configuration asks for, ``None`` where everybody has the same rank.

    Parameters
    ----------
    cfg : CN
        Reads ``llm.adapter.client_ranks``, ``llm.adapter.promotion``, ``federate.client_num``,
        ``seed``.
    modules : sequence of str
        Names of the LoRA modules.

    Raises
    ------
    ExtensionError
        A wrong number of ranks, a rank that is no positive integer or above `MOST_RANK`, an
        unknown mix or type, a file that cannot be read.
    """
    if cfg.federate.method.lower() == "global":
        # One worker with everybody's rows, at the rank of llm.adapter.args.
        return None
    given = cfg.llm.adapter.get("client_ranks", [])
    promotion = _promotion(cfg)
    if not given:
        return RankPlan({}, promotion) if promotion else None
    count = cfg.federate.client_num
    entries = _from_name(given, count, cfg.seed) if isinstance(given, str) else list(given)
    if entries is None:
        return None
    if isinstance(entries, list):
        if len(entries) != count:
            raise ExtensionError(
                FIELD,
                given,
                f"{len(entries)} ranks for {count} clients",
                f"Write one rank for each of the {count} clients, or the name of a mix: "
                f"{', '.join(MIXES)}",
            )
        entries = dict(enumerate(entries, 1))
    _check_clients(entries, count)
    return RankPlan({k: _ranks(entry, modules, k) for k, entry in entries.items()}, promotion)


def _promotion(cfg: Any) -> Promotion | None:
    section = cfg.llm.adapter.get("promotion", {})
    rank = section.get("rank", 0)
    if not rank:
        return None
    for name, good in (
        ("rank", 0 < rank <= MOST_RANK),
        ("share", 0.0 < section["share"] <= 1.0),
        ("round", 1 <= section["round"] < cfg.federate.total_round_num),
    ):
        if not good:
            raise ExtensionError(
                f"llm.adapter.promotion.{name}",
                section[name],
                "out of range",
                f"rank is 1 to {MOST_RANK}, share above 0 and at most 1, round before the last one",
            )
    _check_promotion(cfg, section)
    if section["round"] % cfg.eval.freq:
        raise ExtensionError(
            "llm.adapter.promotion.round",
            section["round"],
            f"clients are evaluated every {cfg.eval.freq} rounds (eval.freq), not after this one",
            "Write a multiple of eval.freq, or eval.freq: 1",
        )
    return Promotion(int(rank), float(section["share"]), section["round"], section["metric"])


def _check_promotion(cfg: Any, section: Any) -> None:
    """Is every client that trains evaluated after the aggregation, with the deciding metric?"""
    field = "llm.adapter.promotion.rank"
    method = cfg.federate.method.lower()
    for hinders, problem, remedy in (
        (method in ("local", "global"), f"{method} sends nothing", "another federate.method"),
        (
            cfg.federate.make_global_eval,
            "the server is evaluated, not the clients",
            "federate.make_global_eval: False",
        ),
        (
            "after" not in cfg.eval.get("phases", ["after"]),
            "clients are not evaluated after the aggregation",
            "eval.phases: ['after']",
        ),
        (
            cfg.eval.get("clients", "all") == "unseen",
            "only clients that never train are evaluated",
            "eval.clients: all",
        ),
    ):
        if hinders:
            raise ExtensionError(
                field, section["rank"], f"{problem}, so nobody could be promoted", f"Write {remedy}"
            )
    split, _, name = section["metric"].partition("_")
    known = ["avg_loss", "loss", *map(str, cfg.eval.metrics)]
    if split not in cfg.eval.split or name not in known:
        first = cfg.eval.split[0]
        raise ExtensionError(
            "llm.adapter.promotion.metric",
            section["metric"],
            "no evaluation gives this figure",
            f"Write one of {', '.join(f'{first}_{one}' for one in known)}",
        )


def _from_name(name: str, count: int, seed: int) -> list[Any] | dict[int, Any] | None:
    """Entries of a mix or of a file; ``None`` for a name that another plan may know."""
    if name.lower() in MIXES:
        return [TYPES[kind] for kind in draw_types(MIXES[name.lower()], count, seed)]
    if name.endswith((".json", ".yaml", ".yml")):
        return read_rank_file(Path(name).expanduser())
    if list(register.ranks_dict)[-1] != NAME:
        return None
    raise ExtensionError(
        FIELD,
        name,
        "neither a mix nor a file",
        f"Write a list of ranks, one of {', '.join(MIXES)}, or a .yaml or .json file",
    )


def draw_types(shares: Sequence[float], count: int, seed: int) -> list[str]:
    """Types of ``count`` clients: the shares by largest remainder, in an order that is drawn."""
    exact = [share * count for share in shares]
    numbers = [math.floor(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: (numbers[i] - exact[i], i))
    for index in by_remainder[: count - sum(numbers)]:
        numbers[index] += 1
    kinds = [kind for kind, number in zip(TYPES, numbers, strict=True) for _ in range(number)]
    random.Random(f"client ranks {seed}").shuffle(kinds)
    return kinds


def _check_clients(entries: Iterable[int], count: int) -> None:
    for client in entries:
        if not 1 <= client <= count:
            raise ExtensionError(
                FIELD, f"client_{client}", f"there are {count} clients", f"Write 1 to {count}"
            )


def _ranks(entry: Any, modules: Sequence[str], client: int) -> Ranks:
    """One rank, or one for each module, of an entry."""
    if isinstance(entry, str) and entry in TYPES:
        entry = TYPES[entry]
    _check_sizes(entry, client)
    if _is_rank(entry):
        rank: int = entry
        return rank
    if isinstance(entry, Mapping) and entry and all(_is_rank(value) for value in entry.values()):
        _check_patterns(entry, modules, client)
        return {m: r for m in modules if (r := _of_module(entry, m)) is not None}
    raise ExtensionError(
        FIELD,
        entry,
        f"no rank for client {client}",
        "Write a positive integer, a type (type_1 to type_4), or a mapping such as "
        "{attention: 8, ffn: 30} or of module names to ranks",
    )


def _check_sizes(entry: Any, client: int) -> None:
    """No rank above `MOST_RANK`; one above the sides of a small layer is allowed."""
    for rank in entry.values() if isinstance(entry, Mapping) else [entry]:
        if _is_rank(rank) and rank > MOST_RANK:
            raise ExtensionError(
                FIELD,
                entry,
                f"client {client}: the rank is too large",
                f"Write at most {MOST_RANK}",
            )


def _check_patterns(entry: Mapping[str, int], modules: Sequence[str], client: int) -> None:
    used = [p for p in entry if any(_of_module({p: 1}, m) for m in modules)]
    for pattern in entry:
        # A group may be empty (attention only) beside one that is not.
        if pattern not in used and (pattern not in GROUPS or not used):
            last = sorted({module.rsplit(".", 1)[-1] for module in modules})
            raise ExtensionError(
                FIELD,
                dict(entry),
                f"client {client}: no LoRA module is called {pattern!r}",
                f"Write attention, ffn, or a name: {', '.join(last)}",
            )


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _of_module(entry: Mapping[str, int], module: str) -> int | None:
    """The rank of a module: by its name's end first, then by its group; ``None`` if neither."""
    by_name = {pattern: rank for pattern, rank in entry.items() if pattern not in GROUPS}
    found: int | None = matched(by_name, module, entry.get(group_of(module)))
    return found


# FederatedScope itself has no such hook: everybody has one rank there.
_register_ranks = getattr(register, "register_ranks", None)
if _register_ranks is not None:
    _register_ranks(NAME, rank_plan)

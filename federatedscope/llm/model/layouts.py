"""Rank and scale of every LoRA module, for each participant.

A module computes ``W0 x + s B A x`` with A of shape ``(r, d_in)`` and B ``(d_out, r)``. Ranks may
differ between clients and between modules. The server holds every module at the largest rank that
occurs; what a client of rank r is sent are the first r rows of A and the first r columns of B, B
times ``s_server / s_client`` so that both apply the same update.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_FACTOR = re.compile(
    r"(?P<module>.+)\.lora_(?:embedding_)?(?P<factor>[AB])\.(?P<adapter>[^.]+)(?:\.weight)?"
)
# What get_peft_model puts before the base model's own names.
_PREFIX = "base_model.model."

#: ``llm.adapter.scale_rule``
SCALE_RULES = ("auto", "alpha", "proportional", "rslora")


@dataclass(frozen=True, eq=False)
class AdapterLayout:
    """Rank and scale of every LoRA module of one participant; compared by identity.

    Parameters
    ----------
    ranks : mapping of str to int
        Module name (as in parameter names) to r.
    scales : mapping of str to float
        Module name to s.
    """

    ranks: Mapping[str, int]
    scales: Mapping[str, float]

    def same_as(self, other: AdapterLayout) -> bool:
        """Whether ranks and scales are equal."""
        return dict(self.ranks) == dict(other.ranks) and dict(self.scales) == dict(other.scales)

    @property
    def distinct_ranks(self) -> list[int]:
        """The ranks that occur, in order."""
        return sorted(set(self.ranks.values()))


def factor_of(name: str) -> tuple[str, str] | None:
    """``(module, 'A' or 'B')`` of a parameter name, ``None`` for all that is no LoRA factor."""
    match = _FACTOR.fullmatch(name)
    return (match["module"], match["factor"]) if match else None


def lora_modules(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """``(name, module)`` of PEFT's LoRA layers, in the model's order."""
    for name, module in model.named_modules():
        if isinstance(getattr(module, "scaling", None), dict) and getattr(module, "r", None):
            yield name, module


def layout_of_model(model: nn.Module) -> AdapterLayout:
    """The layout that a model has now; empty without LoRA layers."""
    ranks, scales = {}, {}
    for name, module in lora_modules(model):
        adapter = next(iter(module.r))
        ranks[name], scales[name] = int(module.r[adapter]), float(module.scaling[adapter])
    return AdapterLayout(ranks, scales)


def scale(rule: str, alpha: float, rank: int, base_rank: int, rslora: bool = False) -> float:
    """The scale of a module under ``llm.adapter.scale_rule``.

    Parameters
    ----------
    rule : str
        ``alpha``: ``alpha / r``. ``rslora``: ``alpha / sqrt(r)`` (Kalajdzievski 2023, arXiv
        2312.03732). ``proportional``: alpha is that of the run's own rank and grows with r, so the
        scale is ``alpha / base_rank`` at every rank. ``auto``: ``rslora`` with PEFT's
        ``use_rslora``, else ``alpha``.
    alpha : float
        ``lora_alpha``.
    rank, base_rank : int
        Of the participant, and of ``llm.adapter.args`` for the whole run.
    rslora : bool
        ``use_rslora``.
    """
    if rule == "proportional":
        return alpha / (math.sqrt(base_rank) if rslora else base_rank)
    if rule == "rslora" or (rule == "auto" and rslora):
        return alpha / math.sqrt(rank)
    return alpha / rank


def layout_for(
    modules: Iterable[str],
    arguments: Mapping[str, Any],
    base: Mapping[str, Any],
    rule: str,
    ranks: int | Mapping[str, int] | None = None,
) -> AdapterLayout:
    """The layout that adapter arguments ask for.

    Parameters
    ----------
    modules : iterable of str
        Names of the LoRA modules.
    arguments : mapping
        Fields of ``peft.LoraConfig``: ``r``, ``lora_alpha``, ``use_rslora``, ``rank_pattern``,
        ``alpha_pattern``.
    base : mapping
        The run's own arguments, against which ``proportional`` counts.
    rule : str
        See :func:`scale`.
    ranks : int or mapping, optional
        One rank, or one for each module, in place of those of ``arguments``.
    """
    out: dict[str, int] = {}
    scales: dict[str, float] = {}
    for module in modules:
        own = _matched(arguments, "rank_pattern", module, int(arguments.get("r", 8)))
        if isinstance(ranks, Mapping):
            own = ranks.get(module, own)
        elif ranks is not None:
            own = ranks
        alpha = _matched(arguments, "alpha_pattern", module, arguments.get("lora_alpha", 8))
        at_base = _matched(base, "rank_pattern", module, int(base.get("r", 8)))
        rslora = bool(arguments.get("use_rslora", False))
        out[module] = int(own)
        scales[module] = scale(rule, float(alpha), int(own), int(at_base), rslora)
    return AdapterLayout(out, scales)


def _matched(arguments: Mapping[str, Any], field: str, module: str, default: Any) -> Any:
    """PEFT's rule: the first pattern that matches the end of the module's name."""
    name = module.removeprefix(_PREFIX)
    for pattern, value in (arguments.get(field) or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return default


class Layouts:
    """Every participant's layout; ranks may change while a run goes on.

    Parameters
    ----------
    server : AdapterLayout
        Every module at the largest rank that can occur.
    clients : mapping of int to AdapterLayout
        By client ID.
    make : callable, optional
        ``f(ranks, client)``: the layout of a client at a rank, or a rank for each module, under
        the run's scale rule.
    revise : callable, optional
        ``f(round, {client: metrics}) -> {client: ranks}``: who gets other ranks after a round's
        evaluation.
    """

    def __init__(
        self,
        server: AdapterLayout,
        clients: Mapping[int, AdapterLayout],
        make: Callable[..., AdapterLayout] | None = None,
        revise: Callable[..., Mapping[int, Any]] | None = None,
    ) -> None:
        self.server = server
        self.make = make
        self.revise = revise
        self._clients: dict[int, AdapterLayout] = {}
        self._known = [server]
        for client, layout in clients.items():
            self.set(client, layout)

    def copy(self) -> Layouts:
        """A book of one's own: the server's says what it was told, a client's what it has."""
        return Layouts(self.server, self._clients, self.make, self.revise)

    def of(self, participant: int) -> AdapterLayout:
        """The layout of a client, or of the server (0)."""
        return self._clients.get(participant, self.server)

    def set(self, client: int, layout: AdapterLayout) -> AdapterLayout:
        """Give a client another layout; returns the one that is kept, shared with its equals.

        Raises
        ------
        ValueError
            A rank above the server's.
        """
        if not any(layout is other for other in self._known):
            for module, rank in layout.ranks.items():
                if rank > self.server.ranks[module]:
                    raise ValueError(
                        f"rank {rank} of client {client} in {module} is above the server's "
                        f"{self.server.ranks[module]}"
                    )
            same = (other for other in self._known if other.same_as(layout))
            layout = next(same, layout)
            if not any(layout is other for other in self._known):
                self._known.append(layout)
        self._clients[client] = layout
        return layout

    @property
    def distinct(self) -> list[AdapterLayout]:
        """The clients' different layouts."""
        return list({id(layout): layout for layout in self._clients.values()}.values())

    @property
    def vary(self) -> bool:
        """Whether ranks or scales differ between participants, or may come to."""
        return self.revise is not None or not self.uniform

    @property
    def uniform(self) -> bool:
        """Whether everybody has the server's ranks and scales, so that nothing is sliced."""
        return all(layout is self.server for layout in self._clients.values())

    def ranks_of_modules(self) -> dict[str, list[int]]:
        """The distinct ranks that clients have in each module, in order."""
        layouts = self.distinct or [self.server]
        return {m: sorted({lay.ranks[m] for lay in layouts}) for m in self.server.ranks}


def fit(tensor: Tensor, name: str, source: AdapterLayout, target: AdapterLayout) -> Tensor:
    """A tensor as a participant of another layout holds it; others than LoRA factors unchanged.

    Parameters
    ----------
    tensor : Tensor
        A of ``(r, d_in, ...)`` or B of ``(d_out, r, ...)`` by its name.
    name : str
        Parameter name.
    source, target : AdapterLayout
        Whose it is, and who is to have it; the target's rank is at most the source's.

    Returns
    -------
    Tensor
        A view where nothing has to be multiplied.
    """
    found = factor_of(name)
    if found is None or found[0] not in target.ranks:
        return tensor
    module, factor = found
    rank = target.ranks[module]
    if factor == "A":
        return tensor[:rank]
    ratio = source.scales[module] / target.scales[module]
    return tensor[:, :rank] if ratio == 1.0 else tensor[:, :rank] * ratio


def size_at(name: str, shape: torch.Size, source: AdapterLayout, target: AdapterLayout) -> int:
    """Numbers in a tensor of ``shape`` once it is :func:`fit` to the target."""
    found = factor_of(name)
    if found is None or found[0] not in target.ranks:
        return shape.numel()
    return shape.numel() // source.ranks[found[0]] * target.ranks[found[0]]


def apply_layout(modules: Iterable[tuple[str, Any]], layout: AdapterLayout) -> None:
    """Write a participant's ranks and scales into PEFT's layers (see :func:`lora_modules`)."""
    for name, module in modules:
        if name not in layout.ranks:
            continue
        for adapter in module.r:
            module.r[adapter] = layout.ranks[name]
            module.scaling[adapter] = layout.scales[name]


def resize(
    model: nn.Module,
    source: AdapterLayout,
    target: AdapterLayout,
    generator: torch.Generator,
) -> None:
    """Change the ranks of the active participant's own tensors, in the model.

    Rows that are added to A are random like PEFT's start (``U(-1, 1) / sqrt(d_in)``), columns that
    are added to B are zero, and B is multiplied by the ratio of the scales: when ranks grow, the
    applied update stays what it was. When they shrink, the last rows and columns go.

    Parameters
    ----------
    model : torch.nn.Module
        With the participant's tensors active.
    source, target : AdapterLayout
        Before and after.
    generator : torch.Generator
        For the new rows of A, on the CPU.
    """
    for name, parameter in model.named_parameters():
        found = factor_of(name)
        if found is None or found[0] not in target.ranks:
            continue
        module, factor = found
        old, new = parameter.shape[0 if factor == "A" else 1], target.ranks[module]
        kept = fit(parameter.data, name, source, target).clone()
        if new > old:
            kept = _grown(kept, factor, new - old, generator)
        parameter.data = kept
        parameter.grad = None
    apply_layout(lora_modules(model), target)


def _grown(kept: Tensor, factor: str, more: int, generator: torch.Generator) -> Tensor:
    if factor == "B":
        columns = kept.new_zeros((kept.shape[0], more, *kept.shape[2:]))
        return torch.cat([kept, columns], dim=1)
    shape = (more, *kept.shape[1:])
    rows = (2.0 * torch.rand(shape, generator=generator) - 1.0) / math.sqrt(kept[0].numel())
    return torch.cat([kept, rows.to(kept)], dim=0)

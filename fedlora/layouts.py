"""Rank and scale of every LoRA module, for each participant.

A module computes ``W0 x + s B A x`` with A of shape ``(r, d_in)`` and B ``(d_out, r)``. Ranks may
differ between clients and between modules. The server holds every module at the largest rank that
occurs; what a client of rank r is sent are the first r rows of A and the first r columns of B, B
times ``s_server / s_client`` so that both apply the same update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedlora.names import factor_of
from fedlora.scales import configured_rank, scale_at


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

    def to_json(self) -> dict[str, dict[str, Any]]:
        """As plain dicts, for messages; ``AdapterLayout(**content)`` reads them."""
        return {"ranks": dict(self.ranks), "scales": dict(self.scales)}

    @property
    def distinct_ranks(self) -> list[int]:
        """The ranks that occur, in order."""
        return sorted(set(self.ranks.values()))


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
        See :func:`fedlora.scales.scale_at`.
    ranks : int or mapping, optional
        One rank, or one for each module, in place of those of ``arguments``.
    """
    out: dict[str, int] = {}
    for module in modules:
        own = configured_rank(arguments, module)
        if isinstance(ranks, Mapping):
            own = ranks.get(module, own)
        elif ranks is not None:
            own = ranks
        out[module] = int(own)
    scales = {m: scale_at(arguments, m, rank, rule, base) for m, rank in out.items()}
    return AdapterLayout(out, scales)


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
        self._changes: dict[int, tuple[int, ...]] = {}
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

    def change(self, client: int, layout: AdapterLayout) -> bool:
        """Give a client another layout while the run goes on; whether it is another one."""
        before = self.of(client)
        now = self.set(client, layout)
        if now is before:
            return False
        self._changes[client] = tuple(now.distinct_ranks)
        return True

    def take_changes(self) -> dict[int, tuple[int, ...]]:
        """The distinct ranks of the clients whose layout has changed since the last call."""
        taken, self._changes = self._changes, {}
        return taken

    def revised(
        self, rnd: int, results: Mapping[int, Mapping[str, float]]
    ) -> dict[int, AdapterLayout]:
        """Who gets which layout after a round's evaluation; only those that change.

        Parameters
        ----------
        rnd : int
            Rounds completed.
        results : mapping of int to mapping
            Metrics by client.
        """
        if self.revise is None or self.make is None:
            return {}
        changed = {}
        for client, ranks in self.revise(rnd, results).items():
            now = self.of(client).ranks
            wanted = ranks if isinstance(ranks, Mapping) else dict.fromkeys(now, ranks)
            # Nobody loses rows that were trained.
            layout = self.make({m: max(r, wanted.get(m, r)) for m, r in now.items()}, client)
            if dict(layout.ranks) != dict(now):
                changed[client] = layout
        return changed

    def state_dict(self) -> dict[str, Any]:
        """The clients' layouts, each different one once, and what has changed."""
        distinct = self.distinct
        places = {id(layout): place for place, layout in enumerate(distinct)}
        return {
            "layouts": [layout.to_json() for layout in distinct],
            "clients": {client: places[id(lay)] for client, lay in self._clients.items()},
            "changes": dict(self._changes),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`state_dict` of a run with the same server layout."""
        layouts = [AdapterLayout(**content) for content in state["layouts"]]
        for client, place in state["clients"].items():
            self.set(int(client), layouts[place])
        self._changes = {int(k): tuple(ranks) for k, ranks in state["changes"].items()}

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


class Slices:
    """One state as the participants of a run hold it.

    Of LoRA factors a client has the first rows and columns of its rank; participants of one layout
    get the same object.

    Parameters
    ----------
    state : mapping of str to Tensor
        At the server's layout.
    layouts : Layouts, optional
        Without them everybody gets the state itself.
    """

    def __init__(self, state: Mapping[str, Tensor], layouts: Layouts | None = None) -> None:
        self.state = state
        self.layouts = layouts
        self._made: dict[int, dict[str, Tensor]] = {}

    def of(self, participant: int) -> Mapping[str, Tensor]:
        """The state of a client, or of the server (0)."""
        if self.layouts is None:
            return self.state
        server, own = self.layouts.server, self.layouts.of(participant)
        if own is server:
            return self.state
        if id(own) not in self._made:
            self._made[id(own)] = {
                name: fit(tensor, name, server, own).contiguous()
                for name, tensor in self.state.items()
            }
        return self._made[id(own)]

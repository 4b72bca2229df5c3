"""What a method is: the arithmetic of one LoRA module in one round.

:class:`~federatedscope_ext.aggregators.rule.LoraRule` reads, checks, brings scales in and out and
writes names; a method says in a :class:`ModuleRule` what happens to one module's factors, which it
sees in canonical form (scale 1: B stands for ``s B``).
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedlora.errors import AggregationError
from fedlora.means import RowMeans
from fedlora.names import factor_names
from fedlora.pairs import Factors, LoraPair
from fedlora.svd import UpdateSum

__all__ = ["ModuleRule", "Options", "Round", "Target", "named_stream"]


def named_stream(name: str) -> torch.Generator:
    """The random stream of a name, the same on every machine."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


@dataclass(frozen=True)
class Options:
    """How a run computes.

    Parameters
    ----------
    device : torch.device
        Where.
    dtype : torch.dtype
        Precision of sums of applied updates and of their SVD.
    path : str
        ``auto``, ``stacked`` or ``dense``, see :mod:`federatedscope_ext.adapters.svd`.
    seed : int
        Names the stream of fresh rows.
    diagnose : bool
        Whether diagnostics are wanted.
    scale : callable
        ``f(module, rank)``: the configured scale.
    setting : callable
        ``f(dotted key, default)``: a method's own keys of the configuration.
    """

    device: torch.device
    dtype: torch.dtype
    path: str
    seed: int
    diagnose: bool
    scale: Callable[[str, int], float]
    setting: Callable[[str, Any], Any]


@dataclass
class Round:
    """What the server says about a round; all of it optional.

    Parameters
    ----------
    current : mapping of str to Tensor
        The server's state before the round.
    scales : mapping
        Client ID -> module -> ``s``.
    server_scales : mapping
        Module -> ``s`` of the server.
    ranks : mapping
        Module -> distinct ranks of all clients of the run.
    number : int or None
        The round, counted from 0.
    evaluated : bool
        Whether anybody looks at this round's figures.
    """

    current: Mapping[str, Tensor] = field(default_factory=dict)
    scales: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    server_scales: Mapping[str, float] = field(default_factory=dict)
    ranks: Mapping[str, Any] = field(default_factory=dict)
    number: int | None = None
    evaluated: bool = True
    names: dict[str, dict[str, str]] = field(default_factory=dict, init=False)

    def update(self, agg_info: Mapping[str, Any]) -> None:
        """Take over what ``agg_info`` has."""
        for key in ("current", "scales", "server_scales", "ranks"):
            if agg_info.get(key) is not None:
                setattr(self, key, agg_info[key])
        if agg_info.get("round") is not None:
            self.number = int(agg_info["round"])
        self.evaluated = bool(agg_info.get("evaluated", self.evaluated))
        if agg_info.get("current") is not None:
            self.names = factor_names(self.current)


@dataclass(frozen=True)
class Target:
    """One target module (PEFT's word for one with an adapter) in one round, at the server.

    Parameters
    ----------
    module : str
        Its name.
    round : Round
        The round, shared by all modules.
    options : Options
        How to compute.
    """

    module: str
    round: Round
    options: Options

    def current(self) -> Factors | None:
        """The server's factors before the round, with its scale; ``None`` where it has none."""
        names = self.round.names.get(self.module)
        if names is None:
            return None
        state = self.round.current
        a, b = (state[names[f]].detach() if f in names else None for f in "AB")
        rank = Factors(a, b, 1.0).rank
        return Factors(a, b, self.server_scale(rank))

    def server_scale(self, rank: int) -> float:
        """``s`` of the server at its rank.

        Raises
        ------
        AggregationError
            It is zero: nothing could be written.
        """
        given = self.round.server_scales.get(self.module)
        scale = float(self.options.scale(self.module, rank) if given is None else given)
        if scale == 0:
            raise AggregationError(
                f"The scale of {self.module} is 0 at the server, so that no applied update can be "
                "written to it. Set lora_alpha above zero in llm.adapter.args."
            )
        return scale

    def generator(self) -> torch.Generator:
        """A random stream named by seed, round and module, the same on every machine."""
        return named_stream(f"{self.options.seed}/{self.round.number}/{self.module}")

    def fresh_rows(self, rows: int, d_in: int) -> Tensor:
        """New rows of A as PEFT starts them, ``U(-1 / sqrt(d_in), 1 / sqrt(d_in))``."""
        drawn = torch.rand(rows, d_in, generator=self.generator(), dtype=torch.float64)
        return ((2 * drawn - 1) / d_in**0.5).to(self.options.device)


class ModuleRule(ABC):
    """A method's arithmetic on one module.

    Subclasses write :meth:`result`, and :meth:`add` where the sums kept here are not enough.

    Attributes
    ----------
    means : RowMeans
        Weighted sums of the rows that were sent, weights ``w_k``, where the method or the
        diagnostics need them.
    exact : UpdateSum or None
        ``W = sum_k p_k s_k B_k A_k``, where the method or the diagnostics need it; the weights
        are normalised when :meth:`result` is called.
    """

    #: whether both factors must be known, from the upload or from the server's state
    needs_pairs: ClassVar[bool] = False
    #: whether :attr:`means` are needed for the result
    needs_means: ClassVar[bool] = False
    #: whether :attr:`exact` is needed for the result
    needs_exact: ClassVar[bool] = False
    #: whether both factors are written, also one that was not sent
    writes_both: ClassVar[bool] = False

    def __init__(self, target: Target) -> None:
        self.target = target
        self.total = 0.0
        self.ranks: set[int] = set()
        self.means = RowMeans(target.options.device)
        self.exact: UpdateSum | None = None
        self._waiting: list[tuple[float, Factors]] = []

    def take(self, weight: float, factors: Factors) -> None:
        """Take one client's factors in; a weight of zero leaves it out."""
        if weight == 0:
            return
        self.total += weight
        self.ranks.add(factors.rank)
        if self.needs_means or self.target.options.diagnose:
            self.means.add(weight, factors)
        pair = factors.completed(self.target.current())
        if pair is None:
            self._waiting.append((weight, factors))
        else:
            self._add_pair(weight, pair)

    def add(self, weight: float, pair: LoraPair) -> None:
        """Take one client's pair in, with its own scale; the weight is not normalised.

        A hook: nothing here, since :attr:`means` and :attr:`exact` have it already.
        """
        return

    @abstractmethod
    def result(self) -> Factors:
        """The new factors in canonical form (scale 1), after all clients were taken in.

        Of any rank up to the server's: its rows beyond stay what they were.
        """

    def remainder(self, written: LoraPair) -> LoraPair | None:
        """What goes into the frozen weight, given what was written to the server's state."""
        return None

    def finish(self) -> Factors:
        """Resolve what waited for the server's state, normalise, and compute."""
        if self.total <= 0:
            raise AggregationError(
                f"No client with a sample size above zero sent {self.target.module}. Set "
                "aggregator.weights to 'uniform', or leave clients without rows out."
            )
        if max(self.ranks) > self.rank:
            raise AggregationError(
                f"{self.target.module} came with rank {max(self.ranks)}, and the server holds rank "
                f"{self.rank}. The server's rank must be the largest of all clients."
            )
        waiting, self._waiting = self._waiting, []
        for weight, factors in waiting:
            pair = factors.completed(self.target.current())
            if pair is not None:
                self._add_pair(weight, pair)
            elif self.needs_pairs or self.needs_exact:
                lacking = "B" if factors.B is None else "A"
                raise AggregationError(
                    f"{self.target.module} came without {lacking}, and the server's state does not "
                    "hold it either. This method combines the products B A: share both factors "
                    "(personalization.local_param: []), or use fedsa, ffa or replication_pad."
                )
            else:
                self.exact = None
        if self.exact is not None:
            self.exact.scale_by(1.0 / self.total)
        return self.result()

    @property
    def rank(self) -> int:
        """The server's rank; without its state the largest of the uploads."""
        current = self.target.current()
        return max(self.ranks) if current is None else current.rank

    def exact_sum(self) -> UpdateSum:
        """:attr:`exact`, for methods that need it."""
        if self.exact is None:
            raise AggregationError(f"{self.target.module} came from no client.")
        return self.exact

    def _add_pair(self, weight: float, pair: LoraPair) -> None:
        if self.needs_exact or self.target.options.diagnose:
            if self.exact is None:
                options = self.target.options
                sides = pair.B.shape[0], pair.A.shape[1]
                self.exact = UpdateSum(*sides, options.dtype, options.device, options.path)
            self.exact.add(weight, pair)
        self.add(weight, pair)

"""The frame of every server rule for LoRA adapters of equal or unequal rank.

A round is :meth:`LoraRule.reset`, :meth:`LoraRule.inc` per upload, :meth:`LoraRule.aggregate`; or
:meth:`LoraRule.aggregate` alone with all uploads, which works module by module and so needs the
workspace of one module only. Tensors that are no LoRA factors take the weighted mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from federatedscope_ext.aggregators.diagnostics import module_findings, summarise
from federatedscope_ext.aggregators.module import ModuleRule, Options, Round, Target
from fedlora.means import RunningMean
from fedlora.names import factor_names
from fedlora.pairs import Factors, LoraPair
from fedlora.scales import scale_at
from fedlora.uploads import Intake, client_ids, factors_of, normalised_weights

__all__ = ["LoraRule"]


@dataclass(frozen=True)
class Taken:
    """What a rule makes of one upload: its weight, not normalised, and its factors by module."""

    client_id: int
    weight: float
    factors: dict[str, Factors]


class LoraRule:
    """A server rule; methods set :attr:`module_rule`.

    Parameters
    ----------
    config : CN or None
        The run's configuration. Read: ``federate.ignore_weight``, ``aggregator.weights``,
        ``aggregator.diagnostics``, ``llm.adapter.args``, ``llm.adapter.scale_rule``, ``seed``,
        ``flexlora.dtype`` (``float64``), ``flexlora.path`` (``auto``) and a method's own keys.
        Without it all scales that are not given are 1.
    device : str or torch.device
        Where to compute; results are on it. Devices without float64 (MPS) leave it to the CPU.
    model : torch.nn.Module, optional
        The server's model; kept for those who look for it, not used.

    Attributes
    ----------
    diagnose : bool
        Whether :attr:`diagnostics` are taken (``aggregator.diagnostics``), in rounds for which
        ``agg_info`` does not say otherwise. They need W of every module: uploads are then kept
        until the round ends, and every module costs an SVD of its core.
    base_update : dict of str to LoraPair
        After :meth:`aggregate`: what is to be added to the frozen weight of a module; empty for
        most methods.
    diagnostics : dict
        After :meth:`aggregate`: see :mod:`federatedscope_ext.aggregators.diagnostics`.
    """

    module_rule: ClassVar[type[ModuleRule]]

    def __init__(
        self,
        config: Any = None,
        device: str | torch.device | None = "cpu",
        model: torch.nn.Module | None = None,
    ) -> None:
        self.model = model
        self.cfg = config
        wanted = torch.device("cpu" if device is None else device)
        self.device = torch.device("cpu") if wanted.type == "mps" else wanted
        self.diagnose = bool(self.setting("aggregator.diagnostics", True))
        self.base_update: dict[str, LoraPair] = {}
        self.diagnostics: dict[str, Any] = {}
        self.reset()

    def reset(self, agg_info: Mapping[str, Any] | None = None) -> None:
        """Start a round.

        Parameters
        ----------
        agg_info : mapping, optional
            Any of ``current`` (the server's state before the round), ``scales``
            (client ID -> module -> s), ``server_scales`` (module -> s), ``ranks``
            (module -> distinct ranks of all clients of the run), ``round`` (from 0), ``evaluated``
            (whether anybody looks at this round: ``False`` takes no diagnostics).
            They may also come with :meth:`aggregate`.
        """
        self._round = Round()
        self._round.update(agg_info or {})
        self._intake = Intake(free_ranks=True)
        self._names: dict[str, dict[str, str]] = {}
        self._streams: dict[str, ModuleRule] = {}
        self._dtypes: dict[str, torch.dtype] = {}
        self._others = RunningMean(self.device)
        self._options = self._read_options()

    def inc(
        self,
        content: tuple[float, Mapping[str, Tensor]],
        client_id: int | None = None,
        scales: Mapping[str, float] | None = None,
    ) -> None:
        """Take one upload in. Its tensors are copied where the method keeps them.

        Parameters
        ----------
        content : tuple
            ``(sample_size, state_dict)``.
        client_id : int, optional
            Who sent it; counted from 1 when not given.
        scales : mapping of str to float, optional
            The client's scales by module; the configured ones for its ranks when not given.

        Raises
        ------
        AggregationError
            An ID twice, other names or shapes than the uploads before, values that are not
            finite, a negative sample size.
        """
        taken = self._take(content, client_id, scales)
        for module, factors in taken.factors.items():
            stream = self._streams.get(module)
            if stream is None:
                stream = self._streams[module] = self._module_rule(module)
            stream.take(taken.weight, _copied(factors))

    def aggregate(self, agg_info: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """The server's new state.

        Parameters
        ----------
        agg_info : mapping, optional
            As for :meth:`reset`; with ``client_feedback``, a list of ``(sample_size, state_dict)``,
            and ``staleness``, a list of ``(client_id, staleness)`` in the same order, all of a
            round's uploads at once; without it those that :meth:`inc` took in.

        Returns
        -------
        dict of str to Tensor
            The names that were uploaded (and the other factor where the method rewrites both), at
            the server's rank and scale, in the dtype of the uploads.

        Raises
        ------
        AggregationError
            No upload, weights that add up to zero, or what :meth:`inc` refuses.
        """
        info = dict(agg_info or {})
        feedback = list(info.get("client_feedback") or ())
        if feedback:
            self.reset(info)
            rules: Iterable[ModuleRule] = self._batch(info, feedback)
        else:
            self._round.update(info)
            rules = self._streamed()
        result: dict[str, Tensor] = {}
        base: dict[str, LoraPair] = {}
        findings: list[dict[str, Any]] = []
        self._intake.weights(self.uniform)  # refuses sizes that add up to zero
        for rule in rules:
            written, rest = self._finish(rule, result)
            if rest is not None:
                base[rule.target.module] = rest
            wanted = self.diagnose and self._round.evaluated
            found = module_findings(rule, written, rest) if wanted else None
            findings += [] if found is None else [found]
        result |= self._others.result()
        self._streams, self._others = {}, RunningMean(self.device)
        self.base_update = base
        self.diagnostics = summarise(findings)
        return result

    def weights(self, agg_info: Mapping[str, Any] | None = None) -> dict[int, float]:
        """The weight ``p_k`` of each client ID; they add up to 1.

        Parameters
        ----------
        agg_info : mapping, optional
            With ``client_feedback``: the weights of those uploads. Otherwise those of the uploads
            since :meth:`reset`.

        Raises
        ------
        AggregationError
            All sample sizes are zero, or there was no upload.
        """
        feedback = (agg_info or {}).get("client_feedback")
        if agg_info is None or not feedback:
            return self._intake.weights(self.uniform)
        ids = client_ids(agg_info)
        sizes = {k: float(content[0]) for k, content in zip(ids, feedback, strict=True)}
        return normalised_weights(sizes, self.uniform)

    @property
    def uniform(self) -> bool:
        """Whether all clients weigh the same, whatever their sample sizes."""
        return bool(self.setting("federate.ignore_weight", False)) or (
            self.setting("aggregator.weights", "rows") == "uniform"
        )

    def setting(self, key: str, default: Any) -> Any:
        """A key of the configuration, ``default`` where there is none."""
        node: Any = self.cfg
        for part in key.split("."):
            node = node.get(part) if hasattr(node, "get") else getattr(node, part, None)
            if node is None:
                return default
        return node

    def _read_options(self) -> Options:
        arguments = self.setting("llm.adapter.args", None) or [{}]
        scale_rule = str(self.setting("llm.adapter.scale_rule", "auto"))
        dtype = str(self.setting("flexlora.dtype", "float64"))

        def scale(module: str, rank: int) -> float:
            if self.cfg is None:
                return 1.0
            return scale_at(arguments[0], module, rank, scale_rule)

        return Options(
            device=self.device,
            dtype=torch.float32 if dtype == "float32" else torch.float64,
            path=str(self.setting("flexlora.path", "auto")),
            seed=int(self.setting("seed", 0)),
            diagnose=self.diagnose,
            scale=scale,
            setting=self.setting,
        )

    def _take(
        self, content: Any, client_id: int | None, scales: Mapping[str, float] | None
    ) -> Taken:
        """Read an upload, average what is no LoRA factor in it, and hand the factors on."""
        upload = self._intake.take(content, client_id)
        given = self._round.scales.get(upload.client_id) if scales is None else scales
        factors = factors_of(upload, self._options.scale, given)
        self._names = self._names or factor_names(upload.state)
        used = {name for names in self._names.values() for name in names.values()}
        weight = 1.0 if self.uniform else upload.sample_size
        self._others.add(weight, {n: t for n, t in upload.state.items() if n not in used})
        for module, pair in factors.items():
            for sent in (pair.A, pair.B):
                if sent is not None:
                    known = self._dtypes.get(module, sent.dtype)
                    self._dtypes[module] = torch.promote_types(known, sent.dtype)
        return Taken(upload.client_id, weight, factors)

    def _module_rule(self, module: str) -> ModuleRule:
        options = replace(self._options, diagnose=self.diagnose and self._round.evaluated)
        return self.module_rule(Target(module, self._round, options))

    def _streamed(self) -> Iterable[ModuleRule]:
        while self._streams:
            yield self._streams.pop(next(iter(self._streams)))

    def _batch(self, info: Mapping[str, Any], feedback: list[Any]) -> Iterable[ModuleRule]:
        """Rules of the modules, one after the other, each with all uploads taken in."""
        ids = client_ids(info)
        taken = [self._take(content, k, None) for k, content in zip(ids, feedback, strict=True)]

        def rules() -> Iterable[ModuleRule]:
            for module in taken[0].factors:
                rule = self._module_rule(module)
                for one in taken:
                    rule.take(one.weight, one.factors[module])
                yield rule

        return rules()

    def _finish(
        self, rule: ModuleRule, result: dict[str, Tensor]
    ) -> tuple[LoraPair | None, LoraPair | None]:
        """Compute a module, write its tensors into ``result``; returns its pair and remainder."""
        made, current = rule.finish(), rule.target.current()
        module = rule.target.module
        sent = self._names[module]
        names = {**self._round.names.get(module, {}), **sent} if rule.writes_both else sent
        written = _written(rule, made, current, names, self._dtypes[module])
        for factor, tensor in (("A", written.A), ("B", written.B)):
            if tensor is not None:
                result[names[factor]] = tensor
        pair = written.completed(current)
        rest = None if pair is None else rule.remainder(pair)
        if rest is not None:
            dtype = torch.promote_types(self._dtypes[module], torch.float32)
            rest = LoraPair(rest.A.to(dtype), rest.B.to(dtype), rest.scale)
        return pair, rest


def _written(
    rule: ModuleRule,
    made: Factors,
    current: Factors | None,
    names: Mapping[str, str],
    dtype: torch.dtype,
) -> Factors:
    """The named factors at the server's rank and scale; rows that were not made stay."""
    rank = rule.rank
    scale = rule.target.server_scale(rank)
    a = b = None
    if made.A is not None and "A" in names:
        a = _over(None if current is None else current.A, made.A, rank, dtype)
    if made.B is not None and "B" in names:
        old = None if current is None or current.B is None else current.B.T
        b = _over(old, (made.B / scale).T, rank, dtype).T.contiguous()
    return Factors(a, b, scale)


def _over(old: Tensor | None, rows: Tensor, rank: int, dtype: torch.dtype) -> Tensor:
    """``rows`` as the first of the old ones (of zeros without)."""
    if old is None:
        new = torch.zeros(rank, rows.shape[1], dtype=dtype, device=rows.device)
    else:
        new = old.to(rows.device, dtype, copy=True)
    new[: len(rows)] = rows.to(dtype)
    return new


def _copied(factors: Factors) -> Factors:
    a, b = factors.A, factors.B
    return Factors(
        None if a is None else a.clone(), None if b is None else b.clone(), factors.scale
    )

"""FedRot-LoRA: every client's factors are turned towards the server's before the mean.

``(B R)(R^T A) = B A`` for every orthogonal R, so clients with the same update can hold factors that
cancel in a mean. With the server's pair before the round as reference, cut to the client's rank,
the orthogonal Procrustes problem gives the rotation (determinant 1)::

    M = (s_k B_k)^T s B_ref  (rounds 0, 2, ...),
    M = A_k A_ref^T          (rounds 1, 3, ...),
    R = U D V^T of M = U S V^T,  D = diag(1, ..., 1, det(U V^T)),
    A_k <- R^T A_k,  B_k <- B_k R,

and then the zero-padded mean. Applied updates of single clients do not change. A strength below
one turns less far: R is the orthogonal matrix closest to ``(1 - strength) I + strength R``. In
round 0 the reference B is zero and nothing is turned.

Zhang et al., FedRot-LoRA: Mitigating Rotational Misalignment in Federated LoRA, ICML 2026, arXiv
2602.23638. The authors turn at the client and equal ranks only; where the round or the server's
state is not known, both factors count in M and the first upload of the largest rank is the
reference (our rule).
"""

from __future__ import annotations

import torch
from torch import Tensor

from federatedscope_ext.aggregators.module import ModuleRule, Target
from federatedscope_ext.aggregators.rule import LoraRule
from federatedscope_ext.methods.method import Method, Option, lora
from federatedscope_ext.methods.registry import register_method
from fedlora.means import RowMeans, widen
from fedlora.ops import cut, rotated
from fedlora.pairs import Factors, LoraPair, rank_of

# Directions of which the reference says nothing stay as they are: this much of ||M|| is added to
# its diagonal.
_RIDGE = 1e-8


def procrustes_rotation(correlation: Tensor, strength: float = 1.0) -> Tensor:
    """The rotation R with the largest ``tr(R^T M)``.

    Parameters
    ----------
    correlation : Tensor
        M, shape ``(r, r)``. The identity is the answer for zero.
    strength : float
        From 0, no rotation, to 1.
    """
    eye = torch.eye(len(correlation), dtype=correlation.dtype, device=correlation.device)
    size = float(correlation.norm())
    if size == 0 or strength == 0:
        return eye
    rotation = _closest_rotation(correlation + _RIDGE * size * eye)
    return rotation if strength == 1 else _closest_rotation(eye.lerp(rotation, strength))


def _closest_rotation(matrix: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(matrix)
    if float(torch.linalg.det(u @ vh)) < 0:
        u = torch.cat([u[:, :-1], -u[:, -1:]], dim=1)
    return u @ vh


class FedRotModule(ModuleRule):
    """Zero-padded means of turned factors."""

    needs_pairs = True
    writes_both = True

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.turned = RowMeans(target.options.device)
        self._held: list[tuple[float, LoraPair]] = []

    def add(self, weight: float, pair: LoraPair) -> None:
        """Turn a pair, at once where the reference is known."""
        current = self.target.current()
        reference = None if current is None else current.completed(None)
        if reference is None:
            self._held.append((weight, pair))
        else:
            self._turn(weight, pair, reference)

    def result(self) -> Factors:
        """See the module's formula."""
        if self._held:
            current = self.target.current()
            reference = None if current is None else current.completed(None)
            if reference is None:
                reference = max((pair for _, pair in self._held), key=rank_of)
            for weight, pair in self._held:
                self._turn(weight, pair, reference)
            self._held = []
        return self.turned.over_all()

    def _turn(self, weight: float, pair: LoraPair, reference: LoraPair) -> None:
        own, ref = self._canonical(pair), cut(self._canonical(reference), rank_of(pair))
        own = cut(own, rank_of(ref))
        number = self.target.round.number
        correlation = own.A.new_zeros(rank_of(ref), rank_of(ref))
        if number is None or number % 2 == 1:
            correlation = correlation + own.A @ ref.A.T
        if number is None or number % 2 == 0:
            correlation = correlation + own.B.T @ ref.B
        strength = float(self.target.options.setting("fedrot.strength", 1.0))
        turned = rotated(own, procrustes_rotation(correlation, strength))
        self.turned.add(weight, Factors(turned.A, turned.B, 1.0))

    def _canonical(self, pair: LoraPair) -> LoraPair:
        device = self.target.options.device
        return LoraPair(widen(pair.A, device), widen(pair.B, device) * pair.scale, 1.0)


class FedRot(LoraRule):
    """FedRot-LoRA. Key: ``fedrot.strength`` (1: the full rotation)."""

    module_rule = FedRotModule


FEDROT = register_method(
    Method(
        key="fedrot",
        name="FedRot-LoRA",
        paper="FedRot-LoRA: Mitigating Rotational Misalignment in Federated LoRA, arXiv 2602.23638",
        note="Factors are rotated towards a common reference before their mean.",
        variants=lora("FedRot-LoRA"),
        rule=FedRot,
        combines_products=True,
        options=(
            Option(
                "fedrot",
                "strength",
                1.0,
                "How far FedRot turns factors towards the server's: 0 not at all, 1 all the way.",
                low=0.0,
                high=1.0,
            ),
        ),
    )
)

"""Sums of applied updates, ``W = sum_k w_k s_k B_k A_k``, and their singular value decomposition.

Two ways to the same numbers, with ``m`` the summed rank and ``d`` the layer's smaller side:

stacked
    ``W = L R`` with ``L = [w_k s_k B_k ...]``, shape ``(d_out, m)``, and ``R = [A_k ...]``, shape
    ``(m, d_in)``. Thin QR of both, ``L = Q_L T_L`` and ``R^T = Q_R T_R``, then the SVD of the small
    core ``T_L T_R^T = U S V^T``: ``W = (Q_L U) S (Q_R V)^T``. Exact, and W is never formed.
dense
    Add up W and decompose it. Cheaper once ``m`` reaches about ``d``, and its memory does not
    grow with the number of clients.

:class:`UpdateSum` starts stacked and goes over to dense when the summed rank makes that cheaper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedlora.ops import inner, stacked
from fedlora.pairs import LoraPair, rank_of

__all__ = ["PATHS", "UpdateSum", "dense_cost", "orthonormal_rows", "stacked_cost"]

PATHS = ("auto", "stacked", "dense")
# Operations of an SVD of a square matrix with vectors, per n^3 (Golub and Van Loan, 8.6), and how
# much slower one of them runs than one of a matrix product: LAPACK's bidiagonalisation waits for
# memory. Both ways have it, so the choice depends little on it.
_SVD = 22.0


def stacked_cost(d_out: int, d_in: int, summed_rank: int) -> float:
    """Operations of the stacked way: two thin QR, the SVD of the core."""
    return 2.0 * (d_out + d_in) * summed_rank**2 + _SVD * min(summed_rank, d_out, d_in) ** 3


def dense_cost(d_out: int, d_in: int, summed_rank: int) -> float:
    """Operations of the dense way: the product, a QR of the longer side, the SVD."""
    small, large = sorted((d_out, d_in))
    reduce = 2.0 * large * small**2 if large > small else 0.0
    return 2.0 * d_out * d_in * summed_rank + reduce + _SVD * small**3


class UpdateSum:
    """``W = sum_k w_k s_k B_k A_k`` of one module, one pair at a time.

    Parameters
    ----------
    d_out, d_in : int
        The layer's sides.
    dtype : torch.dtype
        Precision of the arithmetic, float32 or float64.
    device : str or torch.device
        Where to compute.
    path : str
        ``auto``, ``stacked`` or ``dense``.

    Notes
    -----
    While stacked, the tensors that were added are kept as they are, not copied: they must not
    change before the result is read.

    Raises
    ------
    ValueError
        An unknown path or a dtype below float32.
    """

    def __init__(
        self,
        d_out: int,
        d_in: int,
        dtype: torch.dtype = torch.float64,
        device: str | torch.device = "cpu",
        path: str = "auto",
    ) -> None:
        if path not in PATHS:
            raise ValueError(f"{path!r} is no path: {', '.join(PATHS)}")
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"sums are taken in float32 or float64, not in {dtype}")
        self.d_out, self.d_in = d_out, d_in
        self.dtype, self.device, self.path = dtype, torch.device(device), path
        self.summed_rank = 0
        self._pairs: list[LoraPair] = []
        self._weights: list[float] = []
        self._factor = 1.0
        self._dense: Tensor | None = None
        self._parts: _Parts | None = None
        if path == "dense":
            self._go_dense()

    @property
    def is_dense(self) -> bool:
        """Whether W itself is held."""
        return self._dense is not None

    def add(self, weight: float, pair: LoraPair) -> None:
        """Add ``weight * s B A``.

        Raises
        ------
        ValueError
            The pair belongs to a layer of another shape.
        """
        if (pair.B.shape[0], pair.A.shape[1]) != (self.d_out, self.d_in):
            raise ValueError(
                f"a pair of a ({pair.B.shape[0]}, {pair.A.shape[1]}) layer does not fit a sum of "
                f"({self.d_out}, {self.d_in})"
            )
        self._parts = None
        self.summed_rank += rank_of(pair)
        if self._dense is not None:
            self._add_dense(weight / self._factor, pair)
            return
        self._pairs.append(pair)
        self._weights.append(weight / self._factor)
        if self.path == "auto" and self._dense_is_cheaper():
            self._go_dense()

    def scale_by(self, factor: float) -> None:
        """Multiply the sum: ``1 / sum_k w_k`` makes it a mean."""
        self._factor *= factor
        self._parts = None

    def copy(self) -> UpdateSum:
        """A sum to add to, which leaves this one as it is."""
        other = UpdateSum(self.d_out, self.d_in, self.dtype, self.device, self.path)
        other.summed_rank, other._factor = self.summed_rank, self._factor
        other._pairs, other._weights = list(self._pairs), list(self._weights)
        other._dense = None if self._dense is None else self._dense.clone()
        return other

    def dense(self) -> Tensor:
        """W, shape ``(d_out, d_in)``, as a new tensor."""
        if self._dense is not None:
            return self._dense * self._factor
        total = torch.zeros(self.d_out, self.d_in, dtype=self.dtype, device=self.device)
        if self._pairs:
            pair = self._stack()
            torch.mm(pair.B, pair.A, out=total)
        return total

    def svd(self, rank: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The leading singular triples, ``W = U diag(S) Vh``.

        Parameters
        ----------
        rank : int, optional
            How many; all that can differ from zero when not given.

        Returns
        -------
        U : Tensor
            Shape ``(d_out, k)``, orthonormal columns.
        S : Tensor
            Shape ``(k,)``, descending.
        Vh : Tensor
            Shape ``(k, d_in)``, orthonormal rows. The entry of largest magnitude of each row is
            positive, which fixes the signs.

        Notes
        -----
        ``k`` is the smallest of ``rank``, the summed rank and the layer's sides.
        """
        if self._parts is None:
            self._parts = self._decompose()
        parts = self._parts
        count = min(len(parts.s), self.summed_rank, len(parts.s) if rank is None else rank)
        u, s, vh = parts.leading(count)
        if count:
            peak = vh.gather(1, vh.abs().argmax(dim=1, keepdim=True))
            sign = torch.where(peak < 0, -1.0, 1.0).to(self.dtype)
            u, vh = u * sign.T, vh * sign
        return u, s, vh

    def singular_values(self) -> Tensor:
        """The singular values, descending: as many as can differ from zero."""
        if self._parts is not None:
            return self._parts.s[: self.summed_rank]
        if self._dense is not None:
            return torch.linalg.svdvals(self.dense())[: self.summed_rank]
        if not self._pairs:
            return torch.zeros(0, dtype=self.dtype, device=self.device)
        pair = self._stack()
        core = _ThinQr(pair.B).r @ _ThinQr(pair.A.T).r.T
        return torch.linalg.svdvals(core)[: self.summed_rank]

    def tolerance(self) -> float:
        """Singular values up to this are rounding: ``sigma_1 eps sqrt(d)``, d the larger side.

        What rounding does to singular values grows with ``sqrt(d)``. NumPy's ``matrix_rank`` allows
        for the worst case, ``eps d``, which in float32 would take away what clients learned.
        """
        values = self.singular_values()
        largest = float(values[0]) if len(values) else 0.0
        return largest * max(self.d_out, self.d_in) ** 0.5 * torch.finfo(self.dtype).eps

    def pair(self, compress: bool = False, tolerance: float | None = None) -> LoraPair:
        """W as factors of scale 1, exact.

        Parameters
        ----------
        compress : bool
            Reduce to the numerical rank of W by its SVD. Without it the stack itself, or, where
            that is larger than the layer, ``W I`` or ``I W`` of the smaller side's rank.
        tolerance : float, optional
            Singular values up to it are left out by ``compress``; :meth:`tolerance` by default.
        """
        if compress:
            u, s, vh = self.svd()
            kept = int((s > (self.tolerance() if tolerance is None else tolerance)).sum())
            return LoraPair(vh[:kept], u[:, :kept] * s[:kept], 1.0)
        if self._dense is None and 0 < self.summed_rank <= min(self.d_out, self.d_in):
            return self._stack()
        if self.summed_rank == 0:
            nothing = torch.zeros(0, self.d_in, dtype=self.dtype, device=self.device)
            return LoraPair(nothing, nothing.new_zeros(self.d_out, 0), 1.0)
        eye = torch.eye(min(self.d_out, self.d_in), dtype=self.dtype, device=self.device)
        if self.d_out <= self.d_in:
            return LoraPair(self.dense(), eye, 1.0)
        return LoraPair(eye, self.dense(), 1.0)

    def norm(self) -> float:
        """``||W||_F``."""
        return self.distance()

    def distance(self, *pairs: LoraPair) -> float:
        """``||W - sum_i s_i B_i A_i||_F``.

        While stacked it comes from Gram matrices in float64: right to about 1e-8 of the larger of
        both, which is what remains of a difference of squares.
        """
        if self._dense is not None:
            rest = self.dense()
            for pair in pairs:
                rest -= pair.scale * (self._at(pair.B) @ self._at(pair.A))
            return float(rest.norm())
        terms = [self._stack()] if self._pairs else []
        if pairs:
            terms.append(stacked([self._moved(p) for p in pairs], [-1.0] * len(pairs)))
        squared = sum(inner(a, b) for a in terms for b in terms)
        return max(squared, 0.0) ** 0.5

    def _dense_is_cheaper(self) -> bool:
        sides = (self.d_out, self.d_in)
        return stacked_cost(*sides, self.summed_rank) > dense_cost(*sides, self.summed_rank)

    def _go_dense(self) -> None:
        pairs, weights = self._pairs, self._weights
        self._pairs, self._weights = [], []
        self._dense = torch.zeros(self.d_out, self.d_in, dtype=self.dtype, device=self.device)
        for weight, pair in zip(weights, pairs, strict=True):
            self._add_dense(weight, pair)

    def _add_dense(self, weight: float, pair: LoraPair) -> None:
        if self._dense is not None:
            self._dense.addmm_(self._at(pair.B), self._at(pair.A), alpha=weight * pair.scale)

    def _decompose(self) -> _Parts:
        if self._dense is not None:
            matrix = self.dense()
            if self.d_in > self.d_out:
                right = _ThinQr(matrix.T)
                return _Parts.of(right.r.T, None, right)
            if self.d_out > self.d_in:
                left = _ThinQr(matrix)
                return _Parts.of(left.r, left, None)
            return _Parts.of(matrix, None, None)
        if not self._pairs:
            empty = torch.zeros(0, dtype=self.dtype, device=self.device)
            return _Parts(empty.new_zeros(self.d_out, 0), empty, empty.new_zeros(0, self.d_in))
        pair = self._stack()
        left, right = _ThinQr(pair.B), _ThinQr(pair.A.T)
        return _Parts.of(left.r @ right.r.T, left, right)

    def _stack(self) -> LoraPair:
        weights = [w * self._factor for w in self._weights]
        return stacked([self._moved(p) for p in self._pairs], weights, self.dtype)

    def _moved(self, pair: LoraPair) -> LoraPair:
        return LoraPair(pair.A.to(self.device), pair.B.to(self.device), pair.scale)

    def _at(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, self.dtype)


class _ThinQr:
    """A thin QR whose Q is kept as Householder reflections and only ever applied.

    Forming Q, and multiplying it with all vectors of the core, costs more than the QR itself;
    only the leading vectors are wanted.
    """

    def __init__(self, matrix: Tensor) -> None:
        self.rows, self.columns = matrix.shape[0], min(matrix.shape)
        reflections, self.tau = torch.geqrf(matrix)
        self.reflections = reflections[:, : self.columns].contiguous()
        self.r = reflections[: self.columns].triu()

    def apply(self, vectors: Tensor) -> Tensor:
        """``Q x`` for ``x`` of shape ``(columns, n)``."""
        tall = vectors.new_zeros(self.rows, vectors.shape[1])
        tall[: self.columns] = vectors
        return torch.ormqr(self.reflections, self.tau, tall)


@dataclass(frozen=True)
class _Parts:
    """The SVD of a core, with what leads from it back to the layer's sides."""

    u: Tensor
    s: Tensor
    vh: Tensor
    left: _ThinQr | None = None
    right: _ThinQr | None = None

    @classmethod
    def of(cls, core: Tensor, left: _ThinQr | None, right: _ThinQr | None) -> _Parts:
        u, s, vh = torch.linalg.svd(core, full_matrices=False)
        return cls(u, s, vh, left, right)

    def leading(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        u, vh = self.u[:, :count], self.vh[:count]
        if self.left is not None:
            u = self.left.apply(u)
        if self.right is not None:
            vh = self.right.apply(vh.T).T
        return u, self.s[:count], vh


def orthonormal_rows(vectors: Tensor, rank: int, generator: torch.Generator) -> Tensor:
    """``vectors`` with rows added up to ``rank``, each of length 1 and orthogonal to all others.

    Parameters
    ----------
    vectors : Tensor
        Shape ``(k, d)``, orthonormal rows.
    rank : int
        Rows wanted. No more than ``d`` rows can be orthonormal: what exceeds it is drawn from
        ``U(-1 / sqrt(d), 1 / sqrt(d))``, as new LoRA rows are.
    generator : torch.Generator
        Source of the new rows, on the CPU, so that every device gets the same.

    Returns
    -------
    Tensor
        Shape ``(rank, d)``.
    """
    kept, d = vectors.shape
    wanted = min(rank, d) - kept
    drawn = torch.randn(max(wanted, 0), d, generator=generator, dtype=torch.float64).to(vectors)
    rows = [vectors]
    if wanted > 0:
        for _ in range(2):  # twice is enough for orthogonality to rounding
            drawn = drawn - (drawn @ vectors.T) @ vectors
        rows.append(torch.linalg.qr(drawn.T).Q.T)
    if rank > d:
        extra = torch.rand(rank - max(d, kept), d, generator=generator, dtype=torch.float64)
        rows.append(((2 * extra - 1) / d**0.5).to(vectors))
    return torch.cat(rows)[:rank]

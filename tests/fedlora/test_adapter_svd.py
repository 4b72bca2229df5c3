"""Sums of applied updates and their SVD: both paths against NumPy on the dense sum."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedlora.pairs import LoraPair, applied_update
from fedlora.svd import PATHS, UpdateSum, dense_cost, orthonormal_rows, stacked_cost

SIDES = [(40, 24), (18, 30), (16, 16), (5, 3)]
PRECISION = {torch.float64: 1e-12, torch.float32: 2e-6}
every_path = pytest.mark.parametrize("path", PATHS)
every_side = pytest.mark.parametrize("sides", SIDES)


def pairs(sides: tuple[int, int], ranks: tuple[int, ...], seed: int = 0) -> list[LoraPair]:
    generator = torch.Generator().manual_seed(seed)
    return [
        LoraPair(
            torch.randn(rank, sides[1], generator=generator),
            torch.randn(sides[0], rank, generator=generator),
            0.5 + i,
        )
        for i, rank in enumerate(ranks)
    ]


def summed(
    sides: tuple[int, int],
    ranks: tuple[int, ...] = (2, 4, 1),
    path: str = "auto",
    dtype: torch.dtype = torch.float64,
) -> tuple[UpdateSum, np.ndarray]:
    total, expected = UpdateSum(*sides, dtype=dtype, path=path), np.zeros(sides)
    for weight, pair in enumerate(pairs(sides, ranks), start=1):
        total.add(float(weight), pair)
        expected += weight * pair.scale * (pair.B.double() @ pair.A.double()).numpy()
    return total, expected


@every_path
@every_side
@pytest.mark.parametrize("dtype", PRECISION)
@pytest.mark.parametrize("ranks", [(1,), (2, 4, 1), (8, 8, 8, 8, 8)])
def test_the_svd_of_a_sum(
    path: str, sides: tuple[int, int], dtype: torch.dtype, ranks: tuple[int, ...]
) -> None:
    total, expected = summed(sides, ranks, path, dtype)
    sigma = np.linalg.svd(expected, compute_uv=False)
    tolerance = PRECISION[dtype] * sigma[0]
    u, s, vh = total.svd()
    count = min(sum(ranks), *sides)
    assert u.shape == (sides[0], count) and vh.shape == (count, sides[1])
    np.testing.assert_allclose(s.numpy(), sigma[:count], atol=tolerance)
    np.testing.assert_allclose(total.singular_values()[:count].numpy(), s.numpy(), atol=tolerance)
    np.testing.assert_allclose(((u * s) @ vh).numpy(), expected, atol=10 * tolerance)
    eye = np.eye(count)
    np.testing.assert_allclose((u.T @ u).numpy(), eye, atol=100 * PRECISION[dtype])
    np.testing.assert_allclose((vh @ vh.T).numpy(), eye, atol=100 * PRECISION[dtype])
    np.testing.assert_allclose(total.dense().numpy(), expected, atol=10 * tolerance)
    assert total.norm() == pytest.approx(np.linalg.norm(expected), rel=1e-5)


@every_side
def test_both_paths_give_the_same_vectors(sides: tuple[int, int]) -> None:
    """Signs are fixed: the largest entry of every right vector is positive."""
    stacked, dense = (summed(sides, (1, 1), path)[0].svd(2) for path in ("stacked", "dense"))
    for one, other in zip(stacked, dense, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    vh = stacked[2]
    assert bool((vh.gather(1, vh.abs().argmax(1, keepdim=True)) > 0).all())


def test_a_rank_cuts_the_leading_triples() -> None:
    total, _ = summed((40, 24))
    u, s, vh = total.svd()
    for whole, part in zip((u.T, s, vh), (total.svd(3)[0].T, *total.svd(3)[1:]), strict=True):
        torch.testing.assert_close(whole[:3], part, rtol=1e-12, atol=1e-12)
    assert len(total.svd(100)[1]) == 7


def test_the_sum_goes_dense_when_the_stack_is_as_large_as_the_layer() -> None:
    total, expected = summed((40, 24), (4,) * 3)
    assert not total.is_dense
    for _ in range(40):
        total.add(0.5, pairs((40, 24), (4,))[0])
        expected += 0.25 * (pairs((40, 24), (4,))[0].B @ pairs((40, 24), (4,))[0].A).numpy()
    assert total.is_dense and total.summed_rank == 172
    np.testing.assert_allclose(total.dense().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("sides", [(768, 768), (4096, 4096), (4096, 11008), (11008, 4096)])
def test_the_choice_of_path_is_by_cost(sides: tuple[int, int]) -> None:
    small = min(sides)
    assert 10 * stacked_cost(*sides, small // 10) < dense_cost(*sides, small // 10)
    assert stacked_cost(*sides, small // 2) < dense_cost(*sides, small // 2)
    assert stacked_cost(*sides, 2 * small) > dense_cost(*sides, 2 * small)


@every_path
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("ranks", [(2, 4, 1), (8, 8, 8, 8, 8)])
def test_a_sum_as_factors(path: str, compress: bool, ranks: tuple[int, ...]) -> None:
    for sides in SIDES:
        total, expected = summed(sides, ranks, path)
        pair = total.pair(compress)
        stacked = compress or not total.is_dense
        assert pair.A.shape[0] == min(sum(ranks) if stacked else 999, *sides)
        np.testing.assert_allclose(applied_update(pair).numpy(), expected, atol=1e-10)


@every_path
def test_compression_finds_the_numerical_rank(path: str) -> None:
    """What is added and taken away again leaves nothing."""
    total = UpdateSum(40, 24, path=path)
    two, three = pairs((40, 24), (2, 3))
    total.add(1.0, two)
    total.add(0.7, three)
    total.add(-0.7, three)
    assert total.summed_rank == 8 and total.pair(compress=True).A.shape == (2, 24)


@every_path
@pytest.mark.parametrize("dtype", PRECISION)
def test_rounding_and_small_singular_values_are_told_apart(path: str, dtype: torch.dtype) -> None:
    """A thousandth and a ten-thousandth of the largest are kept, in float32 too."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(n, 3, generator=generator)).Q for n in (600, 400))
    sigma = torch.tensor([1.0, 1e-3, 1e-4])
    total = UpdateSum(600, 400, dtype, path=path)
    for weight in (0.25, 0.75):
        total.add(weight, LoraPair(right.T, left * sigma, 1.0))
    assert total.summed_rank == 6 and int((total.svd()[1] > total.tolerance()).sum()) == 3


@every_path
def test_distances(path: str) -> None:
    for sides in SIDES:
        total, expected = summed(sides, path=path)
        one, two = pairs(sides, (3, 2), seed=9)
        rest = expected - applied_update(one).numpy() - applied_update(two).numpy()
        assert total.distance(one, two) == pytest.approx(np.linalg.norm(rest), rel=1e-6)
        assert total.distance(total.pair()) < 1e-6 * np.linalg.norm(expected)


@every_path
def test_scaling_before_and_after_adding(path: str) -> None:
    sides = (18, 30)
    total, expected = summed(sides, path=path)
    total.scale_by(0.25)
    one = pairs(sides, (3,), seed=9)[0]
    copy = total.copy()
    copy.add(2.0, one)
    np.testing.assert_allclose(total.dense().numpy(), 0.25 * expected, atol=1e-5)
    added = 0.25 * expected + 2 * applied_update(one).numpy()
    np.testing.assert_allclose(copy.dense().numpy(), added, atol=1e-5)


@every_path
def test_nothing_added_is_zero(path: str) -> None:
    total = UpdateSum(5, 3, path=path)
    assert total.norm() == 0 and not bool(total.dense().any())
    assert len(total.svd()[1]) == len(total.singular_values()) == 0
    assert total.pair().A.shape == (0, 3) and total.pair(compress=True).B.shape == (5, 0)
    zero = LoraPair(torch.ones(2, 3), torch.zeros(5, 2), 1.0)
    total.add(1.0, zero)
    assert total.pair(compress=True).A.shape == (0, 3)


def test_inputs_are_refused_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"\(5, 4\) layer does not fit a sum of \(5, 3\)"):
        UpdateSum(5, 3).add(1.0, LoraPair(torch.ones(2, 4), torch.ones(5, 2), 1.0))
    with pytest.raises(ValueError, match="no path"):
        UpdateSum(5, 3, path="fast")
    with pytest.raises(ValueError, match="float32 or float64"):
        UpdateSum(5, 3, dtype=torch.float16)


@pytest.mark.parametrize("rank", [0, 2, 5, 9])
def test_completion_to_a_rank(rank: int) -> None:
    """Of 5 directions at most 5 are orthonormal; what is beyond is there and bounded."""
    kept = torch.linalg.qr(torch.arange(10.0, dtype=torch.float64).reshape(5, 2).cos()).Q.T
    kept = kept[: min(rank, 2)]
    rows = orthonormal_rows(kept, rank, torch.Generator().manual_seed(3))
    assert rows.shape == (rank, 5) and torch.equal(rows[: len(kept)], kept)
    orthonormal = rows[:5]
    torch.testing.assert_close(
        orthonormal @ orthonormal.T, torch.eye(min(rank, 5), dtype=torch.float64)
    )
    assert bool((rows[5:].norm(dim=1) > 0.05).all())
    assert bool((rows.abs() <= 1).all())
    again = orthonormal_rows(kept, rank, torch.Generator().manual_seed(3))
    assert torch.equal(rows, again)

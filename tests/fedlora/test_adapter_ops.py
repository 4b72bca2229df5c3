"""What changes a rank or a scale, against the dense product."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fedlora.names import factor_names
from fedlora.ops import cut, frobenius, inner, padded, rescaled, rotated, stacked
from fedlora.pairs import LoraPair, applied_update, rank_of
from fedlora.scales import scale_at


def pair(
    rank: int = 3, scale: float = 2.5, seed: int = 0, d_out: int = 7, d_in: int = 5
) -> LoraPair:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(rank, d_in, generator=generator, dtype=torch.float64)
    return LoraPair(a, torch.randn(7, rank, generator=generator, dtype=torch.float64), scale)


def close(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


def test_padding_adds_rows_and_no_update() -> None:
    wider = padded(pair(), 6)
    assert rank_of(wider) == 6
    close(applied_update(wider), applied_update(pair()))
    with pytest.raises(ValueError, match="cannot be padded to rank 2"):
        padded(pair(), 2)


def test_cutting_undoes_padding_and_keeps_the_first_rows() -> None:
    back = cut(padded(pair(), 6), 3)
    assert torch.equal(back.A, pair().A) and torch.equal(back.B, pair().B)
    close(applied_update(cut(pair(), 1)), 2.5 * pair().B[:, :1] @ pair().A[:1])
    assert rank_of(cut(pair(), 9)) == 3


def test_another_scale_is_the_same_update() -> None:
    other = rescaled(pair(), 0.3)
    assert other.scale == 0.3 and torch.equal(other.A, pair().A)
    close(applied_update(other), applied_update(pair()))
    with pytest.raises(ValueError, match="scale 0"):
        rescaled(pair(), 0.0)


def test_rotation_leaves_the_update() -> None:
    turn = torch.linalg.qr(pair(3, d_in=3).A).Q
    turned = rotated(pair(), turn)
    assert not torch.allclose(turned.A, pair().A)
    close(applied_update(turned), applied_update(pair()))


def test_a_stack_is_the_weighted_sum() -> None:
    pairs, weights = [pair(2, 4.0, 1), pair(3, 0.5, 2), pair(1, 2.0, 3)], [0.2, -0.5, 1.3]
    one = stacked(pairs, weights)
    assert rank_of(one) == 6 and one.scale == 1.0
    expected = sum(w * applied_update(p) for w, p in zip(weights, pairs, strict=True))
    close(applied_update(one), torch.as_tensor(expected))


def test_norms_and_inner_products_without_the_product() -> None:
    one, other = pair(3, 2.5, 1), pair(2, -0.5, 2)
    assert frobenius(one) == pytest.approx(float(applied_update(one).norm()), rel=1e-12)
    expected = float((applied_update(one) * applied_update(other)).sum())
    assert inner(one, other) == pytest.approx(expected, rel=1e-12)
    assert frobenius(LoraPair(one.A, one.B * 0, 3.0)) == 0.0


def test_names_of_states_with_one_factor() -> None:
    names = ["m.x.lora_B.default.weight", "m.y.lora_embedding_A", "m.head.weight"]
    names += ["m.x.lora_A.other.weight"]
    assert factor_names(names) == {
        "m.x": {"B": "m.x.lora_B.default.weight"},
        "m.y": {"A": "m.y.lora_embedding_A"},
    }


@pytest.mark.parametrize(
    ("rule", "rslora", "expected"),
    [
        ("auto", False, 16 / 9),
        ("auto", True, 16 / 3),
        ("alpha", True, 16 / 9),
        ("rslora", False, 16 / 3),
        ("proportional", False, 4.0),
        ("proportional", True, 8.0),
    ],
)
def test_the_scale_at_a_rank_of_ones_own(rule: str, rslora: bool, expected: float) -> None:
    fields = {"r": 4, "lora_alpha": 2, "use_rslora": rslora, "alpha_pattern": {"q": 16}}
    assert scale_at(fields, "base_model.model.h.q", 9, rule) == pytest.approx(expected)
    with pytest.raises(ValueError, match="'beta' is no scale rule"):
        scale_at(fields, "q", 9, "beta")

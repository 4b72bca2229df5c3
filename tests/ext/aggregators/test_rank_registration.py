"""Which run gets which rule, and what a rule reads from the configuration."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from rank_cases import LAYERS, RANKS, RULES, assert_close, case, product, wide

from federatedscope import register
from federatedscope_ext.methods import rule_for
from federatedscope_ext.methods.flexlora import FlexLora
from federatedscope_ext.methods.replication_pad import ReplicationPad
from federatedscope_ext.methods.zero_pad import ZeroPad
from fedlora.errors import AggregationError


def config(**adapter: Any) -> dict[str, Any]:
    return {"llm": {"adapter": adapter}}


@pytest.mark.parametrize("key", RULES)
def test_methods_of_this_package_are_always_answered(key: str) -> None:
    built = register.first_answer(
        register.aggregator_dict, key, model=None, device=None, config=config()
    )
    assert type(built) is RULES[key]
    assert rule_for(key.upper()) is RULES[key]


@pytest.mark.parametrize(
    ("adapter", "unequal"),
    [
        ({}, False),
        ({"client_ranks": []}, False),
        ({"client_ranks": [4, 4]}, False),
        ({"client_ranks": [4, 8]}, True),
        ({"client_ranks": "uniform"}, True),
        ({"client_ranks": [], "unequal_ranks": True}, True),
    ],
)
@pytest.mark.parametrize("method", ["fedavg", "fedprox", "ffa", "fedsa", "slora", "feddpa"])
def test_plain_means_are_answered_at_unequal_ranks_only(
    method: str, adapter: dict[str, Any], unequal: bool
) -> None:
    expected = ReplicationPad if method == "fedsa" else ZeroPad
    assert rule_for(method, config(**adapter)) is (expected if unequal else None)


def test_other_methods_are_left_to_others() -> None:
    assert rule_for("krum", config(client_ranks=[4, 8])) is None
    assert rule_for("fedavg") is None


@pytest.mark.parametrize(
    ("arguments", "rule", "expected"),
    [
        ({"lora_alpha": 16}, "auto", lambda r: 16 / r),
        ({"lora_alpha": 16, "use_rslora": True}, "auto", lambda r: 16 / r**0.5),
        ({"lora_alpha": 16, "use_rslora": True}, "alpha", lambda r: 16 / r),
        ({"lora_alpha": 16}, "rslora", lambda r: 16 / r**0.5),
        ({"lora_alpha": 16, "r": 4}, "proportional", lambda r: 4.0),
        (
            {"lora_alpha": 1, "alpha_pattern": {"q": 16, "v": 16, "tiny": 16}},
            "auto",
            lambda r: 16 / r,
        ),
    ],
)
def test_scales_follow_from_the_ranks_of_the_factors(
    arguments: dict[str, Any], rule: str, expected: Any
) -> None:
    """Where nobody says what a client's scale is, its rank and the configuration do."""
    given = case(current=False)
    given.scales = {k: {m: expected(r) for m, r in RANKS[k].items()} for k in RANKS}
    info = {k: v for k, v in given.info.items() if k not in ("scales", "server_scales")}
    built = FlexLora(config(args=[arguments], scale_rule=rule))
    result = built.aggregate(info)
    for module in LAYERS:
        rank = max(r[module] for r in RANKS.values())
        update = expected(rank) * product(result, module)
        u, s, vh = torch.linalg.svd(torch.from_numpy(given.mean(module)))
        best = (u[:, :rank] * s[:rank]) @ vh[:rank] if rank < len(s) else given.mean(module)
        assert_close(update, wide(torch.as_tensor(best)))


def test_a_scale_of_zero_is_refused() -> None:
    given = case()
    info = {**given.info, "server_scales": dict.fromkeys(LAYERS, 0.0)}
    with pytest.raises(AggregationError, match="lora_alpha above zero"):
        FlexLora().aggregate(info)

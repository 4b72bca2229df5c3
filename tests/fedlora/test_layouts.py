"""Ranks and scales of LoRA modules: PEFT's own account, slices, changes of rank."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from federatedscope.core.client_store import ClientStore
from fedlora.layers import apply_layout, layout_of_model, lora_modules, resize
from fedlora.layouts import AdapterLayout, Layouts, fit, layout_for, size_at
from fedlora.names import factor_of


class Net(nn.Module):
    """An embedding and two layers that are not square."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 6)
        self.up = nn.Linear(6, 10)
        self.down = nn.Linear(10, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.down(self.up(self.words(ids)).tanh())


def build(**arguments: Any) -> Any:
    torch.manual_seed(0)
    arguments = {"r": 8, "lora_alpha": 16, "target_modules": ["words", "up", "down"], **arguments}
    model = get_peft_model(Net(), LoraConfig(**arguments))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.2)
    return model


CASES: list[dict[str, Any]] = [
    {},
    {"use_rslora": True},
    {"rank_pattern": {"up": 2}},
    {"rank_pattern": {"up": 2, "down": 5}, "alpha_pattern": {"down": 3}},
    {"rank_pattern": {"up": 2}, "use_rslora": True},
]


@pytest.mark.parametrize("arguments", CASES, ids=str)
def test_ranks_and_scales_are_those_that_peft_gives(arguments: dict[str, Any]) -> None:
    model = build(**arguments)
    own = {"r": 8, "lora_alpha": 16, **arguments}
    asked = layout_for([name for name, _ in lora_modules(model)], own, own, "auto")
    assert asked.same_as(layout_of_model(model))
    assert len(asked.ranks) == 3


@pytest.mark.parametrize(
    ("rule", "scale"),
    [("alpha", 16 / 4), ("proportional", 16 / 8), ("rslora", 16 / math.sqrt(4)), ("auto", 16 / 4)],
)
def test_scale_rules(rule: str, scale: float) -> None:
    base = {"r": 8, "lora_alpha": 16}
    layout = layout_for(["m"], base, base, rule, 4)
    assert layout.ranks == {"m": 4}
    assert layout.scales == {"m": pytest.approx(scale)}


def test_names_of_factors() -> None:
    assert factor_of("base_model.model.up.lora_A.default.weight") == ("base_model.model.up", "A")
    assert factor_of("base_model.model.words.lora_embedding_B.default")[1] == "B"
    assert factor_of("base_model.model.up.base_layer.weight") is None
    assert factor_of("base_model.model.up.lora_B.default.bias") is None


def output(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(11)).clone()


def applied(model: Any) -> dict[str, torch.Tensor]:
    return {
        name: module.get_delta_weight("default").detach().clone()
        for name, module in lora_modules(model)
    }


def fitted(model: Any, source: AdapterLayout, target: AdapterLayout) -> None:
    for name, parameter in model.named_parameters():
        parameter.data = fit(parameter.data, name, source, target)
    apply_layout(lora_modules(model), target)


@pytest.mark.parametrize("scale", [2.0, 0.25])
def test_a_slice_applies_the_first_rows_whatever_the_scale(scale: float) -> None:
    model = build()
    server = layout_of_model(model)
    tensors = {name: p.detach().double() for name, p in model.named_parameters()}
    small = AdapterLayout(dict.fromkeys(server.ranks, 3), dict.fromkeys(server.ranks, scale))
    fitted(model, server, small)
    for name in ("up", "down"):
        a = tensors[f"base_model.model.{name}.lora_A.default.weight"]
        b = tensors[f"base_model.model.{name}.lora_B.default.weight"]
        oracle = 2.0 * (b[:, :3] @ a[:3])
        torch.testing.assert_close(
            applied(model)[f"base_model.model.{name}"].double(), oracle, rtol=1e-5, atol=1e-6
        )
    assert output(model).shape == (11, 3)


def test_sizes_without_storage_are_those_of_the_slices() -> None:
    model = build(rank_pattern={"up": 5})
    server = layout_of_model(model)
    small = AdapterLayout(dict.fromkeys(server.ranks, 2), server.scales)
    for name, parameter in model.named_parameters():
        wanted = fit(parameter.data, name, server, small).numel()
        assert size_at(name, parameter.shape, server, small) == wanted


@pytest.mark.parametrize("rule", ["alpha", "proportional"])
def test_growing_keeps_what_the_model_computes_and_leaves_the_new_rows_trainable(
    rule: str,
) -> None:
    model = build(r=3)
    base = {"r": 3, "lora_alpha": 16}
    names = list(layout_of_model(model).ranks)
    before, small = output(model), layout_for(names, base, base, rule)
    large = layout_for(names, base, base, rule, 7)
    resize(model, small, large, torch.Generator().manual_seed(1))
    assert layout_of_model(model).same_as(large)
    torch.testing.assert_close(output(model), before, rtol=1e-5, atol=1e-5)
    model(torch.arange(11)).square().sum().backward()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            assert not parameter[:, 3:].any()
            assert parameter.grad[:, 3:].any(0).all(), name


def test_shrinking_drops_the_last_rows() -> None:
    model = build()
    server = layout_of_model(model)
    reference = build()
    small = AdapterLayout(dict.fromkeys(server.ranks, 2), dict.fromkeys(server.ranks, 1.0))
    fitted(reference, server, small)
    resize(model, server, small, torch.Generator())
    torch.testing.assert_close(output(model), output(reference))


def test_a_book_shares_equal_layouts_and_refuses_ranks_above_the_servers() -> None:
    base = {"r": 8, "lora_alpha": 16}
    make = lambda r: layout_for(["a", "b"], base, base, "alpha", r)  # noqa: E731
    book = Layouts(make(8), {1: make(2), 2: make(2), 3: make(8)})
    assert book.of(1) is book.of(2)
    assert book.of(3) is book.server is book.of(0)
    assert not book.uniform
    assert book.ranks_of_modules() == {"a": [2, 8], "b": [2, 8]}
    other = book.copy()
    other.set(1, make(4))
    assert book.of(1).ranks == {"a": 2, "b": 2}
    with pytest.raises(ValueError, match="rank 9 of client 1 in a is above the server's 8"):
        book.set(1, make(9))


class TestStore:
    """Participants of different ranks over one module."""

    def store(self, **keywords: Any) -> tuple[Any, ClientStore]:
        model = build()
        server = layout_of_model(model)
        base = {"r": 8, "lora_alpha": 16}
        names = list(server.ranks)
        clients = {k: layout_for(names, base, base, "alpha", r) for k, r in ((1, 2), (2, 5))}
        book = Layouts(server, clients)
        return model, ClientStore(model, layouts=book, **keywords)

    def test_everybody_starts_with_the_first_rows_of_one_start(self) -> None:
        model, store = self.store()
        start = {name: p.detach().clone() for name, p in model.named_parameters()}
        for client, rank in ((1, 2), (2, 5), (3, 8)):
            store.activate(client)
            assert set(layout_of_model(model).ranks.values()) == {rank}
            a = model.get_parameter("base_model.model.up.lora_A.default.weight")
            assert torch.equal(a, start["base_model.model.up.lora_A.default.weight"][:rank])

    def test_training_one_rank_after_the_other_leaves_the_others_alone(self) -> None:
        model, store = self.store()
        kept: dict[int, dict[str, torch.Tensor]] = {}
        for client in (1, 2, 3, 1, 3, 2):
            store.activate(client)
            optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 0.1)
            model(torch.arange(11)).square().sum().backward()
            optimizer.step()
            for other, before in kept.items():
                if other != client:
                    now = store.state(other)
                    assert all(torch.equal(now[name], before[name]) for name in before)
            kept[client] = {n: t.clone() for n, t in store.state(client).items()}

    def test_ranks_survive_the_disk(self, tmp_path: Any) -> None:
        model, store = self.store(memory_limit=1, spill_dir=tmp_path)
        store.activate(1)
        before = output(model)
        store.activate(2)
        store.activate(3)
        assert [p.name for p in tmp_path.iterdir()] != []
        store.activate(1)
        assert torch.equal(output(model), before)

    def test_a_frozen_factor_is_common_and_costs_nothing(self) -> None:
        model = build()
        for name, parameter in model.named_parameters():
            if "lora_A" in name or "lora_embedding_A" in name:
                parameter.requires_grad_(False)
        server = layout_of_model(model)
        base = {"r": 8, "lora_alpha": 16}
        small = layout_for(list(server.ranks), base, base, "alpha", 2)
        store = ClientStore(model, layouts=Layouts(server, {1: small}))
        whole = model.get_parameter("base_model.model.up.lora_A.default.weight").detach().clone()
        for client, rank in ((1, 2), (0, 8), (1, 2)):
            store.activate(client)
            a = model.get_parameter("base_model.model.up.lora_A.default.weight")
            assert torch.equal(a, whole[:rank])
        assert all("_A." not in name for name in store.state(1))

"""The algebra of LoRA state against PEFT itself."""

from __future__ import annotations

from functools import partial
from typing import Any

import peft
import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from fedlora.heads import is_head
from fedlora.names import pair_names
from fedlora.pairs import LoraPair, applied_update, pairs_from_state, rank_of
from fedlora.scales import configured_rank, scale_of


class Encoder(nn.Module):
    """Two non-square layers, an embedding, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.attention = nn.ModuleDict({"query": nn.Linear(6, 10), "value": nn.Linear(10, 4)})
        self.classifier = nn.Linear(4, 3)

    def forward(self, ids: Any) -> Any:
        """Logits of shape (batch, 3)."""
        hidden = self.attention["value"](self.attention["query"](self.embed(ids)))
        return self.classifier(hidden.mean(1))


FIELDS: list[dict[str, Any]] = [
    {"r": 4, "lora_alpha": 16},
    {"r": 4, "lora_alpha": 16, "use_rslora": True},
    {"r": 4, "lora_alpha": 16, "rank_pattern": {"query": 2}, "alpha_pattern": {"value": 5}},
    {
        "r": 3,
        "lora_alpha": 7,
        "use_rslora": True,
        "rank_pattern": {"^attention.query": 5, "attention.*": 2},
        "alpha_pattern": {"attention.query": 9},
    },
]


def lora_model(fields: dict[str, Any]) -> tuple[Any, peft.LoraConfig]:
    config = peft.LoraConfig(
        target_modules=["query", "value", "embed"], modules_to_save=["classifier"], **fields
    )
    torch.manual_seed(0)
    model = peft.get_peft_model(Encoder(), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter)
    return model, config


@pytest.mark.parametrize("fields", FIELDS)
def test_ranks_and_scales_are_those_of_pefts_modules(fields: dict[str, Any]) -> None:
    model, config = lora_model(fields)
    layers = {n: m for n, m in model.named_modules() if isinstance(m, LoraLayer)}
    assert len(layers) == 3
    for source in (config, fields):
        for name, layer in layers.items():
            assert configured_rank(source, name) == layer.r["default"]
            assert scale_of(source, name) == pytest.approx(layer.scaling["default"])


@pytest.mark.parametrize("fields", FIELDS)
@pytest.mark.parametrize("saved", [False, True])
def test_applied_update_is_what_peft_merges(fields: dict[str, Any], saved: bool) -> None:
    """From the model's own names and from those of a saved adapter."""
    model, config = lora_model(fields)
    state = peft.get_peft_model_state_dict(model) if saved else model.state_dict()
    pairs = pairs_from_state(state, partial(scale_of, config))
    layers = {n: m for n, m in model.named_modules() if isinstance(m, LoraLayer)}
    assert pairs.keys() == layers.keys()
    for name, layer in layers.items():
        update, merged = applied_update(pairs[name]), layer.get_delta_weight("default")
        # PEFT stores an embedding's weight as (words, dim), the transpose of a linear layer's.
        expected = merged.T if isinstance(layer.base_layer, nn.Embedding) else merged
        torch.testing.assert_close(update, expected)
        assert rank_of(pairs[name]) == layer.r["default"]


def test_applied_update_of_half_precision_is_computed_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(8, 300, generator=generator).bfloat16()
    b = torch.randn(200, 8, generator=generator).bfloat16()
    update = applied_update(LoraPair(a, b, 2.0))
    assert update.shape == (200, 300) and update.dtype == torch.float32
    torch.testing.assert_close(update.double(), 2 * (b.double() @ a.double()), rtol=1e-5, atol=1e-5)
    wide = applied_update(LoraPair(a.double(), b, 1.0))
    assert wide.dtype == torch.float64


def test_scales_by_number_and_by_name() -> None:
    state = {
        "m.x.lora_A.default.weight": torch.ones(2, 3),
        "m.x.lora_B.default.weight": torch.ones(5, 2),
        "m.x.lora_B.default.bias": torch.ones(5),
        "m.classifier.modules_to_save.default.weight": torch.ones(2, 2),
    }
    assert pairs_from_state(state, 3)["m.x"].scale == 3.0
    assert pairs_from_state(state, {"m.x": 0.5})["m.x"].scale == 0.5
    assert pairs_from_state(state, 3)["m.x"].A is state["m.x.lora_A.default.weight"]
    with pytest.raises(KeyError):
        pairs_from_state(state, {"m.y": 0.5})


def test_only_the_adapter_asked_for_is_read() -> None:
    names = [f"m.x.lora_{f}.{adapter}.weight" for adapter in ("default", "mine") for f in "AB"]
    assert pair_names(names, "mine") == {
        "m.x": ("m.x.lora_A.mine.weight", "m.x.lora_B.mine.weight")
    }
    assert pair_names(names)["m.x"][0] == "m.x.lora_A.default.weight"


@pytest.mark.parametrize(("present", "lacking"), [("A", "B"), ("B", "A")])
def test_half_a_pair_is_refused(present: str, lacking: str) -> None:
    with pytest.raises(ValueError, match=f"has a lora_{present} and no lora_{lacking}"):
        pair_names([f"m.x.lora_{present}.default.weight"])


@pytest.mark.parametrize(("a", "b"), [((3, 2), (2, 4)), ((2, 3, 1), (4, 2)), ((4,), (2, 4))])
def test_shapes_that_are_no_pair(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="no LoRA pair"):
        LoraPair(torch.ones(a), torch.ones(b), 1.0)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("base_model.model.classifier.modules_to_save.default.weight", True),
        ("base_model.model.score.modules_to_save.default.weight", True),
        ("base_model.model.qa_outputs.modules_to_save.default.weight", True),
        ("classifier.out_proj.bias", True),
        ("score.weight", True),
        ("classification_head.dense.weight", True),
        ("base_model.model.classifier.original_module.weight", False),
        ("base_model.model.classifier.lora_A.default.weight", False),
        ("encoder.layer.0.attention.query.lora_B.default.weight", False),
        ("encoder.layer.0.score_norm.weight", False),
    ],
)
def test_head_names(name: str, head: bool) -> None:
    assert is_head(name) is head


def test_head_of_a_peft_model_is_all_that_is_trained_besides_lora() -> None:
    model, _ = lora_model(FIELDS[0])
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert {n for n in trained if is_head(n)} == {n for n in trained if "lora_" not in n} != set()

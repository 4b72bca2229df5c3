"""Optimizers, schedules, losses and regularizers by name."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from federatedscope import register
from federatedscope.core.auxiliaries.criterion_builder import get_criterion
from federatedscope.core.auxiliaries.optimizer_builder import (
    check_optimizer,
    get_optimizer,
    parameter_groups,
)
from federatedscope.core.auxiliaries.regularizer_builder import get_regularizer
from federatedscope.core.auxiliaries.scheduler_builder import (
    check_scheduler,
    get_scheduler,
    warmup_steps_of,
)
from federatedscope.core.auxiliaries.transform_builder import get_transform
from federatedscope.core.configs.config import CN, global_cfg
from federatedscope.core.errors import ConfigError, UserError


def half_frozen() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    return model


def parameters_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


# Optimizers


@pytest.mark.parametrize(
    "kind", ["SGD", "Adam", "AdamW", "Adagrad", "RMSprop", "NAdam", "Adadelta"]
)
def test_optimizer_of_torch_takes_a_step_on_trainable_parameters_only(kind: str) -> None:
    model = half_frozen()
    optimizer = get_optimizer(model, kind, 0.1, weight_decay=0.0)
    assert type(optimizer) is getattr(torch.optim, kind)
    assert {id(p) for p in parameters_of(optimizer)} == {id(p) for p in model[1].parameters()}
    before = model[1].weight.detach().clone()
    model(torch.ones(3, 4)).sum().backward()
    optimizer.step()
    assert not torch.equal(model[1].weight, before)


def test_optimizer_arguments_of_the_configuration_go_through() -> None:
    section = CN({"type": "SGD", "lr": 0.5, "momentum": 0.9, "nesterov": True})
    section["is_ready_for_run"] = True  # an internal entry of upstream's nodes
    group = get_optimizer(half_frozen(), **section).param_groups[0]
    assert (group["lr"], group["momentum"], group["nesterov"]) == (0.5, 0.9, True)


def test_optimizer_over_parameters_and_groups() -> None:
    model = half_frozen()
    assert len(parameters_of(get_optimizer(model.parameters(), "SGD", 0.1))) == 2
    groups = [
        {"params": model[0].parameters()},
        {"params": model[1].weight, "lr": 0.7},
        {"params": [model[1].bias]},
    ]
    optimizer = get_optimizer(groups, "SGD", 0.1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.7, 0.1]


@pytest.mark.parametrize(
    ("kind", "arguments", "text"),
    [
        ("adamw", {}, "Did you mean 'AdamW'"),
        ("Adamm", {}, "Did you mean 'Adam'"),
        ("Linear", {}, "no optimizer"),
        ("Optimizer", {}, "no optimizer"),
        ("lr_scheduler", {}, "no optimizer"),
        ("LBFGS", {}, "several times per step"),
        (None, {}, "no optimizer"),
        ("SGD", {"momentun": 0.9}, "Did you mean 'momentum'"),
        ("SGD", {"betas": [0.9, 0.99]}, "no such argument"),
        ("SGD", {"momentum": -1.0}, "refuses it"),
        ("Adam", {"betas": 3}, "refuses it"),
        ("SGD", {"lr": "fast"}, "no number"),
        ("SGD", {"lr": -1.0}, "refuses it"),
    ],
)
def test_bad_optimizer_is_named(kind: Any, arguments: dict[str, Any], text: str) -> None:
    settings = {"type": kind, "lr": 0.1, **arguments}
    with pytest.raises(ConfigError, match=text) as caught:
        get_optimizer(half_frozen(), **settings)
    assert caught.value.field.startswith("optimizer")
    with pytest.raises(ConfigError, match=text) as caught:
        check_optimizer("train.optimizer", **settings)
    assert caught.value.field.startswith("train.optimizer")


def test_good_optimizer_passes_the_check() -> None:
    check_optimizer("train.optimizer", "AdamW", 1e-3, betas=[0.9, 0.99])


def test_nothing_to_train() -> None:
    with pytest.raises(UserError, match="nothing to train"):
        get_optimizer(nn.Linear(2, 2).requires_grad_(False), "SGD", 0.1)


def test_registered_optimizer_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(model: Any, type: str, lr: float, **kwargs: Any) -> Any:
        if type == "myoptimizer":
            return torch.optim.Adam(model.parameters(), lr=lr, **kwargs)
        return None

    monkeypatch.setattr(register, "optimizer_dict", {"mine": build})
    assert type(get_optimizer(half_frozen(), "myoptimizer", 0.1, eps=1e-3)) is torch.optim.Adam
    assert type(get_optimizer(half_frozen(), "SGD", 0.1)) is torch.optim.SGD
    check_optimizer("train.optimizer", "myoptimizer", 0.1)


def test_a_registered_optimizer_may_have_arguments_of_any_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build(model: Any, type: str, lr: float, kind: str = "", built_in: int = 0) -> Any:
        return torch.optim.SGD(model.parameters(), lr=lr * built_in) if kind == "mine" else None

    monkeypatch.setattr(register, "optimizer_dict", {"mine": build})
    optimizer = get_optimizer(half_frozen(), "x", 0.1, kind="mine", built_in=2)
    assert optimizer.param_groups[0]["lr"] == 0.2


class Vera(nn.Module):
    """The parameters of a VeRA model by name."""

    def __init__(self) -> None:
        super().__init__()
        self.vera_lambda_b = nn.ParameterDict({"default": torch.ones(6)})
        self.vera_lambda_d = nn.ParameterDict({"default": torch.ones(3)})
        self.classifier = nn.Linear(2, 2)
        self.backbone = nn.Linear(2, 2).requires_grad_(False)


def adapter_config(method: str, use: bool = True) -> CN:
    cfg = global_cfg.clone()
    cfg.defrost()
    cfg.llm.adapter.use = use
    cfg.llm.adapter.args = [{"adapter_package": "peft", "adapter_method": method}]
    cfg.train.vera.lr_c = 1e-4
    return cfg


def test_vera_has_two_learning_rates_and_both_follow_the_schedule() -> None:
    model = Vera()
    groups = parameter_groups(model, adapter_config("VeRA"))
    optimizer = get_optimizer(groups, "AdamW", 2e-2)
    assert [sorted(p.numel() for p in g["params"]) for g in optimizer.param_groups] == [
        [3, 6],
        [2, 4],
    ]
    get_scheduler(optimizer, "linear_warmup", warmup_ratio=0.1, total_steps=100, done_steps=5)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([1e-2, 0.5e-4])


@pytest.mark.parametrize(("method", "use"), [("lora", True), ("vera", False)])
def test_without_vera_the_model_is_handed_on(method: str, use: bool) -> None:
    model = Vera()
    assert parameter_groups(model, adapter_config(method, use)) is model


# Schedules


def rates(kind: str, rounds: int, steps: int, **arguments: Any) -> list[float]:
    """The rate of every step of a run whose clients build optimizer and schedule every round."""
    seen = []
    for t in range(rounds):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
        scheduler = get_scheduler(
            optimizer, kind, total_steps=rounds * steps, done_steps=t * steps, **arguments
        )
        for _ in range(steps):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return seen


def linear(s: int, warmup: int, total: int) -> float:
    return s / warmup if s < warmup else (total - s) / (total - warmup)


def cosine(s: int, warmup: int, total: int) -> float:
    if s < warmup:
        return s / warmup
    return 0.5 + 0.5 * math.cos(math.pi * (s - warmup) / (total - warmup))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("linear_warmup", linear),
        ("warmup_step", linear),
        ("constant_with_warmup", lambda s, w, _: min(1.0, s / w)),
        ("cosine", cosine),
        ("warmup_noam", lambda s, w, _: min(max(s, 1) ** -0.5, max(s, 1) * w**-1.5)),
    ],
)
def test_schedule_spans_rounds(kind: str, expected: Any) -> None:
    """20 rounds of 10 steps, 6 % warm-up: 12 steps, which end in the middle of round 2."""
    seen = rates(kind, rounds=20, steps=10, warmup_ratio=0.06)
    assert seen == pytest.approx([2.0 * expected(s, 12, 200) for s in range(200)])
    if kind != "warmup_noam":
        assert max(seen) == seen[12] == 2.0


def test_linear_warmup_is_hugging_faces() -> None:
    transformers = pytest.importorskip("transformers")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    scheduler = transformers.get_linear_schedule_with_warmup(optimizer, 12, 200)
    theirs = []
    for _ in range(200):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates("linear_warmup", 20, 10, warmup_ratio=0.06) == pytest.approx(theirs)


def test_schedule_past_its_end_stays_at_zero_and_without_warmup_starts_full() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    get_scheduler(optimizer, "linear_warmup", total_steps=10, done_steps=25)
    assert optimizer.param_groups[0]["lr"] == 0.0
    assert rates("linear_warmup", 2, 5)[0] == 2.0


@pytest.mark.parametrize(
    ("total", "ratio", "expected"), [(100, 0.06, 6), (100, 0.07, 7), (10, 0.06, 1), (10, 0.0, 0)]
)
def test_warmup_steps(total: int, ratio: float, expected: int) -> None:
    assert warmup_steps_of(total, ratio) == expected


def test_torch_schedules_and_none() -> None:
    optimizer = get_optimizer(half_frozen(), "SGD", 1.0)
    assert get_scheduler(optimizer, "", warmup_ratio=0.0) is None
    scheduler = get_scheduler(optimizer, "StepLR", step_size=1, gamma=0.5, warmup_ratio=0.0)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    ("kind", "arguments", "field", "text"),
    [
        ("linear_warmpu", {}, "type", "Did you mean 'linear_warmup'"),
        ("steplr", {}, "type", "Did you mean 'StepLR'"),
        ("ReduceLROnPlateau", {}, "type", "no schedule"),
        ("StepLR", {"step": 3}, "step", "Did you mean 'step_size'"),
        ("StepLR", {}, "", "refuses it"),
        ("linear_warmup", {"gamma": 0.5}, "gamma", "no such argument"),
        ("linear_warmup", {"warmup_ratio": 1.5}, "warmup_ratio", "from 0 to 1"),
        ("cosine", {"total_steps": 0}, "total_steps", "local steps"),
        ("warmup_noam", {}, "warmup_ratio", "needs a warm-up"),
    ],
)
def test_bad_schedule_is_named(kind: str, arguments: Any, field: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        check_scheduler("train.scheduler", kind, **arguments)
    assert caught.value.field == f"train.scheduler.{field}".rstrip(".")


def test_good_schedule_passes_the_check() -> None:
    check_scheduler("train.scheduler", "", warmup_ratio=0.0)
    check_scheduler("train.scheduler", "linear_warmup", warmup_ratio=0.06)


def test_registered_scheduler_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(optimizer: Any, reg_type: str, **kwargs: Any) -> Any:
        if reg_type == "mine":
            return torch.optim.lr_scheduler.ConstantLR(optimizer, **kwargs)
        return None

    monkeypatch.setattr(register, "scheduler_dict", {"mine": build})
    optimizer = get_optimizer(half_frozen(), "SGD", 1.0)
    # As in the contract, the builder gets its own arguments, not those of the warm-up.
    get_scheduler(optimizer, "mine", factor=0.25, warmup_ratio=0.1, total_steps=3, done_steps=0)
    assert optimizer.param_groups[0]["lr"] == 0.25


# Losses


def test_criterion() -> None:
    loss = get_criterion("CrossEntropyLoss", "cpu")
    assert loss(torch.zeros(1, 4), torch.tensor([1])).item() == pytest.approx(math.log(4))
    for wrong in ("Linear", "CrossEntropy", "_Loss"):
        with pytest.raises(ConfigError, match=r"criterion\.type"):
            get_criterion(wrong, "cpu")


def test_registered_criterion_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(type: str, device: Any) -> Any:
        return nn.L1Loss().to(device) if type == "mycriterion" else None

    monkeypatch.setattr(register, "criterion_dict", {"mine": build})
    assert isinstance(get_criterion("mycriterion", "cpu"), nn.L1Loss)


# Regularizers


def prox_context(model: nn.Module, anchors: dict[str, Tensor]) -> SimpleNamespace:
    return SimpleNamespace(model=model, weight_init=anchors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fedprox_term_and_gradient(dtype: torch.dtype) -> None:
    """mu/2 ||w - w0||^2 has the gradient mu (w - w0)."""
    model = nn.Linear(5, 3, dtype=dtype)
    anchors = {n: torch.randn_like(p) for n, p in model.named_parameters()}
    kept = {n: t.clone() for n, t in anchors.items()}
    value = 0.3 * get_regularizer("proximal_regularizer")(prox_context(model, anchors))
    value.backward()
    squares = sum(((p - anchors[n]) ** 2).sum().item() for n, p in model.named_parameters())
    assert value.item() == pytest.approx(0.15 * squares, rel=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter.grad, 0.3 * (parameter.detach() - anchors[name]), rtol=1e-5, atol=1e-6
        )
    assert all(torch.equal(anchors[n], kept[n]) for n in anchors)


def test_fedprox_pulls_neither_frozen_nor_local_parameters() -> None:
    model = half_frozen()
    anchors = {n: torch.zeros_like(p) for n, p in model.named_parameters() if n != "1.bias"}
    value = get_regularizer("proximal_regularizer")(prox_context(model, anchors))
    value.backward()
    assert value.item() == pytest.approx(model[1].weight.square().sum().item() / 2)
    assert model[0].weight.grad is None and model[1].bias.grad is None


def test_fedprox_is_zero_with_zero_gradient_at_the_start() -> None:
    model = nn.Linear(2, 2)
    anchors = {n: p.detach().clone() for n, p in model.named_parameters()}
    value = get_regularizer("proximal_regularizer")(prox_context(model, anchors))
    value.backward()
    assert value.item() == 0.0 and not model.weight.grad.any()


def test_fedprox_without_anchors() -> None:
    with pytest.raises(ValueError, match="weight_init"):
        get_regularizer("proximal_regularizer")(prox_context(nn.Linear(2, 2), {}))


def test_regularizer_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(nn.Module):
        def forward(self, ctx: Any) -> float:
            return 3.0

    monkeypatch.setattr(
        register, "regularizer_dict", {"mine": lambda type: Mine if type == "mine" else None}
    )
    assert get_regularizer("")(None) == get_regularizer(None)(None) == 0.0
    assert get_regularizer("mine")(None) == 3.0
    with pytest.raises(ConfigError, match="Did you mean 'proximal_regularizer'"):
        get_regularizer("proximal_regulariser")


# Transforms


def test_transforms(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(kind: str, arguments: dict[str, Any]) -> Any:
        return (lambda x: x + arguments.get("by", 1)) if kind == "Add" else None

    monkeypatch.setattr(register, "transform_dict", {"add": build})
    cfg = global_cfg.clone()
    cfg.defrost()
    assert get_transform(cfg, "no_such_package") == ({}, {}, {})
    cfg.data.transform = ["Add", {"by": 5}]
    cfg.data.test_target_transform = ["Add"]
    train, val, test = get_transform(cfg, "no_such_package")
    assert train["transform"](1) == val["transform"](1) == 6
    assert test["target_transform"](1) == 2 and "transform" not in test
    cfg.data.transform = ["Other"]
    with pytest.raises(ConfigError, match="no_such_package is not installed"):
        get_transform(cfg, "no_such_package")

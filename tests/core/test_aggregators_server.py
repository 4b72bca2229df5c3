"""The server's optimizer and the server's model."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from aggregation_cases import (
    SHAPES,
    assert_close,
    config,
    oracle_mean,
    round_of,
    run,
    states,
    zeros_like,
)
from torch import nn

from federatedscope.core.aggregators import (
    AggregationError,
    ClientsAvgAggregator,
    FedOptAggregator,
)
from federatedscope.core.configs.config import CN
from federatedscope.core.errors import ConfigError, UserError


def test_fedopt_with_sgd_and_rate_one_is_fedavg() -> None:
    uploads, current, sizes = states(4), states(1, seed=4)[0], [1.0, 2.0, 3.0, 4.0]
    info = round_of(uploads, sizes, current)
    expected = {n: t.double().numpy() for n, t in run("fedavg", info).items()}
    assert_close(run("fedopt", info), expected)


def fedadam_oracle(rounds: list[tuple[np.ndarray, np.ndarray]], lr: float) -> list[np.ndarray]:
    """Adam on g = x - mean, where x is what the round starts from."""
    m = v = np.zeros_like(rounds[0][0])
    out = []
    for t, (x, mean) in enumerate(rounds, start=1):
        g = x - mean
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        out.append(x - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8))
    return out


def adam_config() -> CN:
    return config("fedopt", fedopt__optimizer=CN({"type": "Adam", "lr": 0.1}))


def test_fedadam_keeps_its_moments_over_rounds_and_restarts() -> None:
    name = "q.lora_A.default.weight"
    current, rounds, results = {name: torch.randn(4, 24)}, [], []
    aggregator = FedOptAggregator(config=adam_config())
    for t in range(4):
        uploads = [{name: s[name]} for s in states(3, seed=t)]
        mean = oracle_mean(uploads, [1.0] * 3)[name]
        rounds.append((current[name].double().numpy(), mean))
        if t == 2:  # a restart in the middle
            saved = aggregator.state_dict()
            aggregator = FedOptAggregator(config=adam_config())
            aggregator.load_state_dict(saved)
        current = aggregator.aggregate(round_of(uploads, current=current))
        results.append(current[name])
    for result, expected in zip(results, fedadam_oracle(rounds, 0.1), strict=True):
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5, atol=1e-5)


def reddi_oracle(
    rounds: list[tuple[np.ndarray, np.ndarray]], kind: str, lr: float, betas: Any, tau: float
) -> list[np.ndarray]:
    """Reddi et al.'s Algorithm 2 on D = mean - x, in double precision."""
    m, v = np.zeros_like(rounds[0][0]), np.full_like(rounds[0][0], tau**2)
    out = []
    for x, mean in rounds:
        d = mean - x
        m = betas[0] * m + (1 - betas[0]) * d
        v = {
            "FedAdagrad": v + d**2,
            "FedYogi": v - (1 - betas[1]) * d**2 * np.sign(v - d**2),
            "FedAdam": betas[1] * v + (1 - betas[1]) * d**2,
        }["FedYogi" if kind == "Yogi" else kind]
        out.append(x + lr * m / (np.sqrt(v) + tau))
    return out


@pytest.mark.parametrize("kind", ["FedAdagrad", "FedYogi", "Yogi", "FedAdam"])
@pytest.mark.parametrize("own", [{}, {"betas": [0.8, 0.95], "tau": 0.3}])
def test_the_papers_server_optimizers(kind: str, own: dict[str, Any]) -> None:
    """Without bias correction, over rounds and a restart."""
    name = "q.lora_A.default.weight"
    cfg = config("fedopt", fedopt__optimizer=CN({"type": kind, "lr": 0.1, **own}))
    current, rounds, results = {name: torch.randn(4, 24)}, [], []
    aggregator = FedOptAggregator(config=cfg)
    for t in range(5):
        uploads = [{name: (0.5 if t % 2 else 0.01) * s[name]} for s in states(3, seed=t)]
        rounds.append((current[name].double().numpy(), oracle_mean(uploads, [1.0] * 3)[name]))
        if t == 3:
            saved = aggregator.state_dict()
            aggregator = FedOptAggregator(config=cfg)
            aggregator.load_state_dict(saved)
        current = aggregator.aggregate(round_of(uploads, current=current))
        results.append(current[name])
    betas = own.get("betas", (0.0, 0.0) if kind == "FedAdagrad" else (0.9, 0.99))
    expected = reddi_oracle(rounds, kind, 0.1, betas, own.get("tau", 1e-3))
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_allclose(result.numpy(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"type": "FedYogy"}, "Did you mean 'FedYogi'"),
        ({"type": "FedAdam", "tau": 0.0}, "tau 0.0 above 0"),
        ({"type": "FedYogi", "betas": [0.9, 1.0]}, "below 1"),
        ({"type": "FedAdam", "eps": 1e-8}, r"fedopt\.optimizer\.eps"),
    ],
)
def test_what_they_refuse(own: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        FedOptAggregator(config=config("fedopt", fedopt__optimizer=CN({"lr": 1.0, **own})))


def test_they_are_a_servers_only(rig: Any, capsys: Any) -> None:
    assert rig("train.optimizer.type", "FedAdam").code == 2
    assert "train.optimizer.type" in capsys.readouterr().err
    done = rig("federate.method", "fedopt", "fedopt.optimizer.type", "FedYogi",
               "fedopt.optimizer.tau", 0.01, "federate.total_round_num", 1)  # fmt: skip
    assert done.code == 0


def test_fedopt_state_survives_a_safe_file(tmp_path: Any) -> None:
    aggregator = FedOptAggregator(config=adam_config())
    uploads = states(3)
    aggregator.aggregate(round_of(uploads, current=zeros_like(uploads[0])))
    torch.save(aggregator.state_dict(), tmp_path / "server.pt")
    other = FedOptAggregator(config=adam_config())
    other.load_state_dict(torch.load(tmp_path / "server.pt", weights_only=True))
    info = round_of(states(3, seed=1), current=uploads[0])
    first, second = aggregator.aggregate(info), other.aggregate(info)
    assert all(torch.equal(first[n], second[n]) for n in SHAPES)
    fresh = FedOptAggregator(config=adam_config()).aggregate(info)
    assert not torch.equal(fresh["head.bias"], first["head.bias"])


def test_fedopt_annealing_lowers_the_rate_every_few_rounds() -> None:
    cfg = config("fedopt", fedopt__annealing=True, fedopt__annealing_step_size=2)
    cfg.fedopt.annealing_gamma = 0.1
    aggregator = FedOptAggregator(config=cfg)
    current, one = {"w": torch.zeros(2, 3)}, [{"w": torch.ones(2, 3)}]
    moved = [
        aggregator.aggregate(round_of(one, current=current))["w"][0, 0].item() for _ in range(5)
    ]
    assert moved == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.01])


def test_fedopt_needs_the_same_tensors_every_round() -> None:
    aggregator = FedOptAggregator(config=adam_config())
    for names in (["a", "b"], ["b", "a"]):
        state = {n: torch.ones(2) for n in names}
        aggregator.aggregate(round_of([state], current=state))
    with pytest.raises(AggregationError, match="c"):
        aggregator.aggregate(round_of([{"c": torch.ones(2)}], current={"c": torch.ones(2)}))


def test_fedopt_refuses_a_bad_optimizer_at_once() -> None:
    with pytest.raises(ConfigError, match=r"fedopt\.optimizer\.type.*'Adam'"):
        FedOptAggregator(config=config("fedopt", fedopt__optimizer=CN({"type": "adam", "lr": 1.0})))


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".safetensors"])
def test_save_and_load(tmp_path: Any, suffix: str) -> None:
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    path = tmp_path / "deep" / f"model{suffix}"
    ClientsAvgAggregator(model=model, config=config()).save_model(path, 17)
    assert ClientsAvgAggregator(model=other, config=config()).load_model(path) == 17
    assert torch.equal(other.weight, model.weight) and torch.equal(other.bias, model.bias)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_save_leaves_the_frozen_backbone_out(tmp_path: Any) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    ClientsAvgAggregator(model=model, config=config()).save_model(tmp_path / "m.ckpt", 1)
    content = torch.load(tmp_path / "m.ckpt", weights_only=True)
    assert set(content) == {"cur_round", "model"} and set(content["model"]) == {
        "1.weight",
        "1.bias",
    }


@pytest.mark.parametrize("kind", ["missing", "garbage", "code", "other model", "other shape"])
def test_load_refuses_what_does_not_fit(tmp_path: Any, kind: str) -> None:
    path, model = tmp_path / "model.ckpt", nn.Linear(3, 2)
    content: dict[str, Any] = {"cur_round": 3}
    if kind == "garbage":
        path.write_bytes(b"no checkpoint")
    elif kind == "code":
        torch.save({"cur_round": 1, "model": {"weight": itertools.count()}}, path)
    elif kind == "other model":
        torch.save({**content, "model": {"w": torch.ones(1)}}, path)
    elif kind == "other shape":
        torch.save({**content, "model": {"weight": torch.ones(5, 3)}}, path)
    before = model.weight.detach().clone()
    with pytest.raises(UserError, match=r"model\.ckpt"):
        ClientsAvgAggregator(model=model, config=config()).load_model(path)
    assert torch.equal(model.weight, before)


def test_update_copies_and_checks() -> None:
    model = nn.Linear(3, 2)
    aggregator = ClientsAvgAggregator(model=model, config=config())
    value = torch.ones(2, 3)
    aggregator.update({"weight": value})
    value.zero_()
    assert torch.equal(model.weight.detach(), torch.ones(2, 3))
    with pytest.raises(UserError, match="wieght"):
        aggregator.update({"wieght": value})
    with pytest.raises(UserError, match="without a model"):
        ClientsAvgAggregator(config=config()).update({"weight": value})

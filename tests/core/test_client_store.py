"""The store of participants' tensors over one module."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from federatedscope.core.client_store import ClientStore, checkpoint_tensors, owned_tensors


class Net(nn.Module):
    """A frozen layer, a trained one, a norm with buffers, and a buffer that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(6, 5)
        self.base.requires_grad_(False)
        self.head = nn.Linear(5, 2)
        self.norm = nn.BatchNorm1d(5)
        self.register_buffer("scratch", torch.zeros(3), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.norm(self.base(x)))
        return result


OWNED = {"head.weight", "head.bias", "norm.weight", "norm.bias"} | {
    f"norm.{b}" for b in ("running_mean", "running_var", "num_batches_tracked")
}


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


def bits(state: dict[str, Tensor]) -> dict[str, bytes]:
    return {k: v.detach().contiguous().numpy().tobytes() for k, v in sorted(state.items())}


def train(net: nn.Module, steps: int = 2) -> None:
    net.train()
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.randn(4, 6)).square().mean().backward()
        optimizer.step()


def test_trainable_parameters_and_saved_buffers_are_owned(net: Net) -> None:
    assert set(owned_tensors(net)) == OWNED
    assert set(ClientStore(net).names) == OWNED


def test_the_common_projections_of_vera_are_nobodys() -> None:
    outer = nn.Module()
    outer.vera_A = nn.Module()
    outer.vera_A.register_buffer("default", torch.zeros(2))
    outer.register_buffer("mine", torch.zeros(2))
    assert set(owned_tensors(outer)) == {"mine"}


def test_a_checkpoint_also_has_frozen_adapter_factors() -> None:
    net = nn.Module()
    net.lora_A = nn.Linear(2, 2)
    net.lora_A.requires_grad_(False)
    net.other = nn.Linear(2, 2)
    net.other.requires_grad_(False)
    assert set(checkpoint_tensors(net)) == {"lora_A.weight", "lora_A.bias"}


def test_everybody_starts_from_the_first_state(net: Net) -> None:
    first = bits(owned_tensors(net))
    store = ClientStore(net)
    store.activate(0)
    train(net)
    assert bits(dict(store.state(0))) != first
    store.activate(7)
    assert bits(owned_tensors(net)) == first
    assert store.owners == [0, 7]


@pytest.mark.parametrize("limit", [None, 1])
def test_training_one_leaves_the_others_bitwise(
    net: Net, tmp_path: Path, limit: int | None
) -> None:
    """Also where all but the server and the active one are on disk."""
    store = ClientStore(net, memory_limit=limit, spill_dir=tmp_path / "spilled")
    owners = (0, 1, 2, 3)
    expected = {}
    for owner in owners:
        store.activate(owner)
        train(net, steps=owner + 1)
        expected[owner] = bits(dict(store.state(owner)))
    assert len({str(e) for e in expected.values()}) == len(owners)
    for owner in reversed(owners):
        store.activate(owner)
        train(net)
        changed = bits(owned_tensors(net))
        assert changed != expected[owner]
        expected[owner] = changed
        for other in owners:
            if other != owner:
                assert bits(dict(store.state(other))) == expected[other]


def test_a_participants_tensors_are_the_modules_own(net: Net) -> None:
    """Pointed at, not copied."""
    store = ClientStore(net)
    store.activate(2)
    inside = owned_tensors(net)
    for name, tensor in store.state(2).items():
        assert tensor.data_ptr() == inside[name].data_ptr()


def test_frozen_tensors_are_never_touched(net: Net) -> None:
    before = net.base.weight.data_ptr()
    store = ClientStore(net)
    for owner in range(20):
        store.activate(owner)
        train(net, 1)
        assert net.base.weight.data_ptr() == before


def test_gradients_do_not_pass_from_one_to_the_next(net: Net) -> None:
    store = ClientStore(net)
    store.activate(1)
    net(torch.randn(4, 6)).sum().backward()
    assert net.head.weight.grad is not None
    store.activate(2)
    assert all(p.grad is None for p in net.parameters())


def test_tensors_that_a_trainer_put_in_place_are_kept(net: Net) -> None:
    """``param.data = ...`` and buffers set anew belong to whoever was active."""
    store = ClientStore(net)
    store.activate(1)
    net.head.weight.data = torch.full((2, 5), 3.0)
    net.norm.running_mean = torch.full((5,), 4.0)
    store.activate(2)
    assert bool((store.state(1)["head.weight"] == 3).all())
    assert not bool((net.head.weight == 3).any())
    assert not bool((net.norm.running_mean == 4).any())
    net.norm.running_mean.fill_(9.0)
    assert bool((store.state(2)["norm.running_mean"] == 9).all())
    store.activate(1)
    assert bool((net.head.weight == 3).all())
    assert bool((net.norm.running_mean == 4).all())


class TestSpilling:
    def test_a_limit_needs_a_folder(self, net: Net) -> None:
        with pytest.raises(ValueError, match="folder"):
            ClientStore(net, memory_limit=10)

    def test_least_recently_used_go_first(self, net: Net, tmp_path: Path) -> None:
        size = ClientStore(net).state_bytes
        store = ClientStore(net, memory_limit=3 * size, spill_dir=tmp_path)
        for owner in (0, 1, 2):
            store.activate(owner)
        assert not list(tmp_path.iterdir())
        store.activate(1)
        store.activate(3)
        assert [f.name for f in tmp_path.iterdir()] == ["client_2.safetensors"]
        store.activate(4)
        assert sorted(f.name for f in tmp_path.iterdir()) == [
            "client_1.safetensors",
            "client_2.safetensors",
        ]
        assert store.owners == [0, 1, 2, 3, 4]

    def test_the_server_stays_in_memory(self, net: Net, tmp_path: Path) -> None:
        store = ClientStore(net, memory_limit=1, spill_dir=tmp_path)
        for owner in (0, 1, 2, 3):
            store.activate(owner)
        assert not (tmp_path / "client_0.safetensors").exists()
        assert len(list(tmp_path.iterdir())) == 2

    def test_memory_stays_within_the_limit(self, net: Net, tmp_path: Path) -> None:
        size = ClientStore(net).state_bytes
        store = ClientStore(net, memory_limit=4 * size, spill_dir=tmp_path)
        for owner in range(50):
            store.activate(owner)
            assert len(store._states) <= 4

    def test_disk_and_back_is_bitwise(self, net: Net, tmp_path: Path) -> None:
        store = ClientStore(net, memory_limit=1, spill_dir=tmp_path)
        store.activate(1)
        net.head.weight.data.copy_(torch.tensor([[1e-45, -0.0, 1e38, 3.1, -7e-10]] * 2))
        net.norm.num_batches_tracked.fill_(2**40 + 1)
        before = bits(owned_tensors(net))
        store.activate(2)
        assert (tmp_path / "client_1.safetensors").exists()
        store.activate(1)
        assert bits(owned_tensors(net)) == before

    def test_closing_removes_the_files_and_the_folder(self, net: Net, tmp_path: Path) -> None:
        store = ClientStore(net, memory_limit=1, spill_dir=tmp_path / "spill")
        for owner in range(5):
            store.activate(owner)
        assert (tmp_path / "spill").is_dir()
        store.close()
        assert not (tmp_path / "spill").exists()


def test_the_shared_module_has_one_state_for_all(net: Net) -> None:
    store = ClientStore(net, shared_module=True)
    store.activate(1)
    train(net)
    after = bits(owned_tensors(net))
    store.activate(2)
    assert bits(owned_tensors(net)) == after
    assert bits(dict(store.state(0))) == after
    assert store.owners == []

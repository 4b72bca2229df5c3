"""What single methods do beside aggregating: merging, halves, sparse stages."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import nn

from federatedscope_ext.methods.hetlora import tail_norm
from federatedscope_ext.workers.base import factors_frozen, only_training
from federatedscope_ext.workers.merging import MergedBase
from federatedscope_ext.workers.sparse_stage import attach, leading_pair, switch
from fedlora.pairs import LoraPair


class Conv1D(nn.Module):
    """GPT-2's linear layer, whose weight is transposed."""

    def __new__(cls) -> Any:
        from transformers.pytorch_utils import Conv1D as Layer

        return Layer(10, 6)


def wrapped(layer: nn.Module, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    net = nn.Sequential()
    net.add_module("layer", layer)
    model = get_peft_model(net.to(dtype), LoraConfig(r=3, target_modules=["layer"]))
    return model


NAME = "base_model.model.layer"


def pair(seed: int, rank: int = 2) -> LoraPair:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(rank, 6, generator=generator)
    return LoraPair(a, torch.randn(10, rank, generator=generator), 0.5)


class TestMerging:
    @pytest.mark.parametrize("layer", [lambda: nn.Linear(6, 10), Conv1D], ids=["Linear", "Conv1D"])
    def test_the_model_computes_with_the_update(self, layer: Any) -> None:
        model = wrapped(layer())
        x = torch.randn(4, 6)
        before = model(x)
        update = pair(1)
        MergedBase(model).add(1, {NAME: update})
        oracle = before + x @ (0.5 * update.B @ update.A).T
        torch.testing.assert_close(model(x), oracle, rtol=1e-5, atol=1e-5)

    def test_a_round_is_added_once_whoever_brings_it(self) -> None:
        model = wrapped(nn.Linear(6, 10))
        merged = MergedBase(model)
        merged.add(1, {NAME: pair(1)})
        once = model.get_submodule(NAME).get_base_layer().weight.clone()
        merged.add(1, {NAME: pair(1)})
        assert torch.equal(model.get_submodule(NAME).get_base_layer().weight, once)
        merged.add(2, {NAME: pair(1)})
        assert not torch.equal(model.get_submodule(NAME).get_base_layer().weight, once)

    def test_half_precision_loses_no_small_updates(self) -> None:
        """A hundred updates, each below the rounding of the weight, add up."""
        model = wrapped(nn.Linear(6, 10), torch.bfloat16)
        weight = model.get_submodule(NAME).get_base_layer().weight
        with torch.no_grad():
            weight.fill_(1.0)
        tiny = LoraPair(torch.full((1, 6), 1e-3), torch.ones(10, 1), 1.0)
        merged = MergedBase(model)
        for rnd in range(100):
            merged.add(rnd, {NAME: tiny})
        torch.testing.assert_close(weight.float(), torch.full((10, 6), 1.1), rtol=0, atol=2**-8)
        exact = weight.float() + merged.rest[NAME].float()
        torch.testing.assert_close(exact, torch.full((10, 6), 1.1), rtol=0, atol=5e-4)

    @pytest.mark.parametrize(
        "layer",
        [lambda: nn.Linear(6, 10), Conv1D, lambda: nn.Embedding(6, 10)],
        ids=["Linear", "Conv1D", "Embedding"],
    )
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_computes_with_small_updates(
        self, layer: Any, dtype: torch.dtype
    ) -> None:
        """The update of a round, hundreds of times smaller than the weight, arrives whole."""
        model = wrapped(layer(), dtype)
        base = model.get_submodule(NAME).get_base_layer()
        before = base.weight.detach().float().clone()
        update = LoraPair(pair(1).A * 1e-2, pair(1).B * 1e-1, 0.5)
        merged = MergedBase(model)
        merged.add(1, {NAME: update})
        delta = 0.5 * update.B @ update.A
        exact = before + (delta if before.shape == delta.shape else delta.T)
        made = base.weight.float() + merged.rest[NAME].float()
        size = float(delta.norm())
        assert float((made - exact).norm()) < 2e-3 * size
        assert float((base.weight.float() - exact).norm()) > 20 * float((made - exact).norm())
        # Of an input of ones and zeros every output is one number of the weight.
        base.double()
        merged.rest[NAME] = merged.rest[NAME].double()
        is_lookup = isinstance(base, nn.Embedding)
        output = base(torch.arange(6) if is_lookup else torch.eye(6).double()).detach()
        if not is_lookup:
            output = output - base.bias
        oracle = exact if exact.shape[0] == 6 else exact.T
        torch.testing.assert_close(output.float(), oracle, rtol=0, atol=2e-3 * size)

    @pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
    @pytest.mark.parametrize("method", ["flora", "fedex"])
    def test_a_checkpoint_has_the_changed_weights(self, rig: Any, method: str, half: bool) -> None:
        options = ("federate.method", method, "llm.adapter.client_ranks", "[2, 4, 8]",
                   "train.is_enable_half", half, "train.half_dtype", "bf16")  # fmt: skip
        first = rig(*options, "federate.save_to", "m.safetensors")
        saved = first.outdir / "checkpoints" / "final_m.safetensors"
        runner = rig.runner(*options)
        fresh = (
            runner.model.get_submodule("base_model.model.bert.encoder.layer.0.attention.self.query")
            .get_base_layer()
            .weight.clone()
        )
        restored = rig.runner(*options, "federate.restore_from", saved)
        weight = (
            restored.model.get_submodule(
                "base_model.model.bert.encoder.layer.0.attention.self.query"
            )
            .get_base_layer()
            .weight
        )
        assert not torch.equal(weight, fresh)
        again = rig(*options, "federate.restore_from", saved, "federate.total_round_num", 0)
        last = {e["client"]: e["metrics"] for e in first.of("eval", round=2)}
        assert {e["client"]: e["metrics"] for e in again.of("eval")} == last
        assert bool(restored.model.method_state.rest) is half


class TestWhatIsTrained:
    def test_a_frozen_factor_is_trainable_again_afterwards(self) -> None:
        model = wrapped(nn.Linear(6, 10))
        with factors_frozen(model, "A"):
            frozen = {n for n, p in model.named_parameters() if p.requires_grad}
            assert any("lora_B" in n for n in frozen) and not any("lora_A" in n for n in frozen)
        assert any(p.requires_grad for n, p in model.named_parameters() if "lora_A" in n)

    def test_also_after_an_error(self) -> None:
        model = wrapped(nn.Linear(6, 10))
        with pytest.raises(KeyError), only_training(model, []):
            raise KeyError("stop")
        assert any(p.requires_grad for p in model.parameters())

    @pytest.mark.parametrize(("method", "factors"), [("rolora", "BA"), ("fedsvd", "BB")])
    def test_one_factor_travels_in_each_round(
        self, rig: Any, mail: Any, method: str, factors: str
    ) -> None:
        assert rig("federate.method", method).code == 0
        for rnd, factor in enumerate(factors):
            for message in mail:
                if message.type == "model_para" and message.sender and message.state == rnd:
                    sent = {n for n in message.tensors if "lora_" in n}
                    assert sent and all(f"lora_{factor}" in n for n in sent)


def test_tied_weights_are_refused_where_updates_go_into_them() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    from federatedscope_ext.workers.merging import check_untied

    config = GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=20, n_positions=8)
    for targets, good in ((["c_attn"], True), (["wte"], False)):
        model = get_peft_model(GPT2LMHeadModel(config), LoraConfig(r=2, target_modules=targets))
        if good:
            check_untied(model)
            continue
        with pytest.raises(ValueError, match="another module shares it"):
            check_untied(model)


class TestSparseStage:
    def test_a_restored_run_keeps_its_adapters(self, rig: Any) -> None:
        # Equal ranks: zero padding would shrink rows at each mean, restored or not.
        options = ("federate.method", "slora", "llm.adapter.client_ranks", "[4, 4, 4]",
                   "federate.total_round_num", 3)  # fmt: skip
        first = rig(*options, "federate.save_to", "m.safetensors")
        saved = first.outdir / "checkpoints" / "final_m.safetensors"
        again = rig(*options, "federate.restore_from", saved, "train.optimizer.lr", 0.0)
        last = {e["client"]: e["metrics"] for e in first.of("eval", round=3)}
        for rnd in (1, 3):
            assert {e["client"]: e["metrics"] for e in again.of("eval", round=rnd)} == last

    def test_a_checkpoint_of_the_first_stage_starts_the_adapters(self, rig: Any) -> None:
        options = ("federate.method", "slora", "slora.rounds", 2, "federate.total_round_num", 3)
        first = rig(*options, "federate.save_to", "m.safetensors", "federate.save_freq", 1)
        saved = first.outdir / "checkpoints" / "1_m.safetensors"
        fresh = rig.runner(*options)
        model = rig.runner(*options, "federate.restore_from", saved).model
        named = dict(model.named_parameters())
        state = load_file(saved)
        assert not any(bool(p.any()) for n, p in named.items() if n.endswith("slora_values"))
        compared = 0
        for module, update in model.method_state.updates.items():
            layer = fresh.model.get_submodule(module)
            with torch.no_grad():
                layer.slora_values.copy_(state[f"{module}.slora_values"])
            matrix = fresh.model.method_state.updates[module].matrix(layer).detach().double()
            a, b = (named[f"{module}.lora_{f}.default.weight"].double() for f in "AB")
            left, values, right = torch.linalg.svd(matrix)
            rank = len(a)
            oracle = (left[:, :rank] * values[:rank]) @ right[:rank]
            made = model.get_submodule(module).scaling["default"] * (b @ a)
            torch.testing.assert_close(made, oracle, rtol=1e-4, atol=1e-7)
            compared += bool(matrix.any()) and update is not None
        assert compared

    def test_the_layer_computes_with_the_sparse_update_while_it_is_on(self) -> None:
        model = wrapped(nn.Linear(6, 10))
        attach(model, density=0.25, seed=1)
        layer = model.get_submodule(NAME)
        x = torch.randn(4, 6)
        before = model(x)
        with torch.no_grad():
            layer.slora_values.normal_()
        torch.testing.assert_close(model(x), before)
        switch(model, True)
        matrix = model.method_state.updates[NAME].matrix(layer).detach()
        assert int((matrix != 0).sum()) == 15
        torch.testing.assert_close(model(x), before + x @ matrix.T, rtol=1e-5, atol=1e-5)

    def test_everybody_has_the_same_places(self) -> None:
        places = []
        for _ in range(2):
            model = wrapped(nn.Linear(6, 10))
            attach(model, density=0.0, seed=3)
            places.append(model.get_submodule(NAME).slora_index)
        assert torch.equal(*places)
        # As many as LoRA has numbers: 3 (6 + 10).
        assert len(set(places[0].tolist())) == 48

    def test_modules_of_one_shape_have_different_places(self) -> None:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 10), nn.Linear(10, 6), nn.Linear(6, 10))
        model = get_peft_model(net, LoraConfig(r=2, target_modules=["0", "2"]))
        attach(model, density=0.0, seed=3)
        first, other = (layer.slora_index.tolist() for layer in (net[0], net[2]))
        assert len(first) == len(other) == 32
        # 32 of 60 places each: of two independent draws about 17 are common.
        assert len(set(first) & set(other)) < 25

    @pytest.mark.parametrize(
        ("density", "counts"), [(0.0, [32, 48, 60]), (0.5, [10, 15, 30]), (1.0, [20, 30, 60])]
    )
    def test_the_density_follows_the_rank(self, density: float, counts: list[int]) -> None:
        """Of a layer of 6 x 10 at ranks 2, 3 and 6; each has the first places of the larger."""
        torch.manual_seed(0)
        model = get_peft_model(
            nn.Sequential(nn.Linear(6, 10)), LoraConfig(r=6, target_modules=["0"])
        )
        attach(model, density=density, seed=3)
        (name, update), layer = *model.method_state.updates.items(), model.base_model.model[0]
        for rank, count in zip((2, 3, 6), counts, strict=True):
            state = {f"{name}.slora_values": torch.ones(60), "other": torch.ones(3)}
            cut = model.method_state.fitted(state, {name: rank})
            assert [len(tensor) for tensor in cut.values()] == [count, 3]
            whole = model.method_state.fitted(cut, {name: 6})
            assert whole[f"{name}.slora_values"].sum() == count
            layer.slora_values.data = cut[f"{name}.slora_values"]
            matrix = update.matrix(layer)
            assert int((matrix != 0).sum()) == count
            assert matrix.flatten()[layer.slora_index[:count]].all()

    def test_what_travels_follows_the_rank(self, rig: Any, mail: Any) -> None:
        """Both ways, and in the bytes that are counted."""
        done = rig("federate.method", "slora", "llm.adapter.client_ranks", "[1, 2, 4]",
                   "federate.total_round_num", 2)  # fmt: skip
        assert done.code == 0, done.run.get("error")
        sent: dict[int, int] = {}
        received: dict[int, int] = {}
        for message in mail:
            if message.type == "model_para" and message.state == 0:
                size = sum(t.numel() for n, t in message.tensors.items() if "slora_" in n)
                if message.sender:
                    sent[message.sender] = size
                else:
                    received |= dict.fromkeys(message.receivers, size)
        assert sent == received and sent[1] * 4 == sent[2] * 2 == sent[3]
        values = 4 * sum(sent.values())
        first, second = (sum(event["bytes_up"].values()) for event in done.of("round"))
        # In the second round as many numbers travel as factors, and the same head.
        assert abs(first - second) < 0.1 * values

    def test_a_run_that_stops_in_the_first_stage_ends(self, rig: Any) -> None:
        """Also for a client of lower rank that was never asked."""
        done = rig("federate.method", "slora", "slora.rounds", 8, "federate.total_round_num", 9,
                   "llm.adapter.client_ranks", "[1, 2, 4]", "federate.sample_client_num", 1,
                   "train.optimizer.lr", 0.0, "early_stop.patience", 1,
                   "eval.clients", "all")  # fmt: skip
        assert done.code == 0, done.run.get("error")
        assert done.run["stopped_by"] == "early_stop"

    def test_the_adapters_start_from_the_best_approximation(self) -> None:
        matrix = torch.randn(10, 6, generator=torch.Generator().manual_seed(0))
        made = leading_pair(matrix, 3, 4.0)
        left, values, right = torch.linalg.svd(matrix.double())
        oracle = (left[:, :3] * values[:3]) @ right[:3]
        torch.testing.assert_close((4.0 * made.B @ made.A).double(), oracle, rtol=1e-5, atol=1e-5)

    def test_the_first_stage_sends_sparse_updates_the_second_adapters(
        self, rig: Any, mail: Any
    ) -> None:
        done = rig("federate.method", "flexlora", "slora.rounds", 1,
                   "federate.total_round_num", 3)  # fmt: skip
        assert done.code == 0, done.run.get("error")
        kinds = []
        for rnd in range(3):
            (message, *_) = [
                m for m in mail if m.type == "model_para" and m.sender == 1 and m.state == rnd
            ]
            kinds.append({"sparse" if "slora_" in n else "lora" for n in message.tensors
                          if "slora_" in n or "lora_" in n})  # fmt: skip
        assert kinds == [{"sparse"}, {"lora"}, {"lora"}]


def test_the_penalty_is_the_product_of_the_tails_norms() -> None:
    model = wrapped(nn.Linear(6, 10))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_()
    named = dict(model.named_parameters())
    a, b = named[f"{NAME}.lora_A.default.weight"], named[f"{NAME}.lora_B.default.weight"]
    penalty = tail_norm(named, {NAME: 1})
    torch.testing.assert_close(penalty, a[1:].norm() * b[:, 1:].norm())
    penalty.backward()
    assert not a.grad[0].any() and a.grad[1:].any()
    assert not b.grad[:, 0].any() and b.grad[:, 1:].any()
    assert float(tail_norm(named, {NAME: 3})) == 0.0


@pytest.mark.parametrize("frozen", [("ffa", False), ("FedAvg", True)], ids=["ffa", "freeze_A"])
def test_a_frozen_embedding_factor_is_refused(rig: Any, capsys: Any, frozen: Any) -> None:
    """It starts at zero and would stay there."""
    adapter = "[{'adapter_method': 'lora', 'r': 2, 'target_modules': ['word_embeddings']}]"
    method, switch = frozen
    options = ("federate.method", method, "federate.freeze_A", switch, "llm.adapter.args", adapter)
    assert rig(*options).code == 2
    assert "llm.adapter.args.target_modules" in capsys.readouterr().err


def test_fine_tuning_before_evaluation_trains_what_the_method_trains(rig: Any, step: Any) -> None:
    runner = rig.runner(
        "federate.method", "fedsvd", "finetune.before_eval", True, "finetune.local_update_steps", 2
    )
    trained: set[str] = set()
    client = runner.clients[1]
    whole = client.trainer.finetune

    def watched(*args: Any, **keywords: Any) -> None:
        trained.update(n for n, p in runner.model.named_parameters() if p.requires_grad)
        whole(*args, **keywords)

    client.trainer.finetune = watched
    for _ in step(runner):
        pass
    assert any("lora_B" in name for name in trained)
    assert not any("lora_A" in name for name in trained)


FROZEN = ("federate.freeze_A", True)
PATTERN = "[{{'adapter_method': 'lora', 'r': 4, 'lora_alpha': 8, 'target_modules': ['query'], {}}}]"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        *(
            (("federate.method", method, *FROZEN), ["federate.freeze_A", f"{method} changes A"])
            for method in ("flexlora", "replication_pad", "hetlora", "flora", "fedex", "rolora",
                           "fedsvd", "fedrot", "slora", "feddpa", "zero_pad")
        ),
        (("federate.method", "slora", "fedopt.use", True), ["fedopt.use", "two stages"]),
        (("federate.method", "flora", "llm.adapter.args",
          PATTERN.format("'layer_replication': [[0, 1], [0, 2]]")), ["layer_replication", "share"]),
        (("federate.method", "flexlora", "slora.rounds", 1, "fedopt.use", True), ["fedopt.use"]),
        (("llm.adapter.args", PATTERN.format("'alpha_pattern': {'query': 0}")),
         ["alpha_pattern", "positive"]),
        (("llm.adapter.args", PATTERN.format("'alpha_pattern': {'query': -4}")),
         ["alpha_pattern", "positive"]),
        (("llm.adapter.args", PATTERN.format("'rank_pattern': {'query': 2.5}")),
         ["rank_pattern", "positive"]),
        (("llm.adapter.args", PATTERN.format("'rank_pattern': {'key': 4}")),
         ["rank_pattern", "no module with an adapter", "query"]),
        (("federate.method", "FedAvg", "llm.adapter.args", "[{'adapter_method': 'prefix'}]"),
         ["num_virtual_tokens", "20"]),
        (("llm.adapter.args", PATTERN.format("'alpha_pattern': {'nope': 4}")),
         ["alpha_pattern", "There are 'query'"]),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_method_cannot_do_is_refused_before_work(
    rig: Any, capsys: Any, options: Any, words: Any
) -> None:
    assert rig(*options).code == 2
    told = capsys.readouterr().err
    for word in words:
        assert word in told

"""Where adapters are put: defaults, all linear layers, names that meet nothing, experts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from federatedscope.core.aggregators import ClientsAvgAggregator
from federatedscope.core.configs.config import global_cfg
from federatedscope.core.errors import ConfigError
from federatedscope.llm.model.model_builder import build_skeleton, get_llm

SMALL = {"vocab_size": 80, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 24, "max_position_embeddings": 64}  # fmt: skip
DECODER = {**SMALL, "num_key_value_heads": 1}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": SMALL,
    "distilbert": {"vocab_size": 80, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48},
    "albert": {**SMALL, "embedding_size": 16},
    "big_bird": {**SMALL, "attention_type": "original_full"},
    "gpt2": {"vocab_size": 80, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "llama": DECODER,
    "qwen2": DECODER,
    "cohere": DECODER,
    "mixtral": {**DECODER, "num_local_experts": 2},
    "mamba": {"vocab_size": 80, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "bart": {"vocab_size": 80, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1,
             "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 48,
             "decoder_ffn_dim": 48, "max_position_embeddings": 64},
}  # fmt: skip


@pytest.fixture
def family(tmp_path: Path) -> Callable[[str], Path]:
    """The configuration of a tiny model of a family, enough for its skeleton."""

    def make(name: str) -> Path:
        from transformers import AutoConfig

        AutoConfig.for_model(name, **FAMILIES[name]).save_pretrained(tmp_path / name)
        return tmp_path / name

    return make


def config(model: Path, labels: int = 2, **adapter: Any) -> Any:
    cfg = global_cfg.clone()
    cfg.model.type = f"{model}@huggingface_llm"
    cfg.data.num_labels = labels
    cfg.trainer.type = "gluetrainer" if labels else "llmtrainer"
    cfg.llm.adapter.use = True
    cfg.llm.adapter.args = [{"adapter_method": "lora", "r": 4, "lora_alpha": 8, **adapter}]
    return cfg


def adapted(cfg: Any) -> set[str]:
    """Last names of the modules with an adapter."""
    names = [name for name, _ in build_skeleton(cfg).named_parameters() if ".lora_" in name]
    return {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in names}


def refused(cfg: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        build_skeleton(cfg)
    return caught.value


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("distilbert", 2, {"q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"}),
        ("bert", 2, {"query", "key", "value", "dense"}),
        ("albert", 2, {"query", "key", "value", "dense", "ffn", "ffn_output", "pooler",
                       "embedding_hidden_mapping_in"}),
        ("gpt2", 2, {"c_attn", "c_proj", "c_fc"}),
        ("bart", 2, {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}),
        ("gpt2", 0, {"c_attn", "c_proj", "c_fc"}),
        ("cohere", 0, {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj",
                       "down_proj"}),
        ("mixtral", 0, {"q_proj", "k_proj", "v_proj", "o_proj"}),
    ],
)  # fmt: skip
def test_all_linear_layers_but_head_and_output(
    family: Callable[[str], Path], name: str, labels: int, expected: set[str]
) -> None:
    cfg = config(family(name), labels, target_modules="all-linear")
    found = adapted(cfg)
    assert found - {"dense"} == expected - {"dense"}
    whole = [n for n, p in build_skeleton(cfg).named_parameters() if "modules_to_save" in n]
    assert not any(".lora_" in name for name in whole)


def test_a_saved_module_gets_no_adapter(family: Callable[[str], Path]) -> None:
    cfg = config(family("bert"), modules_to_save=["pooler"], target_modules=["dense"])
    names = [name for name, _ in build_skeleton(cfg).named_parameters() if ".lora_" in name]
    assert names
    assert not any("pooler" in name for name in names)


@pytest.mark.parametrize(
    ("name", "expected"), [("mixtral", {"q_proj", "v_proj"}), ("gpt2", {"c_attn"})]
)
def test_pefts_own_default_comes_first(
    family: Callable[[str], Path], name: str, expected: set[str]
) -> None:
    assert adapted(config(family(name), 0)) == expected


def test_without_a_default_the_models_own_layers_are_named(family: Callable[[str], Path]) -> None:
    error = refused(config(family("distilbert")))
    assert error.field == "llm.adapter.args.target_modules"
    assert "'q_lin', 'k_lin'" in error.remedy
    assert "classifier" not in str(error)


MISTAKES = [
    ({"target_modules": ["query", "vaule"]}, "target_modules", "'value'"),
    ({"target_modules": ["all-linear"]}, "target_modules", "as text: 'all-linear'"),
    ({"target_modules": "value"}, "target_modules", "['value', 'query']"),
    ({"target_modules": ["classifier"]}, "target_modules", "'query', 'value'"),
    ({"exclude_modules": ["nothing"]}, "exclude_modules", "'query', 'value'"),
    ({"exclude_modules": "nothing"}, "exclude_modules", "regular expression"),
    ({"target_parameters": ["nothing"]}, "target_parameters", "Leave target_parameters out"),
    ({"layers_to_transform": [0, 9]}, "layers_to_transform", "layer 9"),
    ({"layers_to_transform": [0], "layers_pattern": "x"}, "layers_to_transform", "layers"),
    ({"trainable_token_indices": [80]}, "trainable_token_indices", "0 to 79"),
    ({"trainable_token_indices": {"x": [1]}}, "trainable_token_indices", "no such embedding"),
    ({"layer_replication": [[0, 9]]}, "layer_replication", "layers 0 to 1"),
    ({"modules_to_save": ["embeddings"]}, "modules_to_save", "'bert.embeddings'"),
    ({"modules_to_save": ["poler"]}, "modules_to_save", "'pooler'"),
    ({"init_lora_weights": "pissa", "r": 64}, "init_lora_weights", "(64, 32) is wanted"),
    ({"init_lora_weights": "olora", "r": 64}, "init_lora_weights", "(64, 32) is wanted"),
]


@pytest.mark.parametrize(
    ("given", "field", "words"), MISTAKES, ids=[str(given) for given, *_ in MISTAKES]
)
def test_what_meets_nothing_is_refused(
    family: Callable[[str], Path], given: dict[str, Any], field: str, words: str
) -> None:
    error = refused(config(family("bert"), **given))
    assert error.field == f"llm.adapter.args.{field}"
    assert words in str(error)


def test_layers_that_differ_in_kind_are_not_repeated(family: Callable[[str], Path]) -> None:
    error = refused(config(family("qwen2"), 0, layer_replication=[[0, 2]]))
    assert error.field == "llm.adapter.args.layer_replication"


class TestExperts:
    """Parameters of all experts (``target_parameters``), and names that mean them."""

    ARGS: ClassVar[dict[str, Any]] = {
        "target_modules": ["q_proj"],
        "target_parameters": ["mlp.experts.gate_up_proj"],
    }

    @pytest.fixture
    def mixtral(self, family: Callable[[str], Path], tiny_llama: Path) -> Path:
        """A Mixtral with weights and the tiny LLaMA's tokenizer."""
        from transformers import AutoConfig, AutoModelForCausalLM

        folder = family("mixtral")
        for file in tiny_llama.glob("token*"):
            shutil.copy(file, folder)
        with torch.random.fork_rng():
            torch.manual_seed(7)
            AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(
                folder
            )
        return folder

    @pytest.mark.parametrize("target", [["q_proj", "w1", "w3"], ".*(q_proj|w1|w3)"])
    def test_old_names_are_refused(self, family: Callable[[str], Path], target: Any) -> None:
        error = refused(config(family("mixtral"), 0, target_modules=target))
        assert error.field == "llm.adapter.args.target_modules"
        assert "target_parameters" in error.remedy

    @pytest.mark.parametrize(
        ("given", "field"),
        [
            ({"lora_dropout": 0.1}, "lora_dropout"),
            ({"use_dora": True}, "use_dora"),
            ({"init_lora_weights": "pissa"}, "init_lora_weights"),
            ({"rank_pattern": {"gate_up_proj": 2}}, "rank_pattern"),
        ],
    )
    def test_what_peft_cannot_do_with_them(
        self, family: Callable[[str], Path], given: dict[str, Any], field: str
    ) -> None:
        error = refused(config(family("mixtral"), 0, **self.ARGS, **given))
        assert error.field == f"llm.adapter.args.{field}"

    def test_the_mean_of_factors_is_that_of_every_experts(self, mixtral: Path) -> None:
        """With a common A the mean of B is the mean of the updates: dense, expert by expert."""
        model = get_llm(config(mixtral, 0, **self.ARGS))
        name = next(n for n, m in model.named_modules() if hasattr(m, "parameter_name"))
        layer = model.get_submodule(name)
        key = f"{name}.lora_B.default.weight"
        generator = torch.Generator().manual_seed(3)
        uploads, updates = [], []
        for size in (1, 3):
            b = torch.randn(layer.lora_B["default"].weight.shape, generator=generator)
            uploads.append((size, {key: b}))
            a = layer.lora_A["default"].weight.detach().double()
            experts = [
                2.0 * b.double()[:, e::2] @ a[4 * e : 4 * e + 4]  # scale 8 / 4, 2 experts
                for e in range(2)
            ]
            updates.append(torch.stack(experts))
        mean = ClientsAvgAggregator(model, config=global_cfg.clone()).aggregate(
            {"client_feedback": uploads}
        )
        layer.lora_B["default"].weight.data = mean[key]
        expected = 0.25 * updates[0] + 0.75 * updates[1]
        found = layer.get_delta_weight("default").detach().double()
        assert torch.allclose(found, expected, atol=1e-5)

    def options(self, mixtral: Path, method: str, **adapter: Any) -> tuple[Any, ...]:
        file = mixtral.parent / "own.jsonl"
        rows = [{"instruction": f"the film {i}", "output": "good story"} for i in range(24)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        args = {"adapter_method": "lora", "r": 4, "lora_alpha": 8, **self.ARGS, **adapter}
        return (
            "data.type", f"{file}@llm", "model.type", f"{mixtral}@huggingface_llm",
            "trainer.type", "llmtrainer", "data.splitter", "iid", "data.splits", "[0.8, 0.2, 0.0]",
            "eval.metrics", "[]", "eval.best_res_update_round_wise_key", "val_avg_loss",
            "llm.tok_len", 60, "train.local_update_steps", 2, "federate.total_round_num", 1,
            "federate.client_num", 2, "federate.method", method, "llm.adapter.args", [args],
        )  # fmt: skip

    @pytest.mark.parametrize("method", ["FedAvg", "fedsa", "ffa", "feddpa", "local"])
    def test_methods_that_average_factors(self, rig: Any, mixtral: Path, method: str) -> None:
        assert rig(*self.options(mixtral, method)).code == 0

    @pytest.mark.parametrize(
        "method",
        ["flexlora", "flora", "fedex", "fedsvd", "fedrot", "hetlora", "rolora", "slora",
         "zero_pad", "replication_pad"],
    )  # fmt: skip
    def test_methods_that_do_more(
        self, rig: Any, family: Callable[[str], Path], mixtral: Path, capsys: Any, method: str
    ) -> None:
        done = rig(*self.options(mixtral, method))
        assert done.code == 2
        told = capsys.readouterr().err
        assert "llm.adapter.args.target_parameters" in told
        assert "fedavg, fedsa, ffa" in told

    @pytest.mark.parametrize(
        "more", [("llm.adapter.client_ranks", "[2, 4]"), ("llm.adapter.scale_rule", "rslora")]
    )
    def test_other_ranks_and_scales(
        self, rig: Any, mixtral: Path, capsys: Any, more: tuple[Any, ...]
    ) -> None:
        assert rig(*self.options(mixtral, "FedAvg"), *more).code == 2
        assert "llm.adapter.args.target_parameters" in capsys.readouterr().err


@pytest.mark.parametrize("start", ["pissa", False])
def test_another_scale_than_pefts_would_change_the_base(rig: Any, capsys: Any, start: Any) -> None:
    args = [{"adapter_method": "lora", "r": 4, "lora_alpha": 8, "init_lora_weights": start}]
    done = rig("llm.adapter.args", args, "llm.adapter.scale_rule", "rslora")
    assert done.code == 2
    assert "init_lora_weights" in capsys.readouterr().err


class TestPrompts:
    """Virtual tokens and prefixes beside families that name or do things in their own way."""

    @pytest.mark.parametrize(
        ("name", "labels", "method", "problem"),
        [
            ("bart", 2, "prompt", "Passing input embeddings"),
            ("bart", 2, "prefix", "bart cannot compute"),
            ("distilbert", 2, "prefix", "past key values"),
            ("albert", 2, "prefix", "past key values"),
            ("big_bird", 2, "prefix", "big_bird cannot compute"),
            ("big_bird", 2, "prompt", ""),
            ("distilbert", 2, "prompt", ""),
            ("albert", 2, "p-tuning", ""),
            ("mixtral", 2, "prefix", ""),
            ("mixtral", 0, "prompt", ""),
            ("llama", 0, "prefix", ""),
            ("mamba", 0, "prompt", ""),
            ("mamba", 0, "prefix", "mamba cannot compute"),
        ],
    )
    def test_what_cannot_be_computed_is_refused(
        self, family: Any, name: str, labels: int, method: str, problem: str
    ) -> None:
        cfg = config(family(name), labels)
        cfg.llm.adapter.args = [{"adapter_method": method, "num_virtual_tokens": 3}]
        if not problem:
            build_skeleton(cfg)
            return
        with pytest.raises(ConfigError, match=problem) as caught:
            build_skeleton(cfg)
        assert caught.value.field == "llm.adapter.args.adapter_method"

    def test_virtual_tokens_are_as_wide_as_the_embedding(self, family: Any) -> None:
        cfg = config(family("albert"))
        cfg.llm.adapter.args = [{"adapter_method": "prompt", "num_virtual_tokens": 3}]
        shapes = {
            tuple(p.shape) for n, p in build_skeleton(cfg).named_parameters() if "prompt" in n
        }
        assert shapes == {(3, FAMILIES["albert"]["embedding_size"])}


def test_all_linear_leaves_out_what_peft_refuses(family: Any) -> None:
    names = {name.split(".")[-1] for name in adapted(config(family("mamba"), 0,
             target_modules="all-linear"))}  # fmt: skip
    assert "in_proj" in names
    assert "out_proj" not in names


def test_layers_of_a_model_with_weights_are_replicated(tiny_model: Path) -> None:
    cfg = config(tiny_model, layer_replication=[[0, 1], [0, 1]], target_modules=["query"])
    assert trained_shapes(build_skeleton(cfg)) == trained_shapes(get_llm(cfg))


def trained_shapes(model: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: p.shape for name, p in model.named_parameters() if p.requires_grad}

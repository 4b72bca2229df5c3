"""Fields of ``llm.adapter.args``: read as PEFT annotates them, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from federatedscope.core.configs.config import global_cfg
from federatedscope.core.errors import ConfigError
from federatedscope.llm.model.adapter_builder import peft_config, settle_adapter


def config(**fields: Any) -> Any:
    cfg = global_cfg.clone()
    cfg.llm.adapter.use = True
    cfg.llm.adapter.args = [fields]
    return cfg


READ = [
    ({"use_rslora": "False"}, {"use_rslora": False}),
    ({"use_dora": "true"}, {"use_dora": True}),
    ({"r": "4"}, {"r": 4}),
    ({"r": 4.0}, {"r": 4}),
    ({"lora_alpha": 0.5}, {"lora_alpha": 0.5}),
    ({"lora_alpha": 16}, {"lora_alpha": 16}),
    ({"lora_dropout": "0.1"}, {"lora_dropout": 0.1}),
    ({"bias": "ALL"}, {"bias": "all"}),
    ({"target_modules": "['query', 'value']"}, {"target_modules": ["query", "value"]}),
    ({"target_modules": ".*(query|value)"}, {"target_modules": ".*(query|value)"}),
    ({"rank_pattern": {"query": "2"}}, {"rank_pattern": {"query": 2}}),
    ({"alpha_pattern": None}, {"alpha_pattern": {}}),
    ({"layers_to_transform": ["0"]}, {"layers_to_transform": [0]}),
    ({"layer_replication": [[0, 1], [0, 2]]}, {"layer_replication": [[0, 1], [0, 2]]}),
    (
        {"runtime_config": {"ephemeral_gpu_offload": "False"}},
        {"runtime_config": {"ephemeral_gpu_offload": False}},
    ),
    ({"init_lora_weights": "false"}, {"init_lora_weights": False}),
    ({"init_lora_weights": "PiSSA"}, {"init_lora_weights": "pissa"}),
    ({"inference_mode": "False"}, {"inference_mode": False}),
    (
        {"adapter_method": "prompt", "num_virtual_tokens": "3", "prompt_tuning_init": "random"},
        {"num_virtual_tokens": 3, "prompt_tuning_init": "RANDOM"},
    ),
    (
        {"adapter_method": "prefix", "num_virtual_tokens": 3, "prefix_projection": "no"},
        {"prefix_projection": False},
    ),
]


@pytest.mark.parametrize(("given", "read"), READ, ids=[str(given) for given, _ in READ])
def test_values_are_read_in_the_type_of_their_field(
    given: dict[str, Any], read: dict[str, Any]
) -> None:
    cfg = config(**given)
    settle_adapter(cfg)
    settled = dict(cfg.llm.adapter.args[0])
    for field, value in read.items():
        assert settled[field] == value
        assert type(settled[field]) is type(value)
    assert peft_config(cfg, "SEQ_CLS")


def test_a_mapping_becomes_the_object_that_peft_wants() -> None:
    built = peft_config(config(runtime_config={"ephemeral_gpu_offload": True}), "SEQ_CLS")
    assert built.runtime_config.ephemeral_gpu_offload is True


VERA = {"adapter_method": "vera"}
PROMPT = {"adapter_method": "prompt", "num_virtual_tokens": 3}
REFUSED = [
    ({"use_rslora": "maybe"}, "use_rslora", "True or False"),
    ({"use_rslora": 1}, "use_rslora", "True or False"),
    ({"r": None}, "r", "a whole number"),
    ({"r": 0}, "r", "from 1"),
    ({"r": 8.5}, "r", "a whole number"),
    ({"lora_alpha": None}, "lora_alpha", "a number"),
    ({"lora_alpha": float("nan")}, "lora_alpha", "a number"),
    ({"lora_alpha": -1}, "lora_alpha", "positive"),
    ({"lora_dropout": 1}, "lora_dropout", "less than 1"),
    ({"modules_to_save": "classifier"}, "modules_to_save", "['classifier']"),
    ({"modules_to_save": [""]}, "modules_to_save", "a list of texts"),
    ({"bias": False}, "bias", "'none'"),
    ({"target_modules": ["query", None]}, "target_modules", "a list of texts"),
    ({"target_modules": {"query": 1}}, "target_modules", "a list of texts"),
    ({"target_modules": "(query"}, "target_modules", "no regular expression"),
    ({"exclude_modules": "*x"}, "exclude_modules", "no regular expression"),
    ({"rank_pattern": {"(q": 2}}, "rank_pattern", "no regular expression"),
    ({"rank_pattern": {"q": "x"}}, "rank_pattern", "a whole number"),
    ({"rank_pattern": ["q"]}, "rank_pattern", "a mapping"),
    ({"alpha_pattern": {"q": 0}}, "alpha_pattern", "positive"),
    (
        {"layers_to_transform": [0], "layers_pattern": ["(x"]},
        "layers_pattern",
        "no regular expression",
    ),
    ({"layers_pattern": "layer"}, "layers_pattern", "layers_to_transform"),
    ({"runtime_config": True}, "runtime_config", "a mapping of ephemeral_gpu_offload"),
    ({"runtime_config": {"x": 1}}, "runtime_config", "no 'x'"),
    ({"target_parameters": "x"}, "target_parameters", "['x']"),
    ({"trainable_token_indices": "x"}, "trainable_token_indices", "whole numbers"),
    ({"layer_replication": [0, 1]}, "layer_replication", "a list"),
    ({"inference_mode": True}, "inference_mode", "nothing would be trained"),
    ({"task_type": "SEQ_CLS"}, "task_type", "data.type"),
    ({"peft_type": "VERA"}, "peft_type", "adapter_method"),
    ({"revision": "main"}, "revision", "model.revision"),
    ({"init_lora_weights": None}, "init_lora_weights", "True or False"),
    ({"init_lora_weights": "nonsense"}, "init_lora_weights", "gaussian"),
    ({"init_lora_weights": "eva"}, "init_lora_weights", "rows"),
    ({"init_lora_weights": "corda"}, "init_lora_weights", "rows"),
    ({"init_lora_weights": "lora_ga"}, "init_lora_weights", "rows"),
    ({"init_lora_weights": "loftq"}, "init_lora_weights", "quantises"),
    ({"init_lora_weights": "mica"}, "init_lora_weights", "freezes B"),
    ({"init_lora_weights": "orthogonal", "r": 3}, "init_lora_weights", "even"),
    ({"loftq_config": {"loftq_bits": 4}}, "loftq_config", "quantises"),
    ({"velora_config": {}}, "velora_config", "Leave velora_config out"),
    ({"arrow_config": {"top_k": 1}}, "arrow_config", "Leave arrow_config out"),
    ({"use_qalora": "True"}, "use_qalora", "GPTQ"),
    ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens", "no prompt"),
    ({**VERA, "bias": "lora_only"}, "bias", "'vera_only'"),
    ({**VERA, "vera_dropout": 2}, "vera_dropout", "less than 1"),
    ({**VERA, "d_initial": "x"}, "d_initial", "a number"),
    ({**PROMPT, "num_virtual_tokens": None}, "num_virtual_tokens", "a whole number"),
    ({**PROMPT, "prompt_tuning_init": "foo"}, "prompt_tuning_init", "'SAMPLE_VOCAB'"),
    ({**PROMPT, "prompt_tuning_init": "TEXT"}, "prompt_tuning_init", "tokenizer_name_or_path"),
    ({**PROMPT, "token_dim": 8}, "token_dim", "the model"),
    (
        {**PROMPT, "adapter_method": "p-tuning", "encoder_reparameterization_type": "x"},
        "encoder_reparameterization_type",
        "'LSTM'",
    ),
]


@pytest.mark.parametrize(
    ("given", "field", "words"), REFUSED, ids=[str(given) for given, *_ in REFUSED]
)
def test_what_cannot_be_is_refused_by_its_field(
    given: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        peft_config(config(**given), "SEQ_CLS")
    assert caught.value.field == f"llm.adapter.args.{field}"
    assert words in str(caught.value)


class TestInARun:
    """Before data and weights are read, for all and for single clients."""

    def test_text_is_no_switch(self, rig: Any) -> None:
        args = "[{'adapter_method': 'lora', 'r': '4', 'use_rslora': 'False'}]"
        prepared = rig.prepared("llm.adapter.args", args)
        assert prepared.run["variant"] == "FedSA-LoRA"
        assert prepared.run["adapter"]["arguments"]["use_rslora"] is False

    def test_a_client_of_its_own(self, rig: Any) -> None:
        own = "[{'r': '2', 'lora_alpha': '4', 'use_rslora': 'False'}]"
        done = rig(
            "federate.method", "flexlora", "client_1.llm.adapter.args", own,
            "federate.total_round_num", 1,
        )  # fmt: skip
        assert done.code == 0
        assert (done.run["clients"][0]["rank"], done.run["clients"][0]["scale"]) == (2, 2.0)

    @pytest.mark.parametrize(
        "own", ["{'r': None}", "{'use_rslora': 'x'}", "{'rank_pattern': [1]}"], ids=str
    )
    def test_a_client_with_a_mistake(self, rig: Any, capsys: Any, own: str) -> None:
        done = rig("federate.method", "flexlora", "client_1.llm.adapter.args", f"[{own}]")
        assert done.code == 2
        field = own.split("'")[1]
        assert f"client_1.llm.adapter.args.{field}" in capsys.readouterr().err

    def test_a_prompt_from_a_tokenizer_that_is_not_there(
        self, rig: Any, capsys: Any, tmp_path: Path
    ) -> None:
        args = {
            "adapter_method": "prompt", "num_virtual_tokens": 3, "prompt_tuning_init": "TEXT",
            "prompt_tuning_init_text": "good", "tokenizer_name_or_path": str(tmp_path / "none"),
        }  # fmt: skip
        done = rig("federate.method", "FedAvg", "llm.adapter.args", [args])
        assert done.code == 2
        assert "tokenizer_name_or_path" in capsys.readouterr().err

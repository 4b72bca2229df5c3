"""Half precision where tensors of the base itself are trained: a step, evaluation, generation."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from federatedscope.core.configs.config import global_cfg
from federatedscope.core.precision import join_types
from federatedscope.llm.model.model_builder import get_llm

LORA = {"adapter_method": "lora", "r": 4, "lora_alpha": 8}
LLAMA = [
    {"modules_to_save": ["lm_head"]},
    {"modules_to_save": ["embed_tokens"]},
    {"modules_to_save": ["norm"]},
    {"modules_to_save": ["mlp"]},
    {"trainable_token_indices": [3, 4]},
    {"target_modules": ["embed_tokens", "q_proj"]},
]
BERT = [
    {"bias": "all"},
    {"bias": "lora_only"},
    {"modules_to_save": ["bert.embeddings"]},
    {"modules_to_save": ["LayerNorm"]},
    {"modules_to_save": ["pooler"], "target_modules": "all-linear"},
]


def config(model: Path, labels: int, adapter: dict[str, Any]) -> Any:
    cfg = global_cfg.clone()
    cfg.model.type = f"{model}@huggingface_llm"
    cfg.data.num_labels = labels
    cfg.trainer.type = "gluetrainer" if labels else "llmtrainer"
    cfg.llm.adapter.use = True
    cfg.llm.adapter.args = [{**LORA, **adapter}]
    return cfg


def built(cfg: Any, dtype: torch.dtype) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return get_llm(cfg, dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("labels", "adapter"),
    [*((0, adapter) for adapter in LLAMA), *((2, adapter) for adapter in BERT)],
    ids=str,
)
def test_a_step_and_what_it_computes(
    tiny_llama: Path, tiny_model: Path, dtype: torch.dtype, labels: int, adapter: dict[str, Any]
) -> None:
    cfg = config(tiny_model if labels else tiny_llama, labels, adapter)
    full, half = built(cfg, torch.float32).eval(), built(cfg, dtype).eval()
    ids = torch.arange(3, 12)[None].repeat(2, 1)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        expected = full(**batch).logits
        outside = half(**batch).logits.float()
        if not labels:
            half.generate(**batch, max_new_tokens=2, do_sample=False, pad_token_id=0)
    with torch.autocast("cpu", dtype=dtype):
        output = half(**batch, labels=torch.tensor([0, 1]) if labels else ids)
    output.loss.backward()
    for logits in (outside, output.logits.float()):
        assert torch.allclose(logits, expected, atol=0.02 * float(expected.abs().max()) + 1e-3)
    for name, parameter in half.named_parameters():
        assert parameter.dtype == (torch.float32 if parameter.requires_grad else dtype), name
        assert parameter.requires_grad is (parameter.grad is not None), name


def test_parameters_are_back_after_an_error() -> None:
    """A module that is trained in part gets its own tensors back, also in a copy."""
    layer = torch.nn.Linear(4, 4, dtype=torch.bfloat16).requires_grad_(False)
    layer.bias = torch.nn.Parameter(layer.bias.float())
    join_types(layer, torch.bfloat16)
    for module in (layer, copy.deepcopy(layer)):
        before = module.bias
        with pytest.raises(RuntimeError):
            module(torch.zeros(1, 3, dtype=torch.bfloat16))
        assert module.bias is before
        module(torch.ones(1, 4, dtype=torch.bfloat16)).sum().backward()
        assert module.bias is before
        assert torch.equal(before.grad, torch.ones(4))


HALF = ("train.is_enable_half", True, "train.half_dtype", "bf16")


@pytest.mark.parametrize("method", ["fedsa", "flexlora"])
def test_a_run_with_all_biases(rig: Any, method: str) -> None:
    args = [{**LORA, "target_modules": ["query"], "bias": "all"}]
    done = rig("llm.adapter.args", args, "federate.method", method, *HALF,
               "federate.total_round_num", 1)  # fmt: skip
    assert done.code == 0
    assert done.run["precision"] == "bf16"


@pytest.mark.parametrize("method", ["fedsa", "slora", "feddpa"])
def test_a_run_that_writes(rig: Any, tiny_llama: Path, tmp_path: Path, method: str) -> None:
    file = tmp_path / "own.jsonl"
    rows = [{"instruction": f"the film {i}", "output": "good 3"} for i in range(24)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    args = [{**LORA, "target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"],
             "trainable_token_indices": None, "bias": "lora_only"}]  # fmt: skip
    done = rig(
        "data.type", f"{file}@llm", "model.type", f"{tiny_llama}@huggingface_llm",
        "trainer.type", "llmtrainer", "data.splitter", "iid", "data.splits", "[0.8, 0.2, 0.0]",
        "eval.metrics", "['acc']", "eval.best_res_update_round_wise_key", "val_avg_loss",
        "llm.tok_len", 60, "eval.max_new_tokens", 2, "federate.total_round_num", 2,
        "llm.adapter.args", args, *HALF, "federate.method", method,
    )  # fmt: skip
    assert done.code == 0

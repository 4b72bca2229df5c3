"""Models and adapters: what is frozen, what is trained, in which type, under which names."""

from __future__ import annotations

import http.server
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from federatedscope.core.configs.config import global_cfg
from federatedscope.core.errors import ConfigError
from federatedscope.core.task import (
    CAUSAL_LM,
    OTHER,
    SEQ_CLS,
    adapter_arguments,
    adapter_method,
    split_model_type,
    task_type,
)
from federatedscope.llm import model_files
from federatedscope.llm.model.limits import positions
from federatedscope.llm.model.model_builder import build_skeleton, get_llm
from fedfiles import hub
from fedlora.heads import head_names, is_head

LORA = {"adapter_package": "peft", "adapter_method": "lora", "r": 4, "lora_alpha": 8}


def config(model: Path | str, labels: int = 2, use: bool = True, **adapter: Any) -> Any:
    cfg = global_cfg.clone()
    cfg.model.type = f"{model}@huggingface_llm"
    cfg.data.num_labels = labels
    cfg.trainer.type = "gluetrainer" if labels else "llmtrainer"
    cfg.llm.adapter.use = use
    cfg.llm.adapter.args = [{**LORA, **adapter}]
    return cfg


def trained(model: torch.nn.Module) -> dict[str, torch.Size]:
    return {n: p.shape for n, p in model.named_parameters() if p.requires_grad}


class TestTask:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("roberta-large@huggingface_llm", ("roberta-large", "huggingface_llm")),
            ("/a@b/c@huggingface_llm", ("/a@b/c", "huggingface_llm")),
            ("x/y@modelscope_llm", ("x/y", "modelscope_llm")),
            ("mynet", ("mynet", "")),
            ("my@net", ("my@net", "")),
        ],
    )
    def test_model_types(self, name: str, expected: tuple[str, str]) -> None:
        assert split_model_type(name) == expected

    def test_tasks(self) -> None:
        assert task_type(config("m", 2)) == SEQ_CLS
        assert task_type(config("m", 1)) == SEQ_CLS
        assert task_type(config("m", 0)) == CAUSAL_LM
        cfg = config("m", 2)
        cfg.model.type = "mynet"
        assert task_type(cfg) == OTHER
        # A data set of labels can still be trained as text.
        cfg = config("m", 2)
        cfg.trainer.type = "llmtrainer"
        assert task_type(cfg) == CAUSAL_LM


class TestAdapters:
    def test_names_and_shapes_are_pefts(self, tiny_model: Path) -> None:
        shapes = trained(get_llm(config(tiny_model, 3)))
        layer = "base_model.model.bert.encoder.layer.0.attention.self.query"
        assert shapes[f"{layer}.lora_A.default.weight"] == (4, 32)
        assert shapes[f"{layer}.lora_B.default.weight"] == (32, 4)
        assert shapes["base_model.model.classifier.modules_to_save.default.weight"] == (3, 32)
        assert len(shapes) == 2 * 2 * 2 + 2
        assert set(head_names(list(shapes))) == {
            f"base_model.model.classifier.modules_to_save.default.{part}"
            for part in ("weight", "bias")
        }

    @pytest.mark.parametrize(
        "adapter",
        [
            {},
            {"use_rslora": True},
            {"target_modules": ["query", "key", "value"], "rank_pattern": {"query": 2}},
            {"target_modules": "all-linear"},
            {"adapter_method": "vera", "r": 8, "lora_alpha": None},
        ],
    )
    @pytest.mark.parametrize("labels", [2, 0])
    def test_the_skeleton_has_what_the_model_has(
        self, tiny_model: Path, tiny_llama: Path, adapter: dict[str, Any], labels: int
    ) -> None:
        """Names and shapes without storage: what is checked before weights are read is true."""
        if labels == 0 and "rank_pattern" in adapter:
            adapter = {"target_modules": ["q_proj"], "rank_pattern": {"q_proj": 2}}
        adapter = {k: v for k, v in adapter.items() if v is not None}
        cfg = config(tiny_model if labels else tiny_llama, labels, **adapter)
        if adapter.get("adapter_method") == "vera":
            cfg.llm.adapter.args = [{"adapter_method": "vera", "r": 8}]
        skeleton = build_skeleton(cfg)
        assert all(p.device.type == "meta" for p in skeleton.parameters())
        model = get_llm(cfg)
        assert trained(skeleton) == trained(model)
        assert sum(p.numel() for p in skeleton.parameters()) == sum(
            p.numel() for p in model.parameters()
        )

    @pytest.mark.parametrize("start", [True, "gaussian", "orthogonal", "pissa", "olora"])
    def test_a_fresh_adapter_changes_nothing(self, tiny_llama: Path, start: Any) -> None:
        ids = torch.arange(3, 9)[None]
        with torch.no_grad():
            bare = get_llm(config(tiny_llama, 0, use=False)).eval()(input_ids=ids).logits
            cfg = config(tiny_llama, 0, init_lora_weights=start)
            adapted = get_llm(cfg).eval()(input_ids=ids).logits
        assert torch.allclose(bare, adapted, atol=1e-6)

    def test_tied_copies_are_tied_without_storage_too(self, tiny_llama: Path) -> None:
        from transformers import AutoConfig

        folder = tiny_llama.parent / "tied"
        tied = AutoConfig.from_pretrained(tiny_llama, tie_word_embeddings=True)
        tied.save_pretrained(folder)
        saved = {"modules_to_save": ["embed_tokens", "lm_head"], "ensure_weight_tying": True}
        names = trained(build_skeleton(config(folder, 0, **saved)))
        assert sum("modules_to_save" in name for name in names) == 1

    def test_without_an_adapter_all_is_trained(self, tiny_model: Path) -> None:
        model = get_llm(config(tiny_model, use=False))
        assert all(p.requires_grad for p in model.parameters())
        assert any(is_head(n) for n, _ in model.named_parameters())

    def test_freezing_A(self, tiny_model: Path) -> None:
        cfg = config(tiny_model)
        cfg.federate.freeze_A = True
        for model in (build_skeleton(cfg), get_llm(cfg)):
            assert not any("lora_A" in name for name in trained(model))
            assert any("lora_B" in name for name in trained(model))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_the_base_is_stored_in_half(self, tiny_model: Path, dtype: torch.dtype) -> None:
        model = get_llm(config(tiny_model), dtype)
        for parameter in model.parameters():
            assert parameter.dtype == (torch.float32 if parameter.requires_grad else dtype)
        assert all(
            p.dtype == torch.float32
            for p in get_llm(config(tiny_model, use=False), dtype).parameters()
        )

    def test_a_decoder_that_classifies_can_pad(self, tiny_llama: Path) -> None:
        model = get_llm(config(tiny_llama, 2))
        assert model.config.pad_token_id == 2
        ids = torch.tensor([[1, 5, 6, 7], [1, 5, 2, 2]])
        mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
        with torch.no_grad():
            both = model.eval()(input_ids=ids, attention_mask=mask).logits
            alone = model(input_ids=ids[1:, :2], attention_mask=mask[1:, :2]).logits
        assert torch.allclose(both[1], alone[0], atol=1e-5)

    @pytest.mark.parametrize(("labels", "problem"), [(1, "regression"), (3, "single_label")])
    def test_the_kind_of_loss(self, tiny_model: Path, labels: int, problem: str) -> None:
        assert get_llm(config(tiny_model, labels)).config.problem_type.startswith(problem)

    @pytest.mark.parametrize(
        ("method", "name"),
        [("prefix", "prefix"), ("prompt", "prompt_embeddings"), ("p-tuning", "prompt_encoder")],
    )
    def test_other_adapters(self, tiny_llama: Path, method: str, name: str) -> None:
        cfg = config(tiny_llama, 0)
        cfg.llm.adapter.args = [{"adapter_method": method, "num_virtual_tokens": 3}]
        model = get_llm(cfg)
        assert trained(model)
        assert not any("model.layers" in n for n in trained(model))
        assert adapter_method(cfg) == method

    @pytest.mark.parametrize(
        ("adapter", "field"),
        [
            ({"adapter_package": "adapterhub"}, "llm.adapter.args.adapter_package"),
            ({"adapter_method": "lora2"}, "llm.adapter.args.adapter_method"),
            ({"lora_alhpa": 3}, "llm.adapter.args.lora_alhpa"),
            ({"init_lora_weights": "nonsense"}, "llm.adapter.args.init_lora_weights"),
            ({"target_modules": ["nothing"]}, "llm.adapter.args.target_modules"),
        ],
    )
    def test_mistakes(self, tiny_model: Path, adapter: dict[str, Any], field: str) -> None:
        with pytest.raises(ConfigError) as caught:
            build_skeleton(config(tiny_model, **adapter))
        assert caught.value.field == field

    def test_arguments_are_plain(self) -> None:
        cfg = config("m", target_modules=["a"], rank_pattern={"a": 2})
        arguments = adapter_arguments(cfg)
        assert type(arguments) is dict
        assert type(arguments["target_modules"]) is list
        assert type(arguments["rank_pattern"]) is dict


class TestTheHub:
    @pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "~/nothing", "a/b/c"])
    def test_paths_that_are_not_there(self, name: str) -> None:
        with pytest.raises(ConfigError, match="there is no such folder"):
            model_files.check_model_source("model.type", name)

    def test_a_folder_without_a_model(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"no config\.json"):
            model_files.check_model_source("model.type", str(tmp_path))

    def test_a_folder_with_one(self, tiny_model: Path) -> None:
        model_files.check_model_source("model.type", str(tiny_model))

    def test_offline(self) -> None:
        assert not hub.hub_is_reachable()
        with pytest.raises(ConfigError, match="--embedded"):
            model_files.check_model_source("model.type", "some/model")

    def test_in_the_cache(self, monkeypatch: Any, tiny_model: Path) -> None:
        file = str(tiny_model / "config.json")
        monkeypatch.setattr(model_files, "try_to_load_from_cache", lambda name, part, **where: file)
        model_files.check_model_source("model.type", "some/model")

    def test_with_a_hub(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(model_files, "hub_is_reachable", lambda: True)
        model_files.check_model_source("model.type", "some/model")

    @pytest.mark.parametrize(
        ("answer", "reachable"),
        [(200, True), (404, True), (403, False), (407, False), (503, False), (None, False)],
    )
    def test_reaching_out(self, monkeypatch: Any, answer: int | None, reachable: bool) -> None:
        """Whatever answers in the hub's place; 403 and 407 are what closed proxies say."""

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.send_response(answer or 200)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
        with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
            address = f"http://127.0.0.1:{server.server_port}"
            monkeypatch.setattr(hub.constants, "ENDPOINT", address)
            if answer is None:
                server.server_close()
                assert hub.hub_is_reachable(timeout=0.5) is reachable
                return
            thread = threading.Thread(target=server.handle_request)
            thread.start()
            assert hub.hub_is_reachable(timeout=5) is reachable
            thread.join()


@pytest.mark.parametrize(
    ("name", "table"),
    [("nystromformer", 64), ("yoso", 64), ("ibert", 62), ("roberta", 62), ("nomic_bert", None)],
)
def test_positions_that_a_table_is_asked_for(name: str, table: int | None) -> None:
    from transformers import AutoConfig, AutoModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 80}
    settings = AutoConfig.for_model(name, **sizes, max_position_embeddings=64, pad_token_id=1)
    with torch.device("meta"):
        assert positions(AutoModel.from_config(settings)) == table

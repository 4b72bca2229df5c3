"""Who trains, sends and keeps what, on the names of real PEFT models."""

from __future__ import annotations

from typing import Any

import peft
import pytest
from torch import nn

from federatedscope.core.aggregators.aggregator import takes_singly
from federatedscope.core.configs.config import CN, apply_registered_configs, global_cfg
from federatedscope.core.configs.loading import load_client_cfgs
from federatedscope.core.errors import ConfigError
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.methods import METHODS, method_of
from federatedscope_ext.methods.fedsa import FEDSA
from federatedscope_ext.methods.ffa import FFA
from federatedscope_ext.methods.method import frozen_keywords, local_keywords
from fedlora.heads import is_head


def config(method: str, adapter: str = "lora", use: bool = True, **fields: Any) -> CN:
    cfg = global_cfg.clone()
    cfg.defrost()
    cfg.federate.method = method
    cfg.federate.freeze_A = fields.pop("freeze_A", False)
    cfg.llm.adapter.use = use
    cfg.llm.adapter.args = [{"adapter_package": "peft", "adapter_method": adapter, **fields}]
    return cfg


class Model(nn.Module):
    """A layer, an embedding and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.query = nn.Linear(4, 6)
        self.classifier = nn.Linear(6, 2)


def trained_names(adapter: str) -> list[str]:
    if adapter == "lora":
        settings: Any = peft.LoraConfig(
            target_modules=["query", "embed"], modules_to_save=["classifier"]
        )
    else:
        settings = peft.VeraConfig(target_modules=["query"], modules_to_save=["classifier"])
    model = peft.get_peft_model(Model(), settings)
    return [name for name, p in model.named_parameters() if p.requires_grad]


def containing(names: list[str], keywords: list[str]) -> set[str]:
    return {name for name in names if any(word in name for word in keywords)}


def short(names: set[str]) -> set[str]:
    """``lora_A``, ``vera_lambda_d``, ... of full parameter names."""
    return {part for name in names for part in name.split(".") if part.startswith(("lora", "vera"))}


@pytest.mark.parametrize(
    ("method", "adapter", "sent", "kept", "frozen"),
    [
        ("fedsa", "lora", {"lora_A"}, {"lora_B"}, set()),
        ("fedsa", "vera", {"vera_lambda_d"}, {"vera_lambda_b"}, set()),
        ("ffa", "lora", {"lora_B"}, set(), {"lora_A"}),
        ("fedavg", "lora", {"lora_A", "lora_B"}, set(), set()),
        ("fedavg", "vera", {"vera_lambda_d", "vera_lambda_b"}, set(), set()),
    ],
)
def test_every_adapter_tensor_is_sent_kept_or_frozen(
    method: str, adapter: str, sent: set[str], kept: set[str], frozen: set[str]
) -> None:
    cfg = config(method, adapter)
    names = [name for name in trained_names(adapter) if not is_head(name)]
    local, fixed = containing(names, local_keywords(cfg)), containing(names, frozen_keywords(cfg))

    def with_embedding(parts: set[str]) -> set[str]:
        return parts | {p.replace("lora_", "lora_embedding_") for p in parts if "lora" in p}

    assert short(local) == with_embedding(kept)
    assert short(fixed) == with_embedding(frozen)
    assert short(set(names) - local - fixed) == with_embedding(sent)
    assert not local & fixed


@pytest.mark.parametrize(
    ("method", "adapter"), [("fedsa", "lora"), ("fedsa", "vera"), ("ffa", "lora")]
)
def test_keywords_leave_the_head_to_the_head_rule(method: str, adapter: str) -> None:
    cfg = config(method, adapter)
    heads = [name for name in trained_names(adapter) if is_head(name)]
    assert heads and not containing(heads, local_keywords(cfg) + frozen_keywords(cfg))


@pytest.mark.parametrize(
    ("method", "adapter", "rslora", "name"),
    [
        ("FedSA", "lora", False, "FedSA-LoRA"),
        ("fedsa", "LoRA", True, "FedSA-rsLoRA"),
        ("fedsa", "vera", False, "FedSA-VeRA"),
        ("ffa", "lora", False, "FFA-LoRA"),
        ("FFA", "lora", True, "FFA-rsLoRA"),
    ],
)
def test_variant_names(method: str, adapter: str, rslora: bool, name: str) -> None:
    cfg = config(method, adapter, use_rslora=rslora)
    found = method_of(cfg)
    assert found is not None and found.variant(cfg).name == name


def test_freeze_a_makes_fedavg_ffa_and_contradicts_fedsa() -> None:
    assert method_of(config("FedAvg", freeze_A=True)) is FFA
    assert frozen_keywords(config("FedAvg", freeze_A=True)) == ["lora_A", "lora_embedding_A"]
    assert method_of(config("FedAvg")) is None
    assert method_of(config("local")) is None and local_keywords(config("local")) == []
    with pytest.raises(ExtensionError, match=r"federate\.freeze_A"):
        method_of(config("fedsa", freeze_A=True))


@pytest.mark.parametrize(
    ("method", "adapter", "use", "field"),
    [
        ("ffa", "vera", True, "adapter_method"),
        ("fedsa", "prefix", True, "adapter_method"),
        ("fedsa", "lora", False, "llm.adapter.use"),
    ],
)
def test_adapter_that_a_method_is_not_defined_for(
    method: str, adapter: str, use: bool, field: str
) -> None:
    with pytest.raises(ExtensionError, match=field) as caught:
        local_keywords(config(method, adapter, use))
    assert caught.value.is_user_error


def test_table_is_complete() -> None:
    assert all(key == method.key for key, method in METHODS.items())
    assert (FEDSA.head, FEDSA.evaluation) == ("local", "personal")
    assert (FFA.head, FFA.evaluation) == ("shared", "global")
    for method in METHODS.values():
        assert "arXiv" in method.paper and method.note.endswith(".")
        for variant in method.variants:
            assert set(variant.sends) <= set(variant.trains) != set()


RULES = {m.key: m.rule for m in METHODS.values() if m.rule is not None}


@pytest.mark.parametrize("key", sorted(RULES))
def test_uploads_are_taken_in_one_at_a_time(key: str) -> None:
    """A server's memory does not grow with the clients of a round."""
    assert takes_singly(object.__new__(RULES[key]))


def test_a_rule_that_only_says_so_for_its_parent_is_not_believed() -> None:
    class Whole(RULES["hetlora"]):  # type: ignore[misc]
        def aggregate(self, agg_info: Any = None) -> Any:
            return {}

    assert not takes_singly(object.__new__(Whole))


def test_options_that_single_clients_may_have() -> None:
    """HetLoRA's clients read theirs; SLoRA's rounds are everybody's."""
    cfg = global_cfg.clone()
    apply_registered_configs(cfg)
    cfg.merge_from_list(["federate.client_num", 2])
    assert load_client_cfgs(None, ["client_1.hetlora.gamma", "0.5"], cfg) is not None
    with pytest.raises(ConfigError, match="same for all clients"):
        load_client_cfgs(None, ["client_1.slora.rounds", "2"], cfg)

"""Language models: Hugging Face models with PEFT adapters, instruction data, their trainer.

Importing this package makes the runtime know them; the libraries are imported when they are used.
"""

from __future__ import annotations

from typing import Any

from federatedscope import register


class Hub:
    """Models of Hugging Face's hub, its cache and local folders; or of ModelScope.

    Parameters
    ----------
    checks : bool
        Whether it can be told beforehand that a model is there.
    """

    def __init__(self, checks: bool) -> None:
        self.checks = checks

    def check(self, cfg: Any) -> None:
        """Is the model a local folder, in the cache, or can it be fetched? Are the adapter's fields
        what PEFT takes? They are written into ``cfg`` in their types.
        """
        from federatedscope.llm.model.adapter_builder import settle_adapter

        settle_adapter(cfg)
        if self.checks:
            from federatedscope.llm.model_files import check_model_source

            name = cfg.model.type.rpartition("@")[0]
            revision = cfg.model.get("revision")
            check_model_source("model.type", name, cfg.llm.cache.model, revision)

    def skeleton(self, cfg: Any) -> Any:
        """The model without storage."""
        from federatedscope.llm.model.model_builder import build_skeleton

        return build_skeleton(cfg)

    def check_rows(self, cfg: Any, skeleton: Any, data: Any) -> None:
        """Can the model take rows of this length, and their tokens, in this precision?"""
        from federatedscope.llm.model.limits import check_positions, check_precision, check_rows

        check_precision(skeleton, cfg)
        skeleton.notes += check_positions(skeleton, cfg)
        check_rows(cfg, skeleton, data)

    def build(self, cfg: Any, base_dtype: Any) -> Any:
        """The model with its weights and adapter."""
        from federatedscope.llm.model.model_builder import get_llm

        return get_llm(cfg, base_dtype)


def _trainer(trainer_type: str) -> type[Any] | None:
    if trainer_type.lower() != "llmtrainer":
        return None
    from federatedscope.llm.trainer.trainer import LLMTrainer

    return LLMTrainer


def _data(config: Any, client_cfgs: Any) -> Any:
    if not str(config.data.type).lower().endswith("@llm"):
        return None
    from federatedscope.llm.dataset import split_llm_dataset

    return split_llm_dataset(config, client_cfgs)


register.register_hub("huggingface_llm", Hub(checks=True))
register.register_hub("modelscope_llm", Hub(checks=False))
register.trainer_dict.built_in["llmtrainer"] = _trainer
register.data_dict.built_in["llm"] = _data

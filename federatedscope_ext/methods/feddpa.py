"""FedDPA: a private adapter beside the averaged one.

Every module computes ``W0 x + s B A x + s B' A' x``. ``A, B`` are averaged as by FedAvg; ``A', B'``
never leave the client. Both are trained at the same time and count the same; the paper's weighting
by instance at test time is not done. Yang et al., NeurIPS 2024, arXiv 2403.19211.
"""

from __future__ import annotations

import copy
from typing import Any

from federatedscope_ext.methods.method import Method, lora
from federatedscope_ext.methods.registry import register_method
from federatedscope_ext.workers.base import MethodServer
from fedlora.heads import SAVED

#: PEFT's name of the adapter that stays
PRIVATE = "private"


class FedDpaServer(MethodServer):
    """Averages the common adapter."""

    @classmethod
    def prepare_model(cls, model: Any, cfg: Any) -> None:
        """Add the private adapter and let both be active."""
        from peft.tuners.lora import LoraLayer

        config = copy.deepcopy(model.peft_config["default"])
        # One trained head, one set of biases and tokens, those of the first adapter.
        config.bias, config.ensure_weight_tying = "none", False
        for field in ("modules_to_save", "modules_to_tie", "trainable_token_indices"):
            setattr(config, field, None)
        model.peft_config[PRIVATE] = config
        meta = next(model.parameters()).is_meta
        model.base_model.inject_adapter(model.base_model.model, PRIVATE, low_cpu_mem_usage=meta)
        for layer in model.modules():
            if isinstance(layer, LoraLayer):
                layer.set_adapter(["default", PRIVATE])
        for name, parameter in model.named_parameters():
            if "lora_" in name or SAVED in name:
                parameter.requires_grad_(True)


FEDDPA = register_method(
    Method(
        key="feddpa",
        name="FedDPA-LoRA",
        paper="Yang et al., Dual-Personalizing Adapter for Federated Foundation Models, NeurIPS "
        "2024, arXiv 2403.19211",
        note="Every client adds a private adapter to the averaged one; both are trained.",
        variants=lora(
            "FedDPA-LoRA", trains=("A", "B", "A'", "B'"), local_keywords=(f".{PRIVATE}",)
        ),
        evaluation="personal",
        server=FedDpaServer,
        hooks=("prepare_config", "prepare_model"),
    )
)

"""FedDPA: a private adapter beside the averaged one.

Every module computes ``W0 x + u s B A x + v s B' A' x``. ``A, B`` are averaged as by FedAvg; ``A',
B'`` never leave the client. The paper's weighting by instance at test time is not done. Yang et
al., NeurIPS 2024, arXiv 2403.19211. Two ways to train (``feddpa.schedule``):

- ``joint``, ours: both at the same time, ``u = v = 1`` throughout.
- ``alternate``, the authors': ``A', B'`` beside the frozen ``A, B`` with ``u = v = 1/2``, then
  ``A, B`` and the head alone (``u = 1, v = 0``), each for ``train.local_update_steps``; what is
  evaluated is ``u = v = 1/2``. Their mean is uniform too: ``federate.ignore_weight: True``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from federatedscope.core.message import Message
from federatedscope.core.workers import Client
from federatedscope_ext.methods.method import Method, Option, lora
from federatedscope_ext.methods.registry import register_method
from federatedscope_ext.workers.base import MethodServer, only_training
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


@contextmanager
def weighted(model: Any, common: float, private: float) -> Iterator[None]:
    """Multiply what the two adapters add, for a while."""
    from peft.tuners.lora import LoraLayer

    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    before = [dict(layer.scaling) for layer in layers]
    for layer in layers:
        layer.scaling["default"] *= common
        layer.scaling[PRIVATE] *= private
    try:
        yield
    finally:
        for layer, scaling in zip(layers, before, strict=True):
            layer.scaling.update(scaling)


class FedDpaClient(Client):
    """Trains the two adapters by the schedule."""

    starts_from_download = True

    @contextmanager
    def _scheduled(self) -> Iterator[None]:
        """Let the adapters count half, and a training be two: the private one, the common one."""
        if self._cfg.feddpa.schedule != "alternate":
            yield
            return
        train, model = self.trainer.train, self.model
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        private = [name for name in names if f".{PRIVATE}" in name]

        def alternate(*args: Any, **kwargs: Any) -> Any:
            with only_training(model, private):
                train(*args, **kwargs)
            # Of the halves the common one whole, the private one not at all.
            with only_training(model, set(names) - set(private)), weighted(model, 2.0, 0.0):
                return train(*args, **kwargs)

        self.trainer.train = alternate
        try:
            with weighted(model, 0.5, 0.5):
                yield
        finally:
            self.trainer.train = train

    def callback_funcs_for_model_para(self, message: Message) -> Any:
        """Train by the schedule."""
        with self._scheduled():
            return super().callback_funcs_for_model_para(message)

    def callback_funcs_for_evaluate(self, message: Message) -> Any:
        """Evaluate both adapters, weighted by the schedule."""
        with self._scheduled():
            return super().callback_funcs_for_evaluate(message)


FEDDPA = register_method(
    Method(
        key="feddpa",
        name="FedDPA-LoRA",
        paper="Yang et al., Dual-Personalizing Adapter for Federated Foundation Models, NeurIPS "
        "2024, arXiv 2403.19211",
        note="Every client adds a private adapter to the averaged one; both are trained, at once "
        "or one after the other (feddpa.schedule).",
        variants=lora(
            "FedDPA-LoRA", trains=("A", "B", "A'", "B'"), local_keywords=(f".{PRIVATE}",)
        ),
        evaluation="personal",
        server=FedDpaServer,
        client=FedDpaClient,
        experts=True,
        hooks=("prepare_config", "prepare_model"),
        options=(
            Option(
                "feddpa",
                "schedule",
                "joint",
                "How FedDPA trains its two adapters: joint, both at once; alternate, as its"
                " authors, the private one beside the frozen common one with weights of a half,"
                " then the common one and the head alone, so twice the local steps"
                " (records tell of the second half). Their mean is uniform"
                " (federate.ignore_weight: True).",
                ("joint", "alternate"),
            ),
        ),
    )
)

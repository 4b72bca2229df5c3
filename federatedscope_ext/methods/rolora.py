"""RoLoRA: odd rounds train and average B, even rounds A (counted from 1).

One factor is frozen and common in every round, so the zero-padded mean of the other is the exact
mean of the applied updates, whatever the ranks::

    sum_k p_k s_k B_k A[:r_k] = (sum_k p_k pad(s_k B_k)) A,

where A has the rows that somebody of the round owns. The server's rows beyond them stay what they
were, and add to what a client of higher rank applies: in such a round the mean is not exact.

A client is sent the halves that have changed since it was last sent them to train on.

Chen et al., Robust Federated Finetuning of LLMs via Alternating Optimization of LoRA, NeurIPS
2025, arXiv 2502.01755.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from federatedscope_ext.aggregators.rule import LoraRule
from federatedscope_ext.methods.method import Method, lora
from federatedscope_ext.methods.registry import register_method
from federatedscope_ext.methods.zero_pad import ZeroPadModule
from federatedscope_ext.workers.base import MethodServer
from federatedscope_ext.workers.halves import HalfClient
from fedlora.names import factor_names


class RoLora(LoraRule):
    """The mean of the factor that was trained; the other is not sent and stays what it was."""

    module_rule = ZeroPadModule


class RoLoraClient(HalfClient):
    """Trains B in odd rounds, A in even ones."""

    def frozen_factor(self, completed: int) -> str:
        """The factor whose turn it is not."""
        return "A" if completed % 2 == 0 else "B"


class RoLoraServer(MethodServer):
    """Sends each client the halves that it has not got yet."""

    streams_uploads = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Rounds completed when a factor last changed, and when a client last began to train.
        self._changed = {"A": 0, "B": 0}
        self._sent: dict[int, int] = {}
        self._parts: dict[tuple[int, str], Any] = {}
        self._training = False
        super().__init__(*args, **kwargs)

    def _perform_federated_aggregation(self) -> Any:
        trained = "B" if self.state % 2 == 0 else "A"
        received = super()._perform_federated_aggregation()
        self._changed[trained] = self.state + 1
        return received

    def ranks_changed(self, client: int) -> None:
        """See the runtime."""
        # Its rows beyond the old rank are its own; the server's are still to come.
        self._sent.pop(client, None)

    def broadcast_model_para(self, msg_type: str = "model_para", *args: Any, **kwargs: Any) -> None:
        """See the runtime; parts of a state are kept only while it is sent."""
        self._parts.clear()
        self._training = msg_type == "model_para"
        super().broadcast_model_para(msg_type, *args, **kwargs)
        self._parts.clear()

    def content_for(self, receiver: int, shared: Any) -> Any:
        """Of the receiver's slice the factors that it has not got yet."""
        content = super().content_for(receiver, shared)
        known = self._sent.get(receiver, -1)
        lacking = "".join(factor for factor, when in self._changed.items() if when > known)
        if self._training:
            self._sent[receiver] = max(self._changed.values())
        key = (id(content), lacking)
        if key not in self._parts:
            dropped = {
                name
                for found in factor_names(content).values()
                for factor, name in found.items()
                if factor not in lacking
            }
            # The whole is kept beside the part: its identity is the key.
            part = {name: t for name, t in content.items() if name not in dropped}
            self._parts[key] = (content, part)
        return self._parts[key][1]

    def state_dict(self) -> dict[str, Any]:
        """When factors last changed, and what clients have got."""
        own = {"changed": dict(self._changed), "sent": dict(self._sent)}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See the runtime."""
        super().load_state_dict(state)
        self._changed, self._sent = dict(state["changed"]), dict(state["sent"])


ROLORA = register_method(
    Method(
        key="rolora",
        name="RoLoRA",
        paper="Chen et al., Robust Federated Finetuning of LLMs via Alternating Optimization of "
        "LoRA, arXiv 2502.01755",
        note="Odd rounds train and average B, even rounds A; each mean is exact (in the ranks "
        "that somebody of the round has).",
        variants=lora("RoLoRA", trains=("A or B",), sends=("A or B",)),
        rule=RoLora,
        server=RoLoraServer,
        client=RoLoraClient,
        combines_products=True,
        traffic_varies=True,
        hooks=("content_for", "ranks_changed"),
    )
)

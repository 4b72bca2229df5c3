"""Methods that add a part of every round's update to the frozen weights (``flora``, ``fedex``).

The aggregator leaves that part as factors in ``base_update``: ``W0 <- W0 + B A`` for each module.
The server adds it to its backbone and sends it to every client once, as a message ``base_update``
ahead of the next state that the client gets. In one process there is one backbone, so whoever
comes first adds it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear

from federatedscope.core.message import Message
from federatedscope.core.workers import Client
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.methods import FEDEX, FLORA
from federatedscope_ext.workers.base import MethodServer
from fedlora.names import pair_names
from fedlora.pairs import LoraPair

__all__ = ["FedExServer", "FloraServer", "MergingClient", "MergingServer", "merge_once"]

MESSAGE = "base_update"


def merge_once(model: Any, rnd: int, update: Mapping[str, LoraPair]) -> None:
    """Add a round's update to the frozen weights of a model, unless it has been added.

    Parameters
    ----------
    model : peft.PeftModel
        Remembers the rounds in ``merged_rounds`` and the changed parameters in
        ``updated_base``, which a checkpoint then contains.
    rnd : int
        The round.
    update : mapping of str to LoraPair
        By module name.

    Notes
    -----
    An update of one round is mostly smaller than the rounding of a weight in half precision. What
    rounding takes away is kept beside the weight (``model.rounded_off``, by parameter), in the
    same precision, and takes part in what the layer computes: a second product for each adapted
    layer, and the memory of its weight once more.
    """
    done = model.__dict__.setdefault("merged_rounds", set())
    if rnd in done:
        return
    done.add(rnd)
    for module, pair in update.items():
        layer = model.get_submodule(module)
        weight = layer.get_base_layer().weight
        delta = pair.scale * (pair.B.float() @ pair.A.float()).to(weight.device)
        if getattr(layer, "fan_in_fan_out", False) or "Embedding" in type(layer).__name__:
            delta = delta.T
        with torch.no_grad():
            _add(model, module, delta.reshape(weight.shape))


def _add(model: Any, module: str, delta: Tensor) -> None:
    name, layer = f"{module}.base_layer.weight", model.get_submodule(module).get_base_layer()
    model.__dict__.setdefault("updated_base", set()).add(name)
    if layer.weight.dtype in (torch.float32, torch.float64):
        layer.weight.add_(delta)
        return
    lost = model.__dict__.setdefault("rounded_off", {})
    exact = layer.weight.float() + delta
    if name in lost:
        exact += lost[name].float()
    set_exact(model, module, exact)


def set_exact(model: Any, module: str, exact: Tensor) -> None:
    """Let a module compute with a weight more precise than its dtype, in two parts.

    Parameters
    ----------
    model : peft.PeftModel
        Keeps the second part in ``rounded_off``.
    module : str
        An adapted module.
    exact : Tensor
        float32, of the shape of its base weight.
    """
    name, layer = f"{module}.base_layer.weight", model.get_submodule(module).get_base_layer()
    lost = model.__dict__.setdefault("rounded_off", {})
    weight, dtype = layer.weight, layer.weight.dtype
    exact = exact.to(weight.device)
    with torch.no_grad():
        # A second time from the sum of both parts, which is what a checkpoint holds: divided
        # again it gives the same parts, bit for bit, also where it lies between two weights.
        for _ in range(2):
            weight.copy_(exact)
            rest = (exact - weight.float()).to(dtype)
            exact = weight.float() + rest.float()
    if name not in lost:
        layer.register_forward_hook(lambda base, x, y: y + _applied(base, x[0], lost[name]))
    lost[name] = rest


def _applied(layer: Any, x: Tensor, weight: Tensor) -> Tensor:
    """What a layer makes of its input with another weight and no bias."""
    if isinstance(layer, torch.nn.Embedding):
        return embedding(x, weight)
    if type(layer).__name__ == "Conv1D":
        # Of Hugging Face: a linear layer whose weight is (d_in, d_out).
        weight = weight.T
    return linear(x, weight)


def check_untied(model: Any) -> None:
    """Refuse adapters on weights that another module uses too: it would change with them.

    Raises
    ------
    ExtensionError
        An embedding that is tied to the head, for example GPT-2's ``wte``.
    """
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    for module in pair_names(name for name, _ in model.named_parameters()):
        if uses[id(model.get_submodule(module).get_base_layer().weight)] > 1:
            raise ExtensionError(
                "llm.adapter.args.target_modules",
                module,
                "updates go into this weight, and another module shares it (tied embeddings)",
                "Leave this module out, or use federate.method: flexlora",
            )


class MergingServer(MethodServer):
    """Adds the aggregator's ``base_update`` to the backbone and sends it on."""

    traffic_varies = True
    starts_from_download = True
    streams_uploads = True

    @classmethod
    def prepare_model(cls, model: Any, cfg: Any) -> None:
        """Look whether the adapted weights are nobody else's."""
        check_untied(model)

    def _setup_model(self, config: Any, model: Any, device: str) -> None:
        super()._setup_model(config, model, device)
        finer = getattr(self.aggregator, "finer", {})
        for module in pair_names(name for name, _ in model.named_parameters()):
            name = f"{module}.base_layer.weight"
            if name in finer:
                model.__dict__.setdefault("updated_base", set()).add(name)
                set_exact(model, module, finer.pop(name))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # (round, factors by module): what some client has not had yet, the oldest first.
        self._updates: list[tuple[int, dict[str, dict[str, Tensor]]]] = []
        self._had: dict[int, int] = {}
        super().__init__(*args, **kwargs)

    def _perform_federated_aggregation(self) -> Any:
        received = super()._perform_federated_aggregation()
        update = self.aggregator.base_update
        merge_once(self.model, self.state + 1, update)
        factors = {m: {"A": pair.A, "B": pair.B * pair.scale} for m, pair in update.items()}
        self._updates.append((self.state + 1, factors))
        return received

    def broadcast_model_para(self, *args: Any, **kwargs: Any) -> None:
        """See the runtime; afterwards forget what every client has had."""
        super().broadcast_model_para(*args, **kwargs)
        clients = list(self.comm_manager.get_neighbors())
        least = min((self._had.get(k, 0) for k in clients), default=0)
        self._updates = [(rnd, factors) for rnd, factors in self._updates if rnd > least]

    def _content_for(self, receiver: int, shared: Any) -> Any:
        for rnd, factors in self._updates:
            if rnd > self._had.get(receiver, 0):
                content = {"round": rnd, "factors": factors}
                self.comm_manager.send(
                    Message(
                        msg_type=MESSAGE,
                        sender=self.ID,
                        receiver=[receiver],
                        state=self.state,
                        content=content,
                    )
                )
                self._had[receiver] = rnd
        return super()._content_for(receiver, shared)


class FloraServer(MergingServer):
    """FLoRA: the whole update goes into the frozen weights."""

    method = FLORA


class FedExServer(MergingServer):
    """FedEx-LoRA: what the means of the factors miss goes into the frozen weights."""

    method = FEDEX


class MergingClient(Client):
    """Adds received updates to its backbone."""

    # Updates go into the backbone, of which a process has one; they are nothing of a client's own.
    starts_from_download = True

    def _register_default_handlers(self) -> None:
        super()._register_default_handlers()
        self.register_handlers(MESSAGE, self.callback_funcs_for_base_update, [None])

    def callback_funcs_for_base_update(self, message: Message) -> None:
        """Add a round's update to the frozen weights."""
        pairs = {m: LoraPair(f["A"], f["B"], 1.0) for m, f in message.content["factors"].items()}
        merge_once(self.model, message.content["round"], pairs)

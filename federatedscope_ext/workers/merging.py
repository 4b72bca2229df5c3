"""Methods that add a part of every round's update to the frozen weights (``flora``, ``fedex``).

The aggregator leaves that part as factors in ``base_update``: ``W0 <- W0 + B A`` for each module.
The server adds it to its backbone and sends it to every client once, as a message ``base_update``
ahead of the next state that the client gets. In one process there is one backbone, so whoever
comes first adds it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear

from federatedscope.core.message import Message
from federatedscope.core.workers import Client
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.workers.base import MethodServer
from fedlora.names import pair_names
from fedlora.pairs import LoraPair

__all__ = ["MergedBase", "MergingClient", "MergingServer"]

MESSAGE = "base_update"


class MergedBase:
    """The updates that have gone into the frozen weights of a model.

    Kept beside the model as ``model.method_state``, one for all workers of a process.

    Parameters
    ----------
    model : peft.PeftModel
        Whose weights change.

    Notes
    -----
    An update of one round is mostly smaller than the rounding of a weight in half precision. What
    rounding takes away is kept beside the weight, in the same precision, and takes part in what the
    layer computes: a second product for each adapted layer, and the memory of its weight once more.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.rounds: set[int] = set()
        #: by module: ``None``, or the second part of a weight in half precision
        self.rest: dict[str, Tensor | None] = {}

    def add(self, rnd: int, update: Mapping[str, LoraPair]) -> None:
        """Add a round's update to the frozen weights, unless it has been added.

        Parameters
        ----------
        rnd : int
            The round.
        update : mapping of str to LoraPair
            By module name.
        """
        if rnd in self.rounds:
            return
        self.rounds.add(rnd)
        for module, pair in update.items():
            layer, weight = self.model.get_submodule(module), self.weight(module)
            delta = pair.scale * (pair.B.float() @ pair.A.float()).to(weight.device)
            if getattr(layer, "fan_in_fan_out", False) or "Embedding" in type(layer).__name__:
                delta = delta.T
            with torch.no_grad():
                self._add(module, delta.reshape(weight.shape))

    def weight(self, module: str) -> Tensor:
        """The frozen weight of a module, the first part of it in half precision."""
        weight: Tensor = self.model.get_submodule(module).get_base_layer().weight
        return weight

    def _add(self, module: str, delta: Tensor) -> None:
        weight = self.weight(module)
        if weight.dtype in (torch.float32, torch.float64):
            weight.add_(delta)
            self.rest[module] = None
            return
        exact, rest = weight.float() + delta, self.rest.get(module)
        self.set(module, exact if rest is None else exact + rest.float())

    def exact(self, module: str) -> Tensor:
        """The weight with both its parts, at least in float32."""
        weight, rest = self.weight(module), self.rest.get(module)
        weight = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
        return weight if rest is None else weight + rest.float()

    def set(self, module: str, exact: Tensor) -> None:
        """Let a module compute with a weight more precise than its dtype, in two parts.

        Parameters
        ----------
        module : str
            An adapted module.
        exact : Tensor
            float32, of the shape of its base weight.
        """
        weight = self.weight(module)
        exact = exact.to(weight.device)
        with torch.no_grad():
            # A second time from the sum of both parts, which is what a checkpoint holds: divided
            # again it gives the same parts, bit for bit, also where it lies between two weights.
            for _ in range(2):
                weight.copy_(exact)
                rest = (exact - weight.float()).to(weight.dtype)
                exact = weight.float() + rest.float()
        self._set_rest(module, rest)

    def _set_rest(self, module: str, rest: Tensor) -> None:
        known, self.rest[module] = self.rest.get(module), rest
        if known is None:
            layer = self.model.get_submodule(module).get_base_layer()
            layer.register_forward_hook(partial(self._add_rest, module))

    def _add_rest(self, module: str, layer: Any, inputs: tuple[Tensor, ...], output: Any) -> Any:
        rest = self.rest[module]
        return output if rest is None else output + _applied(layer, inputs[0], rest)

    def checkpoint_tensors(self, model: Any) -> dict[str, Tensor]:
        """The changed weights by parameter name, exact."""
        return {f"{module}.base_layer.weight": self.exact(module) for module in self.rest}

    def state_dict(self) -> dict[str, Any]:
        """The rounds, and the changed weights in their parts."""
        return {
            "rounds": sorted(self.rounds),
            "weights": {module: self.weight(module).detach().clone() for module in self.rest},
            "rest": dict(self.rest),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`state_dict`; what has been added later cannot be taken back."""
        if not self.rounds <= set(state["rounds"]):
            raise ValueError("the weights have later updates in them; load into a new model")
        self.rounds = set(state["rounds"])
        for module, weight in state["weights"].items():
            with torch.no_grad():
                self.weight(module).copy_(weight)
            if state["rest"][module] is None:
                self.rest[module] = None
            else:
                self._set_rest(module, state["rest"][module].to(self.weight(module).device))


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
    copies = getattr(model.peft_config["default"], "layer_replication", None)
    if copies:
        raise ExtensionError(
            "llm.adapter.args.layer_replication",
            copies,
            "updates go into the layers' weights, and their copies share them",
            "Leave it out, or use federate.method: flexlora",
        )
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

    starts_from_download = True
    streams_uploads = True

    @classmethod
    def prepare_model(cls, model: Any, cfg: Any) -> None:
        """Look whether the adapted weights are nobody else's."""
        check_untied(model)
        model.method_state = MergedBase(model)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # (round, factors by module): what some client has not had yet, the oldest first.
        self._updates: list[tuple[int, dict[str, dict[str, Tensor]]]] = []
        self._had: dict[int, int] = {}
        super().__init__(*args, **kwargs)
        if self.model is not None:
            self._take_finer()

    def _take_finer(self) -> None:
        """Of a restored checkpoint the weights that are more precise than the model's own."""
        finer = getattr(self.aggregator, "finer", {})
        for module in pair_names(name for name, _ in self.model.named_parameters()):
            name = f"{module}.base_layer.weight"
            if name in finer:
                self.model.method_state.set(module, finer.pop(name))

    def _perform_federated_aggregation(self) -> Any:
        received = super()._perform_federated_aggregation()
        update = self.aggregator.base_update
        self.model.method_state.add(self.state + 1, update)
        factors = {m: {"A": pair.A, "B": pair.B * pair.scale} for m, pair in update.items()}
        self._updates.append((self.state + 1, factors))
        return received

    def broadcast_model_para(self, *args: Any, **kwargs: Any) -> None:
        """See the runtime; afterwards forget what every client has had."""
        super().broadcast_model_para(*args, **kwargs)
        clients = list(self.comm_manager.get_neighbors())
        least = min((self._had.get(k, 0) for k in clients), default=0)
        self._updates = [(rnd, factors) for rnd, factors in self._updates if rnd > least]

    def content_for(self, receiver: int, shared: Any) -> Any:
        """The receiver's slice; what it lacks of the frozen weights is sent before it."""
        for rnd, factors in self._updates:
            if rnd > self._had.get(receiver, 0):
                self._send(MESSAGE, [receiver], {"round": rnd, "factors": factors})
                self._had[receiver] = rnd
        return super().content_for(receiver, shared)

    def state_dict(self) -> dict[str, Any]:
        """The updates under way, and which of them clients have had."""
        own = {"updates": list(self._updates), "had": dict(self._had)}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See the runtime."""
        super().load_state_dict(state)
        self._updates = [(rnd, factors) for rnd, factors in state["updates"]]
        self._had = dict(state["had"])


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
        self.model.method_state.add(message.content["round"], pairs)

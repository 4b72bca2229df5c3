"""SLoRA's first stage (Babakniya et al., 2023, arXiv 2308.06522).

The first rounds train a sparse update S of every adapted weight, on one random mask of each module
that all clients share: the module computes ``W0 x + S x``, and the server averages S. Then

    ``S = U diag(sigma) V^T``,    ``A <- V_r^T``,    ``B <- U_r diag(sigma_r) / s``

starts the adapters, and the following rounds are those of the method that comes after: FedAvg
(``slora``) or FlexLoRA (``flexlora`` with ``slora.rounds``).

A client's density follows its rank, as in FlexLoRA's experiments: of the mask, which lists its
places in a random order, it trains and sends the first. The mean is that of the applied updates,
``S = sum_k p_k S_k``, in which a client has zeros at the places that it does not train (our rule).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from federatedscope.core.message import Message
from federatedscope.core.workers import Client
from federatedscope_ext.aggregators.module import named_stream
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.hooks import check_hooks
from federatedscope_ext.workers.base import MethodServer, only_training
from fedlora.names import pair_names
from fedlora.pairs import LoraPair
from fedlora.svd import UpdateSum

__all__ = ["SparseStageClient", "SparseStageServer", "SparseUpdate"]

logger = logging.getLogger(__name__)

VALUES = "slora_values"


class SparseUpdate:
    """The sparse update of one layer, as a forward hook.

    Parameters
    ----------
    layer : peft LoraLayer
        At the server's rank. Gets the parameter ``slora_values`` of shape ``(n,)``, zero at first,
        and the buffer ``slora_index`` with their places in the flattened weight.
    density : float
        n as a share of the weight; 0 for as many numbers as LoRA's factors have.
    generator : torch.Generator
        Draws the places.
    """

    def __init__(self, layer: Any, density: float, generator: torch.Generator) -> None:
        weight = layer.get_base_layer().weight
        self.shape = (layer.out_features, layer.in_features)
        self.density, self.rank = density, layer.r["default"]
        self.on = False
        count = self.count(self.rank)
        places = torch.randperm(weight.numel(), generator=generator)[:count].clone()
        device = weight.device
        values = torch.zeros(len(places), dtype=torch.float32, device=device)
        layer.register_parameter(VALUES, nn.Parameter(values))
        layer.register_buffer("slora_index", places.to(device), persistent=False)
        layer.register_forward_hook(self)

    def count(self, rank: int) -> int:
        """Numbers that a participant of a rank trains, the first of the server's."""
        numel = self.shape[0] * self.shape[1]
        count = rank * sum(self.shape)
        if self.density:
            count = round(self.density * numel * rank / self.rank)
        return max(1, min(count, numel))

    def matrix(self, layer: Any) -> Tensor:
        """S, shape ``(d_out, d_in)``, differentiable in its values, of which there may be fewer."""
        values = getattr(layer, VALUES)
        flat = values.new_zeros(self.shape[0] * self.shape[1])
        return flat.scatter(0, layer.slora_index[: len(values)], values).view(self.shape)

    def __call__(self, layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """The layer's output with ``S x`` added while it is switched on."""
        if not self.on:
            return output
        x = inputs[0]
        return output + linear(x, self.matrix(layer).to(x.dtype)).to(output.dtype)


def attach(model: Any, density: float, seed: int) -> None:
    """Give every LoRA layer of a model a sparse update; ``density`` 0 matches LoRA's size."""
    updates = {}
    for name in pair_names(n for n, _ in model.named_parameters()):
        # Named by the module: layers of one shape have different places.
        stream = named_stream(f"{seed}/slora/{name}")
        updates[name] = SparseUpdate(model.get_submodule(name), density, stream)
    model.method_state = SparseStage(updates)


def _check_start(model: Any, cfg: Any) -> None:
    """The first stage works on weight matrices, and starts from the base model itself."""
    for name in pair_names(n for n, _ in model.named_parameters()):
        layer = model.get_submodule(name).get_base_layer()
        if isinstance(layer, nn.Embedding) or layer.weight.dim() != 2:
            raise ExtensionError(
                "llm.adapter.args.target_modules",
                name,
                f"SLoRA's first stage trains weight matrices, and this is a {type(layer).__name__}",
                "Name linear layers only, or write slora.rounds: 0 with federate.method: FedAvg",
            )
    start = (cfg.llm.adapter.args[0] if cfg.llm.adapter.args else {}).get("init_lora_weights", True)
    if start not in (True, "gaussian"):
        raise ExtensionError(
            "llm.adapter.args.init_lora_weights",
            start,
            "the first stage replaces the adapters' start, which here is a part of the base model",
            "Leave it out",
        )


class SparseStage:
    """The sparse updates of a model by module, kept beside it as ``model.method_state``."""

    def __init__(self, updates: Mapping[str, SparseUpdate]) -> None:
        self.updates = updates
        self.on = False

    def switch(self, on: bool) -> None:
        """Let the sparse updates take part in what the model computes, or not."""
        self.on = on
        for update in self.updates.values():
            update.on = on

    def fitted(self, state: Mapping[str, Tensor], ranks: Mapping[str, int]) -> dict[str, Tensor]:
        """A state with the values that participants of these ranks have: the first, or zeros
        beyond those that are there.
        """
        out = dict(state)
        for module, update in self.updates.items():
            name, count = f"{module}.{VALUES}", update.count(ranks[module])
            if name in state and len(state[name]) != count:
                out[name] = pad(state[name], (0, count - len(state[name])))
        return out

    def checkpoint_tensors(self, model: Any) -> dict[str, Tensor]:
        """Nothing of its own: the values are parameters of the participants."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Whether the updates take part."""
        return {"on": self.on}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`state_dict`."""
        self.switch(bool(state["on"]))


def switch(model: Any, on: bool) -> None:
    """Switch a model's sparse updates, if it has any."""
    if getattr(model, "method_state", None) is not None:
        model.method_state.switch(on)


def is_value(name: str) -> bool:
    """Whether a parameter belongs to a sparse update."""
    return name.endswith(f".{VALUES}")


def first_stage_names(model: Any) -> list[str]:
    """What the first stage trains: the sparse updates and the head, no LoRA factor."""
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    return [name for name in names if ".lora_" not in name]


class SparseStageServer(MethodServer):
    """Averages sparse updates in the first rounds, then starts the adapters from them."""

    # What a stage does not send, it does not train either.
    starts_from_download = True
    streams_uploads = True
    #: what the first stage needs of a runtime, see :mod:`federatedscope_ext.hooks`
    stage_hooks = ("prepare_model", "shared_state", "content_for")

    @classmethod
    def prepare_model(cls, model: Any, cfg: Any) -> None:
        """Attach the sparse updates where there is a first stage."""
        if cfg.slora.rounds:
            _check_start(model, cfg)
            attach(model, cfg.slora.density, cfg.seed)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        config = kwargs.get("config")
        if config is not None and config.slora.rounds:
            check_hooks(self.method, self.stage_hooks)
        self._parts: dict[int, tuple[Any, Any]] = {}
        super().__init__(*args, **kwargs)
        if self.model is None or not self._cfg.federate.restore_from:
            return
        values = [p for name, p in self.model.named_parameters() if is_value(name)]
        if any(bool(p.any()) for p in values):
            path = self._cfg.federate.restore_from
            logger.info("%s is of the first stage: its sparse update starts the adapters.", path)
            self._start_adapters()

    def _first_stage_rounds(self) -> int:
        """Rounds of the first stage; a restored state has it behind it."""
        return 0 if self._cfg.federate.restore_from else int(self._cfg.slora.rounds)

    def _in_first_stage(self) -> bool:
        return bool(self.state < self._first_stage_rounds())

    def shared_state(self) -> Any:
        """Of the server's tensors those of the stage."""
        state = super().shared_state()
        if not self._cfg.slora.rounds:
            return state
        first = self._in_first_stage()
        return {
            name: tensor
            for name, tensor in state.items()
            if (is_value(name) if first else not is_value(name))
            or (".lora_" not in name and not is_value(name))
        }

    def broadcast_model_para(self, *args: Any, **kwargs: Any) -> None:
        """See the runtime; parts of a state are kept only while it is sent."""
        self._parts.clear()
        super().broadcast_model_para(*args, **kwargs)
        self._parts.clear()

    def content_for(self, receiver: int, shared: Any) -> Any:
        """The receiver's slice, of sparse values those that its rank allows for."""
        content = super().content_for(receiver, shared)
        if not any(map(is_value, content)) or self.layouts is None:
            return content
        if id(content) not in self._parts:
            # The whole is kept beside the part: its identity is the key.
            part = self.model.method_state.fitted(content, self.layouts.of(receiver).ranks)
            self._parts[id(content)] = (content, part)
        return self._parts[id(content)][1]

    def callback_funcs_model_para(self, message: Message) -> Any:
        """Take an upload in, with zeros where its sender has no places."""
        size, state = message.content
        if any(map(is_value, state)) and self.layouts is not None:
            message = copy(message)
            whole = self.model.method_state.fitted(state, self.layouts.server.ranks)
            message.content = (size, whole)
        return super().callback_funcs_model_para(message)

    def _perform_federated_aggregation(self) -> Any:
        received = super()._perform_federated_aggregation()
        if self.state + 1 == self._first_stage_rounds():
            self._start_adapters()
        return received

    def _start_adapters(self) -> None:
        parameters = dict(self.model.named_parameters())
        for module, update in self.model.method_state.updates.items():
            layer = self.model.get_submodule(module)
            a, b = (parameters[name] for name in pair_names(parameters)[module])
            pair = leading_pair(update.matrix(layer).detach(), a.shape[0], layer.scaling["default"])
            rank = pair.A.shape[0]
            with torch.no_grad():
                # Ranks above the layer's sides keep their random rows, with zero columns.
                a[:rank].copy_(pair.A)
                b.zero_()
                b[:, :rank].copy_(pair.B)
                getattr(layer, VALUES).zero_()

    def eval(self) -> None:
        """Evaluate in the stage that the state belongs to."""
        switch(self.model, self._in_first_stage())
        super().eval()


def leading_pair(matrix: Tensor, rank: int, scale: float) -> LoraPair:
    """The best approximation of a matrix by a pair of at most ``rank``, at a scale."""
    d_out, d_in = matrix.shape
    total = UpdateSum(d_out, d_in, torch.float32, matrix.device, path="dense")
    total.add(1.0, LoraPair(torch.eye(d_in, device=matrix.device), matrix, 1.0))
    left, values, right = total.svd(min(rank, d_out, d_in))
    return LoraPair(right, left * values / scale, scale)


class SparseStageClient(Client):
    """Trains the sparse update while the server sends one."""

    starts_from_download = True

    def _enter(self, content: Any) -> bool:
        """Switch to the stage that the received state belongs to; whether it is the first."""
        if not content or not self._cfg.slora.rounds:
            return False
        first = any(map(is_value, content))
        switch(self.model, first)
        for name, parameter in self.model.named_parameters():
            if is_value(name) and first:
                # As many as the client was sent: its rank decides.
                parameter.data = parameter.data.new_zeros(len(content[name]))
            elif is_value(name):
                parameter.data.zero_()
        return first

    def callback_funcs_for_model_para(self, message: Message) -> Any:
        """Train what the stage trains."""
        if not self._cfg.slora.rounds:
            return super().callback_funcs_for_model_para(message)
        first = self._enter(message.content)
        names = [name for name, p in self.model.named_parameters() if p.requires_grad]
        trained = first_stage_names(self.model) if first else [n for n in names if not is_value(n)]
        with only_training(self.model, trained):
            return super().callback_funcs_for_model_para(message)

    def callback_funcs_for_evaluate(self, message: Message) -> Any:
        """Evaluate in the stage of the received state."""
        self._enter(message.content)
        return super().callback_funcs_for_evaluate(message)

    def callback_funcs_for_finish(self, message: Message) -> Any:
        """Take over the final state, of the first stage where the run stopped in it."""
        self._enter(message.content)
        return super().callback_funcs_for_finish(message)

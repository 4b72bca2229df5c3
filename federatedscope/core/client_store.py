"""One backbone, many clients.

Server and clients of a process share one module. What belongs to one of them (LoRA A and B, the
head, whatever else is trainable) lives here under its ID, and :meth:`ClientStore.activate` points
the module's parameters at it. Nothing is copied: a client that trains writes into its own tensors
and no operation on one client can reach another's.

The runner activates a worker before it hands it a message, so every worker, also one that an
extension registers, always sees its own model.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fedlora.heads import SAVED
from fedlora.layers import apply_layout, lora_modules
from fedlora.layouts import Layouts, fit
from fedlora.names import factor_of

# PEFT's VeRA keeps its frozen random projections as buffers. They are common to all clients.
_COMMON_BUFFERS = ("vera_A", "vera_B")


def owned_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a module that belong to a participant: trainable parameters and saved buffers.

    Returns
    -------
    dict of str to Tensor
        The module's own objects, in the module's order.
    """
    parameters: dict[str, Tensor] = {}
    buffers: dict[str, Tensor] = {}
    seen: set[int] = set()
    # One pass in the order of named_modules: every worker asks several times a round, and the
    # nested generators behind named_parameters take five times as long.
    pending: list[tuple[str, nn.Module]] = [("", model)]
    while pending:
        prefix, module = pending.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                parameters[prefix + name] = parameter
        if module._buffers and not _is_common(prefix):
            kept_back = module._non_persistent_buffers_set
            for name, buffer in module._buffers.items():
                if buffer is not None and name not in kept_back:
                    buffers[prefix + name] = buffer
        if module._modules:
            children = [(f"{prefix}{n}.", m) for n, m in module._modules.items() if m is not None]
            pending.extend(reversed(children))
    return {**parameters, **buffers}


def _is_common(prefix: str) -> bool:
    parts = prefix.split(".")
    return any(name in parts for name in _COMMON_BUFFERS)


def _buffer_homes(
    model: nn.Module, owned: Mapping[str, Tensor]
) -> dict[str, tuple[nn.Module, str]]:
    """For each owned buffer, the module that holds it and its name there."""
    return {
        f"{prefix}.{name}" if prefix else name: (module, name)
        for prefix, module in model.named_modules()
        for name in module._buffers
        if (f"{prefix}.{name}" if prefix else name) in owned
    }


def _frozen_factors(model: nn.Module, owned: Mapping[str, Tensor]) -> dict[str, nn.Parameter]:
    """LoRA factors that nobody trains."""
    return {n: p for n, p in model.named_parameters() if factor_of(n) and n not in owned}


def _bytes(state: Mapping[str, Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in state.values())


def checkpoint_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint needs besides the base model: owned tensors and frozen adapter factors.

    FFA-LoRA's frozen A and a frozen head are nobody's own, yet without them the rest means
    nothing. Weights of the base that a method has changed belong to it too.
    """
    adapter = {n: p for n, p in model.named_parameters() if "lora_" in n or SAVED in n}
    kept = method_state(model)
    changed = {} if kept is None else kept.checkpoint_tensors(model)
    return {**owned_tensors(model), **adapter, **changed}


def method_state(model: nn.Module) -> Any:
    """What a method keeps beside a backbone for all rounds, ``None`` for most.

    A server class's ``prepare_model`` puts it into ``model.method_state``: an object with
    ``state_dict``, ``load_state_dict`` and ``checkpoint_tensors``, of which a process has one, as
    of the backbone.
    """
    return getattr(model, "method_state", None)


class ClientStore:
    """Every participant's tensors over one shared module.

    Parameters
    ----------
    model : torch.nn.Module
        The shared module. Its state at construction is everybody's first state.
    memory_limit : int, optional
        Bytes of participants' tensors kept in memory; beyond it, the least recently used are
        written to ``spill_dir`` and read back when they are needed. ``None``: no limit.
    spill_dir : path, optional
        Folder for them; required with a limit.
    shared_module : bool
        Reproduce FederatedScope's ``share_local_model``: everybody is the same module and
        writes over everybody else's tensors. Off unless ``federate.shared_module`` asks for it.
    layouts : Layouts, optional
        Ranks and scales of the participants where they differ. The module is at the server's
        layout when the store is built; everybody's first state is the first rows of it.

    Attributes
    ----------
    is_read_again : callable
        ``f(owner)``: whether anything of this participant's tensors is ever looked at again. Of
        the others nothing is written to disk; they start again from the first state. All are kept
        until somebody sets it.
    """

    def __init__(
        self,
        model: nn.Module,
        memory_limit: int | None = None,
        spill_dir: str | os.PathLike[str] | None = None,
        shared_module: bool = False,
        layouts: Layouts | None = None,
    ) -> None:
        if memory_limit is not None and spill_dir is None:
            raise ValueError("a memory limit needs a folder to spill to")
        self.model = model
        self.memory_limit = memory_limit
        self.spill_dir = Path(spill_dir) if spill_dir is not None else None
        self.shared_module = shared_module
        self.active: int | None = None
        self.layouts = layouts
        self._lora = [] if layouts is None else list(lora_modules(model))
        self._slots = owned_tensors(model)
        self._buffers = _buffer_homes(model, self._slots)
        self._initial = {name: slot.detach().clone() for name, slot in self._slots.items()}
        # Frozen factors (FFA-LoRA's A) are common to all, each participant sees its first rows.
        self._frozen = {} if self.layouts is None else _frozen_factors(model, self._slots)
        self._common = {name: slot.data for name, slot in self._frozen.items()}
        self._states: OrderedDict[int, dict[str, Tensor]] = OrderedDict()
        self._sizes: dict[int, int] = {}
        self._spilled: set[int] = set()
        self.is_read_again: Callable[[int], bool] = lambda owner: True

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors that a participant owns."""
        return tuple(self._slots)

    @property
    def state_bytes(self) -> int:
        """Bytes of the server's tensors, the most that one participant has."""
        return _bytes(self._initial)

    def bytes_of(self, owner: int) -> int:
        """Bytes of one participant's tensors in memory; 0 where it has none there."""
        return self._sizes[owner] if owner in self._states else 0

    @property
    def owners(self) -> list[int]:
        """IDs that have a state of their own by now, in memory or on disk."""
        return sorted(set(self._states) | self._spilled)

    def activate(self, owner: int) -> None:
        """Let the shared module be the one of ``owner``.

        A participant that was never active starts from the common initial state. Gradients of
        the previous one are dropped.
        """
        if self.shared_module or owner == self.active:
            return
        self._take_back()
        state = self._state_of(owner)
        for name, slot in self._slots.items():
            slot.data = state[name]
            slot.grad = None
        if self.layouts is not None:
            self._lay_out(owner)
        self.active = owner
        self._spill_over_limit()

    def _lay_out(self, owner: int) -> None:
        """Let ranks and scales of the module be those of ``owner``."""
        if self.layouts is None:
            return
        layout, server = self.layouts.of(owner), self.layouts.server
        for name, slot in self._frozen.items():
            slot.data = fit(self._common[name], name, server, layout)
        apply_layout(self._lora, layout)

    def state(self, owner: int) -> Mapping[str, Tensor]:
        """The tensors of ``owner`` themselves (no copies)."""
        if self.shared_module:
            return {name: slot.data for name, slot in self._slots.items()}
        if owner == self.active:
            self._take_back()
        return self._state_of(owner)

    def _take_back(self) -> None:
        """Remember what the active participant's tensors are now.

        Training in place leaves them what they were; a trainer of an extension may also have put
        others in their place (``param.data = ...``, ``model.to(...)``, a buffer set anew).
        """
        if self.active is None:
            return
        for name, (module, attribute) in self._buffers.items():
            current = module._buffers[attribute]
            if current is not None:
                self._slots[name] = current
        self._states[self.active] = {name: slot.data for name, slot in self._slots.items()}
        self._sizes[self.active] = _bytes(self._states[self.active])

    def _state_of(self, owner: int) -> dict[str, Tensor]:
        if owner in self._states:
            self._states.move_to_end(owner)
        elif owner in self._spilled:
            self._states[owner] = self._read(owner)
        else:
            self._states[owner] = {
                name: self._fitted(t, name, owner).clone() for name, t in self._initial.items()
            }
            self._sizes[owner] = _bytes(self._states[owner])
        return self._states[owner]

    def _fitted(self, tensor: Tensor, name: str, owner: int) -> Tensor:
        if self.layouts is None:
            return tensor
        return fit(tensor, name, self.layouts.server, self.layouts.of(owner))

    def _spill_over_limit(self) -> None:
        if self.memory_limit is None:
            return
        excess = sum(map(self.bytes_of, self._states)) - self.memory_limit
        for owner in list(self._states) if excess > 0 else ():
            if excess <= 0:
                return
            # The active participant's tensors are in the module and the server's are needed every
            # round: both stay.
            if owner not in (self.active, 0):
                excess -= self.bytes_of(owner)
                state = self._states.pop(owner)
                if self.is_read_again(owner):
                    self._write(owner, state)

    def _path(self, owner: int) -> Path:
        if self.spill_dir is None:
            raise ValueError("this store has no folder to spill to")
        return self.spill_dir / f"client_{owner}.safetensors"

    def _write(self, owner: int, state: dict[str, Tensor]) -> None:
        path = self._path(owner)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        save_file({name: t.contiguous() for name, t in state.items()}, temporary)
        os.replace(temporary, path)
        self._spilled.add(owner)

    def _read(self, owner: int) -> dict[str, Tensor]:
        state = load_file(self._path(owner))
        self._path(owner).unlink()
        self._spilled.discard(owner)
        return {name: state[name].to(slot.device) for name, slot in self._slots.items()}

    def state_dict(self) -> dict[str, Any]:
        """The tensors of all that have a state of their own, by ID."""
        return {"states": {owner: dict(self.state(owner)) for owner in self.owners}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`state_dict`; ranks are those of the layouts as they are now."""
        self.close()
        self._states.clear()
        self.active = None
        for owner, tensors in state["states"].items():
            own = {name: tensors[name].to(slot.device) for name, slot in self._slots.items()}
            self._states[owner] = {name: tensor.clone() for name, tensor in own.items()}
            self._sizes[owner] = _bytes(own)

    def close(self) -> None:
        """Remove the files of spilled participants."""
        for owner in list(self._spilled):
            self._path(owner).unlink(missing_ok=True)
            self._spilled.discard(owner)
        if (
            self.spill_dir is not None
            and self.spill_dir.is_dir()
            and not any(self.spill_dir.iterdir())
        ):
            self.spill_dir.rmdir()

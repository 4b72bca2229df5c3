"""What the hooks of one trainer share.

``ctx.name = CtxVar(value, LIFECYCLE.BATCH)`` sets a variable that is gone when the batch is;
without ``CtxVar`` it stays until it is overwritten.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from torch import nn

from federatedscope.core.auxiliaries.criterion_builder import get_criterion
from federatedscope.core.auxiliaries.dataloader_builder import batch_size_of
from federatedscope.core.auxiliaries.regularizer_builder import get_regularizer
from federatedscope.core.trainers.enums import LIFECYCLE, MODE
from federatedscope.core.trainers.utils import training_length


class CtxVar:
    """A value with a lifetime, one of :class:`~federatedscope.core.trainers.enums.LIFECYCLE`."""

    LIFECYCLES = (LIFECYCLE.BATCH, LIFECYCLE.EPOCH, LIFECYCLE.ROUTINE, LIFECYCLE.NONE)

    def __init__(self, obj: Any, lifecycle: str | None = None) -> None:
        if lifecycle not in self.LIFECYCLES:
            raise ValueError(f"lifecycle {lifecycle!r}: expected one of {self.LIFECYCLES}")
        self.obj = obj
        self.lifecycle = lifecycle


class LifecycleDict(dict[str, Any]):
    """A dict with attribute access whose entries can have a lifetime."""

    def __init__(self, init_dict: Mapping[str, Any] | None = None) -> None:
        super().__init__(init_dict or {})
        dict.__setattr__(self, "_lifecycles", defaultdict(set))

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the trainer's context has no {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, CtxVar):
            self._lifecycles[value.lifecycle].add(name)
            value = value.obj
        self[name] = value

    def __delattr__(self, name: str) -> None:
        del self[name]

    def clear(self, lifecycle: str | None = None) -> None:
        """Drop the variables whose lifetime ended; without an argument, everything."""
        if lifecycle is None:
            super().clear()
            return
        for name in self._lifecycles.pop(lifecycle, ()):
            self.pop(name, None)


# What the configuration and the rows give: of which routine, and which of its numbers.
_NUMBERS = {
    "num_train_batch": (MODE.TRAIN, 0),
    "num_train_batch_last_epoch": (MODE.TRAIN, 1),
    "num_train_epoch": (MODE.TRAIN, 2),
    "num_total_train_batch": (MODE.TRAIN, 3),
    **{f"num_{mode}_batch": (mode, 0) for mode in (MODE.VAL, MODE.TEST)},
    **{f"num_{mode}_epoch": (mode, 1) for mode in (MODE.VAL, MODE.TEST)},
}


class Context(LifecycleDict):
    """The shared state of a trainer's hooks.

    Attributes
    ----------
    model : torch.nn.Module
        The model, its parameters being those of the worker at hand.
    cfg, data, device
        The worker's configuration and splits; where the model is.
    {train,val,test}_data, {train,val,test}_loader, num_{train,val,test}_data
        Filled by the trainer's ``parse_data``.
    cur_mode, cur_split : str
        What runs (``train``, ``test``, ``finetune``) and on which split.
    cur_round : int
        Index of the round, from 0.
    criterion, regularizer, grad_clip, optimizer, scheduler
        As configured; the optimizer is new in every routine.
    num_train_batch, num_train_batch_last_epoch, num_train_epoch, num_total_train_batch : int
        Batches of a full and of the last epoch, epochs, and all batches of a training routine. An
        extension overrides these and the next by setting them.
    num_{val,test}_batch, num_{val,test}_epoch : int
        Batches of an evaluation; 1.
    """

    def __init__(self, model: nn.Module, cfg: Any, data: Any = None, device: Any = None) -> None:
        super().__init__()
        self.cfg = cfg
        self.model = model
        self.data = data
        self.device = device
        self.cur_round = 0
        self.cur_mode: Any = None
        self.mode_stack: list[str] = []
        self.cur_split: Any = None
        self.split_stack: list[str] = []
        self.criterion = get_criterion(cfg.criterion.type, device)
        self.regularizer = get_regularizer(cfg.regularizer.type)
        self.grad_clip = cfg.grad.grad_clip

    @property
    def trainable_para_names(self) -> list[str]:
        """Names of the parameters that are trained."""
        return [name for name, p in self.model.named_parameters() if p.requires_grad]

    def __getattr__(self, name: str) -> Any:
        if name not in _NUMBERS or self.get(name):
            return super().__getattr__(name)
        mode, index = _NUMBERS[name]
        size = int(self.get(f"num_{self.cur_split or mode}_data") or 0)
        if mode == MODE.TRAIN:
            return training_length(self.cfg, size)[index]
        return (-(-size // batch_size_of(self.cfg, mode)), 1)[index]

    def track_mode(self, mode: str) -> None:
        """Enter a mode and put the model into training or evaluation behaviour."""
        self.mode_stack.append(mode)
        self.change_mode(mode)

    def reset_mode(self) -> None:
        """Leave the mode entered last."""
        self.mode_stack.pop()
        self.change_mode(self.mode_stack[-1] if self.mode_stack else None)

    def change_mode(self, mode: str | None) -> None:
        """Set the mode without touching the stack."""
        self.cur_mode = mode
        if mode is not None:
            self.model.train(mode in (MODE.TRAIN, MODE.FINETUNE))

    def track_split(self, dataset: str) -> None:
        """Work on a split."""
        self.split_stack.append(dataset)
        self.cur_split = dataset

    def reset_split(self) -> None:
        """Go back to the split worked on before."""
        self.split_stack.pop()
        self.cur_split = self.split_stack[-1] if self.split_stack else None

    def check_split(self, target_split_name: str, skip: bool = False) -> bool:
        """Whether a split has data; without ``skip`` a :class:`ValueError` where it has none."""
        has_data = bool(self.get(f"num_{target_split_name}_data")) or (
            self.get(f"{target_split_name}_loader") is not None
        )
        if not has_data and not skip:
            raise ValueError(f"this worker has no rows in its split {target_split_name!r}")
        return has_data

    def merge_from_dict(self, other_dict: Mapping[str, Any]) -> None:
        """Set every entry of ``other_dict``."""
        for key, value in other_dict.items():
            setattr(self, key, value)

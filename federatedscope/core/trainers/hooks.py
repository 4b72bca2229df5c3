"""Hook sets: named functions of the context, run at the triggers of a routine."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from federatedscope.core.trainers.enums import TRIGGER

logger = logging.getLogger(__name__)

Hook = Callable[[Any], None]
HookSet = dict[str, list[Hook]]


class HookRegistry:
    """Registration of hooks for training, fine-tuning and evaluation.

    Trainers inherit it. A hook is called with the context; hooks of one trigger run in the order
    of their registration unless a position is given.
    """

    HOOK_TRIGGER = TRIGGER.ALL

    def __init__(self) -> None:
        self.hooks_in_train: HookSet = defaultdict(list)
        self.hooks_in_eval: HookSet = defaultdict(list)
        self.hooks_in_ft: HookSet = defaultdict(list)

    def register_hook_in_train(
        self,
        new_hook: Hook,
        trigger: str,
        insert_pos: int | None = None,
        base_hook: Hook | None = None,
        insert_mode: str = "before",
    ) -> None:
        """Add a hook to the training routine.

        Parameters
        ----------
        new_hook : callable
            Called with the context.
        trigger : str
            One of ``HOOK_TRIGGER``.
        insert_pos : int, optional
            Position among the trigger's hooks; -1 and the default append.
        base_hook : callable, optional
            A hook that is already there; the new one goes ``insert_mode`` (``before`` or
            ``after``) it.
        """
        self._insert(self.hooks_in_train, new_hook, trigger, insert_pos, base_hook, insert_mode)

    def register_hook_in_ft(
        self,
        new_hook: Hook,
        trigger: str,
        insert_pos: int | None = None,
        base_hook: Hook | None = None,
        insert_mode: str = "before",
    ) -> None:
        """Add a hook to the fine-tuning routine; see :meth:`register_hook_in_train`."""
        self._insert(self.hooks_in_ft, new_hook, trigger, insert_pos, base_hook, insert_mode)

    def register_hook_in_eval(
        self,
        new_hook: Hook,
        trigger: str,
        insert_pos: int | None = None,
        base_hook: Hook | None = None,
        insert_mode: str = "before",
    ) -> None:
        """Add a hook to the evaluation routine; see :meth:`register_hook_in_train`."""
        self._insert(self.hooks_in_eval, new_hook, trigger, insert_pos, base_hook, insert_mode)

    def reset_hook_in_train(
        self, target_trigger: str, target_hook_name: str | None = None
    ) -> int | None:
        """Remove one hook of the training routine by name, or all hooks of a trigger."""
        return self._remove(self.hooks_in_train, target_trigger, target_hook_name)

    def reset_hook_in_eval(
        self, target_trigger: str, target_hook_name: str | None = None
    ) -> int | None:
        """Remove one hook of the evaluation routine by name, or all hooks of a trigger."""
        return self._remove(self.hooks_in_eval, target_trigger, target_hook_name)

    def replace_hook_in_train(
        self, new_hook: Hook, target_trigger: str, target_hook_name: str
    ) -> None:
        """Put a hook in the place of another one of the training routine."""
        position = self.reset_hook_in_train(target_trigger, target_hook_name)
        self.register_hook_in_train(new_hook, target_trigger, insert_pos=position)

    def replace_hook_in_eval(
        self, new_hook: Hook, target_trigger: str, target_hook_name: str
    ) -> None:
        """Put a hook in the place of another one of the evaluation routine."""
        position = self.reset_hook_in_eval(target_trigger, target_hook_name)
        self.register_hook_in_eval(new_hook, target_trigger, insert_pos=position)

    def _check_trigger(self, trigger: str) -> None:
        if trigger not in self.HOOK_TRIGGER:
            raise ValueError(f"hook trigger {trigger!r}: expected one of {self.HOOK_TRIGGER}")

    def _insert(
        self,
        hooks: HookSet,
        new_hook: Hook,
        trigger: str,
        position: int | None,
        base_hook: Hook | None,
        insert_mode: str,
    ) -> None:
        self._check_trigger(trigger)
        if insert_mode not in ("before", "after"):
            raise ValueError(f"insert_mode {insert_mode!r}: expected 'before' or 'after'")
        present = hooks[trigger]
        if position is None and base_hook is not None:
            position = present.index(base_hook) + (insert_mode == "after")
        if position is None or position == -1:
            position = len(present)
        if not 0 <= position <= len(present):
            raise ValueError(
                f"insert_pos {position}: {trigger} has {len(present)} hooks, expected -1 or "
                f"0..{len(present)}"
            )
        present.insert(position, new_hook)

    def _remove(self, hooks: HookSet, trigger: str, name: str | None) -> int | None:
        self._check_trigger(trigger)
        if name is None:
            hooks[trigger] = []
            return -1
        for position, hook in enumerate(hooks[trigger]):
            if getattr(hook, "__name__", None) == name:
                del hooks[trigger][position]
                return position
        logger.warning("There is no hook %s at %s to remove.", name, trigger)
        return None

"""Hook sets: named functions of the context, run at the triggers of a routine."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from functools import partialmethod
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

    def _insert(
        self,
        routine: str,
        new_hook: Hook,
        trigger: str,
        insert_pos: int | None = None,
        base_hook: Hook | None = None,
        insert_mode: str = "before",
    ) -> None:
        """Add a hook to a routine.

        Parameters
        ----------
        routine : str
            ``train``, ``ft`` or ``eval``.
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
        present = self._hooks(routine, trigger)[trigger]
        if insert_mode not in ("before", "after"):
            raise ValueError(f"insert_mode {insert_mode!r}: expected 'before' or 'after'")
        if insert_pos is None and base_hook is not None:
            insert_pos = present.index(base_hook) + (insert_mode == "after")
        if insert_pos is None or insert_pos == -1:
            insert_pos = len(present)
        if not 0 <= insert_pos <= len(present):
            raise ValueError(
                f"insert_pos {insert_pos}: {trigger} has {len(present)} hooks, expected -1 or "
                f"0..{len(present)}"
            )
        present.insert(insert_pos, new_hook)

    def _remove(
        self, routine: str, target_trigger: str, target_hook_name: str | None = None
    ) -> int | None:
        """Remove one hook by name, or all hooks of a trigger; returns where it was."""
        hooks = self._hooks(routine, target_trigger)
        if target_hook_name is None:
            hooks[target_trigger] = []
            return -1
        for position, hook in enumerate(hooks[target_trigger]):
            if getattr(hook, "__name__", None) == target_hook_name:
                del hooks[target_trigger][position]
                return position
        logger.warning("There is no hook %s at %s to remove.", target_hook_name, target_trigger)
        return None

    def _replace(
        self, routine: str, new_hook: Hook, target_trigger: str, target_hook_name: str
    ) -> None:
        """Put a hook in the place of another one."""
        position = self._remove(routine, target_trigger, target_hook_name)
        self._insert(routine, new_hook, target_trigger, position)

    def _hooks(self, routine: str, trigger: str) -> HookSet:
        if trigger not in self.HOOK_TRIGGER:
            raise ValueError(f"hook trigger {trigger!r}: expected one of {self.HOOK_TRIGGER}")
        hooks: HookSet = getattr(self, f"hooks_in_{routine}")
        return hooks

    register_hook_in_train = partialmethod(_insert, "train")
    register_hook_in_ft = partialmethod(_insert, "ft")
    register_hook_in_eval = partialmethod(_insert, "eval")
    reset_hook_in_train = partialmethod(_remove, "train")
    reset_hook_in_eval = partialmethod(_remove, "eval")
    replace_hook_in_train = partialmethod(_replace, "train")
    replace_hook_in_eval = partialmethod(_replace, "eval")

"""What methods need of a runtime beyond FederatedScope's contract, and what happens without it.

FederatedScope's servers lack these names. A method whose meaning depends on one lists it in
``Method.hooks`` and is refused there before anything starts; nothing is silently something else.
"""

from __future__ import annotations

from collections.abc import Iterable

from federatedscope.core.workers import Server
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.methods.method import Method

__all__ = ["HOOKS", "check_hooks"]

#: attribute of the server class -> what a method cannot do without it
HOOKS = {
    "prepare_config": "say what clients keep, freeze and send before trainers are built",
    "prepare_model": "change the model before its weights are shared out",
    "content_for": "send each client something else",
    "shared_state": "send other tensors in other rounds",
    "ranks_changed": "learn that a client has other ranks from now on",
}


def check_hooks(method: Method, names: Iterable[str] | None = None) -> None:
    """Refuse a method that this runtime cannot run as it is meant.

    Parameters
    ----------
    method : Method
        The method.
    names : iterable of str, optional
        Hooks; those that the method always needs when not given.

    Raises
    ------
    ExtensionError
        Naming what is missing.
    """
    wanted = method.hooks if names is None else names
    missing = [HOOKS[name] for name in wanted if not hasattr(Server, name)]
    if missing:
        raise ExtensionError(
            "federate.method",
            method.key,
            f"{method.name} has to {' and to '.join(missing)}, for which FederatedScope has no "
            "place",
            "Run it with the federatedscope package that comes with this extension",
        )

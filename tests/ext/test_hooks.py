"""The extension overrides contract names and the hooks that it lists, nothing else."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from federatedscope.core.workers import Client, Server
from federatedscope_ext import hooks
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.methods import METHODS
from federatedscope_ext.methods.registry import workers_of

# Of FederatedScope's contract, what subclasses of its workers may override.
CONTRACT = {
    "_perform_federated_aggregation", "_register_default_handlers", "broadcast_model_para",
    "callback_funcs_for_evaluate", "callback_funcs_for_finish", "callback_funcs_for_join_in",
    "callback_funcs_for_metrics", "callback_funcs_for_model_para", "callback_funcs_model_para",
    "check_and_move_on", "eval", "terminate",
}  # fmt: skip
# Attributes that say something about a class; a runtime that does not look is not misled.
SAID = {"starts_from_download", "streams_uploads"}
# Called by a runtime that keeps states; without it there is nothing to keep.
STATE = {"load_state_dict", "state_dict"}


def overridden(cls: type[Any], base: type[Any]) -> set[str]:
    """Names of the runtime's class that the extension's classes define anew."""
    own = [c for c in inspect.getmro(cls) if c.__module__.startswith("federatedscope_ext.")]
    names = {name for c in own for name in vars(c)}
    return {name for name in names if hasattr(base, name) and not name.startswith("__")}


@pytest.mark.parametrize("key", METHODS)
def test_workers_override_the_contract_and_named_hooks(key: str) -> None:
    workers = workers_of(METHODS[key])
    server = overridden(workers["server"], Server) - CONTRACT - SAID - STATE
    # Every server of a method has the first two; what they do there decides who needs them.
    needed = {*METHODS[key].hooks, *getattr(workers["server"], "stage_hooks", ())}
    assert server - {"prepare_config", "prepare_model"} <= needed
    assert server <= set(hooks.HOOKS)
    assert overridden(workers["client"], Client) <= CONTRACT | SAID | STATE


@pytest.mark.parametrize("key", METHODS)
def test_a_method_that_keeps_or_freezes_needs_the_hook_for_it(key: str) -> None:
    method = METHODS[key]
    decides = any(v.local_keywords or v.frozen_keywords for v in method.variants)
    assert not decides or "prepare_config" in method.hooks


def test_a_missing_hook_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bare:
        prepare_config = None

    monkeypatch.setattr(hooks, "Server", Bare)
    hooks.check_hooks(METHODS["fedsa"])
    hooks.check_hooks(METHODS["flexlora"])
    with pytest.raises(ExtensionError, match=r"FLoRA has to change the model .*send each client"):
        hooks.check_hooks(METHODS["flora"])

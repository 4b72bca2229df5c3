"""Making a method known: to the runtime's registry, the configuration, the catalogue."""

from __future__ import annotations

from typing import Any

from federatedscope import register
from federatedscope.core.workers import Client
from federatedscope_ext.aggregators.rule import LoraRule
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.methods.method import METHODS, Method
from federatedscope_ext.workers.base import MethodServer

__all__ = ["register_method", "rule_for", "workers_of"]

# Methods of the runtime that are the plain mean of both factors, and all of them.
_PLAIN_MEANS = ("fedavg", "fedprox")
OF_THE_RUNTIME = (*_PLAIN_MEANS, "fedopt", "local", "global")


def register_method(method: Method) -> Method:
    """Make a method known under its key, which replaces one of the same key.

    Its workers, its server rule, its options with their checks and its line in the catalogue all
    follow from the one object. Call it in a module that ``extensions`` names.

    Parameters
    ----------
    method : Method
        The method.

    Returns
    -------
    Method
        The same.

    Raises
    ------
    ExtensionError
        A key that cannot be chosen, no variant, or hooks that nobody knows.
    """
    from federatedscope_ext.options import add_options_late

    _check(method)
    METHODS[method.key] = method
    workers = workers_of(method)
    register.register_worker(method.key, lambda name: workers if name == method.key else None)
    # FederatedScope itself asks nobody for aggregators; there the servers bring the rule along.
    register_aggregator = getattr(register, "register_aggregator", None)
    if register_aggregator is not None and method.rule is not None:
        # One key a method: keys are what a wrong federate.method is compared with.
        register_aggregator(method.key, _build_rule)
    add_options_late(method.options)
    return method


def _check(method: Method) -> None:
    from federatedscope_ext.hooks import HOOKS

    unknown = [name for name in method.hooks if name not in HOOKS]
    for field, value, wrong, problem, remedy in (
        ("key", method.key, method.key != method.key.lower(), "federate.method is read in lower "
         "case", "Write it in lower case"),
        ("key", method.key, method.key in OF_THE_RUNTIME, "the runtime has this method itself",
         "Choose another key"),
        ("variants", method.variants, not method.variants, "it is defined for no adapter",
         "Write for example lora(name)"),
        ("hooks", method.hooks, bool(unknown), "no such hook", f"There are {', '.join(HOOKS)}"),
    ):  # fmt: skip
        if wrong:
            raise ExtensionError(f"Method.{field}", value, problem, remedy)


def workers_of(method: Method) -> dict[str, type[Any]]:
    """The classes of a method's workers, as ``register_worker`` wants them."""
    base = method.server or MethodServer
    name = f"{method.key.title().replace('_', '')}Server"
    own = {"method": method, "traffic_varies": method.traffic_varies, "__doc__": method.note}
    server = type(name, (base,), own)
    return {"client": method.client or Client, "server": server}


def rule_for(key: str, config: Any = None) -> type[LoraRule] | None:
    """The rule that a run needs from here, ``None`` where the runtime's own serves.

    Parameters
    ----------
    key : str
        ``federate.method``, in any case.
    config : CN, optional
        The run's configuration; read for whether ranks differ.
    """
    name = key.lower()
    method = METHODS.get(name)
    if method is not None and method.rule is not None:
        return method.rule
    if not _unequal_ranks(config):
        return None
    if name in _PLAIN_MEANS:
        # FedSA-LoRA in its authors' words keeps B: what is averaged then is A alone.
        return METHODS["replication_pad" if _keeps_b(config) else "zero_pad"].rule
    if method is None:
        return None
    return method.unequal_rule or METHODS["zero_pad"].rule


def _keeps_b(config: Any) -> bool:
    """Whether B stays at the client and A travels."""
    section = config.get("personalization") if hasattr(config, "get") else None
    words = (section or {}).get("local_param") or ()
    a, b = ("lora_A.default.weight", "lora_B.default.weight")
    return any(word in b for word in words) and not any(word in a for word in words)


def _unequal_ranks(config: Any) -> bool:
    """Whether ``llm.adapter`` says that ranks differ, as settled by the run or as written."""
    adapter: Any = config
    for part in ("llm", "adapter"):
        adapter = adapter.get(part) if hasattr(adapter, "get") else None
    if not hasattr(adapter, "get"):
        return False
    ranks = adapter.get("client_ranks") or []
    distinct = {str(rank) for rank in ranks} if isinstance(ranks, list | tuple) else {ranks, ""}
    return bool(adapter.get("unequal_ranks")) or len(distinct) > 1


def _build_rule(
    key: str, model: Any = None, device: Any = None, config: Any = None
) -> LoraRule | None:
    rule = rule_for(key, config)
    return None if rule is None else rule(config=config, device=device, model=model)

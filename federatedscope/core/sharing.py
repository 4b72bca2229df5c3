"""What a method shares and what stays with the client, settled once before a run.

The user's configuration names a method and a head rule; workers and trainers only ever look at
``personalization.local_param`` (substrings of names that stay local), ``federate.freeze_A``,
``fedopt.use``, ``fedprox.use``.
"""

from __future__ import annotations

from typing import Any

import torch

from federatedscope.core.auxiliaries.worker_builder import get_server_cls
from federatedscope.core.client_store import owned_tensors
from federatedscope.core.errors import ConfigError
from federatedscope.core.participants import untrained_clients
from federatedscope.core.task import SEQ_CLS, task_type
from federatedscope.core.trainers.utils import shared_part
from fedlora.heads import head_keywords, names_head


def head_rule(cfg: Any) -> str:
    """``shared``, ``local``, ``frozen``, or ``none`` where the task has no classification head."""
    if task_type(cfg) != SEQ_CLS:
        return "none"
    rule = cfg.personalization.head
    if rule != "auto":
        return str(rule)
    if cfg.federate.method.lower() == "local":
        return "local"
    keeps = any(names_head(keyword) for keyword in cfg.personalization.local_param)
    return "local" if keeps else "shared"


def settled(cfg: Any) -> Any:
    """A copy of the user's configuration in which the method's choices are written out; its
    ``data.num_labels`` must be known. ``personalization.head: shared`` although ``local_param``
    names the head is a :class:`ConfigError`.
    """
    run = cfg.clone()
    run.defrost()
    method = run.federate.method.lower()
    if method in ("fedopt", "fedprox"):
        run[method].use = True
    if run.fedprox.use:
        run.regularizer.type = "proximal_regularizer"
        run.regularizer.mu = run.fedprox.mu
    get_server_cls(run).prepare_config(run)
    _settle_head(run)
    _settle_clients(run)
    return run


def _settle_head(run: Any) -> None:
    local = list(run.personalization.local_param)
    rule = head_rule(run)
    naming = [keyword for keyword in local if names_head(keyword)]
    if rule == "shared" and naming:
        problem = f"personalization.local_param keeps the head local ({naming})"
        remedy = "drop these keywords or write personalization.head: local"
        raise ConfigError("personalization.head", "shared", problem, remedy)
    if rule == "local":
        heads = head_keywords(adapted=run.llm.adapter.use)
        local += [head for head in heads if head not in local]
    run.personalization.local_param = local
    run.personalization.head = rule if rule != "none" else "auto"


def _settle_clients(run: Any) -> None:
    """Clients that never train are never drawn, so a round has at most the others."""
    federate = run.federate
    idle = untrained_clients(run)
    if not idle:
        return
    if federate.client_num == len(idle):
        problem = "nobody is left to train: the other clients have no training rows"
        remedy = "Hold fewer clients out, or use more clients"
        raise ConfigError(
            "federate.unseen_clients_rate", federate.unseen_clients_rate, problem, remedy
        )
    federate.sample_client_num = min(federate.sample_client_num, federate.client_num - len(idle))


def withheld_names(model: torch.nn.Module, cfg: Any) -> frozenset[str]:
    """Names of the tensors that no message of a run may carry.

    The frozen base, unless ``personalization.share_non_trainable_para`` is on, and what
    ``personalization.local_param`` keeps with the clients.
    """
    owned = owned_tensors(model)
    names = set(owned) - set(shared_part(owned, cfg.personalization.local_param))
    if not cfg.personalization.share_non_trainable_para:
        names |= model.state_dict(keep_vars=True).keys() - owned.keys()
    return frozenset(names)

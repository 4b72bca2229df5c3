"""Checks of the federation: clients per round, what is exchanged, how it is combined."""

from __future__ import annotations

import logging
import math

from federatedscope.core.configs.node import CN
from federatedscope.core.configs.ranges import Range, adapter_method, method_of
from federatedscope.core.errors import ConfigError
from fedlora.heads import names_head

__all__ = [
    "check_clients",
    "check_evaluation_scope",
    "check_personalization",
    "check_robust_rule",
    "check_weights",
    "count_unseen",
]

logger = logging.getLogger(__name__)

_NO_EXCHANGE = ("local", "global")


def check_clients(cfg: CN) -> None:
    """Derive the number of clients per round; refuse numbers that contradict each other.

    A positive ``sample_client_rate`` gives ``max(1, floor(rate * trained clients))``, where those
    trained are all but the unseen ones; without a rate and a number all that train take part.
    """
    fed = cfg.federate
    if method_of(cfg) in _NO_EXCHANGE:
        _use_all_clients(cfg)
    if fed.client_num == 0:
        return  # the data set decides; the checks run again afterwards
    _check_client_index(cfg)
    # Where nobody is left to train the run is refused later, when it is known who has rows.
    trained = max(1, fed.client_num - count_unseen(fed.unseen_clients_rate, fed.client_num))
    if fed.client_idx_for_local_train:
        fed.sample_client_num = 1
    elif fed.sample_client_rate > 0:
        derived = max(1, _floor(fed.sample_client_rate * trained))
        if fed.sample_client_num not in (-1, derived):
            logger.warning(
                "federate.sample_client_rate %s decides: %s clients per round, not"
                " federate.sample_client_num %s.",
                fed.sample_client_rate,
                derived,
                fed.sample_client_num,
            )
        fed.sample_client_num = derived
    elif fed.sample_client_num <= 0:
        fed.sample_client_num = trained
    elif fed.sample_client_num > trained:
        unseen = f" ({fed.client_num} less the unseen ones)" if fed.unseen_clients_rate else ""
        raise ConfigError(
            "federate.sample_client_num",
            fed.sample_client_num,
            f"more clients per round than train at all: {trained}{unseen}",
            f"Write at most {trained}, or -1 for all",
        )


def _use_all_clients(cfg: CN) -> None:
    """``local`` and ``global`` exchange nothing: every client takes part, none is unseen."""
    fed = cfg.federate
    if cfg.fedopt.use:
        raise ConfigError(
            "fedopt.use",
            True,
            f"federate.method {fed.method} has no mean that a server's optimizer could apply",
            "Set fedopt.use: False, or another federate.method",
        )
    if fed.unseen_clients_rate:
        logger.warning("federate.unseen_clients_rate has no meaning for %s; set to 0.", fed.method)
        fed.unseen_clients_rate = 0.0
    if fed.sample_client_rate > 0 or 0 < fed.sample_client_num < fed.client_num:
        logger.warning("%s uses all clients in every round; sampling is off.", fed.method)
    fed.sample_client_rate, fed.sample_client_num = -1.0, -1


def _check_client_index(cfg: CN) -> None:
    """``client_idx_for_local_train`` names one of the clients.

    Once the run has been reduced to that client (one client, one per round) there is nothing
    left to compare with.
    """
    fed = cfg.federate
    reduced = fed.client_num == 1 and fed.sample_client_num in (1, -1)
    if fed.client_idx_for_local_train > fed.client_num and not reduced:
        raise ConfigError(
            "federate.client_idx_for_local_train",
            fed.client_idx_for_local_train,
            f"there are only {fed.client_num} clients",
            f"Write 1 to {fed.client_num}, or 0 to train on all",
        )


def count_unseen(rate: float, clients: int) -> int:
    """How many of the clients are held out of training.

    Parameters
    ----------
    rate : float
        ``federate.unseen_clients_rate``.
    clients : int
        How many clients there are.

    Returns
    -------
    int
        The share of them, rounded down, and one at least where the share is above 0.
    """
    return max(1, _floor(rate * clients)) if rate > 0 else 0


def _floor(value: float) -> int:
    """Whole part of a product that should be exact (0.29 * 100 is 29, not 28)."""
    return math.floor(value + 1e-9)


def check_evaluation_scope(cfg: CN) -> None:
    """Global evaluation and merged test data go together."""
    fed = cfg.federate
    if fed.merge_val_data and not fed.merge_test_data:
        raise ConfigError(
            "federate.merge_val_data",
            True,
            "only together with federate.merge_test_data",
            "Set federate.merge_test_data: True as well, or leave both out",
        )
    if fed.merge_test_data and not fed.make_global_eval:
        logger.warning("federate.merge_test_data turns on federate.make_global_eval.")
        fed.make_global_eval = True
    if method_of(cfg) == "global" and fed.make_global_eval:
        logger.warning("The one client of the method global is evaluated, not the server.")
        fed.make_global_eval = False
        fed.merge_test_data = fed.merge_val_data = False
    if cfg.eval.clients != "all" and fed.make_global_eval:
        raise ConfigError(
            "eval.clients",
            cfg.eval.clients,
            "the server is evaluated, not the clients (federate.make_global_eval)",
            "Write eval.clients: all, or federate.make_global_eval: False",
        )
    if cfg.eval.clients == "unseen" and not fed.unseen_clients_rate:
        raise ConfigError(
            "eval.clients",
            "unseen",
            "every client trains",
            "Hold some out (federate.unseen_clients_rate: 0.1), or write eval.clients: all",
        )


def check_personalization(cfg: CN) -> None:
    """What stays local, what is frozen, and whether anything is left to send."""
    local = cfg.personalization.local_param
    if not all(isinstance(word, str) and word for word in local):
        raise ConfigError(
            "personalization.local_param",
            local,
            "the keywords must be text and not empty",
            "Write for example ['lora_B', 'classifier']",
        )
    if cfg.personalization.head == "shared":
        _check_shared_head(cfg, local)
    method = method_of(cfg)
    frozen = cfg.federate.freeze_A or method == "ffa"
    if cfg.federate.freeze_A:
        _check_freeze(cfg, method)
    if frozen and any(word in "lora_B.default.weight" for word in local):
        raise ConfigError(
            "personalization.local_param",
            local,
            "A is frozen and B stays at the client: no adapter tensor would be exchanged",
            "Leave 'lora_B' out, or set federate.freeze_A: False",
        )
    if method == "fedsa" and any(word in "lora_A.default.weight" for word in local):
        raise ConfigError(
            "personalization.local_param",
            local,
            "fedsa sends A only, and the keyword keeps A at the client",
            "Leave that keyword out; fedsa keeps B and the head local by itself",
        )


def _check_shared_head(cfg: CN, local: list[str]) -> None:
    """A shared head contradicts a local keyword for it, and a method that sends nothing."""
    named = [word for word in local if names_head(word)]
    if named:
        raise ConfigError(
            "personalization.head",
            "shared",
            f"personalization.local_param keeps {named} at the client, which is the head",
            f"Take {named[0]!r} out of local_param, or write personalization.head: local",
        )
    if method_of(cfg) == "local":
        raise ConfigError(
            "personalization.head",
            "shared",
            "the method local exchanges nothing",
            "Write personalization.head: auto",
        )


def _check_freeze(cfg: CN, method: str) -> None:
    """``freeze_A`` needs a LoRA adapter and a method that sends B."""
    if method == "fedsa":
        raise ConfigError(
            "federate.freeze_A",
            True,
            "federate.method fedsa sends A only, and a frozen A never changes",
            "Write federate.freeze_A: False, or federate.method: ffa",
        )
    if not cfg.llm.adapter.use or adapter_method(cfg) != "lora":
        raise ConfigError(
            "federate.freeze_A",
            True,
            "there is no LoRA adapter whose A could be frozen",
            "Write llm.adapter.use: True with adapter_method 'lora', or freeze_A: False",
        )


def check_weights(cfg: CN) -> None:
    """One rule for the weights of the mean."""
    if not cfg.federate.ignore_weight:
        return
    if cfg.aggregator.weights == "processed":
        raise ConfigError(
            "aggregator.weights",
            "processed",
            "federate.ignore_weight asks for equal weights",
            "Write federate.ignore_weight: False, or aggregator.weights: uniform",
        )


_MINIMUM_CLIENTS = {
    "krum": (lambda f: 2 * f + 3, "2f + 3"),
    "bulyan": (lambda f: 4 * f + 3, "4f + 3"),
    "trimmedmean": (lambda f: 2 * f + 1, "2f + 1"),
    "median": (lambda f: 2 * f + 1, "2f + 1"),
}

_BFT_RANGES = {
    "krum_agg_num": Range("krum_agg_num", low=1),
    "trimmedmean_excluded_ratio": Range("", low=0, high=0.5, open_high=True),
    "normbounding_norm_bound": Range("", low=0, open_low=True),
}


def check_robust_rule(cfg: CN) -> None:
    """A robust rule has something to aggregate, enough clients, and sound arguments."""
    rule, faulty = cfg.aggregator.robust_rule, cfg.aggregator.byzantine_node_num
    if rule == "fedavg":
        if faulty:
            logger.warning("aggregator.byzantine_node_num has no effect with the plain mean.")
        return
    method = method_of(cfg)
    if method in _NO_EXCHANGE or method == "fedopt" or cfg.fedopt.use:
        other = "fedopt" if cfg.fedopt.use else method
        raise ConfigError(
            "aggregator.robust_rule",
            rule,
            f"{other} does not aggregate with it",
            "Write aggregator.robust_rule: fedavg, or federate.method: FedAvg",
        )
    clients = cfg.federate.sample_client_num
    if rule in _MINIMUM_CLIENTS and cfg.federate.client_num > 0:
        needed, formula = _MINIMUM_CLIENTS[rule]
        if clients < needed(faulty):
            raise ConfigError(
                "aggregator.byzantine_node_num",
                faulty,
                f"{rule} needs at least {formula} = {needed(faulty)} clients per round, and there"
                f" are {clients}",
                "Tolerate fewer faulty clients, or let more clients take part",
            )
    for name, value in cfg.aggregator.BFT_args.items():
        bounds = _BFT_RANGES.get(name)
        if bounds and not (isinstance(value, (int, float)) and bounds.holds(value)):
            field = f"aggregator.BFT_args.{name}"
            raise ConfigError(field, value, "out of range", f"Write a number {bounds}")

"""Checks of the federation: clients per round, what is exchanged, how it is combined."""

from __future__ import annotations

import logging
import math

from federatedscope.core.configs.node import CN
from federatedscope.core.configs.ranges import Check, Range, adapter_method, method_of, refuse
from federatedscope.core.errors import ConfigError
from fedlora.heads import names_head

# fmt: off
__all__ = [
    "PERSONALIZATION", "check_clients", "check_evaluation_scope", "check_robust_rule",
    "count_unseen",
]
# fmt: on

logger = logging.getLogger(__name__)

_NO_EXCHANGE = ("local", "global")


def _strange_client(cfg: CN) -> bool:
    """Whether ``client_idx_for_local_train`` names none of the clients.

    Once the run has been reduced to that client (one client, one per round) there is nothing
    left to compare with.
    """
    fed = cfg.federate
    reduced = fed.client_num == 1 and fed.sample_client_num in (1, -1)
    return fed.client_idx_for_local_train > fed.client_num and not reduced


def _named_head(cfg: CN) -> list[str]:
    """The local keywords that name a head that is to be shared."""
    local = cfg.personalization.local_param if cfg.personalization.head == "shared" else ()
    return [word for word in local if names_head(word)]


def _kept(cfg: CN, factor: str) -> bool:
    """Whether a local keyword keeps a LoRA factor at the clients."""
    name = f"lora_{factor}.default.weight"
    return any(word in name for word in cfg.personalization.local_param)


# fmt: off
_SERVER_OPTIMIZER = Check(
    "fedopt.use", lambda c: c.fedopt.use,
    "federate.method {c.federate.method} has no mean that a server's optimizer could apply",
    "Set fedopt.use: False, or another federate.method")
_CLIENT = Check(
    "federate.client_idx_for_local_train", _strange_client,
    "there are only {c.federate.client_num} clients",
    "Write 1 to {c.federate.client_num}, or 0 to train on all")
_MERGED = Check(
    "federate.merge_val_data",
    lambda c: c.federate.merge_val_data and not c.federate.merge_test_data,
    "only together with federate.merge_test_data",
    "Set federate.merge_test_data: True as well, or leave both out")
_EVALUATED = (
    Check("eval.clients", lambda c: c.eval.clients != "all" and c.federate.make_global_eval,
         "the server is evaluated, not the clients (federate.make_global_eval)",
         "Write eval.clients: all, or federate.make_global_eval: False"),
    Check("eval.clients",
         lambda c: c.eval.clients == "unseen" and not c.federate.unseen_clients_rate,
         "every client trains",
         "Hold some out (federate.unseen_clients_rate: 0.1), or write eval.clients: all"),
)
PERSONALIZATION = (
    Check("personalization.local_param",
         lambda c: not all(isinstance(w, str) and w for w in c.personalization.local_param),
         "the keywords must be text and not empty",
         "Write for example ['lora_B', 'classifier']"),
    Check("personalization.head", _named_head,
         "personalization.local_param keeps {found} at the client, which is the head",
         "Take {found[0]!r} out of local_param, or write personalization.head: local"),
    Check("personalization.head",
         lambda c: c.personalization.head == "shared" and method_of(c) == "local",
         "the method local exchanges nothing",
         "Write personalization.head: auto"),
    Check("federate.freeze_A", lambda c: c.federate.freeze_A and method_of(c) == "fedsa",
         "federate.method fedsa sends A only, and a frozen A never changes",
         "Write federate.freeze_A: False, or federate.method: ffa"),
    Check("federate.freeze_A",
         lambda c: c.federate.freeze_A
         and not (c.llm.adapter.use and adapter_method(c) == "lora"),
         "there is no LoRA adapter whose A could be frozen",
         "Write llm.adapter.use: True with adapter_method 'lora', or freeze_A: False"),
    Check("personalization.local_param",
         lambda c: (c.federate.freeze_A or method_of(c) == "ffa") and _kept(c, "B"),
         "A is frozen and B stays at the client: no adapter tensor would be exchanged",
         "Leave 'lora_B' out, or set federate.freeze_A: False"),
    Check("personalization.local_param", lambda c: method_of(c) == "fedsa" and _kept(c, "A"),
         "fedsa sends A only, and the keyword keeps A at the client",
         "Leave that keyword out; fedsa keeps B and the head local by itself"),
    Check("aggregator.weights",
         lambda c: c.federate.ignore_weight and c.aggregator.weights == "processed",
         "federate.ignore_weight asks for equal weights",
         "Write federate.ignore_weight: False, or aggregator.weights: uniform"),
)
"""What stays local, what is frozen, whether anything is left to send, and with which weight."""
# fmt: on


def check_clients(cfg: CN) -> None:
    """Derive the number of clients per round; refuse numbers that contradict each other.

    A positive ``sample_client_rate`` gives ``max(1, floor(rate * trained clients))``, where those
    trained are all but the unseen ones; without a rate and a number all that train take part.
    """
    fed = cfg.federate
    if method_of(cfg) in _NO_EXCHANGE:
        refuse(cfg, _SERVER_OPTIMIZER)
        _use_all_clients(cfg)
    if fed.client_num == 0:
        return  # the data set decides; the checks run again afterwards
    refuse(cfg, _CLIENT)
    # Where nobody is left to train the run is refused later, when it is known who has rows.
    trained = max(1, fed.client_num - count_unseen(fed.unseen_clients_rate, fed.client_num))
    if fed.client_idx_for_local_train:
        fed.sample_client_num = 1
    elif fed.sample_client_rate > 0:
        derived = max(1, _floor(fed.sample_client_rate * trained))
        if fed.sample_client_num not in (-1, derived):
            decides = f"federate.sample_client_rate {fed.sample_client_rate} decides"
            other = f"federate.sample_client_num {fed.sample_client_num}"
            logger.warning("%s: %s clients per round, not %s.", decides, derived, other)
        fed.sample_client_num = derived
    elif fed.sample_client_num <= 0:
        fed.sample_client_num = trained
    elif fed.sample_client_num > trained:
        unseen = f" ({fed.client_num} less the unseen ones)" if fed.unseen_clients_rate else ""
        problem = f"more clients per round than train at all: {trained}{unseen}"
        remedy = f"Write at most {trained}, or -1 for all"
        raise ConfigError("federate.sample_client_num", fed.sample_client_num, problem, remedy)


def _use_all_clients(cfg: CN) -> None:
    """``local`` and ``global`` exchange nothing: every client takes part, none is unseen."""
    fed = cfg.federate
    if fed.unseen_clients_rate:
        logger.warning("federate.unseen_clients_rate has no meaning for %s; set to 0.", fed.method)
        fed.unseen_clients_rate = 0.0
    if fed.sample_client_rate > 0 or 0 < fed.sample_client_num < fed.client_num:
        logger.warning("%s uses all clients in every round; sampling is off.", fed.method)
    fed.sample_client_rate, fed.sample_client_num = -1.0, -1


def count_unseen(rate: float, clients: int) -> int:
    """How many of ``clients`` are held out of training: the share
    ``federate.unseen_clients_rate``, rounded down, and one at least where it is above 0.
    """
    return max(1, _floor(rate * clients)) if rate > 0 else 0


def _floor(value: float) -> int:
    """Whole part of a product that should be exact (0.29 * 100 is 29, not 28)."""
    return math.floor(value + 1e-9)


def check_evaluation_scope(cfg: CN) -> None:
    """Global evaluation and merged test data go together."""
    fed = cfg.federate
    refuse(cfg, _MERGED)
    if fed.merge_test_data and not fed.make_global_eval:
        logger.warning("federate.merge_test_data turns on federate.make_global_eval.")
        fed.make_global_eval = True
    if method_of(cfg) == "global" and fed.make_global_eval:
        logger.warning("The one client of the method global is evaluated, not the server.")
        fed.make_global_eval = False
        fed.merge_test_data = fed.merge_val_data = False
    refuse(cfg, *_EVALUATED)


_MINIMUM_CLIENTS = {"krum": (2, 3), "bulyan": (4, 3), "trimmedmean": (2, 1), "median": (2, 1)}
"""Check -> (a, b): ``a f + b`` clients are needed against f faulty ones."""

_BFT_RANGES = (
    Range("aggregator.BFT_args.krum_agg_num", low=1),
    Range("aggregator.BFT_args.trimmedmean_excluded_ratio", low=0, high=0.5, open_high=True),
    Range("aggregator.BFT_args.normbounding_norm_bound", low=0, open_low=True),
)


def check_robust_rule(cfg: CN) -> None:
    """A robust rule has something to aggregate, enough clients, and sound arguments."""
    rule, faulty = cfg.aggregator.robust_rule, cfg.aggregator.byzantine_node_num
    if rule == "fedavg":
        if faulty:
            logger.warning("aggregator.byzantine_node_num has no effect with the plain mean.")
        return
    method = "fedopt" if cfg.fedopt.use else method_of(cfg)
    if method in (*_NO_EXCHANGE, "fedopt"):
        remedy = "Write aggregator.robust_rule: fedavg, or federate.method: FedAvg"
        problem = f"{method} does not aggregate with it"
        raise ConfigError("aggregator.robust_rule", rule, problem, remedy)
    clients = cfg.federate.sample_client_num
    factor, more = _MINIMUM_CLIENTS.get(rule, (0, 0))
    needed = factor * faulty + more
    if cfg.federate.client_num > 0 and clients < needed:
        problem = f"{rule} needs at least {factor}f + {more} = {needed} clients per round, and"
        remedy = "Tolerate fewer faulty clients, or let more clients take part"
        field = "aggregator.byzantine_node_num"
        raise ConfigError(field, faulty, f"{problem} there are {clients}", remedy)
    given = cfg.aggregator.BFT_args
    for bounds in _BFT_RANGES:
        name = bounds.field.rpartition(".")[2]
        if name in given or name == f"{rule}_norm_bound":
            bounds.check(given.get(name))
    if rule == "krum" and cfg.federate.client_num > 0:
        Range("aggregator.BFT_args.krum_agg_num", 1, clients).check(given.get("krum_agg_num", 1))

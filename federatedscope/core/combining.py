"""What a server asks of an aggregator, its own or one from outside, and makes of the answer."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from federatedscope.core.communication import Traffic
from federatedscope.core.errors import UserError
from federatedscope.core.records import RoundEvent, TrafficEvent
from fedlora.layouts import Layouts

__all__ = [
    "agg_info_of",
    "are_whole",
    "begin",
    "combined",
    "ranks_and_scales",
    "round_event",
    "take_in",
    "traffic_event",
]


def agg_info_of(uploads: Mapping[int, Any], recover_fun: Any = None) -> dict[str, Any]:
    """Uploads by client in the form that aggregators take, in order of ID."""
    client_ids = sorted(uploads)
    return {
        "client_feedback": [uploads[i] for i in client_ids],
        "recover_fun": recover_fun,
        "staleness": [(i, 0) for i in client_ids],
    }


def are_whole(uploads: Mapping[str, Any]) -> bool:
    """Whether uploads still have their tensors.

    What was taken in as it came has none any more; a server from outside may have kept them.
    """
    return any(content[1] for content in uploads["client_feedback"])


def combined(aggregator: Any, info: Mapping[str, Any], layouts: Layouts | None) -> dict[str, Any]:
    """The new state of the shared names.

    Parameters
    ----------
    aggregator : Aggregator
        Or any object with ``aggregate(agg_info)``.
    info : mapping
        ``agg_info``; empty where it took the uploads in as they came.
    layouts : Layouts or None
        Where clients differ in rank.

    Raises
    ------
    UserError
        A rule from outside that cannot combine unequal ranks.
    """
    try:
        return dict(aggregator.aggregate(info) or {})
    except RuntimeError as error:
        if layouts is None:
            raise
        rule = type(getattr(aggregator, "rule", aggregator)).__name__
        raise UserError(
            f"{rule} cannot combine the uploads ({error}). Clients have LoRA adapters of unequal "
            "rank here; a rule for them finds each client's scales in agg_info['scales'] and the "
            "server's in agg_info['server_scales']. Write federate.method: zero_pad, or give all "
            "clients one rank."
        ) from error


def ranks_and_scales(layouts: Layouts | None, clients: Iterable[int]) -> dict[str, Any]:
    """What a rule for unequal ranks is told about server and clients; nothing at equal ones."""
    if layouts is None:
        return {}
    return {
        "scales": {client: dict(layouts.of(client).scales) for client in clients},
        "server_scales": dict(layouts.server.scales),
        "ranks": layouts.ranks_of_modules(),
    }


def take_in(aggregator: Any, content: Any, client: int, layouts: Layouts | None) -> None:
    """Hand one upload to an aggregator; FederatedScope's own knows no scales, nor clients."""
    known = inspect.signature(aggregator.inc).parameters
    scales = None if layouts is None else dict(layouts.of(client).scales)
    if "scales" in known:
        aggregator.inc(content, client, scales=scales)
    elif len(known) > 1:
        aggregator.inc(content, client)
    else:
        aggregator.inc(content)


def begin(aggregator: Any, info: Mapping[str, Any]) -> None:
    """Tell an aggregator that takes uploads as they come that a round begins."""
    reset = getattr(aggregator, "reset", None)
    if reset is not None and inspect.signature(reset).parameters:
        reset(info)
    elif reset is not None:
        reset()


def round_event(
    rnd: int,
    uploads: Mapping[str, Any],
    traffic: Traffic,
    aggregator: Any,
    layouts: Layouts | None,
    streamed: bool = False,
) -> RoundEvent:
    """The record of a round that has just been aggregated.

    Parameters
    ----------
    rnd : int
        The round, from 1.
    uploads : mapping
        ``agg_info`` of its uploads.
    traffic : Traffic
        Bytes of its training.
    aggregator : Aggregator
        Asked for its weights and findings, which one from outside need not have. One that took
        the uploads in as they came is asked for the weights of these.
    layouts : Layouts or None
        Asked for the clients that have other ranks from now on.
    streamed : bool
        Whether the aggregator takes uploads in as they come.
    """
    found = getattr(aggregator, "diagnostics", None)
    return RoundEvent(
        round=rnd,
        sampled=tuple(client_id for client_id, _ in uploads["staleness"]),
        bytes_up=dict(sorted(traffic.up.items())),
        bytes_down=dict(sorted(traffic.down.items())),
        bytes_encoding=traffic.encoding,
        weights=_weights_used(aggregator, uploads, streamed and not are_whole(uploads)),
        diagnostics=dict(found) if isinstance(found, Mapping) else {},
        rank_changes={} if layouts is None else layouts.take_changes(),
    )


def traffic_event(rnd: int, kind: str, sent: Traffic) -> TrafficEvent:
    """The record of what was sent beside the training of a round."""
    up, down = (dict(sorted(book.items())) for book in (sent.up, sent.down))
    return TrafficEvent(rnd, kind, up, down, sent.encoding)


def _weights_used(aggregator: Any, uploads: Mapping[str, Any], streamed: bool) -> dict[int, float]:
    weights = getattr(aggregator, "weights", None)
    if not callable(weights) or not uploads["client_feedback"]:
        return {}
    try:
        shares = weights() if streamed else weights(uploads)
        return {int(client): float(share) for client, share in shares.items()}
    except UserError:
        # Uploads of another form than the built-in rules read, aggregated by an extension.
        return {}

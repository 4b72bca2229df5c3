"""How a server makes one state of a round's uploads, and what it notes down about it.

Step 5 of a round; the others are in :mod:`federatedscope.core.workers.server`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from federatedscope.core.aggregators.aggregator import takes_singly
from federatedscope.core.client_store import owned_tensors
from federatedscope.core.errors import UserError
from federatedscope.core.message import Message
from federatedscope.core.records import RoundEvent
from federatedscope.core.workers.results import ResultKeeper
from fedlora.layouts import AdapterLayout, Layouts, fit

_COLLECTS = ("_perform_federated_aggregation", "callback_funcs_model_para")


class UploadCombiner(ResultKeeper):
    """A worker that hands uploads to an aggregator and takes the result over.

    Attributes
    ----------
    aggregator : Aggregator
        One that has ``streams`` set takes each upload as it comes (``inc``), with its scales; the
        others get all at once.
    layouts : Layouts or None
        Who has which ranks and scales, where they differ.
    streams_uploads : bool
        Whether uploads may be handed on as they come, so that ``msg_buffer`` only says who sent
        one. A subclass that collects or aggregates in its own way finds them whole in the buffer
        unless it says ``streams_uploads = True`` itself.
    """

    streams_uploads: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        if "streams_uploads" not in own and any(name in own for name in _COLLECTS):
            cls.streams_uploads = False

    layouts: Layouts | None
    ledger: Any
    recover_fun: Any
    _slices: dict[int, dict[str, torch.Tensor]]
    _rank_changes: dict[int, tuple[int, ...]]
    _asked: list[int]
    _early: dict[int, Any]

    def _shared_state(self) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def _on_new_layout(self, client: int) -> None:
        raise NotImplementedError

    def _slice_for(self, receiver: int, shared: dict[str, torch.Tensor]) -> Any:
        """Of LoRA factors the first rows and columns of the receiver's rank; one object a layout.

        Valid while ``shared`` is being sent; ``_slices`` is emptied before.
        """
        if self.layouts is None:
            return shared
        server, own = self.layouts.server, self.layouts.of(receiver)
        if own is server:
            return shared
        if id(own) not in self._slices:
            self._slices[id(own)] = {
                name: fit(tensor, name, server, own).contiguous() for name, tensor in shared.items()
            }
        return self._slices[id(own)]

    def _take_upload(self, content: Any, client: int) -> Any:
        """Keep an upload, or hand it on to an aggregator that takes them one by one."""
        if self._streams:
            self._early[client] = content
            self._stream_in_order()
            return (content[0], {})
        return content

    def _stream_in_order(self) -> None:
        """Take in what has come, in the order in which clients were asked.

        Sums of floating-point numbers depend on their order, and a run must not depend on who
        answers first.
        """
        while self._asked and self._asked[0] in self._early:
            self._take_in(self._asked.pop(0))
        for client in [k for k in self._early if k not in self._asked]:
            self._take_in(client)

    def _take_in(self, client: int) -> None:
        scales = self._scales_of(client)
        self.aggregator.inc(self._early.pop(client), client, scales=scales)

    def _reset_aggregator(self) -> None:
        """Tell a streaming aggregator that a round begins."""
        self._early, self._asked = {}, []
        if self._streams:
            self.aggregator.reset(self._aggregation_info())

    def _perform_federated_aggregation(self) -> int:
        """Aggregate the round's uploads into the server's model; returns their number."""
        # Whoever has not answered by now is not waited for.
        self._asked = []
        self._stream_in_order()
        uploads = self._round_uploads()
        received = len(uploads["client_feedback"])
        # What was taken in as it came is not in the buffer any more; a server from outside may
        # have kept the uploads to itself.
        whole = any(content[1] for content in uploads["client_feedback"])
        agg_info = {**uploads, **self._aggregation_info()} if whole or not self._streams else {}
        try:
            result = self.aggregator.aggregate(agg_info)
        except RuntimeError as error:
            if self.layouts is None:
                raise
            raise UserError(
                f"{_name_of(self.aggregator)} cannot combine the uploads ({error}). Clients have "
                "LoRA adapters of unequal rank here; a rule for them finds each client's scales "
                "in agg_info['scales'] and the server's in agg_info['server_scales']. Write "
                "federate.method: zero_pad, or give all clients one rank."
            ) from error
        self._load_aggregated(result)
        return received

    @property
    def _streams(self) -> bool:
        """Whether the aggregator takes uploads one by one, each with its scales."""
        return self.streams_uploads and takes_singly(self.aggregator)

    def _aggregation_info(self) -> dict[str, Any]:
        """What an aggregator may want to know beside the uploads."""
        info: dict[str, Any] = {"current": self._shared_state(), "round": self.state}
        if self.layouts is not None:
            uploads = self.msg_buffer["train"].get(self.state, {})
            info["scales"] = {client: self._scales_of(client) for client in uploads}
            info["server_scales"] = dict(self.layouts.server.scales)
            info["ranks"] = self.layouts.ranks_of_modules()
        return info

    def _scales_of(self, client: int) -> dict[str, float] | None:
        return None if self.layouts is None else dict(self.layouts.of(client).scales)

    def callback_funcs_for_adapter_layout(self, message: Message) -> None:
        """A client has changed its ranks by itself; what it is sent next fits them."""
        if self.layouts is None:
            return
        before = self.layouts.of(message.sender)
        now = self.layouts.set(message.sender, AdapterLayout(**message.content))
        if now is not before:
            self._rank_changes[message.sender] = tuple(now.distinct_ranks)
            self._on_new_layout(message.sender)

    def _round_uploads(self) -> dict[str, Any]:
        """Uploads of the round in the form that aggregators take, by client ID."""
        uploads = self.msg_buffer["train"].get(self.state, {})
        client_ids = sorted(uploads)
        return {
            "client_feedback": [uploads[i] for i in client_ids],
            "recover_fun": self.recover_fun,
            "staleness": [(i, 0) for i in client_ids],
        }

    def _load_aggregated(self, result: Any) -> None:
        own = owned_tensors(self.model)
        for name, value in (result or {}).items():
            if name in own:
                own[name].data.copy_(value)

    def _record_round(self) -> None:
        traffic = self.ledger.take()
        if self.callbacks is None:
            return
        agg_info = self._round_uploads()
        self.callbacks.on_round(
            RoundEvent(
                round=self.state + 1,
                sampled=tuple(client_id for client_id, _ in agg_info["staleness"]),
                bytes_up=dict(sorted(traffic.up.items())),
                bytes_down=dict(sorted(traffic.down.items())),
                bytes_evaluation=dict(sorted(traffic.evaluation.items())),
                weights=self._weights_used(agg_info),
                diagnostics=self._diagnostics(),
                rank_changes=self._rank_changes,
            ).to_json()
        )
        self._rank_changes = {}

    def _diagnostics(self) -> dict[str, Any]:
        """What the aggregator found out about the round's update."""
        found = getattr(self.aggregator, "diagnostics", None)
        return dict(found) if isinstance(found, Mapping) else {}

    def _weights_used(self, agg_info: dict[str, Any]) -> dict[int, float]:
        """What the aggregator says about its weights; an extension's need not say anything."""
        weights = getattr(self.aggregator, "weights", None)
        if not callable(weights) or not agg_info["client_feedback"]:
            return {}
        try:
            return {int(client): float(share) for client, share in weights(agg_info).items()}
        except UserError:
            # Uploads of another form than the built-in rules read, aggregated by an extension.
            return {}


def _name_of(aggregator: Any) -> str:
    return type(getattr(aggregator, "rule", aggregator)).__name__

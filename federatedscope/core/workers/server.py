"""The server: samples clients, sends the state, aggregates uploads, collects evaluations.

What it does when is said in :mod:`federatedscope.core.course`; its handlers only note down what has
come. Progress, files and curves are callbacks and stay outside.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch

from federatedscope.core import combining
from federatedscope.core.aggregators.aggregator import takes_singly
from federatedscope.core.auxiliaries.aggregator_builder import get_aggregator
from federatedscope.core.auxiliaries.trainer_builder import get_trainer
from federatedscope.core.client_store import owned_tensors
from federatedscope.core.communication import TrafficLedger
from federatedscope.core.message import Message
from federatedscope.core.metric_values import plain_metrics
from federatedscope.core.participants import evaluated_clients, untrained_clients
from federatedscope.core.results import Results, ResultsField
from federatedscope.core.sampler import get_sampler
from federatedscope.core.task import is_isolated
from federatedscope.core.trainers.utils import shared_part
from federatedscope.core.workers.base_worker import Worker
from fedlora.layouts import AdapterLayout, Layouts, Slices

logger = logging.getLogger(__name__)

# Who overrides one of these looks for whole uploads in `msg_buffer`.
_COLLECTS = (
    "_perform_federated_aggregation",
    "_record_round",
    "callback_funcs_model_para",
    "check_and_move_on",
    "check_buffer",
)


class Server(Worker):
    """The server of the course.

    Parameters
    ----------
    ID, state : int
        0, and the number of rounds completed.
    config, data, model, device
        The run's; ``data`` are the server's own rows, for global evaluation.
    client_num, total_round_num : int
        Clients to wait for, rounds to run.
    strategy, unseen_clients_id
        Kept for extensions; the clients that never train.
    kwargs
        ``comm_manager``, ``ledger``, ``layouts``, ``engine``, ``callbacks`` of the runner.

    Attributes
    ----------
    streams_uploads : bool
        Whether uploads may be handed on to the aggregator as they come, so that ``msg_buffer`` only
        says who sent one. A subclass that collects or aggregates in its own way finds them whole
        in the buffer unless it says ``streams_uploads = True`` itself.
    """

    starts_from_download = True
    streams_uploads: ClassVar[bool] = True

    # FederatedScope's names for what the results keep.
    best_results = ResultsField("best")
    history_results = ResultsField("history")
    early_stopper = ResultsField("early_stopper")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "streams_uploads" not in vars(cls) and any(name in vars(cls) for name in _COLLECTS):
            cls.streams_uploads = False

    def __init__(
        self,
        ID: int = -1,
        state: int = 0,
        config: Any = None,
        data: Any = None,
        model: Any = None,
        client_num: int = 5,
        total_round_num: int = 10,
        device: str = "cpu",
        strategy: Any = None,
        unseen_clients_id: list[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(ID, state, config, model, strategy, kwargs.get("callbacks"))
        self._register_default_handlers()
        # Not in the overridable defaults: extensions that list their handlers need not repeat them.
        for kind in ("local_metrics", "adapter_layout", "training_report"):
            self.msg_handlers.setdefault(kind, getattr(self, f"callback_funcs_for_{kind}"))
        if config is None:
            return
        self.data, self.device = data, device
        self.layouts: Layouts | None = kwargs.get("layouts")
        self.client_num, self.total_round_num = client_num, total_round_num
        self.sample_client_num = int(config.federate.sample_client_num)
        self.unseen_clients_id = list(unseen_clients_id or [])
        self._setup_model(config, model, device, kwargs.get("engine"))
        self.results = Results(config, self._monitor, self.callbacks, self.unseen_clients_id)
        self.sampler = get_sampler(config.federate.sampler, self.client_num, seed=config.seed)
        self._setup_course()
        self.ledger: TrafficLedger = kwargs.get("ledger") or TrafficLedger()
        self._take_manager(kwargs["comm_manager"])

    def _setup_model(self, config: Any, model: Any, device: str, engine: Any) -> None:
        method, online = config.federate.method, config.federate.online_aggr
        self.aggregator = get_aggregator(method, model, device, online, config)
        self.models, self.model_num, self.aggregators = [model], 1, [self.aggregator]
        if path := config.federate.restore_from:
            logger.info("Restored round %d from %s", self.aggregator.load_model(path), path)
        if config.federate.make_global_eval:
            options = {"only_for_eval": True, "monitor": self._monitor}
            self.trainer = get_trainer(model, self.data, device, config, **options)
            self.trainers = [self.trainer]
            self._hand_engine(self.trainer, engine)

    def _setup_course(self) -> None:
        """Nothing has been sent or has come since the last quiet point."""
        self.msg_buffer: dict[str, dict[int, Any]] = {"train": {}, "eval": {}}
        self.staled_msg_buffer: list[Any] = []
        self.join_in_client_num, self.join_in_info = 0, dict[int, Any]()
        self.is_finish = self.stopped_early = False
        self.evaluation_is_due = self.total_round_num == 0
        self._begun, self._complete, self._aggregated_num = -1, -1, 0
        self._slices, self.recover_fun = Slices({}), None

    def _register_default_handlers(self) -> None:
        register = self.register_handlers
        answers = ["assign_client_id", "ask_for_join_in_info", "address", "model_para"]
        register("join_in", self.callback_funcs_for_join_in, answers)
        register("join_in_info", self.callback_funcs_for_join_in, ["address", "model_para"])
        register("model_para", self.callback_funcs_model_para, ["model_para", "evaluate", "finish"])
        register("metrics", self.callback_funcs_for_metrics, ["converged"])

    # Before the first round

    def callback_funcs_for_join_in(self, message: Message) -> None:
        """Take a client in."""
        if message.msg_type == "join_in_info":
            self.join_in_info[message.sender] = message.content
        else:
            self.join_in_client_num += 1
            self.comm_manager.add_neighbors(message.sender, message.content)
            if wanted := list(self._cfg.federate.join_in_info):
                self._send("ask_for_join_in_info", [message.sender], wanted)
        self.trigger_for_start()

    def check_client_join_in(self) -> bool:
        """Whether all expected clients are there."""
        if self._cfg.federate.join_in_info:
            return len(self.join_in_info) == self.client_num
        return self.join_in_client_num == self.client_num

    def trigger_for_start(self) -> None:
        """A hook, called for each client that joins."""

    # 1. Begin the round: sample clients, slice the state for each, send it

    @property
    def rounds_left(self) -> bool:
        """Whether there is another round to run."""
        return self.state < self.total_round_num

    @property
    def has_begun(self) -> bool:
        """Whether the clients of the present round have been asked."""
        return self._begun == self.state or bool(self.msg_buffer["train"].get(self.state))

    def begin_round(self) -> None:
        """Ask the clients of a round to train."""
        start = "a new training round" if self.state else "training"
        logger.info("----------- Starting %s (Round #%d) -------------", start, self.state)
        self._start_new_training_round(self._aggregated_num)

    def _start_new_training_round(self, aggregated_num: int = 0) -> None:
        self.broadcast_model_para("model_para", sample_client_num=self.sample_client_num)

    def broadcast_model_para(
        self,
        msg_type: str = "model_para",
        sample_client_num: int = -1,
        filter_unseen_clients: bool = True,
    ) -> None:
        """Send the state to sampled clients (``sample_client_num > 0``) or to all.

        Parameters
        ----------
        msg_type : str
            ``model_para`` starts training, ``evaluate`` evaluation.
        sample_client_num : int
            How many clients are drawn; -1 sends to all.
        filter_unseen_clients : bool
            Leave out the clients that never train.
        """
        untrained = untrained_clients(self._cfg) if filter_unseen_clients else []
        self.sampler.change_state(untrained, "unseen")
        if sample_client_num > 0:
            receivers = self.sampler.sample(size=sample_client_num)
        else:
            receivers = [i for i in sorted(self.comm_manager.neighbors) if i not in untrained]
        self.sampler.change_state(untrained, "seen")
        rnd = self.state
        if msg_type == "evaluate":
            # An evaluation belongs to the round before, which has just been completed.
            rnd -= 1
            receivers = [i for i in receivers if i in self.evaluated_clients]
        if msg_type == "model_para":
            self._begin_collecting()
            self.callbacks.on_round_start(self.state + 1, receivers)
        self._send_state(msg_type, receivers, state=min(max(rnd, 0), self.total_round_num))

    def _begin_collecting(self) -> None:
        """Tell the aggregator that a round begins: once, and before clients change their ranks."""
        if self._streams and self._begun != self.state:
            combining.begin(self.aggregator, self._aggregation_info())
        self._begun = self.state

    def _send_state(self, msg_type: str, receivers: list[int], state: int | None = None) -> None:
        """Send each of the receivers its part of the state, equal parts in one message."""
        shared = self.shared_state()
        self._slices = Slices(shared, self.layouts)
        groups: dict[int, tuple[Any, list[int]]] = {}
        for receiver in receivers:
            content = self.content_for(receiver, shared)
            groups.setdefault(id(content), (content, []))[1].append(receiver)
        for content, ids in groups.values():
            self._send(msg_type, ids, content, state=state)
        self._slices = Slices({})

    def shared_state(self) -> dict[str, torch.Tensor]:
        """The server's tensors that clients share, copied; nothing without communication."""
        if is_isolated(self._cfg):
            return {}
        tensors: dict[str, torch.Tensor] = owned_tensors(self.model)
        if self._cfg.personalization.share_non_trainable_para:
            tensors = self.model.state_dict()
        shared = shared_part(tensors, self._cfg.personalization.local_param)
        # Copies: in one process the receivers would otherwise see later changes.
        return {name: tensor.detach().clone() for name, tensor in shared.items()}

    def content_for(self, receiver: int, shared: Mapping[str, torch.Tensor]) -> Any:
        """What one client is sent: of LoRA factors the first rows and columns of its own rank.

        Returning the same object for several clients sends it once to all of them.
        """
        return self._slices.of(receiver)

    # 2. Collect

    @property
    def _streams(self) -> bool:
        """Whether the aggregator takes uploads one by one, each with its scales."""
        online = self._cfg.federate.online_aggr and hasattr(self.aggregator, "inc")
        return self.streams_uploads and (takes_singly(self.aggregator) or online)

    def callback_funcs_model_para(self, message: Message) -> bool:
        """Take an upload in; whether all of the round are there."""
        if self.is_finish:
            return False
        sender, content = message.sender, message.content
        self.sampler.change_state(sender, "idle")
        if message.state != self.state or self._complete == self.state:
            why = "is another one" if message.state != self.state else "has all it waits for"
            logger.warning("%s was dropped: round index %d %s.", message, self.state, why)
            return self.check_and_move_on()
        uploads = self.msg_buffer["train"].setdefault(self.state, {})
        if self._streams:
            self._begin_collecting()
            combining.take_in(self.aggregator, content, sender, self.layouts)
            content = (content[0], {})
        uploads[sender] = content
        return self.check_and_move_on()

    def check_buffer(
        self, cur_round: int, min_received_num: int, check_eval_result: bool = False
    ) -> bool:
        """Whether enough uploads (or evaluation results) have come in."""
        buffer = self.msg_buffer["eval" if check_eval_result else "train"]
        if check_eval_result:
            cur_round = max(buffer, default=-1)
        return len(buffer.get(cur_round, {})) >= min_received_num

    def check_and_move_on(
        self, check_eval_result: bool = False, min_received_num: int | None = None
    ) -> bool:
        """Whether the present step has all answers that it waits for.

        Uploads that come later are dropped; the course leads to the next step. A subclass that
        overrides this finds the step done when it was the last answer, as in FederatedScope.

        Parameters
        ----------
        check_eval_result : bool
            Look at evaluation results instead of uploads.
        min_received_num : int, optional
            Answers to wait for; by default all clients of the round, or all clients.
        """
        if min_received_num is None:
            min_received_num = self.sample_client_num
        if check_eval_result:
            min_received_num = len(self.evaluated_clients)
        complete = self.check_buffer(self.state, min_received_num, check_eval_result)
        if complete and check_eval_result:
            self._merge_and_format_eval_results()
            self.msg_buffer["eval"].clear()
        elif complete:
            self._complete = self.state
            if type(self).check_and_move_on is not Server.check_and_move_on:
                self.close_round()
        return complete

    # 3. Close the round: aggregate, record

    def close_round(self) -> None:
        """Aggregate what has come, if anything has since the round began."""
        if self.is_finish or not self.msg_buffer["train"].get(self.state):
            return
        self._aggregated_num = self._perform_federated_aggregation()
        self._record_round()
        # Also those that have not answered: nobody is at work between two rounds.
        self.sampler.change_state(sorted(self.comm_manager.neighbors), "idle")
        self.state += 1
        self.msg_buffer["train"].clear()
        self.evaluation_is_due = not self.rounds_left or self.state % self._cfg.eval.freq == 0

    def _perform_federated_aggregation(self) -> int:
        """Aggregate the round's uploads into the server's model; returns their number."""
        uploads = self._round_uploads()
        streamed = self._streams and not combining.are_whole(uploads)
        info = {} if streamed else {**uploads, **self._aggregation_info()}
        own = owned_tensors(self.model)
        for name, value in combining.combined(self.aggregator, info, self.layouts).items():
            if name in own:
                own[name].data.copy_(value)
        return len(uploads["client_feedback"])

    def _round_uploads(self) -> dict[str, Any]:
        """Uploads of the round in the form that aggregators take, by client ID."""
        return combining.agg_info_of(self.msg_buffer["train"].get(self.state, {}), self.recover_fun)

    def _aggregation_info(self) -> dict[str, Any]:
        """What an aggregator may want to know beside the uploads."""
        clients = self.msg_buffer["train"].get(self.state, {})
        ranks = combining.ranks_and_scales(self.layouts, clients)
        return {"current": self.shared_state(), "round": self.state, **ranks}

    def _record_round(self) -> None:
        self.record_traffic("evaluation")  # before this round, of a server that did not wait for it
        parts = self._round_uploads(), self.ledger.training.take(), self.aggregator, self.layouts
        event = combining.round_event(self.state + 1, *parts, streamed=self._streams)
        self.callbacks.on_round(event.to_json())

    def record_traffic(self, kind: str) -> None:
        """Record what was sent for a purpose (a book of the ledger) and is in no record yet."""
        sent = getattr(self.ledger, kind).take()
        if sent.up or sent.down:
            rnd = self.state + (kind == "training")
            self.callbacks.on_traffic(combining.traffic_event(rnd, kind, sent).to_json())

    # 4. Evaluate

    @property
    def evaluated_clients(self) -> set[int]:
        """The clients whose evaluation a round waits for (``eval.clients``)."""
        return evaluated_clients(self._cfg, self.comm_manager.neighbors, self.unseen_clients_id)

    def eval(self) -> None:
        """Evaluate on the server (``federate.make_global_eval``), or ask the clients to."""
        if "after" not in self._cfg.eval.phases:
            self.check_and_save()
            return
        if not self._cfg.federate.make_global_eval:
            self.broadcast_model_para("evaluate", filter_unseen_clients=False)
            return
        metrics: dict[str, Any] = {}
        for split in self._cfg.eval.split:
            metrics |= plain_metrics(self.trainer.evaluate(target_data_split_name=split))
        self.results.take_server(metrics, rnd=self.state - 1, completed=self.state)
        self._keep_best()
        self.check_and_save()

    def callback_funcs_for_metrics(self, message: Message) -> bool:
        """Keep a client's evaluation; whether all are there."""
        if message.state < self.state - 1:
            logger.warning("%s was dropped: that evaluation is over.", message)
            return False
        self.msg_buffer["eval"].setdefault(message.state, {})[message.sender] = message.content
        return self.check_and_move_on(check_eval_result=True)

    def callback_funcs_for_local_metrics(self, message: Message) -> None:
        """Record what a client reached right after local training, before aggregation."""
        self.results.emit(message.sender, message.content, "before", "personal", message.state + 1)

    def callback_funcs_for_training_report(self, message: Message) -> None:
        """Record a client's local training."""
        self.callbacks.on_train(dict(message.content))

    def close_evaluation(self) -> None:
        """Make of the clients' evaluations what is to be made of them, if any have come."""
        self.evaluation_is_due = False
        if self.msg_buffer["eval"] and not self.is_finish:
            self._merge_and_format_eval_results()
        self.record_traffic("evaluation")

    def _merge_and_format_eval_results(self) -> None:
        for results in self.msg_buffer["eval"].values():
            self.results.check_key(results.values())
            self._revise_ranks(results)
        self.results.remember(self.merge_eval_results_from_all_clients())
        self.msg_buffer["eval"].clear()
        self.check_and_save()

    def merge_eval_results_from_all_clients(self) -> dict[str, Any]:
        """Summaries over clients, participating and unseen ones apart; written and compared."""
        rnd = max(self.msg_buffer["eval"])
        merged = self.results.take_clients(self.msg_buffer["eval"][rnd], rnd, completed=self.state)
        self._keep_best()
        return dict(merged)

    # Ranks that change while the course goes on

    def _revise_ranks(self, results: Mapping[int, Mapping[str, float]]) -> None:
        """Give clients the ranks that the run's plan wants after this evaluation."""
        if self.layouts is None:
            return
        seen = {k: v for k, v in results.items() if k not in self.unseen_clients_id}
        for client, layout in self.layouts.revised(self.state, seen).items():
            logger.info("Client %d: rank %s from now on.", client, layout.distinct_ranks)
            self._send("adapter_layout", [client], layout.to_json())
            self._take_layout(client, layout)

    def callback_funcs_for_adapter_layout(self, message: Message) -> None:
        """A client has changed its ranks by itself; what it is sent next fits them."""
        self._take_layout(message.sender, AdapterLayout(**message.content))

    def _take_layout(self, client: int, layout: AdapterLayout) -> None:
        if self.layouts is not None and self.layouts.change(client, layout):
            self.ranks_changed(client)

    def ranks_changed(self, client: int) -> None:
        """A hook: a client has other ranks from now on."""

    # The end

    def check_and_save(self) -> None:
        """Early stopping, checkpoints, and the end of the course."""
        if self.results.should_stop():
            self.stopped_early = True
            self._monitor.global_converged()
            self._send("converged", sorted(self.comm_manager.neighbors))
        freq = self._cfg.federate.save_freq
        if self._cfg.federate.save_to and freq > 0 and self.state % freq == 0:
            self._save(f"{self.state}_")
        if self.stopped_early or not self.rounds_left:
            self.save_best_results()
            self.terminate(msg_type="finish")

    def _keep_best(self) -> None:
        if self._cfg.federate.save_to and self.results.best_round == self.state:
            self._save("")

    def _save(self, prefix: str) -> None:
        path = Path(self._cfg.federate.save_to)
        self.aggregator.save_model(str(path.with_name(prefix + path.name)), self.state)

    def save_best_results(self) -> None:
        """Write the final model and the line of best results."""
        if self._cfg.federate.save_to:
            self._save("final_")
        self.results.save_best()

    def terminate(self, msg_type: str = "finish") -> None:
        """End the course for everybody."""
        self.is_finish = True
        self._monitor.finish_fl()
        self._send_state(msg_type, sorted(self.comm_manager.neighbors))

    def _stateful_parts(self) -> dict[str, Any]:
        names = ("sampler", "aggregator", "results", "ledger", "layouts", "_monitor")
        return {name: getattr(self, name) for name in names}

    def state_dict(self) -> dict[str, Any]:
        """What the next rounds depend on; between two rounds nothing else is under way."""
        ended = {"is_finish": self.is_finish, "stopped_early": self.stopped_early}
        return {**super().state_dict(), **ended}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`state_dict` of a server of the same run."""
        super().load_state_dict(state)
        self._setup_course()
        self.is_finish, self.stopped_early = bool(state["is_finish"]), bool(state["stopped_early"])

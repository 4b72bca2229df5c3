"""The server, and with it the course of a round.

A round is seven steps, each a method below, in this order::

    sample clients       broadcast_model_para
    slice the state      _content_for
    train                (the clients)
    collect              callback_funcs_model_para
    aggregate            _perform_federated_aggregation (in ``combining.py``)
    evaluate             eval -> callback_funcs_for_metrics
    record               _merge_and_format_eval_results, check_and_save (in ``results.py``)

``check_and_move_on`` leads from one to the next. Progress, files and curves are callbacks and
stay outside.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from federatedscope.core.auxiliaries.aggregator_builder import get_aggregator
from federatedscope.core.auxiliaries.trainer_builder import get_trainer
from federatedscope.core.client_store import owned_tensors
from federatedscope.core.communication import SERVER_ID, StandaloneCommManager, TrafficLedger
from federatedscope.core.errors import ConfigError
from federatedscope.core.message import Message
from federatedscope.core.metric_values import plain_metrics
from federatedscope.core.sampler import get_sampler
from federatedscope.core.trainers.utils import shared_part
from federatedscope.core.workers.client import ISOLATED_METHODS
from federatedscope.core.workers.combining import UploadCombiner
from fedlora.layouts import Layouts

logger = logging.getLogger(__name__)


class Server(UploadCombiner):
    """The server of the course.

    Parameters
    ----------
    ID : int
        0.
    state : int
        Index of the round.
    config : CN
        The run's configuration.
    data : ClientData or mapping, optional
        The server's own rows, for global evaluation.
    model : torch.nn.Module
        The model.
    client_num : int
        Clients to wait for.
    total_round_num : int
        Rounds to run.
    device : str
        Where to compute.
    strategy : object, optional
        Kept for extensions.
    unseen_clients_id : list of int, optional
        Clients that never train.
    kwargs
        ``shared_comm_queue``, ``ledger``, ``callbacks`` of the runner.
    """

    starts_from_download = True
    streams_uploads = True

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
        # Not in the overridable defaults: an extension that lists its own handlers needs
        # neither to know nor to repeat it.
        self.msg_handlers.setdefault("local_metrics", self.callback_funcs_for_local_metrics)
        self.msg_handlers.setdefault("adapter_layout", self.callback_funcs_for_adapter_layout)
        if config is None:
            return
        self.data = data
        self.device = device
        self.layouts: Layouts | None = kwargs.get("layouts")
        self.client_num = client_num
        self.total_round_num = total_round_num
        self.sample_client_num = int(config.federate.sample_client_num)
        self._setup_model(config, model, device)
        self._setup_results(config, list(unseen_clients_id or []))
        self._setup_books(config)
        self.ledger: TrafficLedger = kwargs.get("ledger") or TrafficLedger()
        self.comm_manager = StandaloneCommManager(
            comm_queue=kwargs["shared_comm_queue"],
            monitor=self._monitor,
            ledger=self.ledger,
            withheld=kwargs.get("withheld", frozenset()),
        )

    def _setup_model(self, config: Any, model: Any, device: str) -> None:
        self.models = [model]
        self.model_num = 1
        self.aggregator = get_aggregator(
            config.federate.method,
            model=model,
            device=device,
            online=config.federate.online_aggr,
            config=config,
        )
        self.aggregators = [self.aggregator]
        if config.federate.restore_from:
            restored = self.aggregator.load_model(config.federate.restore_from)
            logger.info(
                "Restored the model of round %d from %s", restored, config.federate.restore_from
            )
        if config.federate.make_global_eval:
            self.trainer = get_trainer(
                model=model,
                data=self.data,
                device=device,
                config=config,
                only_for_eval=True,
                monitor=self._monitor,
            )
            self.trainers = [self.trainer]

    def _setup_books(self, config: Any) -> None:
        self.sampler = get_sampler(
            config.federate.sampler, client_num=self.client_num, seed=config.seed
        )
        self.msg_buffer: dict[str, dict[int, Any]] = {"train": {}, "eval": {}}
        self.staled_msg_buffer: list[Any] = []
        self.join_in_client_num = 0
        self.join_in_info: dict[int, Any] = {}
        self.is_finish = False
        self._awaits_evaluation = False
        self._aggregated_num = 0
        self._rank_changes: dict[int, tuple[int, ...]] = {}
        # Clients that were asked to train and whose uploads are not taken in yet, and uploads that
        # came before their turn.
        self._asked: list[int] = []
        self._early: dict[int, Any] = {}
        # Parts of the state by layout, valid while one state is being sent.
        self._slices: dict[int, dict[str, torch.Tensor]] = {}
        self.cur_timestamp: float = 0
        self.recover_fun = None

    def _register_default_handlers(self) -> None:
        register = self.register_handlers
        register(
            "join_in",
            self.callback_funcs_for_join_in,
            ["assign_client_id", "ask_for_join_in_info", "address", "model_para"],
        )
        register("join_in_info", self.callback_funcs_for_join_in, ["address", "model_para"])
        register("model_para", self.callback_funcs_model_para, ["model_para", "evaluate", "finish"])
        register("metrics", self.callback_funcs_for_metrics, ["converged"])

    # Start

    def callback_funcs_for_join_in(self, message: Message) -> None:
        """Take a client in; the last one starts the course."""
        if message.msg_type == "join_in_info":
            self.join_in_info[message.sender] = message.content
        else:
            self.join_in_client_num += 1
            self.comm_manager.add_neighbors(message.sender, message.content)
            if self._cfg.federate.join_in_info:
                self._send(
                    "ask_for_join_in_info", [message.sender], list(self._cfg.federate.join_in_info)
                )
        self.trigger_for_start()

    def check_client_join_in(self) -> bool:
        """Whether all expected clients are there."""
        if self._cfg.federate.join_in_info:
            return len(self.join_in_info) == self.client_num
        return self.join_in_client_num == self.client_num

    def trigger_for_start(self) -> None:
        """Begin the first round when everybody is there."""
        if not self.check_client_join_in():
            return
        if self.total_round_num == 0:
            self.eval()
            return
        logger.info("----------- Starting training (Round #%d) -------------", self.state)
        self._start_new_training_round()

    def _start_new_training_round(self, aggregated_num: int = 0) -> None:
        self._slices.clear()
        self._reset_aggregator()
        self.broadcast_model_para("model_para", sample_client_num=self.sample_client_num)

    # Steps 1 and 2: sample clients, slice the state for each

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
        idle = [*self.unseen_clients_id, *map(int, self._cfg.federate.untrained_clients)]
        if filter_unseen_clients:
            self.sampler.change_state(idle, "unseen")
        if sample_client_num > 0:
            receivers = self.sampler.sample(size=sample_client_num)
        else:
            receivers = list(self.comm_manager.neighbors)
            if filter_unseen_clients:
                receivers = [i for i in receivers if i not in idle]
        if filter_unseen_clients:
            self.sampler.change_state(idle, "seen")
        if msg_type == "evaluate":
            evaluated = self.evaluated_clients
            receivers = [i for i in receivers if i in evaluated]
        if msg_type == "model_para" and self.callbacks is not None:
            self.callbacks.on_round_start(self.state + 1, receivers)
        # An evaluation belongs to the round before, which has just been completed.
        rnd = self.state - 1 if msg_type == "evaluate" else self.state
        self._send_state(msg_type, receivers, state=min(max(rnd, 0), self.total_round_num))

    def _send_state(self, msg_type: str, receivers: list[int], state: int | None = None) -> None:
        """Send each of the receivers its part of the state, equal parts in one message."""
        shared = self._shared_state()
        self._slices.clear()
        groups: dict[int, tuple[Any, list[int]]] = {}
        for receiver in receivers:
            content = self._content_for(receiver, shared)
            groups.setdefault(id(content), (content, []))[1].append(receiver)
        if msg_type == "model_para":
            self._asked = [client for _, ids in groups.values() for client in ids]
        for content, ids in groups.values():
            self._send(msg_type, ids, content, state=state)

    @property
    def evaluated_clients(self) -> set[int]:
        """The clients whose evaluation a round waits for (``eval.clients``)."""
        known, unseen = set(self.comm_manager.get_neighbors()), set(self.unseen_clients_id)
        choice = self._cfg.eval.clients
        return (
            known if choice == "all" else known & unseen if choice == "unseen" else known - unseen
        )

    def _content_for(self, receiver: int, shared: dict[str, torch.Tensor]) -> Any:
        """What one client is sent: of LoRA factors the first rows and columns of its own rank.

        Returning the same object for several clients sends it once to all of them.
        """
        return self._slice_for(receiver, shared)

    def _shared_state(self) -> dict[str, torch.Tensor]:
        """The server's tensors that clients share; nothing without communication."""
        if self._cfg.federate.method.lower() in ISOLATED_METHODS:
            return {}
        tensors: dict[str, torch.Tensor] = owned_tensors(self.model)
        if self._cfg.personalization.share_non_trainable_para:
            tensors = self.model.state_dict()
        shared = shared_part(tensors, self._cfg.personalization.local_param)
        # Copies: in one process the receivers would otherwise see later changes.
        return {name: tensor.detach().clone() for name, tensor in shared.items()}

    def _send(
        self, msg_type: str, receivers: list[int], content: Any = None, state: int | None = None
    ) -> None:
        self.comm_manager.send(
            Message(
                msg_type=msg_type,
                sender=self.ID,
                receiver=receivers,
                state=self.state if state is None else state,
                timestamp=self.cur_timestamp,
                content=content,
            )
        )

    # Step 4: collect

    def callback_funcs_model_para(self, message: Message) -> bool:
        """Keep an upload; go on when all of the round are there."""
        if self.is_finish:
            return False
        self.sampler.change_state(message.sender, "idle")
        if message.state == self.state:
            content = self._take_upload(message.content, message.sender)
            self.msg_buffer["train"].setdefault(self.state, {})[message.sender] = content
        else:
            logger.warning(
                "Dropped an upload of client %d for round index %d; the course is at %d.",
                message.sender,
                message.state,
                self.state,
            )
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
        """Lead to the next step when the present one is complete.

        Parameters
        ----------
        check_eval_result : bool
            Look at evaluation results instead of uploads.
        min_received_num : int, optional
            Answers to wait for; by default all clients of the round, or all clients.

        Returns
        -------
        bool
            Whether the course moved on.
        """
        if min_received_num is None:
            min_received_num = self.sample_client_num
        if check_eval_result:
            min_received_num = len(self.evaluated_clients)
        if not self.check_buffer(self.state, min_received_num, check_eval_result):
            return False
        if check_eval_result:
            self._awaits_evaluation = False
            self._merge_and_format_eval_results()
        else:
            self._finish_training_round()
        # The next round waits for the clients' evaluation, where one is under way: it may be the
        # one that stops the course.
        if not self._awaits_evaluation and not self.is_finish:
            self._go_on()
        return True

    def _finish_training_round(self) -> None:
        self._aggregated_num = self._perform_federated_aggregation()
        self._record_round()
        self.state += 1
        self.msg_buffer["train"].clear()
        if self._is_evaluated(self.state):
            asked = self.ledger.messages["evaluate"]
            self.eval()
            self._awaits_evaluation = self.ledger.messages["evaluate"] > asked

    def _is_evaluated(self, completed: int) -> bool:
        """Whether there is an evaluation after so many rounds."""
        return completed >= self.total_round_num or completed % self._cfg.eval.freq == 0

    def _go_on(self) -> None:
        if self.state >= self.total_round_num:
            # Only where an extension's evaluation does not end the course by itself.
            self.terminate(msg_type="finish")
            return
        logger.info("----------- Starting a new training round (Round #%d) -----", self.state)
        self._start_new_training_round(self._aggregated_num)

    # Step 6: evaluate

    def eval(self) -> None:
        """Evaluate on the server (``federate.make_global_eval``) or on the clients."""
        if "after" not in self._cfg.eval.phases:
            self.check_and_save()
            return
        if not self._cfg.federate.make_global_eval:
            self.broadcast_model_para("evaluate", filter_unseen_clients=False)
            return
        metrics: dict[str, Any] = {}
        for split in self._cfg.eval.split:
            metrics.update(plain_metrics(self.trainer.evaluate(target_data_split_name=split)))
        self._check_best_key([metrics])
        formatted = self._monitor.format_eval_res(
            metrics, rnd=self.state - 1, role="Server #", return_raw=True
        )
        self._monitor.save_formatted_results(formatted)
        improved = self._monitor.update_best_result(
            self.best_results, metrics, results_type="server_global_eval"
        )
        self._remember({"Results_avg": metrics})
        self._emit_eval(self.ID, metrics, phase="after", scope="global", rnd=self.state)
        if improved:
            self._keep_best()
        self.check_and_save()

    def callback_funcs_for_metrics(self, message: Message) -> bool:
        """Keep a client's evaluation; go on when all are there."""
        self.msg_buffer["eval"].setdefault(message.state, {})[message.sender] = message.content
        return self.check_and_move_on(check_eval_result=True)

    # Step 7: record

    def _check_best_key(self, results: Iterable[Mapping[str, Any]]) -> None:
        """Stop at the first evaluation that lacks the figure by which rounds are compared."""
        key = self._monitor.round_wise_update_key
        names = sorted({name for metrics in results for name in metrics})
        if names and key not in names:
            raise ConfigError(
                "eval.best_res_update_round_wise_key",
                key,
                "the evaluation gives no such figure",
                f"It gives {', '.join(names)}; write one of them",
            )

    def _merge_and_format_eval_results(self) -> None:
        for results in self.msg_buffer["eval"].values():
            self._check_best_key(results.values())
            self._revise_ranks(results)
        self._remember(self.merge_eval_results_from_all_clients())
        self.msg_buffer["eval"].clear()
        self.check_and_save()

    def _revise_ranks(self, results: Mapping[int, Mapping[str, float]]) -> None:
        """Give clients the ranks that the run's plan wants after this evaluation."""
        if self.layouts is None or self.layouts.revise is None or self.layouts.make is None:
            return
        seen = {k: v for k, v in results.items() if k not in self.unseen_clients_id}
        for client, ranks in self.layouts.revise(self.state, seen).items():
            now = self.layouts.of(client).ranks
            wanted = ranks if isinstance(ranks, Mapping) else dict.fromkeys(now, ranks)
            # Nobody loses rows that were trained.
            layout = self.layouts.make(
                {m: max(r, wanted.get(m, r)) for m, r in now.items()}, client
            )
            if layout.ranks == now:
                continue
            self._rank_changes[client] = tuple(layout.distinct_ranks)
            logger.info("Client %d: rank %s from now on.", client, layout.distinct_ranks)
            content = {"ranks": dict(layout.ranks), "scales": dict(layout.scales)}
            self._send("adapter_layout", [client], content)
            self.layouts.set(client, layout)
            self._on_new_layout(client)

    def _on_new_layout(self, client: int) -> None:
        """A hook: a client has other ranks from now on."""

    def check_and_save(self) -> None:
        """Early stopping, checkpoints, and the end of the course."""
        if self._should_stop():
            self.stopped_early = True
            self._monitor.global_converged()
            self._send("converged", list(self.comm_manager.neighbors))
        federate = self._cfg.federate
        if federate.save_to and federate.save_freq > 0 and self.state % federate.save_freq == 0:
            self._save(f"{self.state}_")
        if self.stopped_early or self.state >= self.total_round_num:
            self.save_best_results()
            self.terminate(msg_type="finish")

    def terminate(self, msg_type: str = "finish") -> None:
        """End the course for everybody."""
        self.is_finish = True
        self._monitor.finish_fl()
        self._send_state(msg_type, list(self.comm_manager.neighbors))


__all__ = ["SERVER_ID", "Server"]

"""The client: trains on its own rows, sends what is shared, evaluates what it holds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from federatedscope.core.auxiliaries.trainer_builder import get_trainer
from federatedscope.core.client_store import owned_tensors
from federatedscope.core.message import Message
from federatedscope.core.metric_values import plain_metrics
from federatedscope.core.monitors.early_stopper import EarlyStopper
from federatedscope.core.records import TrainEvent
from federatedscope.core.seeding import derived_seed
from federatedscope.core.task import is_isolated
from federatedscope.core.workers.base_worker import Worker
from fedlora.layers import resize
from fedlora.layouts import AdapterLayout, Layouts

logger = logging.getLogger(__name__)


class Client(Worker):
    """A client of the course.

    Parameters
    ----------
    ID : int
        1..N.
    server_id : int
        The server's ID.
    state : int
        Index of the round.
    config : CN
        The client's configuration (the run's, with ``--client_cfg`` merged in).
    data : ClientData or mapping
        The client's splits.
    model : torch.nn.Module
        The model.
    device : str
        Where to compute.
    strategy : object, optional
        Kept for extensions.
    is_unseen_client : bool
        Never trains and never uploads; only evaluates.
    kwargs
        ``comm_manager``, ``layouts``, ``callbacks`` of the runner.
    """

    starts_from_download = True

    def __init__(
        self,
        ID: int = -1,
        server_id: int | None = None,
        state: int = -1,
        config: Any = None,
        data: Any = None,
        model: Any = None,
        device: str = "cpu",
        strategy: Any = None,
        is_unseen_client: bool = False,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(ID, state, config, model, strategy, kwargs.get("callbacks"))
        self.data = data
        self._register_default_handlers()
        self.msg_handlers.setdefault("adapter_layout", self.callback_funcs_for_adapter_layout)
        if config is None:
            return
        self.layouts: Layouts | None = kwargs.get("layouts")
        self.server_id = server_id if server_id is not None else 0
        self.is_unseen_client = is_unseen_client
        self.device = device
        self.trainer = get_trainer(
            model=model, data=data, device=device, config=config, monitor=self._monitor
        )
        self._hand_engine(self.trainer, kwargs.get("engine"))
        self.best_results: dict[str, Any] = {}
        self.history_results: dict[str, list[float]] = {}
        self.early_stopper = EarlyStopper(
            config.early_stop.patience if self._is_isolated else 0,
            config.early_stop.delta,
            config.early_stop.improve_indicator_mode,
            self._monitor.the_larger_the_better,
        )
        self.msg_buffer: dict[str, dict[int, Any]] = {"train": {}, "eval": {}}
        self._take_manager(kwargs["comm_manager"])

    @property
    def _is_isolated(self) -> bool:
        return is_isolated(self._cfg)

    @property
    def _has_training_rows(self) -> bool:
        # Data of another form have what their own trainer makes of them.
        rows = getattr(self.data, "rows", None)
        return not callable(rows) or bool(rows("train"))

    @property
    def _trains(self) -> bool:
        """Whether this client ever trains; the others only evaluate."""
        excluded = self.is_unseen_client or self.ID in self._cfg.federate.untrained_clients
        return not excluded and self._has_training_rows

    def _register_default_handlers(self) -> None:
        register = self.register_handlers
        register("assign_client_id", self.callback_funcs_for_assign_id)
        register("ask_for_join_in_info", self.callback_funcs_for_join_in_info, ["join_in_info"])
        register("address", self.callback_funcs_for_address)
        register("model_para", self.callback_funcs_for_model_para, ["model_para"])
        register("evaluate", self.callback_funcs_for_evaluate, ["metrics"])
        register("finish", self.callback_funcs_for_finish)
        register("converged", self.callback_funcs_for_converged)

    def join_in(self) -> None:
        """Ask the server to take part."""
        self._send("join_in", [self.server_id])

    def callback_funcs_for_model_para(self, message: Message) -> None:
        """Train on the received state and send back ``(sample_size, state_dict)``."""
        self.state = message.state
        self.trainer.update(message.content)
        if not self._trains or (self._is_isolated and self.early_stopper.early_stopped):
            upload: tuple[float, Any] = (0, self.trainer.get_model_para())
        else:
            upload = self._train()
            self._evaluate_before_aggregation(message.sender)
        if self._is_isolated:
            # Nothing travels under `local` and `global`; the empty answer ends the round.
            upload = (upload[0], {})
        self._send("model_para", [message.sender], upload, timestamp=message.timestamp)

    def _train(self) -> tuple[float, Any]:
        """One routine of local training; returns the aggregation weight and the shared state."""
        self._set_round()
        processed, shared, metrics = self.trainer.train()
        metrics = plain_metrics(metrics)
        line = self._monitor.format_eval_res(
            metrics, rnd=self.state, role=f"Client #{self.ID}", return_raw=True
        )
        logger.info(line)
        weight = self._sample_size(processed)
        report = self._training_report(metrics, processed, weight)
        self._send("training_report", [self.server_id], report)
        return weight, shared

    def _gen_timestamp(self, init_timestamp: float, instance_number: int = 0) -> float:
        """The time of an answer; synchronous runs carry it through unchanged."""
        return init_timestamp

    def _set_round(self) -> None:
        # Trainers written from scratch have no context; they do without schedules over rounds.
        context = getattr(self.trainer, "ctx", None)
        if context is not None:
            context.cur_round = self.state

    def _sample_size(self, processed: int) -> float:
        """The weight sent along: rows owned, or rows processed (``aggregator.weights``)."""
        if self._cfg.aggregator.weights == "processed":
            return processed
        context = getattr(self.trainer, "ctx", {})
        # Trainers written from scratch have no context; the data themselves know their rows.
        rows = getattr(self.data, "rows", None)
        return context.get("num_train_data") or (callable(rows) and rows("train")) or processed

    def _training_report(self, metrics: Any, processed: int, weight: float) -> dict[str, Any]:
        monitor = self._monitor
        return TrainEvent(
            round=self.state + 1,
            client=self.ID,
            metrics=metrics,
            steps=monitor.steps,
            samples=int(processed),
            tokens=monitor.tokens,
            seconds=round(monitor.seconds, 4),
            sample_size=weight,
            nonfinite=monitor.nonfinite_steps,
        ).to_json()

    def _evaluate_before_aggregation(self, receiver: int) -> None:
        """The state right after local training (``eval.phases: ['before', ...]``)."""
        done = self.state + 1
        is_due = done % self._cfg.eval.freq == 0 or done >= self._cfg.federate.total_round_num
        if "before" not in self._cfg.eval.phases or not is_due:
            return
        self._send("local_metrics", [receiver], self._evaluate_splits())

    def _evaluate_splits(self) -> dict[str, Any]:
        metrics: dict[str, Any] = {}
        for split in self._cfg.eval.split:
            metrics.update(plain_metrics(self.trainer.evaluate(target_data_split_name=split)))
        return metrics

    def _evaluate_finetuned(self) -> dict[str, Any]:
        """Fine-tune a copy of what the client holds and evaluate that; training goes on without."""
        kept = {name: t.detach().clone() for name, t in owned_tensors(self.model).items()}
        self.trainer.finetune()
        metrics = self._evaluate_splits()
        mine = owned_tensors(self.model)
        for name, tensor in kept.items():
            mine[name].data.copy_(tensor)
        return metrics

    def callback_funcs_for_evaluate(self, message: Message) -> None:
        """Take over the received state, evaluate what the client then holds, send the metrics."""
        self.state = message.state
        if message.content is not None:
            self.trainer.update(message.content)
        if self._cfg.finetune.before_eval and self._has_training_rows:
            metrics = self._evaluate_finetuned()
        else:
            metrics = self._evaluate_splits()
        self._keep_results(metrics)
        self._send("metrics", [message.sender], metrics, timestamp=message.timestamp)

    def _keep_results(self, metrics: dict[str, Any]) -> None:
        """Log, remember the best, and let an isolated client decide whether it goes on."""
        formatted = self._monitor.format_eval_res(
            metrics, rnd=self.state, role=f"Client #{self.ID}", forms=["raw"], return_raw=True
        )
        logger.info(formatted)
        is_best = self._monitor.update_best_result(
            self.best_results, metrics, results_type=f"client #{self.ID}"
        )
        if is_best and self._cfg.federate.save_client_model and self._cfg.federate.save_to:
            path = Path(self._cfg.federate.save_to)
            path.parent.mkdir(parents=True, exist_ok=True)
            self.trainer.save_model(path.with_name(f"client_{self.ID}_{path.name}"), self.state)
        key = self._monitor.round_wise_update_key
        if self._is_isolated and key in metrics:
            history = self.history_results.setdefault(key, [])
            history.append(metrics[key])
            if self.early_stopper.track_and_check(history):
                self._monitor.local_converged()

    def callback_funcs_for_adapter_layout(self, message: Message) -> None:
        """Take over other ranks; what the adapter computes stays what it was as ranks grow."""
        self.change_ranks(AdapterLayout(**message.content))

    def change_ranks(self, layout: AdapterLayout) -> None:
        """Resize the own adapter and tell the server.

        Parameters
        ----------
        layout : AdapterLayout
            Ranks and scales from now on, at most the server's.
        """
        if self.layouts is None:
            return
        before = self.layouts.of(self.ID)
        seed = derived_seed(self._cfg.seed, "new ranks", self.ID, self.state)
        resize(self.model, before, layout, torch.Generator().manual_seed(seed))
        self.layouts.set(self.ID, layout)
        self._send("adapter_layout", [self.server_id], layout.to_json())

    def callback_funcs_for_assign_id(self, message: Message) -> None:
        """Take the ID that the server gives."""
        self.ID = int(message.content)

    def callback_funcs_for_join_in_info(self, message: Message) -> None:
        """Tell the server what it asked for before the start."""
        info: dict[str, Any] = {}
        for requirement in message.content:
            if requirement.lower() == "num_sample":
                info["num_sample"] = self._sample_size(0)
        self._send("join_in_info", [self.server_id], info, timestamp=message.timestamp)

    def callback_funcs_for_address(self, message: Message) -> None:
        """Remember where the other clients are reached."""
        for neighbor, address in message.content.items():
            if int(neighbor) != self.ID:
                self.comm_manager.add_neighbors(neighbor, address)

    def callback_funcs_for_finish(self, message: Message) -> None:
        """The course is over; take over the final state."""
        if message.content:
            self.trainer.update(message.content)
        self._monitor.finish_fl()

    def callback_funcs_for_converged(self, message: Message) -> None:
        """The server stopped early."""
        self._monitor.global_converged()

    def _stateful_parts(self) -> dict[str, Any]:
        parts = {"early_stopper": self.early_stopper, "trainer": self.trainer}
        return {**parts, "monitor": self._monitor}

    def state_dict(self) -> dict[str, Any]:
        """What the client keeps beside its tensors, which are the client store's."""
        own = {"best": self.best_results, "history": self.history_results}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`state_dict` of the same client."""
        super().load_state_dict(state)
        self.best_results, self.history_results = dict(state["best"]), dict(state["history"])

"""The floor: the steps of a federated run as a plain PyTorch loop.

Nothing but what the method asks for: batches, forward, backward, optimizer step, a plain weighted
mean, evaluation. No messages, hooks, monitors, logs, records or copies. Putting a client's tensors
into the model is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from federatedscope.core.data.utils import collate_of, lengths_of
from federatedscope.core.seeding import derived_seed

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class FloorRound:
    """What one round gave: seconds of the counted parts, sums of losses, share of right answers,
    largest relative difference between the means here and those of the run.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    train_loss: dict[int, float] = field(default_factory=dict)
    eval_loss: dict[int, float] = field(default_factory=dict)
    eval_accuracy: dict[int, float] = field(default_factory=dict)
    mean_difference: float = 0.0


class Floor:
    """Clients' states, loaders, and the loop over them, for a copy of the run's model in its
    initial state, the run's data and its settled configuration.
    """

    def __init__(self, model: nn.Module, data: Mapping[int, Any], cfg: Any, device: str) -> None:
        self.model = model
        self.cfg = cfg
        self.device = torch.device(device)
        self.dtype = AUTOCAST[cfg.train.half_dtype]
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        kept = list(cfg.personalization.local_param)
        self.shared = [n for n in self.parameters if not any(word in n for word in kept)]
        self.initial = {n: p.detach().clone() for n, p in self.parameters.items()}
        self.server = {n: self.initial[n].clone() for n in self.shared}
        self.states: dict[int, dict[str, Tensor]] = {}
        clients = {k: mine for k, mine in sorted(data.items()) if k > 0}
        self.rows = {k: len(mine.train_data) for k, mine in clients.items()}
        self.train_loaders = {k: self._train_loader(mine.train_data) for k, mine in clients.items()}
        self.eval_loaders = {
            k: self._eval_loader(mine.val_data)
            for k, mine in clients.items()
            if mine.val_data is not None and len(mine.val_data)
        }
        self._counted = FloorRound()

    def _train_loader(self, rows: Any) -> DataLoader[Any]:
        size = self.cfg.dataloader.batch_size
        return DataLoader(rows, batch_size=size, shuffle=True, collate_fn=collate_of(rows))

    def _eval_loader(self, rows: Any) -> DataLoader[Any]:
        size = self.cfg.eval.batch_size or self.cfg.dataloader.batch_size
        order = np.argsort(-np.asarray(lengths_of(rows)), kind="stable").tolist()
        return DataLoader(rows, batch_size=size, sampler=order, collate_fn=collate_of(rows))

    def round(
        self,
        index: int,
        clients: Sequence[int],
        evaluate: bool,
        server: Mapping[str, Tensor] | None = None,
    ) -> FloorRound:
        """Train ``clients``, take the mean, ``evaluate`` everybody.

        The index of the round, from 0, seeds batches and dropout with the client's ID. ``server``
        are the run's means of this round, taken over once they are compared: both sides' are right
        but for their last bit, of which training would make more in every round.
        """
        self._counted = result = FloorRound()
        devices = [torch.cuda.current_device()] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            for client in clients:
                self._enter(client)
                torch.manual_seed(derived_seed(self.cfg.seed, client, index, "model_para"))
                with self._clock():
                    result.train_loss[client] = self._train(client)
            with self._clock():
                self._average(clients)
            if server is not None:
                result.mean_difference = self._adopt(server)
            for client in self.eval_loaders if evaluate else ():
                self._enter(client)
                with self._clock():
                    losses = self._evaluate(client)
                result.eval_loss[client], result.eval_accuracy[client] = losses
        return result

    @contextmanager
    def _clock(self) -> Iterator[None]:
        """Count the seconds of a block."""
        self._synchronize()
        started, cpu = time.perf_counter(), time.process_time()
        yield
        self._synchronize()
        self._counted.seconds += time.perf_counter() - started
        self._counted.cpu_seconds += time.process_time() - cpu

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _enter(self, client: int) -> None:
        """Let the model be the client's: its own tensors, and the server's shared ones."""
        if client not in self.states:
            self.states[client] = {n: t.clone() for n, t in self.initial.items()}
        state = self.states[client]
        for name in self.shared:
            state[name].copy_(self.server[name])
        for name, parameter in self.parameters.items():
            parameter.data = state[name]
            parameter.grad = None

    def _train(self, client: int) -> float:
        settings = dict(self.cfg.train.optimizer)
        build = getattr(torch.optim, settings.pop("type"))
        optimizer = build(list(self.parameters.values()), **settings)
        fp16 = self.dtype is torch.float16
        scaler = torch.amp.GradScaler(self.device.type, enabled=fp16)
        self.model.train()
        losses = []
        for batch in self._batches(client):
            loss = self._forward(batch).loss
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            losses.append(loss.detach().double() * len(batch["labels"]))
        return float(torch.stack(losses).sum())

    def _batches(self, client: int) -> Iterator[Mapping[str, Tensor]]:
        """The local steps' batches, over as many passes as they take."""
        left = self.cfg.train.local_update_steps
        while left:
            for batch in self.train_loaders[client]:
                yield batch
                left -= 1
                if not left:
                    return

    def _forward(self, batch: Mapping[str, Tensor]) -> Any:
        inputs = {name: batch[name].to(self.device) for name in INPUTS if name in batch}
        labels = batch["labels"].to(self.device)
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            return self.model(**inputs, labels=labels)

    def _average(self, clients: Sequence[int]) -> None:
        """``sum_k p_k x_k`` of the shared tensors, in float64."""
        rows = sum(self.rows[k] for k in clients)
        for name in self.shared:
            mean = torch.zeros_like(self.server[name], dtype=torch.float64)
            for client in clients:
                mean.add_(self.states[client][name], alpha=self.rows[client] / rows)
            self.server[name] = mean.to(self.server[name].dtype)

    def _adopt(self, server: Mapping[str, Tensor]) -> float:
        """Take over the run's means; returns their largest relative difference to those here."""
        largest = 0.0
        for name, mine in self.server.items():
            scale = max(float(mine.abs().max()), 1e-12)
            largest = max(largest, float((mine - server[name]).abs().max()) / scale)
            mine.copy_(server[name])
        return largest

    @torch.no_grad()
    def _evaluate(self, client: int) -> tuple[float, float]:
        """Sum of losses and accuracy on the client's validation rows."""
        self.model.eval()
        losses, right, rows = [], [], 0
        for batch in self.eval_loaders[client]:
            output = self._forward(batch)
            losses.append(output.loss.double() * len(batch["labels"]))
            labels = batch["labels"].to(self.device)
            right.append((output.logits.argmax(dim=1) == labels).sum())
            rows += len(labels)
        return float(torch.stack(losses).sum()), int(torch.stack(right).sum()) / rows

"""The engine and the open routine: several participants side by side over one model."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch
from exchanges import same

from federatedscope.core.engine import TorchEngine
from federatedscope.core.seeding import RandomStream


class Counting(TorchEngine):
    """Notes down what it is asked for."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def __getattribute__(self, name: str) -> Any:
        if name in ("prepare", "precision", "scaler", "backward", "step", "load", "tensors"):
            self.calls[name] += 1
        return super().__getattribute__(name)


class TestTheEngine:
    def test_trainers_and_store_ask_it_for_everything(self, rig: Any) -> None:
        engine = Counting()
        runner = rig.runner(engine=engine)
        runner.run()
        calls = engine.calls
        steps = 3 * 2 * 2  # clients, rounds, steps
        assert (calls["backward"], calls["step"]) == (steps, steps)
        assert calls["precision"] > steps and calls["prepare"] >= 6
        assert calls["load"] >= 3 and calls["tensors"] >= 3

    def test_one_that_does_not_step_leaves_everybody_as_they_were(self, rig: Any) -> None:
        class Idle(TorchEngine):
            def step(self, *args: Any, **kwargs: Any) -> None:
                pass

        runner = rig.runner("federate.method", "local", engine=Idle())
        before = {k: v.clone() for k, v in runner.store.state(0).items()}
        runner.run()
        assert all(same(dict(runner.store.state(k)), before) for k in (1, 2, 3))


class TestTheOpenRoutine:
    OPTIONS = ("train.local_update_steps", 5, "grad.grad_accum_count", 2, "grad.grad_clip", 0.5,
               "llm.adapter.args", "[{'adapter_package': 'peft', 'adapter_method': 'lora', 'r': 4,"
               " 'lora_alpha': 8, 'lora_dropout': 0.3, 'target_modules': ['query']}]")  # fmt: skip

    def train(self, rig: Any, together: bool) -> tuple[Any, ...]:
        """Clients 1 and 2 train, and client 3 evaluates between their steps, or one by one."""
        runner = rig.runner(*self.OPTIONS)
        routines = {}

        def opened(client: int, mode: str, split: str) -> Any:
            runner.store.activate(client)
            stream = RandomStream(5, client, mode)
            trainer = runner.clients[client].trainer
            return trainer.open_routine(mode, split, stream=stream)

        jobs = [(1, "train", "train"), (2, "train", "train"), (3, "test", "val")]
        if together:
            routines = {job: opened(*job) for job in jobs}
            left = list(jobs)
            while left:
                for job in list(left):
                    runner.store.activate(job[0])
                    if not routines[job].step():
                        left.remove(job)
        else:
            for job in jobs:
                routines[job] = opened(*job)
                while routines[job].step():
                    pass
        samples = []
        for job in jobs:
            runner.store.activate(job[0])
            samples.append(routines[job].close())
        metrics = [dict(runner.clients[job[0]].trainer.ctx.eval_metrics) for job in jobs]
        return samples, metrics, [dict(runner.store.state(k)) for k in (1, 2, 3)]

    def test_side_by_side_is_one_after_the_other(self, rig: Any) -> None:
        """Dropout, batch order, accumulated gradients and modes: bit for bit."""
        apart, together = self.train(rig, False), self.train(rig, True)
        assert same(together, apart)
        assert not same(apart[2][0], apart[2][2])

    def test_a_routine_can_be_closed_early(self, rig: Any) -> None:
        runner = rig.runner(*self.OPTIONS)
        runner.store.activate(1)
        trainer = runner.clients[1].trainer
        routine = trainer.open_routine("train", "train")
        assert routine.step()
        assert routine.close() == 8
        assert trainer.ctx.eval_metrics["train_total"] == 8
        assert trainer.ctx.mode_stack == []

    def test_a_stream_goes_on_where_it_was_left(self) -> None:
        with RandomStream(1, "a").active():
            whole = torch.rand(4), np.random.rand(2)
        stream, before = RandomStream(1, "a"), torch.get_rng_state()
        with stream.active():
            first = torch.rand(2)
        torch.rand(3)
        with stream.active():
            second = torch.rand(2), np.random.rand(2)
        assert torch.equal(torch.cat([first, second[0]]), whole[0])
        assert np.array_equal(second[1], whole[1])
        assert not torch.equal(before, torch.get_rng_state())

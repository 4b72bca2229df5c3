"""A training or an evaluation that is opened, advanced batch by batch, and closed.

Several participants can so be advanced side by side over one model: activate one, step its routine,
activate the next. Each routine then gets a random stream of its own, which is put back whenever it
is stepped, so that its draws are those it would have had alone.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from federatedscope.core.seeding import RandomStream
from federatedscope.core.trainers.enums import LIFECYCLE, MODE
from federatedscope.core.trainers.hooks import HookSet

__all__ = ["Routine"]


class Routine:
    """One routine of a trainer, opened when it is made.

    Parameters
    ----------
    trainer : Trainer
        Whose hooks and context it runs on; a trainer has one open routine at a time.
    mode : str
        ``train``, ``test`` or ``finetune``.
    split : str
        The split it works on.
    hooks : mapping of str to list of callable
        By trigger.
    stream : RandomStream, optional
        Its random numbers; those of the process when not given. With a stream gradients that wait
        for a step, too, outlive a change of participants.
    """

    def __init__(
        self,
        trainer: Any,
        mode: str,
        split: str,
        hooks: HookSet,
        stream: RandomStream | None = None,
    ) -> None:
        self.trainer = trainer
        self.mode = mode
        self.split = split
        self.hooks = hooks
        self.stream = stream
        self.samples = 0
        self.is_open = True
        self._closing = False
        self._waiting: list[tuple[Any, Any]] = []
        self._steps = self._batches()
        with self._active():
            next(self._steps)

    def step(self) -> bool:
        """Advance by one batch; whether there was one."""
        try:
            with self._active():
                return next(self._steps, False)
        except RuntimeError as error:
            # A hook may raise it to leave its routine; a generator makes another error of it.
            raise (
                error.__cause__ if isinstance(error.__cause__, StopIteration) else error
            ) from None

    def close(self) -> int:
        """Finish: metrics are in ``ctx.eval_metrics``; returns the samples processed.

        Batches that have not been stepped are left out.
        """
        self._closing = True
        with self._active():
            self._steps.close()
        return self.samples

    def run(self) -> int:
        """Step through all batches and close."""
        while self.step():
            pass
        return self.close()

    def _batches(self) -> Generator[bool, None, None]:
        """``True`` once when all is ready, and after each batch."""
        trainer, ctx = self.trainer, self.trainer.ctx
        ctx.track_mode(self.mode)
        ctx.track_split(self.split)
        ctx.monitor.start_routine()
        try:
            trainer.call_hooks(self.hooks, "on_fit_start")
            try:
                yield True
                for _ in trainer.batches(self.hooks):
                    yield True
            except GeneratorExit:
                # Closed before the last batch; not by its user, there is nothing to finish.
                if not self._closing:
                    return
            trainer.call_hooks(self.hooks, "on_fit_end")
            self.samples = int(ctx.num_samples)
        finally:
            self.is_open = False
            for lifetime in (LIFECYCLE.BATCH, LIFECYCLE.EPOCH, LIFECYCLE.ROUTINE):
                ctx.clear(lifetime)
            ctx.reset_mode()
            ctx.reset_split()

    @contextmanager
    def _active(self) -> Iterator[None]:
        with ExitStack() as stack:
            if self.mode == MODE.TEST:
                stack.enter_context(torch.no_grad())
            if self.stream is not None:
                stack.enter_context(self.stream.active())
                stack.enter_context(self._gradients())
            yield

    @contextmanager
    def _gradients(self) -> Iterator[None]:
        """Put back what waits for a step, and the model's mode, which others have changed."""
        model = self.trainer.ctx.model
        model.train(self.mode != MODE.TEST)
        for parameter, gradient in self._waiting:
            parameter.grad = gradient
        yield
        self._waiting = [(p, p.grad) for p in model.parameters() if p.grad is not None]

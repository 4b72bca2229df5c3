"""Exchanges and engines from outside: a module registers them, `extensions` names it."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from exchanges import Held

from federatedscope.core.exchange import InProcessExchange
from federatedscope.core.message import Message

FOLDER = """
from itertools import count
from pathlib import Path

from federatedscope.core.codec import decode_message, encode_message
from federatedscope.core.exchange import Exchange, Inbox
from federatedscope.register import register_exchange


class Folder(Exchange):
    def __init__(self, cfg):
        super().__init__()
        self.folder, self.inbox, self.numbers = Path(cfg.outdir) / "mail", Inbox(), count()
        self.folder.mkdir()

    def post(self, message):
        if message.sender == 0:
            self.inbox.expect(message)
        for receiver in message.receivers:
            file = self.folder / f"{next(self.numbers):06d}-{receiver}"
            file.write_bytes(encode_message(message))

    def drain(self):
        while True:
            files = sorted(self.folder.iterdir())
            for file in files:
                if file.name.endswith("-0"):
                    self.inbox.put(self.read(file))
            waiting = [file for file in files if not file.name.endswith("-0")]
            if (message := self.inbox.take()) is not None:
                self.deliver(message, 0)
            elif waiting:
                self.deliver(self.read(waiting[0]), int(waiting[0].name.split("-")[1]))
            elif not self.inbox.give_up():
                return

    def read(self, file):
        message = decode_message(file.read_bytes())
        file.unlink()
        return message

    def close(self):
        sent.append(next(self.numbers))
        self.folder.rmdir()


sent = []
register_exchange("folder", Folder)
"""

ENGINE = """
from federatedscope.core.engine import TorchEngine
from federatedscope.register import register_engine


class Counted(TorchEngine):
    def step(self, *args, **kwargs):
        steps.append(1)
        super().step(*args, **kwargs)


steps = []
register_engine("off", lambda cfg: None)
register_engine("counted", lambda cfg: Counted())
"""


def figures(done: Any) -> list[Any]:
    return [(e["client"], e["round"], e["metrics"]) for e in done.of("train") + done.of("eval")]


def test_a_folder_of_messages(rig: Any, outside: Any) -> None:
    plain = rig("federate.method", "fedsa")
    done = outside(FOLDER, "federate.method", "fedsa", world=False)
    assert (plain.code, done.code) == (0, 0)
    assert figures(done) == figures(plain) != []
    # Closed at the end, when the folder was empty.
    assert done.module.sent[0] > 30 and not (done.outdir / "mail").exists()


def test_an_engine(rig: Any, outside: Any) -> None:
    plain, done = rig(), outside(ENGINE, world=False)
    assert (plain.code, done.code) == (0, 0)
    assert figures(done) == figures(plain)
    assert len(done.module.steps) == sum(e["steps"] for e in done.of("train")) > 0


class TestOneAtATime:
    def test_a_worker_is_not_disturbed_by_another_thread(self, rig: Any) -> None:
        """Two workers in one model would silently be a mixture of both."""
        busy, go_on = threading.Event(), threading.Event()
        runner = rig.runner(exchange=Held())
        runner.clients[1].register_handlers("wait", lambda message: busy.set() or go_on.wait(20))
        deliver = runner.exchange.deliver
        thread = threading.Thread(target=deliver, args=(Message("wait", 0, [1], 0), 1))
        thread.start()
        assert busy.wait(20)
        with pytest.raises(RuntimeError, match="Held has to deliver one message at a time"):
            deliver(Message("evaluate", 0, [2], 0), 2)
        go_on.set()
        thread.join()
        deliver(Message("evaluate", 0, [2], 0, {}), 2)

    def test_nothing_is_handled_while_it_is_posted(self, rig: Any) -> None:
        class AtOnce(InProcessExchange):
            def post(self, message: Message) -> None:
                for receiver in message.receivers:
                    self.deliver(message, receiver)

        with pytest.raises(RuntimeError, match="AtOnce has to deliver"):
            rig.runner(exchange=AtOnce()).run()


def test_an_exchange_is_closed_with_the_runner(rig: Any) -> None:
    closed: list[Any] = []

    class Closing(InProcessExchange):
        def close(self) -> None:
            closed.append(self)

    exchange = Closing()
    rig.runner(exchange=exchange).close()
    assert closed == [exchange]

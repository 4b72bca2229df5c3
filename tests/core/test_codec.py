"""The codec: every message of every method as bytes, both ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from exchanges import same

from federatedscope.core.codec import decode, decode_message, encode, encode_message, overhead
from federatedscope.core.errors import UserError
from federatedscope.core.exchange import InProcessExchange
from federatedscope.core.message import Message, payload_bytes
from federatedscope_ext.methods import METHODS

RANKED = ("llm.adapter.client_ranks", "[2, 4, 8]", "hetlora.regularization", 100.0)

CONTENTS: list[Any] = [
    None,
    "text",
    {"a": 1, "b": [True, None, 0.1], "c": (1, "x")},
    {1: "one", (2, 3): 4.0},
    {"$tensor": 0, "$tuple": [], "nested": {"$pairs": 1}},
    (float("nan"), float("inf"), -0.0),
    {"x": torch.arange(6.0).reshape(2, 3).T, "y": torch.tensor(3), "z": torch.zeros(0, 4)},
    [torch.ones(3, dtype=d) for d in (torch.float16, torch.bfloat16, torch.int64, torch.bool)],
    (7, {"a": torch.zeros(2)}),
]


class TestTheCodec:
    @pytest.mark.parametrize("content", CONTENTS, ids=repr)
    def test_both_ways(self, content: Any) -> None:
        assert same(decode(encode(content)), content)

    def test_slices_of_one_tensor(self) -> None:
        whole = torch.arange(12.0).reshape(3, 4)
        content = {"all": whole, "first": whole[:1], "again": whole}
        back = decode(encode(content))
        assert same(back, content)
        back["all"].zero_()
        assert torch.equal(back["again"], whole)

    def test_numpy(self) -> None:
        back = decode(encode({"n": np.float32(0.5), "i": np.int64(3), "a": np.arange(3)}))
        assert back["n"] == 0.5 and back["i"] == 3
        assert torch.equal(back["a"], torch.arange(3))

    def test_what_cannot_be_sent_is_named(self) -> None:
        with pytest.raises(TypeError, match=r"content\['a'\]\[1\] is a set"):
            encode({"a": [1, {2}]})

    @pytest.mark.parametrize("damage", [lambda d: b"", lambda d: d[:-3], lambda d: b"x" * 40,
                                        lambda d: d.replace(b"$tensor", b"$tenser")])  # fmt: skip
    def test_damaged_bytes_are_refused(self, damage: Any) -> None:
        data = damage(encode({"a": torch.zeros(4), "b": 1}))
        try:
            assert not same(decode(data), {"a": torch.zeros(4), "b": 1})
        except UserError as error:
            assert "cannot be read" in str(error)

    def test_other_content_is_no_message(self) -> None:
        with pytest.raises(UserError, match="no message"):
            decode_message(encode({"a": 1}))

    @pytest.mark.parametrize("content", CONTENTS[-1:] + CONTENTS[:4], ids=repr)
    def test_what_it_adds(self, content: Any) -> None:
        message = Message("model_para", 1, [0], 2, content)
        assert overhead(message) == len(encode_message(message)) - payload_bytes(content)

    @pytest.mark.parametrize("method", ["fedavg", *METHODS])
    def test_every_message_of_every_method(self, rig: Any, method: str) -> None:
        """A course whose messages all travel as bytes is the same course."""
        seen: set[str | None] = set()

        class Wire(InProcessExchange):
            def post(self, message: Message) -> None:
                copy = decode_message(encode_message(message))
                assert vars(copy).keys() == vars(message).keys()
                assert same(copy.content, message.content)
                seen.add(message.msg_type)
                super().post(copy)

        options = (*RANKED, "federate.method", method, "federate.join_in_info", "['num_sample']",
                   "eval.phases", "['before', 'after']", "early_stop.patience", 1,
                   "train.optimizer.lr", 0.0)  # fmt: skip
        plain, wired = rig.runner(*options), rig.runner(*options, exchange=Wire())
        plain.run()
        wired.run()
        for participant in range(4):
            mine = dict(plain.store.state(participant))
            assert same(dict(wired.store.state(participant)), mine)
        assert seen >= {
            "join_in", "join_in_info", "ask_for_join_in_info", "model_para", "training_report",
            "local_metrics", "evaluate", "metrics", "converged", "finish",
        }  # fmt: skip
        assert ("base_update" in seen) is (method in ("flora", "fedex"))

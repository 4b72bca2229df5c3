"""Workers of outsiders: every method of server and client that the contract lets them override."""

from __future__ import annotations

from textwrap import dedent
from typing import Any

import pytest
import torch

# The list of handlers as the contract's own example writes it: nothing of ours in it.
HANDLERS = """
from federatedscope.core.workers import Client, Server
from federatedscope.core.message import Message
from federatedscope.register import register_worker


class MyServer(Server):
    def _register_default_handlers(self):
        self.register_handlers("join_in", self.callback_funcs_for_join_in,
                               ["assign_client_id", "address", "model_para"])
        self.register_handlers("join_in_info", self.callback_funcs_for_join_in,
                               ["address", "model_para"])
        self.register_handlers("model_para", self.callback_funcs_model_para,
                               ["model_para", "evaluate", "finish"])
        self.register_handlers("metrics", self.callback_funcs_for_metrics, ["converged"])


class MyClient(Client):
    def _register_default_handlers(self):
        self.register_handlers("assign_client_id", self.callback_funcs_for_assign_id, [None])
        self.register_handlers("address", self.callback_funcs_for_address)
        self.register_handlers("model_para", self.callback_funcs_for_model_para,
                               ["model_para", "ss_model_para"])
        self.register_handlers("evaluate", self.callback_funcs_for_evaluate, ["metrics"])
        self.register_handlers("finish", self.callback_funcs_for_finish)
        self.register_handlers("converged", self.callback_funcs_for_converged)


def workers(client, server):
    def build(method):
        if method == "mymethod":
            return {"client": client, "server": server}

    register_worker("mymethod", build)
"""


class TestWorkers:
    def run(self, outside: Any, source: str, *options: Any) -> Any:
        return outside(HANDLERS + dedent(source), "federate.method", "MyMethod", *options)

    @pytest.mark.parametrize("phases", ["['after']", "['before', 'after']"])
    def test_handlers_listed_by_hand(self, outside: Any, phases: str) -> None:
        options = ("eval.phases", phases)
        done = self.run(outside, "workers(MyClient, MyServer)", *options)
        assert done.code == 0
        assert done.metrics == outside("", *options).metrics

    def test_a_client_with_its_own_answer(self, outside: Any) -> None:
        """The body that users copy and change: train, format, send."""
        source = """
        class Copied(MyClient):
            def callback_funcs_for_model_para(self, message):
                rnd, sender, content = message.state, message.sender, message.content
                self.trainer.update(content, strict=self._cfg.federate.share_local_model)
                self.state = rnd
                sample_size, model_para, results = self.trainer.train()
                line = self._monitor.format_eval_res(
                    results, rnd=self.state, role="Client #{}".format(self.ID), return_raw=True
                )
                assert line["Role"] == f"Client #{self.ID}"
                self.comm_manager.send(
                    Message(
                        msg_type="model_para",
                        sender=self.ID,
                        receiver=[sender],
                        state=self.state,
                        timestamp=self._gen_timestamp(
                            init_timestamp=message.timestamp, instance_number=sample_size
                        ),
                        content=(sample_size, model_para),
                    )
                )

        workers(Copied, MyServer)
        """
        done = self.run(outside, source)
        assert done.code == 0
        plain = outside("", "aggregator.weights", "processed")
        assert [e["metrics"] for e in done.of("eval")] == [e["metrics"] for e in plain.of("eval")]

    def test_an_aggregation_of_ones_own(self, outside: Any, mail: list[Any]) -> None:
        """The round is recorded all the same."""
        source = """
        class Largest(MyServer):
            def _perform_federated_aggregation(self):
                buffer = self.msg_buffer["train"][self.state]
                size, state = max(buffer.values(), key=lambda upload: upload[0])
                merged = {**self.model.state_dict(), **state}
                self.model.load_state_dict(merged, strict=False)
                return len(buffer)

        workers(MyClient, Largest)
        """
        done = self.run(outside, source)
        assert done.code == 0
        (evaluate,) = [m for m in mail if m.type == "evaluate" and m.state == 0]
        (largest,) = [m for m in mail if m.type == "model_para" and m.sender == 3 and m.state == 0]
        assert all(torch.equal(t, largest.tensors[n]) for n, t in evaluate.tensors.items())
        assert [e["sampled"] for e in done.of("round")] == [[1, 2, 3]] * 2
        assert all(e["bytes_up"] for e in done.of("round"))

    def test_an_aggregator_built_by_the_server(self, outside: Any) -> None:
        """How packages reach a new aggregator in upstream, which has no register_aggregator."""
        source = """
        class Zero:
            def __init__(self, inner):
                self.inner, self.rounds = inner, []

            def aggregate(self, agg_info):
                assert set(agg_info) >= {"client_feedback", "recover_fun", "staleness"}
                assert agg_info["recover_fun"] is None
                self.rounds.append([client for client, _ in agg_info["staleness"]])
                (_, state), *_ = agg_info["client_feedback"]
                return {name: torch.zeros_like(tensor) for name, tensor in state.items()}

            def __getattr__(self, name):
                return getattr(self.inner, name)


        servers = []


        class WithZero(MyServer):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                self.aggregator = Zero(self.aggregator)
                self.aggregators = [self.aggregator]
                servers.append(self)

        workers(MyClient, WithZero)
        """
        done = self.run(outside, source, "federate.sample_client_num", 2)
        assert done.code == 0
        server = done.module.servers[-1]
        assert [len(r) for r in server.aggregator.rounds] == [2, 2]
        # A model of zeros answers alike for all.
        assert all(e["metrics"]["val_avg_loss"] == pytest.approx(0.6931, abs=1e-3)
                   for e in done.of("eval"))  # fmt: skip

    def test_messages_of_a_new_kind(self, outside: Any, mail: list[Any]) -> None:
        source = """
        class Asks(MyServer):
            def _register_default_handlers(self):
                super()._register_default_handlers()
                self.register_handlers("norm", self.callback_for_norm, ["model_para"])

            def _perform_federated_aggregation(self):
                count = super()._perform_federated_aggregation()
                self.comm_manager.send(Message(
                    msg_type="ask_norm", sender=self.ID, receiver=[1, 3], state=self.state))
                return count

            def callback_for_norm(self, message):
                self.norms = getattr(self, "norms", [])
                self.norms.append((message.sender, message.content))
                found.append((message.sender, message.content))


        class Answers(MyClient):
            def _register_default_handlers(self):
                super()._register_default_handlers()
                self.register_handlers("ask_norm", self.callback_for_ask, ["norm"])

            def callback_for_ask(self, message):
                norm = float(sum(p.detach().square().sum() for p in self.model.parameters()))
                self.comm_manager.send(Message(
                    msg_type="norm", sender=self.ID, receiver=[message.sender],
                    state=message.state, content=norm))


        found = []
        workers(Answers, Asks)
        """
        done = self.run(outside, source)
        assert done.code == 0
        assert [client for client, _ in done.module.found] == [1, 3, 1, 3]
        assert done.module.found[0][1] != done.module.found[1][1]
        assert done.metrics == outside("").metrics

    def test_sending_each_client_something_else(self, outside: Any, mail: list[Any]) -> None:
        source = """
        class Own(MyServer):
            def broadcast_model_para(self, msg_type="model_para", sample_client_num=-1,
                                     filter_unseen_clients=True):
                if sample_client_num > 0:
                    receivers = self.sampler.sample(size=sample_client_num)
                else:
                    receivers = list(self.comm_manager.neighbors.keys())
                rnd = self.state - 1 if msg_type == "evaluate" else self.state
                for receiver in receivers:
                    content = {k: v for k, v in self.model.state_dict().items() if "head" in k}
                    if receiver == 2:
                        content = {k: 0 * v for k, v in content.items()}
                    self.comm_manager.send(Message(
                        msg_type=msg_type, sender=self.ID, receiver=receiver, state=rnd,
                        timestamp=self.cur_timestamp, content=content))

        workers(MyClient, Own)
        """
        done = self.run(outside, source, "federate.total_round_num", 3)
        assert done.code == 0
        assert len(done.of("round")) == 3
        assert len(done.of("eval")) == 9
        assert len([m for m in mail if m.type == "finish"]) == 1
        received = [m for m in mail if m.type == "model_para" and not m.sender]
        assert len(received) == 9
        assert all("body.weight" not in m.tensors for m in received)
        assert not any(bool(t.any()) for m in received if m.receivers == [2]
                       for t in m.tensors.values())  # fmt: skip

    def test_moving_on_in_ones_own_way(self, outside: Any, mail: list[Any]) -> None:
        """The body as upstream has it: the next round starts without waiting for evaluations."""
        source = """
        class Moves(MyServer):
            def check_and_move_on(self, check_eval_result=False, min_received_num=None):
                if min_received_num is None:
                    min_received_num = self._cfg.federate.sample_client_num
                if check_eval_result and self._cfg.federate.mode.lower() == "standalone":
                    min_received_num = len(self.comm_manager.get_neighbors().keys())
                move_on_flag = True
                if self.check_buffer(self.state, min_received_num, check_eval_result):
                    if not check_eval_result:
                        aggregated_num = self._perform_federated_aggregation()
                        self.state += 1
                        if (self.state % self._cfg.eval.freq == 0
                                and self.state != self.total_round_num):
                            self.eval()
                        if self.state < self.total_round_num:
                            self.msg_buffer["train"].clear()
                            self.msg_buffer["train"][self.state] = dict()
                            self.staled_msg_buffer.clear()
                            self._start_new_training_round(aggregated_num)
                        else:
                            self.eval()
                    else:
                        self._merge_and_format_eval_results()
                        if self.state >= self.total_round_num:
                            self.is_finish = True
                else:
                    move_on_flag = False
                return move_on_flag

        workers(MyClient, Moves)
        """
        done = self.run(outside, source, "federate.total_round_num", 3)
        assert done.code == 0
        assert len(done.of("train")) == 9
        assert [line["Round"] for line in done.lines] == [0, 1, 2, "Final"]
        plain = outside("", "federate.total_round_num", 3)
        assert sorted(map(str, (e["metrics"] for e in done.of("eval")))) == sorted(
            map(str, (e["metrics"] for e in plain.of("eval")))
        )

    def test_an_evaluation_that_asks_nobody(self, outside: Any, mail: list[Any]) -> None:
        """The course still ends."""
        source = """
        class Blind(MyServer):
            def eval(self):
                pass

        workers(MyClient, Blind)
        """
        done = self.run(outside, source)
        assert done.code == 0
        assert len(done.of("round")) == 2
        assert not done.of("eval")
        assert done.run["last_round"] == 2
        assert len([m for m in mail if m.type == "finish"]) == 1

    def test_results_merged_in_ones_own_way(self, outside: Any) -> None:
        source = """
        class Merges(MyServer):
            def callback_funcs_for_metrics(self, message):
                rnd, sender = message.state, message.sender
                if rnd not in self.msg_buffer["eval"].keys():
                    self.msg_buffer["eval"][rnd] = dict()
                self.msg_buffer["eval"][rnd][sender] = {**message.content, "val_extra": sender}
                return self.check_and_move_on(check_eval_result=True)

            def terminate(self, msg_type="finish"):
                ended.append(self.state)
                super().terminate(msg_type)

        ended = []
        workers(MyClient, Merges)
        """
        done = self.run(outside, source)
        assert done.code == 0
        assert done.lines[0]["Results_avg"]["val_extra"] == 2.0
        assert done.module.ended == [2]

    def test_with_adapters(self, outside: Any, rig: Any) -> None:
        """On the encoder, with private factors: a registered worker sees its own client's model."""
        source = HANDLERS + dedent(
            """
            seen = {}


            class Looks(MyClient):
                def callback_funcs_for_evaluate(self, message):
                    state = self.trainer.ctx.model.state_dict()
                    seen.setdefault(self.ID, []).append(
                        next(v for k, v in state.items() if "lora_B" in k).sum().item())
                    super().callback_funcs_for_evaluate(message)

            workers(Looks, MyServer)
            """
        )
        done = outside(
            source, "federate.method", "mymethod", "personalization.local_param",
            "['lora_B', 'classifier']", world=False,
        )  # fmt: skip
        assert done.code == 0
        assert done.metrics == rig("federate.method", "fedsa").metrics
        first = [values[0] for values in done.module.seen.values()]
        assert len(set(first)) == 3

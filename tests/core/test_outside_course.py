"""Servers, aggregators and trainers from outside that lead, collect or step in their own way.

Each of these ran before the round was a loop, and has to go on to do so.
"""

from __future__ import annotations

from textwrap import dedent
from typing import Any

import pytest

WORKERS = """
import torch
from federatedscope.core.aggregators import ClientsAvgAggregator, OnlineClientsAvgAggregator
from federatedscope.core.message import Message
from federatedscope.core.trainers import GeneralTorchTrainer
from federatedscope.core.workers import Client, Server
from federatedscope.register import register_aggregator, register_trainer, register_worker

seen = []


def use(server=Server, client=Client):
    answer = {"client": client, "server": server}
    register_worker("mine", lambda method: answer if method == "mine" else None)
"""

SERVERS = {
    "broadcasts itself": """
        class Mine(Server):
            def broadcast_model_para(self, msg_type="model_para", sample_client_num=-1,
                                     filter_unseen_clients=True):
                receivers = list(self.comm_manager.neighbors.keys())
                rnd = self.state - 1 if msg_type == "evaluate" else self.state
                self.comm_manager.send(Message(msg_type=msg_type, sender=self.ID,
                    receiver=receivers, state=rnd, content=self.model.state_dict()))
        use(Mine)
        """,
    "starts rounds itself": """
        class Mine(Server):
            def _start_new_training_round(self, aggregated_num=0):
                seen.append(aggregated_num)
                self.broadcast_model_para(msg_type="model_para",
                                          sample_client_num=self.sample_client_num)
        use(Mine)
        """,
    "acts when a step is done": """
        class Mine(Server):
            def check_and_move_on(self, check_eval_result=False, min_received_num=None):
                before = self.state
                moved = super().check_and_move_on(check_eval_result, min_received_num)
                if moved and not check_eval_result:
                    seen.append(self.state - before)
                return moved
        use(Mine)
        """,
    "looks into the buffer": """
        class Mine(Server):
            def check_buffer(self, cur_round, min_received_num, check_eval_result=False):
                for size, state in self.msg_buffer["train"].get(self.state, {}).values():
                    seen.append(len(state))
                return super().check_buffer(cur_round, min_received_num, check_eval_result)
        use(Mine)
        """,
}


class TestServers:
    @pytest.mark.parametrize("name", SERVERS)
    def test_all_clients_count_in_every_round(self, outside: Any, name: str) -> None:
        plain = outside("", "federate.total_round_num", 3)
        done = outside(WORKERS + dedent(SERVERS[name]), "federate.method", "mine",
                       "federate.total_round_num", 3)  # fmt: skip
        assert done.code == 0, done.run.get("error")
        assert [e["sampled"] for e in done.of("round")] == [[1, 2, 3]] * 3
        assert [e["metrics"] for e in done.of("eval")] == [e["metrics"] for e in plain.of("eval")]
        found = done.module.seen
        assert name != "starts rounds itself" or found == [0, 3, 3]
        assert name != "acts when a step is done" or found == [1, 1, 1]
        assert name != "looks into the buffer" or (found and min(found) > 0)

    def test_an_early_stopper_of_its_own(self, outside: Any) -> None:
        source = """
        class Stopper:
            def track_and_check(self, history):
                seen.append(len(history))
                return len(history) == 2

        class Mine(Server):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                self.early_stopper = Stopper()
                self.history_results = {}
        use(Mine)
        """
        done = outside(WORKERS + dedent(source), "federate.method", "mine",
                       "federate.total_round_num", 5)  # fmt: skip
        assert done.code == 0, done.run.get("error")
        assert (done.module.seen, done.run["last_round"]) == ([1, 2], 2)

    def test_asking_twice_in_a_round(self, outside: Any) -> None:
        source = """
        class Mine(Server):
            asked = 0

            def callback_funcs_model_para(self, message):
                seen.append((message.state, message.sender))
                self.asked += 1
                if self.asked % 6 == 3:
                    self.broadcast_model_para("model_para", sample_client_num=-1)
                    return False
                self.msg_buffer["train"].setdefault(self.state, {})[message.sender] = (
                    message.content)
                return self.check_and_move_on() if self.asked % 6 == 0 else False
        use(Mine)
        """
        done = outside(WORKERS + dedent(source), "federate.method", "mine")
        assert done.code == 0, done.run.get("error")
        assert len(done.module.seen) == 12


AGGREGATORS = {
    "weights": "def weights(self, agg_info): return super().weights(agg_info)",
    "reset": "def reset(self): self.mine = 1",
    "inc": "def inc(self, by=1): self.count = by",
    "aggregate": "def aggregate(self, agg_info): return super().aggregate(dict(agg_info))",
}


class TestAggregators:
    @pytest.mark.parametrize("name", AGGREGATORS)
    def test_a_method_of_its_own(self, outside: Any, name: str) -> None:
        source = f"""
        class Mine(ClientsAvgAggregator):
            {AGGREGATORS[name]}

        register_aggregator("mine", lambda method, model=None, device=None, config=None:
                            Mine(model, device, config) if method == "mine" else None)
        """
        done = outside(WORKERS + dedent(source), "federate.method", "mine")
        assert done.code == 0, done.run.get("error")
        assert done.metrics == outside("").metrics
        weights = [e["weights"] for e in done.of("round")]
        assert weights == [e["weights"] for e in outside("").of("round")]

    def test_one_that_is_replaced_on_the_object(self, outside: Any) -> None:
        source = """
        class Mine(Server):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                whole = ClientsAvgAggregator(self.model, self.device, self._cfg)

                def aggregate(agg_info):
                    seen.append(len(agg_info["client_feedback"]))
                    return whole.aggregate(agg_info)

                self.aggregator.aggregate = aggregate
        use(Mine)
        """
        done = outside(WORKERS + dedent(source), "federate.method", "mine")
        assert done.code == 0, done.run.get("error")
        assert (done.module.seen, done.metrics) == ([3, 3], outside("").metrics)

    @pytest.mark.parametrize("rule", ["krum", "bulyan"])
    def test_recorded_weights_are_those_of_the_chosen(self, rig: Any, rule: str) -> None:
        events: list[Any] = []

        class Watch:
            def on_round(self, event: dict[str, Any]) -> None:
                events.append(event)

        runner = rig.runner("federate.method", "FedAvg", "aggregator.robust_rule", rule,
                            "federate.client_num", 7, "federate.total_round_num", 1,
                            "data.splitter", "iid", "aggregator.byzantine_node_num", 1,
                            callbacks=(Watch(),))  # fmt: skip
        runner.run()
        weights = runner.server.aggregator.weights()
        recorded = {int(client): share for client, share in events[0]["weights"].items()}
        assert recorded == weights
        assert sum(share > 0 for share in weights.values()) == (1 if rule == "krum" else 5)


@pytest.mark.parametrize(
    ("name", "calls"), [("_run_batch", 1), ("_run_epoch", 1), ("_run_routine", 1)]
)
def test_trainers_that_override_a_part_of_the_routine(outside: Any, name: str, calls: int) -> None:
    source = f"""
    class Mine(GeneralTorchTrainer):
        def {name}(self, *args, **kwargs):
            seen.append(self.ctx.cur_mode)
            return super().{name}(*args, **kwargs)

    register_trainer("mine", lambda kind: Mine if kind == "mine" else None)
    """
    done = outside(WORKERS + dedent(source), "trainer.type", "mine")
    assert done.code == 0, done.run.get("error")
    assert len(done.module.seen) >= calls * 12
    assert done.metrics == outside("").metrics

"""Modules written by outsiders in the contract's form: registered, named in `extensions`, run."""

from __future__ import annotations

import importlib
import itertools
import sys
import types
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch

from federatedscope.core import extensions as extension_loader
from federatedscope.core.extensions import contrib_modules

# Rows, a model and nothing of Hugging Face: what a first extension brings.
WORLD = """
import torch
from federatedscope.core.data import ClientData
from federatedscope.register import register_data, register_model


def rows(count, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 6, generator=generator)
    return [(row, (row.sum() > 0).long()) for row in x]


def toy_rows(config, client_cfgs=None):
    if config.data.type != "toyrows":
        return None
    data = {0: ClientData(config, train=rows(8, 0), val=rows(10, 90), test=rows(10, 91))}
    for client in range(1, 4):
        data[client] = ClientData(
            config, train=rows(10 * client, client), val=rows(8, 10 + client), test=rows(8, 20)
        )
    config.merge_from_list(["federate.client_num", 3])
    return data, config


class ToyNet(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = torch.nn.Linear(width, 8)
        self.norm = torch.nn.BatchNorm1d(8)
        self.head = torch.nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.norm(self.body(x)).tanh())


def toy_net(model_config, input_shape):
    if model_config.type == "toynet":
        return ToyNet(input_shape[0])


register_data("toyrows", toy_rows)
register_model("toynet", toy_net)
"""
TOY = (
    "data.type", "toyrows", "model.type", "toynet", "trainer.type", "general",
    "federate.client_num", 0, "data.splitter", "", "llm.adapter.use", False,
    "federate.method", "FedAvg", "eval.metrics", "['acc']",
    "eval.best_res_update_round_wise_key", "val_acc", "train.optimizer.type", "SGD",
    "train.optimizer.lr", 0.1,
)  # fmt: skip
_names = (f"outsider_{i}" for i in itertools.count())


@pytest.fixture
def outside(rig: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: None) -> Any:
    """``outside(source, options)``: a run with a module of that source among the extensions."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(source: str, *options: Any, world: bool = True, **keywords: Any) -> Any:
        name = next(_names)
        (tmp_path / f"{name}.py").write_text((WORLD if world else "") + dedent(source))
        base = TOY if world else ()
        done = rig(*base, "extensions", f"['federatedscope_ext', '{name}']", *options, **keywords)
        done.module = sys.modules.get(name)
        return done

    return run


class TestDataAndModel:
    def test_a_world_of_ones_own(self, outside: Any) -> None:
        done = outside("")
        assert done.code == 0
        assert [c["rows"]["train"] for c in done.run["clients"]] == [10, 20, 30]
        assert done.run["task_type"] == "OTHER"
        # Body, norm and head with the norm's buffers travel.
        assert done.run["parameters"]["trainable"] == 6 * 8 + 8 + 16 + 16 + 2
        assert done.of("round")[0]["weights"] == pytest.approx({"1": 1 / 6, "2": 2 / 6, "3": 3 / 6})
        assert done.of("eval")[0]["metrics"]["val_total"] == 8

    def test_it_learns(self, outside: Any) -> None:
        done = outside(
            "", "federate.total_round_num", 6, "train.batch_or_epoch", "epoch",
            "eval.split", "['val', 'test']",
        )  # fmt: skip
        means = [line["Results_avg"]["test_acc"] for line in done.lines[:-1]]
        assert means[-1] > 0.75
        assert means[-1] > means[0]

    def test_at_the_server(self, outside: Any) -> None:
        done = outside("", "federate.make_global_eval", True)
        assert [e["metrics"]["val_total"] for e in done.of("eval", client=0)] == [10, 10]

    def test_parts_can_stay_local(self, outside: Any, mail: list[Any]) -> None:
        done = outside("", "personalization.local_param", "['head', 'norm']")
        assert done.code == 0
        assert {n for m in mail for n in m.tensors} == {"body.weight", "body.bias"}

    def test_a_local_part_that_is_not_there(self, outside: Any, capsys: Any) -> None:
        done = outside("", "personalization.local_param", "['haed']")
        assert done.code == 2
        assert "'head'" in capsys.readouterr().err
        assert not done.outdir.exists()

    def test_the_translator_of_the_contract(self, outside: Any) -> None:
        """One set of rows, spread by a splitter."""
        done = outside(
            """
            from federatedscope.core.data import BaseDataTranslator

            def one_set(config, client_cfgs=None):
                if config.data.type == "oneset":
                    return BaseDataTranslator(config, client_cfgs)(rows(100, 1)), config

            register_data("oneset", one_set)
            """,
            "data.type", "oneset", "data.splitter", "iid", "federate.client_num", 4,
            "data.splits", "[0.8, 0.1, 0.1]",
        )  # fmt: skip
        assert done.code == 0
        rows = [tuple(c["rows"].values()) for c in done.run["clients"]]
        assert rows == [(20, 3, 3), (20, 3, 3), (20, 2, 2), (20, 2, 2)]

    def test_clients_by_number(self, outside: Any) -> None:
        done = outside(
            """
            from federatedscope.core.data import DummyDataTranslator

            def shards(config, client_cfgs=None):
                if config.data.type != "shards":
                    return
                data = {k: {"train": rows(12, k), "val": rows(6, k)} for k in (1, 2)}
                config.merge_from_list(["federate.client_num", len(data)])
                return DummyDataTranslator(config, client_cfgs)(data), config

            register_data("shards", shards)
            """,
            "data.type", "shards",
        )  # fmt: skip
        assert done.code == 0
        assert [c["rows"]["train"] for c in done.run["clients"]] == [12, 12]


class TestTrainers:
    def test_a_subclass_with_its_own_steps(self, outside: Any) -> None:
        done = outside(
            """
            from federatedscope.core.trainers import GeneralTorchTrainer
            from federatedscope.core.trainers.context import CtxVar
            from federatedscope.core.trainers.enums import LIFECYCLE, MODE
            from federatedscope.register import register_trainer

            calls = []


            class Mine(GeneralTorchTrainer):
                def __init__(self, model, data, device, config, only_for_eval=False, monitor=None):
                    super().__init__(model, data, device, config, only_for_eval, monitor)
                    self.register_hook_in_train(self._note, "on_batch_end")
                    self.register_hook_in_eval(self._note, "on_fit_start", insert_pos=0)

                def _note(self, ctx):
                    calls.append((ctx.cur_mode, ctx.cur_split))

                def _hook_on_batch_forward(self, ctx):
                    x, y = [part.to(ctx.device) for part in ctx.data_batch]
                    scores = ctx.model(x)
                    ctx.y_true = CtxVar(y, LIFECYCLE.BATCH)
                    ctx.y_prob = CtxVar(scores, LIFECYCLE.BATCH)
                    ctx.loss_batch = CtxVar(2 * ctx.criterion(scores, y), LIFECYCLE.BATCH)
                    ctx.batch_size = CtxVar(len(y), LIFECYCLE.BATCH)

                def _hook_on_fit_end(self, ctx):
                    super()._hook_on_fit_end(ctx)
                    if ctx.cur_mode != MODE.TRAIN:
                        ctx.eval_metrics = {**ctx.eval_metrics, f"{ctx.cur_split}_mine": 0.25}


            register_trainer("mine", lambda kind: Mine if kind == "mine" else None)
            """,
            "trainer.type", "mine",
        )  # fmt: skip
        assert done.code == 0
        assert all(e["metrics"]["val_mine"] == 0.25 for e in done.of("eval"))
        assert done.lines[0]["Results_avg"]["val_mine"] == 0.25
        assert done.module.calls.count(("train", "train")) == 2 * 3 * 2
        assert done.module.calls.count(("test", "val")) == 2 * 3
        plain = outside("")
        first, second = (d.of("train", round=1, client=1)[0]["metrics"] for d in (done, plain))
        # Twice the loss on the first batch, another path after it.
        assert 1.4 < first["train_loss"] / second["train_loss"] < 2.4

    @pytest.mark.parametrize("weights", ["rows", "processed"])
    def test_one_written_from_scratch(self, outside: Any, mail: list[Any], weights: str) -> None:
        done = outside(
            """
            from federatedscope.core.trainers import BaseTrainer
            from federatedscope.register import register_trainer


            class Scratch(BaseTrainer):
                def __init__(self, model, data, device, **kwargs):
                    self.model, self.data, self.device = model, data, device
                    self.config = kwargs["config"]
                    self.loss = torch.nn.CrossEntropyLoss()

                def train(self):
                    optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
                    self.model.to(self.device)
                    self.model.train()
                    total = count = 0
                    for x, y in self.data["train"]:
                        loss = self.loss(self.model(x), y)
                        optimizer.zero_grad()
                        loss.backward()
                        optimizer.step()
                        total, count = total + loss.item() * len(y), count + len(y)
                        break
                    metrics = {"loss_total": total, "avg_loss": total / count}
                    return count, self.model.cpu().state_dict(), metrics

                def evaluate(self, target_data_split_name="test"):
                    self.model.eval()
                    total = count = 0
                    with torch.no_grad():
                        for x, y in self.data[target_data_split_name]:
                            total += self.loss(self.model(x), y).item() * len(y)
                            count += len(y)
                    split = target_data_split_name
                    return {
                        f"{split}_loss": total,
                        f"{split}_total": count,
                        f"{split}_avg_loss": total / count,
                    }

                def update(self, model_parameters, strict=False):
                    self.model.load_state_dict(model_parameters, strict)

                def get_model_para(self):
                    return self.model.cpu().state_dict()


            register_trainer("scratch", lambda kind: Scratch if kind == "scratch" else None)
            """,
            "trainer.type", "scratch", "eval.metrics", "[]", "aggregator.weights", weights,
            "eval.best_res_update_round_wise_key", "val_avg_loss", "train.optimizer.lr", 0.1,
            "federate.total_round_num", 4,
        )  # fmt: skip
        assert done.code == 0
        losses = [line["Results_weighted_avg"]["val_avg_loss"] for line in done.lines[:-1]]
        assert losses[-1] < losses[0]
        expected = {"rows": [1 / 6, 2 / 6, 3 / 6], "processed": [1 / 3] * 3}[weights]
        assert list(done.of("round")[0]["weights"].values()) == pytest.approx(expected)
        sent = next(m for m in mail if m.type == "model_para" and m.sender == 1)
        assert "norm.running_mean" in sent.tensors
        states = {
            m.sender: m.tensors["body.weight"]
            for m in mail
            if m.type == "model_para" and m.sender and m.state == 0
        }
        assert not torch.equal(states[1], states[2])

    def test_a_scratch_trainer_that_replaces_parameters(self, outside: Any, rig: Any) -> None:
        """``param.data = ...`` instead of writing in place: still private, still kept."""
        done = outside(
            """
            from federatedscope.core.trainers import GeneralTorchTrainer
            from federatedscope.register import register_trainer


            class Replaces(GeneralTorchTrainer):
                def train(self, *args, **kwargs):
                    for parameter in self.ctx.model.parameters():
                        parameter.data = parameter.data.clone()
                    return super().train(*args, **kwargs)


            register_trainer("replaces", lambda kind: Replaces if kind == "replaces" else None)
            """,
            "trainer.type", "replaces", "personalization.local_param", "['head', 'norm']",
        )  # fmt: skip
        plain = outside("", "personalization.local_param", "['head', 'norm']")
        assert done.code == 0
        assert done.metrics == plain.metrics


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

    def test_an_evaluation_that_asks_nobody(self, outside: Any) -> None:
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


class TestSmallerKinds:
    def test_a_metric(self, outside: Any) -> None:
        done = outside(
            """
            from federatedscope.register import register_metric


            def lowest(ctx, y_true, y_pred, y_prob, **kwargs):
                assert y_true.shape == y_pred.shape == (ctx.num_samples, 1)
                return float(y_prob.min()) + 0 * ctx.num_train_data


            def build(types):
                if "lowest" in types:
                    return "lowest", lowest, False


            register_metric("lowest", build)
            """,
            "eval.metrics", "['acc', 'lowest']",
            "eval.best_res_update_round_wise_key", "val_lowest",
        )  # fmt: skip
        assert done.code == 0
        assert all("val_lowest" in e["metrics"] for e in done.of("eval"))
        assert done.run["larger_is_better"] is False
        means = [line["Results_weighted_avg"]["val_lowest"] for line in done.lines[:-1]]
        assert done.run["best_round"] == 1 + means.index(min(means))

    def test_a_splitter(self, outside: Any) -> None:
        """Lists of row numbers, as the contract's example gives, for a GLUE task."""
        done = outside(
            """
            from federatedscope.core.splitters import BaseSplitter
            from federatedscope.register import register_splitter


            class Halves(BaseSplitter):
                def __init__(self, client_num, first=0.5, **kwargs):
                    self.first = first
                    super().__init__(client_num, **kwargs)

                def __call__(self, dataset, prior=None, **kwargs):
                    cut = int(len(dataset) * self.first)
                    rest = len(dataset) - cut
                    ends = [cut + rest * i // (self.client_num - 1) for i in range(self.client_num)]
                    return [list(range(a, b)) for a, b in zip([0, *ends], ends)]


            def build(kind, client_num, **kwargs):
                if kind == "halves":
                    return Halves(client_num, **kwargs)


            register_splitter("halves", build)
            """,
            "data.splitter", "halves", "data.splitter_args", "[{'first': 0.75}]", world=False,
        )  # fmt: skip
        assert done.code == 0
        assert [c["rows"]["train"] for c in done.run["clients"]] == [72, 12, 12]
        assert [c["rows"]["val"] for c in done.run["clients"]] == [27, 4, 5]

    def test_loss_optimizer_schedule_and_regularizer(self, outside: Any) -> None:
        done = outside(
            """
            from federatedscope.register import (
                register_criterion, register_optimizer, register_regularizer, register_scheduler)

            asked = {"loss": 0, "optimizer": [], "schedule": [], "penalty": 0}


            def my_loss(type, device):
                def loss(scores, target):
                    asked["loss"] += 1
                    return torch.nn.functional.cross_entropy(scores, target)

                return loss if type == "myloss" else None


            def my_optimizer(model, type, lr, **kwargs):
                if type == "myoptimizer":
                    asked["optimizer"].append((lr, kwargs))
                    return torch.optim.Adam(model.parameters(), lr=lr, **kwargs)


            class Halving:
                def __init__(self, optimizer):
                    self.optimizer = optimizer

                def step(self):
                    for group in self.optimizer.param_groups:
                        group["lr"] /= 2
                    asked["schedule"].append(self.optimizer.param_groups[0]["lr"])


            def my_schedule(optimizer, reg_type, **kwargs):
                return Halving(optimizer) if reg_type == "halving" else None


            class Penalty(torch.nn.Module):
                def forward(self, ctx, **kwargs):
                    asked["penalty"] += 1
                    return sum(p.square().sum() for p in ctx.model.parameters())


            register_criterion("myloss", my_loss)
            register_optimizer("myoptimizer", my_optimizer)
            register_scheduler("halving", my_schedule)
            register_regularizer("mine", lambda type: Penalty if type == "mine" else None)
            """,
            "criterion.type", "myloss", "train.optimizer.type", "myoptimizer",
            "train.optimizer.weight_decay", 0.5, "train.scheduler.type", "halving",
            "regularizer.type", "mine", "regularizer.mu", 0.01,
        )  # fmt: skip
        assert done.code == 0
        asked = done.module.asked
        assert asked["loss"] > 12
        assert asked["penalty"] == 12
        assert (0.1, {"weight_decay": 0.5}) in asked["optimizer"]
        assert asked["schedule"] == pytest.approx([0.05, 0.025] * 6)

    def test_an_aggregator(self, outside: Any, mail: list[Any]) -> None:
        done = outside(
            """
            from federatedscope.core.aggregators import Aggregator
            from federatedscope.register import register_aggregator


            class Coordinatewise(Aggregator):
                def aggregate(self, agg_info):
                    states = [state for _, state in agg_info["client_feedback"]]
                    return {k: torch.stack([s[k].float() for s in states]).amax(0)
                            .to(states[0][k].dtype) for k in states[0]}


            def build(method, model=None, device=None, config=None):
                if method == "largest":
                    return Coordinatewise(model, device, config)


            register_aggregator("largest", build)
            """,
            "federate.method", "Largest",
        )  # fmt: skip
        assert done.code == 0
        (evaluate,) = [m for m in mail if m.type == "evaluate" and m.state == 0]
        sent = [m.tensors for m in mail if m.type == "model_para" and m.sender and m.state == 0]
        for name, tensor in evaluate.tensors.items():
            assert torch.equal(tensor, torch.stack([s[name] for s in sent]).amax(0)), name

    def test_keys_of_ones_own_with_a_check(self, outside: Any, capsys: Any) -> None:
        source = """
        from federatedscope.core.configs.config import CN
        from federatedscope.register import register_config


        def keys(cfg):
            cfg.mine = CN()
            cfg.mine.strength = 0.5
            cfg.register_cfg_check_fun(check)


        def check(cfg):
            if cfg.mine.strength > 1:
                raise ValueError("mine.strength is at most 1")


        register_config("mine", keys)
        """
        done = outside(source, "mine.strength", 0.75)
        assert done.code == 0
        assert "strength: 0.75" in (done.outdir / "config.yaml").read_text()
        assert outside(source, "mine.strenght", 0.75).code == 2
        assert "mine.strength" in capsys.readouterr().err
        assert outside(source, "mine.strength", "much").code == 2
        assert "0.5" in capsys.readouterr().err
        assert outside(source, "mine.strength", 2.0).code == 2
        assert capsys.readouterr().err == "Error: mine.strength is at most 1\n"

    def test_a_callback(self, outside: Any) -> None:
        done = outside(
            """
            from federatedscope.register import register_callback

            seen = []


            class Watch:
                def on_run_start(self, run):
                    seen.append(("start", run["method"]))

                def on_round(self, event):
                    seen.append(("round", event["round"]))

                def on_run_end(self, run, outdir):
                    seen.append(("end", run["status"], outdir))


            register_callback("watch", lambda cfg: Watch())
            """
        )
        assert done.module.seen == [
            ("start", "fedavg"), ("round", 1), ("round", 2), ("end", "finished", str(done.outdir)),
        ]  # fmt: skip

    def test_a_file_dropped_into_contrib(
        self, rig: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: None
    ) -> None:
        package = types.ModuleType("dropped_contrib")
        package.__path__ = [str(tmp_path / "dropped_contrib")]
        monkeypatch.setitem(sys.modules, "dropped_contrib", package)
        monkeypatch.syspath_prepend(str(tmp_path))
        found = lambda: contrib_modules(package)  # noqa: E731
        monkeypatch.setattr(extension_loader, "contrib_modules", found)
        folder = tmp_path / "dropped_contrib" / "trainer"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        (folder / "dropped.py").write_text(
            dedent(
                """
                from federatedscope.core.trainers.torch_trainer import GeneralTorchTrainer
                from federatedscope.register import register_trainer
                from federatedscope_ext.trainers import GlueTrainer

                built = []


                class Dropped(GlueTrainer):
                    def __init__(self, *args, **kwargs):
                        built.append(1)
                        super().__init__(*args, **kwargs)


                def build(trainer_type):
                    if trainer_type == "dropped":
                        return Dropped


                register_trainer("dropped", build)
                """
            )
        )
        done = rig("trainer.type", "dropped")
        assert done.code == 0
        module = importlib.import_module("dropped_contrib.trainer.dropped")
        assert len(module.built) == 3
        assert done.metrics == rig().metrics

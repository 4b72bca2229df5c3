"""Methods end to end: what is trained, sent, averaged and kept, judged by messages and figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from exchanges import hand_over

from federatedscope.core.message import Message, payload_bytes

VERA = "[{'adapter_package': 'peft', 'adapter_method': 'vera', 'r': 8, 'vera_dropout': 0.0}]"
FOUR_OF = ("federate.client_num", 4, "federate.sample_client_num", 2)
RELEASED = (
    "federate.method", "FedAvg", "federate.share_local_model", True,
    "personalization.local_param", "['lora_B', 'classifier']",
)  # fmt: skip
HEAD = "modules_to_save"


def uploads(mail: list[Any], rnd: int) -> dict[int, tuple[float, dict[str, torch.Tensor]]]:
    return {
        m.sender: (m.content[0], m.tensors)
        for m in mail
        if m.type == "model_para" and m.sender and m.state == rnd
    }


def broadcast(mail: list[Any], rnd: int, kind: str = "model_para") -> dict[str, torch.Tensor]:
    (message,) = [m for m in mail if m.type == kind and not m.sender and m.state == rnd]
    return dict(message.tensors)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


WEIGHTS = [
    ("rows", False, lambda rows, processed: rows),
    ("processed", False, lambda rows, processed: processed),
    ("uniform", False, lambda rows, processed: 1),
    ("rows", True, lambda rows, processed: 1),
]


class TestTheMean:
    @pytest.mark.parametrize(("rule", "ignore", "weight_of"), WEIGHTS)
    @pytest.mark.parametrize("sampling", [(), FOUR_OF], ids=["all", "two of four"])
    def test_it_equals_a_float64_oracle_on_the_uploads(
        self, rig: Any, mail: list[Any], rule: str, ignore: bool, weight_of: Any, sampling: Any
    ) -> None:
        done = rig(
            "federate.method", "FedAvg", *sampling, "aggregator.weights", rule,
            "federate.ignore_weight", ignore, "data.splitter_args", "[{'alpha': 1.0}]",
        )  # fmt: skip
        assert done.code == 0
        rows = {c["id"]: c["rows"]["train"] for c in done.run["clients"]}
        assert len(set(rows.values())) > 1
        for rnd in (0, 1):
            sent = uploads(mail, rnd)
            trained = {e["client"]: e["samples"] for e in done.of("train", round=rnd + 1)}
            assert set(sent) == set(trained)
            raw = {k: float(weight_of(rows[k], trained[k])) for k in sent}
            share = {k: w / sum(raw.values()) for k, w in raw.items()}
            result = broadcast(mail, rnd, "evaluate")
            for name, tensor in result.items():
                oracle = sum(share[k] * sent[k][1][name].double() for k in sent)
                np.testing.assert_allclose(tensor.double(), oracle, rtol=3e-7, atol=1e-9)
            (event,) = done.of("round", round=rnd + 1)
            assert event["sampled"] == sorted(sent)
            assert event["weights"] == pytest.approx({str(k): v for k, v in share.items()})

    def test_one_upload_at_a_time_gives_the_same(self, rig: Any, mail: list[Any]) -> None:
        """`federate.online_aggr`: the server keeps one state, not one per client."""
        options = ("federate.method", "FedAvg", "federate.sample_client_num", 2)
        plain, online = rig(*options), rig(*options, "federate.online_aggr", True)
        assert online.code == 0
        assert plain.timeless == online.timeless

    def test_the_summary_announces_these_weights(self, rig: Any) -> None:
        for rule in ("rows", "processed", "uniform"):
            done = rig("aggregator.weights", rule, "federate.total_round_num", 1)
            announced = {str(c["id"]): c["weight"] for c in done.run["clients"]}
            assert announced == pytest.approx(done.of("round")[0]["weights"]), rule

    def test_the_next_round_starts_from_it(self, rig: Any, mail: list[Any]) -> None:
        rig("federate.method", "FedAvg")
        assert same(broadcast(mail, 0, "evaluate"), broadcast(mail, 1))


SENT = [
    # options, what the names of all sent tensors contain
    (("federate.method", "fedsa"), ["lora_A"]),
    (("federate.method", "fedsa", "personalization.head", "shared"), ["lora_A", HEAD]),
    (("federate.method", "FedAvg"), ["lora_A", "lora_B", HEAD]),
    (("federate.method", "FedAvg", "personalization.head", "local"), ["lora_A", "lora_B"]),
    (("federate.method", "ffa"), ["lora_B", HEAD]),
    (("federate.method", "ffa", "personalization.head", "local"), ["lora_B"]),
    (("federate.method", "FedAvg", "federate.freeze_A", True), ["lora_B", HEAD]),
    (RELEASED, ["lora_A"]),
    (("federate.method", "fedsa", "llm.adapter.args", VERA), ["vera_lambda_d"]),
    (("federate.method", "local"), []),
]


@pytest.mark.parametrize(("options", "parts"), SENT, ids=[str(i) for i in range(len(SENT))])
def test_what_is_sent_and_counted(
    rig: Any, mail: list[Any], options: Any, parts: list[str]
) -> None:
    done = rig(*options, "eval.phases", "['before', 'after']")
    assert done.code == 0
    names = {name for message in mail for name in message.tensors}
    assert all(any(part in name for part in parts) for name in names)
    assert all(any(part in name for name in names) for part in parts)
    size = 4 * done.run["parameters"]["sent"]
    assert (size > 0) is bool(parts)
    for message in mail:
        if message.type == "model_para":
            assert payload_bytes(message.content) == size
        elif message.type not in ("evaluate", "finish"):
            assert payload_bytes(message.content) == 0, message.type
    expected = {str(k): size for k in (1, 2, 3)} if parts else {}
    for event in done.of("round"):
        assert event["bytes_up"] == event["bytes_down"] == expected
    assert done.run["bytes_per_round"] == {"up": 3 * size, "down": 3 * size}


class TestFedSA:
    def test_the_released_form_is_the_same_run(self, rig: Any) -> None:
        """FedAvg + local_param + share_local_model gives fedsa's figures to the last bit."""
        ours, released = rig("federate.method", "fedsa"), rig(*RELEASED)
        assert ours.timeless == released.timeless
        assert ours.lines == released.lines
        assert ours.run["head_rule"] == released.run["head_rule"] == "local"

    def test_the_shared_module_carries_B_and_head_from_client_to_client(self, rig: Any) -> None:
        runner = rig.runner(*RELEASED, "federate.shared_module", True)
        runner.run()
        states = [runner.store.state(k) for k in (0, 1, 2, 3)]
        assert all(same(dict(states[0]), dict(s)) for s in states)

    def test_it_differs_from_private_state_where_it_is_documented(self, rig: Any) -> None:
        """The first client trains alike; the next one starts from the first one's B and head."""
        private, shared = rig(*RELEASED), rig(*RELEASED, "federate.shared_module", True)

        def train(done: Any, rnd: int, client: int) -> Any:
            return done.of("train", round=rnd, client=client)[0]["metrics"]

        assert train(private, 1, 1) == train(shared, 1, 1)
        assert train(private, 1, 2) != train(shared, 1, 2)
        assert private.metrics != shared.metrics
        assert any("shared_module" in note for note in shared.run["notes"])
        assert not any("shared_module" in note for note in private.run["notes"])

    def test_every_client_is_evaluated_with_the_last_ones_tensors(
        self, rig: Any, step: Any
    ) -> None:
        runner = rig.runner(*RELEASED, "federate.shared_module", True)
        last: dict[str, torch.Tensor] = {}
        checked = 0
        for message, receiver in step(runner):
            local = {
                n: t.clone() for n, t in runner.store.state(receiver).items() if "lora_A" not in n
            }
            if message.msg_type == "model_para" and receiver > 0:
                last = local
            elif message.msg_type == "evaluate" and receiver > 0:
                checked += 1
                assert same(local, last)
        assert checked == 6

    def test_without_learning_the_switch_changes_nothing(self, rig: Any) -> None:
        still = ("train.optimizer.lr", 0.0)
        private = rig(*RELEASED, *still)
        assert private.metrics == rig(*RELEASED, *still, "federate.shared_module", True).metrics

    def test_with_one_client_the_switch_changes_nothing(self, rig: Any) -> None:
        one = ("federate.client_num", 1, "data.splitter", "iid")
        private = rig(*RELEASED, *one)
        assert private.metrics == rig(*RELEASED, *one, "federate.shared_module", True).metrics

    @pytest.mark.parametrize(("rslora", "name"), [(False, "FedSA-LoRA"), (True, "FedSA-rsLoRA")])
    def test_the_scale(self, rig: Any, rslora: bool, name: str) -> None:
        args = (
            "[{'adapter_package': 'peft', 'adapter_method': 'lora', 'r': 4, 'lora_alpha': 8, "
            f"'use_rslora': {rslora}}}]"
        )
        runner = rig.runner("llm.adapter.args", args)
        layer = next(
            m for n, m in runner.model.named_modules() if n.endswith("attention.self.query")
        )
        scale = 8 / 4**0.5 if rslora else 8 / 4
        assert layer.scaling["default"] == scale
        done = rig("llm.adapter.args", args, "federate.total_round_num", 1)
        assert done.run["adapter"]["scale"] == scale
        assert done.run["variant"] == name

    def test_vera(self, rig: Any, mail: list[Any]) -> None:
        """Only d travels; b and the head stay; the random projections are common and frozen."""
        runner = rig.runner("llm.adapter.args", VERA)
        projections = {n: b.clone() for n, b in runner.model.named_buffers() if "vera_" in n}
        assert projections
        runner.run()
        after = dict(runner.model.named_buffers())
        assert all(torch.equal(after[n], b) for n, b in projections.items())
        assert set(runner.store.names) == {
            n for n, p in runner.model.named_parameters() if p.requires_grad
        }
        b = [n for n in runner.store.names if "vera_lambda_b" in n]
        assert b
        assert not torch.equal(runner.store.state(1)[b[0]], runner.store.state(2)[b[0]])
        assert {"vera_lambda_d" in n for m in mail for n in m.tensors} == {True}


class TestFFA:
    def test_A_is_one_frozen_matrix(self, rig: Any) -> None:
        runner = rig.runner("federate.method", "ffa")
        factors = {n: p for n, p in runner.model.named_parameters() if "lora_A" in n}
        before = {n: p.detach().clone() for n, p in factors.items()}
        assert factors
        assert not any(p.requires_grad for p in factors.values())
        assert not any("lora_A" in name for name in runner.store.names)
        runner.run()
        for client in (0, 1, 2, 3):
            runner.store.activate(client)
            assert all(torch.equal(p, before[n]) for n, p in factors.items())

    def test_freezing_A_under_fedavg_is_the_same_run(self, rig: Any) -> None:
        ffa = rig("federate.method", "ffa")
        frozen = rig("federate.method", "FedAvg", "federate.freeze_A", True)
        assert ffa.timeless == frozen.timeless
        assert ffa.run["parameters"] == frozen.run["parameters"]

    def test_fedavg_differs(self, rig: Any) -> None:
        assert rig("federate.method", "ffa").metrics != rig("federate.method", "FedAvg").metrics


class TestWithoutExchange:
    def test_local_sends_no_tensor(self, rig: Any, mail: list[Any]) -> None:
        done = rig("federate.method", "local")
        assert done.code == 0
        assert sum(payload_bytes(m.content) for m in mail) == 0
        assert done.run["head_rule"] == "local"
        assert done.run["evaluation"]["scope"] == "personal"
        assert [e["weights"] for e in done.of("round")] == [{}, {}]

    def test_local_clients_train_alone(self, rig: Any, step: Any) -> None:
        """What client 2 ends with does not depend on whether there are others."""
        options = ("federate.method", "local", "federate.total_round_num", 2)
        together, alone = rig.runner(*options), rig.runner(*options)
        together.run()
        for state in (0, 1):
            hand_over(alone, Message("model_para", 0, [2], state, {}))
        assert same(dict(together.store.state(2)), dict(alone.store.state(2)))

    def test_global_is_one_client_with_all_rows(self, rig: Any, mail: list[Any]) -> None:
        split = rig("federate.method", "local")
        done = rig("federate.method", "global")
        assert done.code == 0
        (client,) = done.run["clients"]
        for part in ("train", "val"):
            assert client["rows"][part] == sum(c["rows"][part] for c in split.run["clients"])
        assert {e["client"] for e in done.of("train")} == {1}
        assert [e["client"] for e in done.of("eval")] == [1, 1]

    def test_early_stopping_is_each_clients_own(self, rig: Any) -> None:
        done = rig(
            "federate.method", "local", "train.optimizer.lr", 0.0, "early_stop.patience", 1,
            "federate.total_round_num", 4,
        )  # fmt: skip
        # Without learning the second evaluation is no improvement: nobody trains on.
        assert {e["round"] for e in done.of("train")} == {1, 2}
        assert done.run["last_round"] == 4


class TestBaselines:
    def test_fedopt_with_plain_sgd_at_rate_one_is_fedavg(self, rig: Any, mail: list[Any]) -> None:
        rig("federate.method", "FedAvg")
        plain = broadcast(mail, 1, "evaluate")
        mail.clear()
        done = rig("federate.method", "fedopt", "fedopt.optimizer.lr", 1.0)
        assert done.code == 0
        server = broadcast(mail, 1, "evaluate")
        assert all(torch.allclose(server[k], plain[k], atol=1e-6) for k in plain)

    def test_fedopt_with_a_small_rate_hardly_moves(self, rig: Any, mail: list[Any]) -> None:
        rig("federate.method", "fedopt", "fedopt.optimizer.lr", 1e-6)
        start, end = broadcast(mail, 0), broadcast(mail, 1, "evaluate")
        assert all(torch.allclose(start[k], end[k], atol=1e-6) for k in start)
        assert not same(start, end)

    def test_fedprox_pulls_to_the_received_state(self, rig: Any, mail: list[Any]) -> None:
        distances = []
        for mu in (0.0, 20.0):
            mail.clear()
            done = rig(
                "federate.method", "FedAvg", "fedprox.use", True, "fedprox.mu", mu,
                "federate.total_round_num", 1, "train.optimizer.type", "SGD",
                "train.optimizer.lr", 0.02, "train.local_update_steps", 8,
            )  # fmt: skip
            assert done.code == 0
            start, (_, state) = broadcast(mail, 0), uploads(mail, 0)[1]
            distances.append(sum(float((state[k] - start[k]).square().sum()) for k in start) ** 0.5)
        assert 0 < distances[1] < 0.5 * distances[0]

    def test_fedprox_does_not_pull_what_stays_local(self, rig: Any) -> None:
        moved = []
        for mu in (0.0, 20.0):
            runner = rig.runner(
                "federate.method", "fedsa", "fedprox.use", True, "fedprox.mu", mu,
                "train.optimizer.type", "SGD", "train.optimizer.lr", 0.02,
                "train.local_update_steps", 20,
            )  # fmt: skip
            start = runner.server.shared_state()
            first = {k: v.clone() for k, v in runner.store.state(1).items()}
            hand_over(runner, Message("model_para", 0, [1], 0, start))
            distance = {"lora_A": 0.0, "lora_B": 0.0, HEAD: 0.0}
            for name, tensor in runner.store.state(1).items():
                part = next(p for p in distance if p in name)
                distance[part] += float((tensor - first[name]).square().sum())
            moved.append(distance)
        free, held = moved
        assert held["lora_A"] < 0.05 * free["lora_A"]
        assert held["lora_B"] > 0.5 * free["lora_B"]
        assert held[HEAD] > 0.5 * free[HEAD]

    @pytest.mark.parametrize("rule", ["krum", "median", "trimmedmean", "bulyan", "normbounding"])
    def test_a_robust_rule_bounds_an_outlier(
        self, rig: Any, mail: list[Any], rule: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        arguments: tuple[Any, ...] = ("aggregator.byzantine_node_num", 1)
        if rule == "normbounding":
            arguments = ("aggregator.BFT_args.normbounding_norm_bound", 1.0)
        elif rule == "trimmedmean":
            arguments = (*arguments, "aggregator.BFT_args.trimmedmean_excluded_ratio", 0.2)
        honest = _with_an_outlier(rig, mail, monkeypatch, rule, *arguments)
        result = broadcast(mail, 0, "evaluate")
        start = broadcast(mail, 0)
        assert all(bool(torch.isfinite(t).all()) for t in result.values())
        if rule == "normbounding":
            moved = sum(float((result[k] - start[k]).square().sum()) for k in start) ** 0.5
            assert moved <= 1.0 + 1e-5
            return
        for name, tensor in result.items():
            bound = max(float(state[name].abs().max()) for _, state in honest.values())
            assert float(tensor.abs().max()) <= bound + 1e-6

    def test_the_plain_mean_does_not(
        self, rig: Any, mail: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So the test above can fail."""
        honest = _with_an_outlier(rig, mail, monkeypatch, "fedavg")
        result = broadcast(mail, 0, "evaluate")
        name = next(n for n in result if "lora_A" in n)
        bound = max(float(state[name].abs().max()) for _, state in honest.values())
        assert float(result[name].abs().max()) > 10 * bound


def _with_an_outlier(
    rig: Any, mail: list[Any], monkeypatch: pytest.MonkeyPatch, rule: str, *options: Any
) -> dict[int, Any]:
    """One round in which client 1 uploads a thousand times its state; the others' uploads."""
    from federatedscope.core.workers import Client

    real = Client._train

    def scaled(self: Any) -> Any:
        weight, state = real(self)
        return weight, {k: 1000 * v for k, v in state.items()} if self.ID == 1 else state

    monkeypatch.setattr(Client, "_train", scaled)
    done = rig(
        "federate.method", "FedAvg", "federate.client_num", 7, "data.splitter", "iid",
        "aggregator.robust_rule", rule, "federate.total_round_num", 1,
        "train.local_update_steps", 1, *options,
    )  # fmt: skip
    assert done.code == 0
    return {k: v for k, v in uploads(mail, 0).items() if k != 1}

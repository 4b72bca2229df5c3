"""Who gets which rank: lists, mixes, files, single clients, promotion, pruning."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from federatedscope.core.configs.config import apply_registered_configs, global_cfg
from federatedscope.core.errors import is_user_error
from federatedscope_ext.ranks import MIXES, TYPES, Promotion, draw_types, group_of, rank_plan

MODULES = [
    "base_model.model.model.layers.0.self_attn.q_proj",
    "base_model.model.model.layers.0.self_attn.o_proj",
    "base_model.model.model.layers.0.mlp.up_proj",
    "base_model.model.model.layers.0.mlp.down_proj",
]


def config(ranks: Any, clients: int = 4, **promotion: Any) -> Any:
    cfg = global_cfg.clone()
    apply_registered_configs(cfg)
    cfg.federate.client_num = clients
    cfg.llm.adapter.client_ranks = ranks
    for name, value in promotion.items():
        cfg.llm.adapter.promotion[name] = value
    return cfg


@pytest.mark.parametrize(
    ("module", "group"),
    [
        ("model.layers.3.self_attn.q_proj", "attention"),
        ("model.layers.3.self_attn.o_proj", "attention"),
        ("model.layers.3.mlp.gate_proj", "ffn"),
        ("model.layers.3.mlp.down_proj", "ffn"),
        ("roberta.encoder.layer.0.attention.self.query", "attention"),
        ("roberta.encoder.layer.0.attention.output.dense", "attention"),
        ("roberta.encoder.layer.0.intermediate.dense", "ffn"),
        ("roberta.encoder.layer.0.output.dense", "ffn"),
        ("distilbert.transformer.layer.0.attention.v_lin", "attention"),
        ("distilbert.transformer.layer.0.ffn.lin1", "ffn"),
        ("albert.encoder.albert_layer_groups.0.albert_layers.0.attention.dense", "attention"),
        ("albert.encoder.albert_layer_groups.0.albert_layers.0.ffn_output", "ffn"),
        ("transformer.h.0.attn.c_attn", "attention"),
        ("transformer.h.0.mlp.c_fc", "ffn"),
        ("transformer.h.0.mlp.c_proj", "ffn"),
        ("model.decoder.layers.0.fc1", "ffn"),
    ],
)
def test_modules_of_the_usual_architectures_have_their_group(module: str, group: str) -> None:
    assert group_of(f"base_model.model.{module}") == group


def test_a_list_gives_each_client_its_rank() -> None:
    plan = rank_plan(config([4, 4, 8, 64]), MODULES)
    assert [plan.rank_of(k) for k in (1, 2, 3, 4)] == [4, 4, 8, 64]


def test_entries_may_be_types_groups_or_modules() -> None:
    plan = rank_plan(config([{"attention": 8, "ffn": 30}, "type_3", {"q_proj": 2}, 5]), MODULES)
    attention, ffn = MODULES[:2], MODULES[2:]
    assert plan.rank_of(1) == {**dict.fromkeys(attention, 8), **dict.fromkeys(ffn, 30)}
    assert plan.rank_of(2) == {**dict.fromkeys(attention, 30), **dict.fromkeys(ffn, 200)}
    assert plan.rank_of(3) == {MODULES[0]: 2}


def test_the_mixes_are_the_papers() -> None:
    """FlexLoRA's figure, where types 2 and 3 dominate `normal` (the released code slips)."""
    assert MIXES["uniform"] == (0.25, 0.25, 0.25, 0.25)
    assert MIXES["heavy_tail_light"] == (0.80, 0.05, 0.05, 0.10)
    assert MIXES["heavy_tail_strong"] == (0.05, 0.05, 0.10, 0.80)
    assert MIXES["normal"] == (0.0575, 0.4425, 0.4425, 0.0575)
    assert [tuple(t.values()) for t in TYPES.values()] == [
        (8, 8), (30, 30), (30, 200), (200, 200),
    ]  # fmt: skip


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("count", [1, 4, 40, 1613])
def test_a_mix_has_its_shares_to_rounding_in_a_drawn_order(mix: str, count: int) -> None:
    kinds = draw_types(MIXES[mix], count, seed=0)
    assert len(kinds) == count
    numbers = Counter(kinds)
    for kind, share in zip(TYPES, MIXES[mix], strict=True):
        assert abs(numbers[kind] - share * count) < 1
    assert kinds == draw_types(MIXES[mix], count, seed=0)
    if count == 1613:
        assert kinds != draw_types(MIXES[mix], count, seed=1)
        assert kinds != sorted(kinds)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ranks.json", json.dumps([2, 4, 8, 16])),
        ("ranks.yaml", "- 2\n- 4\n- 8\n- 16\n"),
        ("clients.yaml", "client_1: 2\nclient_2: 4\n3: 8\nclient_4: 16\n"),
    ],
)
def test_a_file_gives_the_ranks(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    plan = rank_plan(config(str(tmp_path / name)), MODULES)
    assert [plan.rank_of(k) for k in (1, 2, 3, 4)] == [2, 4, 8, 16]


def test_a_file_may_leave_clients_at_the_rank_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "some.json").write_text('{"client_2": 16}')
    plan = rank_plan(config(str(tmp_path / "some.json")), MODULES)
    assert [plan.rank_of(k) for k in (1, 2, 3, 4)] == [None, 16, None, None]


WRONG = [
    ([4, 8], "2 ranks for 4 clients"),
    ([4, 8, 0, 4], "no rank for client 3"),
    ([4, 8, True, 4], "no rank for client 3"),
    ([4, 8, "much", 4], "no rank for client 3"),
    ([4, 8, {"q_prj": 4}, 4], "no LoRA module is called 'q_prj'"),
    ([4, 8, {"attention": -1}, 4], "no rank for client 3"),
    ([4, 8, 20_000_000_000, 4], "client 3: the rank is too large. Write at most 65536"),
    ([4, 8, 4, {"attention": 4, "ffn": 65537}], "client 4: the rank is too large"),
    ("heavytail", "neither a mix nor a file"),
    ("no/such/file.json", "cannot be read"),
]


@pytest.mark.parametrize(("ranks", "words"), WRONG)
def test_what_cannot_be_meant_is_refused_by_name(ranks: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        rank_plan(config(ranks), MODULES)
    assert is_user_error(caught.value)
    assert str(caught.value).startswith("llm.adapter.client_ranks")


@pytest.mark.parametrize("content", ["{broken", "[1, 2", '{"client_9": 4}', '"text"', "5"])
def test_files_that_say_something_else_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "ranks.json").write_text(content)
    with pytest.raises(ValueError, match=r"llm\.adapter\.client_ranks") as caught:
        rank_plan(config(str(tmp_path / "ranks.json")), MODULES)
    assert is_user_error(caught.value)


TWICE = [
    ("ranks.yaml", "client_1: 4\n1: 8\n", "client 1 is there twice, as client_1 and as 1"),
    ("ranks.json", '{"client_2": 4, "client_02": 8}', "client 2 is there twice"),
    ("ranks.yaml", "client_1: 4\nclient_1: 8\n", "'client_1' is there twice"),
    ("ranks.json", '{"client_1": 4, "client_1": 8}', "'client_1' is there twice"),
    ("ranks.yaml", "client_1: 20000000000\n", "the rank is too large"),
]


@pytest.mark.parametrize(("name", "content", "words"), TWICE)
def test_a_file_gives_a_client_one_rank(
    tmp_path: Path, name: str, content: str, words: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=words) as caught:
        rank_plan(config(str(tmp_path / name)), MODULES)
    assert is_user_error(caught.value)


def test_a_rank_may_be_above_the_sides_of_a_layer() -> None:
    plan = rank_plan(config([65536, 4, 4, 4]), MODULES)
    assert plan.rank_of(1) == 65536


def test_the_rank_of_promoted_clients_has_the_same_bound() -> None:
    with pytest.raises(ValueError, match=r"promotion.rank = 20000000000: out of range") as caught:
        rank_plan(config([4, 4, 4, 4], rank=20_000_000_000), MODULES)
    assert is_user_error(caught.value)


# In runs

LORA = ("llm.adapter.args", "[{'adapter_method': 'lora', 'r': 4, 'lora_alpha': 8}]")


def ranks_of(done: Any) -> list[Any]:
    return [client["rank"] for client in done.run["clients"]]


def scales_of(done: Any) -> list[Any]:
    return [client["scale"] for client in done.run["clients"]]


@pytest.mark.parametrize(
    ("rule", "scales"),
    [
        ("auto", [4.0, 2.0, 0.5]),
        ("alpha", [4.0, 2.0, 0.5]),
        ("proportional", [2.0, 2.0, 2.0]),
        ("rslora", [8 / 2**0.5, 4.0, 2.0]),
    ],
)
def test_the_scale_rule_decides_the_scales(rig: Any, rule: str, scales: list[float]) -> None:
    done = rig(
        *LORA, "federate.method", "flexlora", "llm.adapter.client_ranks", "[2, 4, 16]",
        "llm.adapter.scale_rule", rule, "federate.total_round_num", 1,
    )  # fmt: skip
    assert done.code == 0
    assert ranks_of(done) == [2, 4, 16]
    assert scales_of(done) == pytest.approx(scales)


def test_a_clients_own_arguments_win(rig: Any) -> None:
    """FederatedScope's form: `client_1.llm.adapter.args`."""
    done = rig(
        *LORA, "federate.method", "flexlora", "llm.adapter.client_ranks", "[2, 4, 16]",
        "client_3.llm.adapter.args", "[{'r': 6, 'lora_alpha': 12}]",
        "client_1.llm.adapter.args", "[{'rank_pattern': {'query': 1}}]",
    )  # fmt: skip
    assert done.code == 0
    assert ranks_of(done) == [[1, 4], 4, 6]
    assert scales_of(done) == [[2.0, 8.0], 2.0, 2.0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("[{'r': 4, 'target_modules': ['key']}]", "target_modules is the same for all clients"),
        ("[]", "must be a list of one mapping"),
        ("[{'r': 4}, {'r': 8}]", "must be a list of one mapping"),
    ],
)
def test_what_a_client_cannot_have_of_its_own(
    rig: Any, capsys: Any, settings: str, words: str
) -> None:
    done = rig("federate.method", "flexlora", "client_1.llm.adapter.args", settings)
    assert done.code == 2
    assert words in capsys.readouterr().err


REFUSED = [
    (("federate.method", "FedAvg", "aggregator.robust_rule", "median"), "aggregator.robust_rule"),
    (("federate.method", "fedopt"), "federate.method"),
    (("federate.method", "FedAvg", "fedopt.use", True), "fedopt.use"),
    (("federate.method", "FedAvg", "federate.shared_module", True), "federate.shared_module"),
    (("federate.method", "FedAvg", "llm.adapter.use", False), "llm.adapter.client_ranks"),
    (
        ("federate.method", "flexlora", "llm.adapter.promotion.rank", 8,
         "llm.adapter.promotion.round", 9),
        "llm.adapter.promotion.round",
    ),
    (("federate.method", "flexlora", "aggregator.robust_rule", "krum"), "aggregator.robust_rule"),
    (("federate.method", "flexlora", "fedopt.use", True), "fedopt.use"),
    (("federate.method", "flexlora", "personalization.local_param", "['lora_B']"),
     "personalization.local_param"),
    (("federate.method", "flora", "llm.adapter.args", "[{'adapter_method': 'lora', 'r': 4,"
      " 'use_dora': True}]"), "llm.adapter.args.use_dora"),
    (("federate.method", "zero_pad", "llm.adapter.args", "[{'adapter_method': 'lora', 'r': 4,"
      " 'init_lora_weights': 'pissa'}]"), "llm.adapter.args.init_lora_weights"),
    (("federate.method", "flora", "llm.adapter.args", "[{'adapter_method': 'lora', 'r': 4,"
      " 'init_lora_weights': 'olora'}]"), "llm.adapter.args.init_lora_weights"),
    (("federate.method", "zero_pad", "llm.adapter.args", "[{'adapter_method': 'lora', 'r': 4,"
      " 'lora_bias': True}]"), "llm.adapter.args.lora_bias"),
    (("federate.method", "slora", "llm.adapter.args", "[{'adapter_method': 'lora', 'r': 4,"
      " 'target_modules': ['word_embeddings']}]"), "llm.adapter.args.target_modules"),
    (("federate.method", "flexlora", "llm.adapter.promotion.rank", 8,
      "llm.adapter.promotion.metric", "val_los"), "llm.adapter.promotion.metric"),
    (("federate.method", "flexlora", "llm.adapter.promotion.rank", 8,
      "eval.phases", "['before']"), "llm.adapter.promotion.rank"),
    (("federate.method", "local", "llm.adapter.promotion.rank", 8), "llm.adapter.promotion.rank"),
    (("federate.method", "zero_pad", "llm.adapter.client_ranks", "[{'(': 3}, 4, 8]"),
     "llm.adapter.client_ranks"),
    (("federate.method", "zero_pad", "llm.adapter.client_ranks", "[{'ffn': 3}, 4, 8]"),
     "llm.adapter.client_ranks"),
    (("federate.method", "zero_pad", "client_1.llm.adapter.args",
      "[{'rank_pattern': {'query': 'a'}}]"), "client_1.llm.adapter.args"),
    (("federate.method", "zero_pad", "client_1.llm.adapter.args",
      "[{'rank_pattern': {'foo': 2}}]"), "client_1.llm.adapter.args"),
    (("federate.method", "fedsa", "llm.adapter.client_ranks", "[]", "llm.adapter.promotion.rank", 8,
      "llm.adapter.args", "[{'adapter_method': 'vera', 'r': 8}]"), "llm.adapter.promotion.rank"),
    (("federate.method", "lora_rules"), "federate.method"),
    (("federate.method", "flexlora", "flexlora.dtype", "float16"), "flexlora.dtype"),
    (("federate.method", "hetlora", "hetlora.gamma", 1.5), "hetlora.gamma"),
    (("federate.method", "slora", "slora.rounds", 2), "slora.rounds"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "field"), REFUSED, ids=lambda value: str(value)[:40])
def test_combinations_that_mean_nothing_are_refused_before_work_starts(
    rig: Any, capsys: Any, options: Any, field: str
) -> None:
    done = rig("llm.adapter.client_ranks", "[2, 4, 8]", *options)
    assert done.code == 2
    assert capsys.readouterr().err.replace("\n", " ").startswith(f"Error: {field}")
    assert not done.events


def test_equal_ranks_in_a_list_are_a_run_of_that_rank(rig: Any) -> None:
    listed = rig("federate.method", "FedAvg", "llm.adapter.client_ranks", "[6, 6, 6]")
    plain = rig(
        "federate.method", "FedAvg",
        "llm.adapter.args", "[{'adapter_method': 'lora', 'r': 6, 'lora_alpha': 8}]",
    )  # fmt: skip
    assert ranks_of(listed) == [6, 6, 6]
    assert listed.timeless == plain.timeless


def test_a_clients_memory_is_that_of_its_rank(rig: Any, step: Any) -> None:
    runner = rig.runner(
        "federate.method", "flexlora", "llm.adapter.client_ranks", "[1, 2, 32]",
        "personalization.head", "frozen",
    )  # fmt: skip
    for _ in step(runner):
        pass
    sizes = [runner.store.bytes_of(k) for k in (1, 2, 3)]
    assert sizes[1] == 2 * sizes[0]
    assert sizes[2] == 32 * sizes[0]


class TestPromotion:
    """Byun and Lee: after round 1 the clients of the lowest loss get a higher rank."""

    OPTIONS = (
        *LORA, "federate.method", "replication_pad", "llm.adapter.client_ranks", "[2, 2, 2]",
        "llm.adapter.promotion.rank", 7, "llm.adapter.promotion.share", 0.34,
        "federate.total_round_num", 3, "llm.adapter.scale_rule",
    )  # fmt: skip

    @pytest.mark.parametrize("rule", ["proportional", "alpha"])
    def test_the_applied_update_does_not_change_at_that_moment(
        self, rig: Any, step: Any, rule: str
    ) -> None:
        runner = rig.runner(*self.OPTIONS, rule)
        model = runner.model
        seen = 0
        before: dict[str, torch.Tensor] = {}

        def applied() -> dict[str, torch.Tensor]:
            out = {}
            for name, layer in model.named_modules():
                if hasattr(layer, "lora_A"):
                    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
                    out[name] = (layer.scaling["default"] * (b @ a)).detach().clone()
            return out

        for message, receiver in step(runner):
            if message.msg_type == "adapter_layout" and receiver < 0 and ~receiver > 0:
                runner.store.activate(~receiver)
                before = applied()
            if message.msg_type == "adapter_layout" and receiver > 0:
                after = applied()
                for name in before:
                    torch.testing.assert_close(after[name], before[name], rtol=1e-5, atol=1e-8)
                layer = model.get_submodule(next(iter(before)))
                assert layer.lora_A["default"].weight.shape[0] == 7
                assert not layer.lora_B["default"].weight[:, 2:].any()
                assert layer.lora_A["default"].weight[2:].any(1).all()
                seen += 1
        assert seen == 1

    def test_the_best_is_promoted_once_and_sends_its_new_rank(self, rig: Any) -> None:
        done = rig(*self.OPTIONS, "proportional")
        assert done.code == 0, done.run.get("error")
        losses = {e["client"]: e["metrics"]["val_avg_loss"] for e in done.of("eval", round=1)}
        best = min(losses, key=losses.__getitem__)
        first, second, third = (e["bytes_up"] for e in done.of("round"))
        assert len(set(first.values())) == 1
        for later in (second, third):
            grown = [int(k) for k, size in later.items() if size > first[k]]
            assert grown == [best]

    @pytest.mark.parametrize("rank", [3, 7])
    def test_a_rank_that_promotes_nobody_is_refused(self, rig: Any, capsys: Any, rank: int) -> None:
        ranks = ("llm.adapter.client_ranks", "[7, 7, 9]", "llm.adapter.promotion.rank", rank)
        assert rig(*self.OPTIONS, "proportional", *ranks).code == 2
        told = capsys.readouterr().err
        assert "llm.adapter.promotion.rank" in told and "nobody could be promoted" in told

    @pytest.mark.parametrize(("metric", "best"), [("val_accuracy", 2), ("val_avg_loss", 3)])
    def test_the_best_by_a_metric_are_promoted(self, metric: str, best: int) -> None:
        results = {
            1: {"val_accuracy": 0.5, "val_avg_loss": 0.7},
            2: {"val_accuracy": 0.9, "val_avg_loss": 0.6},
            3: {"val_accuracy": 0.4, "val_avg_loss": 0.5},
        }
        assert Promotion(8, 0.1, 1, metric).chosen(results) == [best]

    def test_nobody_is_demoted(self, rig: Any) -> None:
        done = rig(*self.OPTIONS, "proportional", "llm.adapter.client_ranks", "[2, 6, 9]",
                   "llm.adapter.promotion.rank", 5, "llm.adapter.promotion.share", 1.0)  # fmt: skip
        assert done.code == 0, done.run.get("error")
        first, second, _ = (e["bytes_up"] for e in done.of("round"))
        assert [k for k in first if second[k] != first[k]] == ["1"]
        assert [e.get("rank_changes") for e in done.of("round")] == [None, {"1": [5]}, None]

    def test_a_promoted_client_keeps_its_own_alpha(self, rig: Any, step: Any) -> None:
        settings = {"llm": {"adapter": {"args": [{"r": 2, "lora_alpha": 32}]}}}
        import yaml

        file = rig.tmp_path / "clients.yaml"
        file.write_text(yaml.safe_dump({f"client_{k}": settings for k in (1, 2, 3)}))
        done = rig(*self.OPTIONS, "alpha", "llm.adapter.client_ranks", "[]",
                   "llm.adapter.promotion.share", 1.0, f"--client_cfg={file}")  # fmt: skip
        assert done.code == 0, done.run.get("error")
        assert scales_of(done) == [16.0] * 3
        text = (done.outdir / "exp_print.log").read_text()
        assert "rank [7] from now on" in text


def test_the_released_form_of_fedsa_averages_a_over_owners(rig: Any, mail: Any) -> None:
    released = rig(
        *LORA, "federate.method", "FedAvg", "llm.adapter.client_ranks", "[2, 4, 16]",
        "personalization.local_param", "['lora_B', 'classifier']",
    )  # fmt: skip
    ours = rig(*LORA, "federate.method", "fedsa", "llm.adapter.client_ranks", "[2, 4, 16]")
    assert released.code == ours.code == 0
    assert released.metrics == ours.metrics


def test_a_method_without_a_rule_of_its_own_pads_with_zeros(outside_method: Any) -> None:
    done = outside_method("federate.method", "mine", "llm.adapter.client_ranks", "[2, 4, 8]")
    plain = outside_method("federate.method", "fedavg", "llm.adapter.client_ranks", "[2, 4, 8]")
    assert done.code == 0, done.run.get("error")
    assert done.metrics == plain.metrics


@pytest.fixture
def outside_method(rig: Any, registry: Any) -> Any:
    """Runs with a registered method that has plain workers."""
    from federatedscope.core.workers import Client, Server
    from federatedscope.register import register_worker

    workers = {"client": Client, "server": Server}
    register_worker("mine", lambda method: workers if method == "mine" else None)
    return lambda *options: rig(*LORA, "personalization.head", "shared", *options)


def test_the_page_shows_ranks_diagnostics_and_promotions(rig: Any) -> None:
    done = rig(*TestPromotion.OPTIONS, "proportional", report=True)
    page = (done.outdir / "report.html").read_text()
    assert "<h2>Aggregation</h2>" in page or ">Aggregation<" in page
    assert "Ranks that changed: round 2: client" in page
    assert "Effective rank" in page
    assert (done.outdir / "curves" / "energy.png").stat().st_size > 1000


class TestPruning:
    """HetLoRA's clients shrink their rank when the last rows have come to carry little."""

    OPTIONS = (
        *LORA, "federate.method", "hetlora", "llm.adapter.client_ranks", "[2, 6, 12]",
        "hetlora.gamma", 0.5, "federate.total_round_num", 4,
    )  # fmt: skip

    def sizes(self, done: Any) -> list[dict[str, int]]:
        return [e["bytes_up"] for e in done.of("round")]

    def test_a_strong_penalty_shrinks_the_large_ranks_only(self, rig: Any) -> None:
        done = rig(*self.OPTIONS, "hetlora.regularization", 100.0)
        assert done.code == 0, done.run.get("error")
        first, *_, last = self.sizes(done)
        assert first["1"] == last["1"]
        assert last["3"] < first["3"]

    def test_gamma_one_prunes_nothing(self, rig: Any) -> None:
        done = rig(*self.OPTIONS, "hetlora.regularization", 100.0, "hetlora.gamma", 1.0)
        first, *_, last = self.sizes(done)
        assert first == last

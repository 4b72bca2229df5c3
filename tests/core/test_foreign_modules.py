"""Modules in FederatedScope's own habits: what they may rely on, and what they cannot break."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

VERA = "[{'adapter_package': 'peft', 'adapter_method': 'vera', 'r': 8, 'vera_dropout': 0.0}]"


@pytest.mark.parametrize("value", ["np.float32(0.25)", "torch.tensor(0.25)", "np.array([0.25])"])
def test_a_metric_of_any_scalar_type_is_recorded(outside: Any, value: str) -> None:
    done = outside(
        f"""
        import numpy as np
        from federatedscope.register import register_metric


        def quarter(ctx, **kwargs):
            return {value}


        register_metric("quarter", lambda types: ("quarter", quarter, True)
                        if "quarter" in types else None)
        """,
        "eval.metrics", "['acc', 'quarter']",
        "eval.best_res_update_round_wise_key", "val_quarter",
    )  # fmt: skip
    assert done.code == 0
    assert {event["metrics"]["val_quarter"] for event in done.of("eval")} == {0.25}


def test_a_metric_that_is_no_number_is_named(outside: Any, capsys: Any) -> None:
    done = outside(
        """
        from federatedscope.register import register_metric

        register_metric("two", lambda types: ("two", lambda ctx, **kwargs: {"a": 1}, True)
                        if "two" in types else None)
        """,
        "eval.metrics", "['acc', 'two']",
    )  # fmt: skip
    assert done.code != 0
    assert "The metric" in (shown := capsys.readouterr().err)
    assert "_two is a dict" in shown
    assert "Traceback" not in shown


def test_a_best_key_that_no_evaluation_gives_ends_the_run(outside: Any, capsys: Any) -> None:
    done = outside(
        """
        from federatedscope.core.trainers import GeneralTorchTrainer
        from federatedscope.register import register_trainer


        class Own(GeneralTorchTrainer):
            def _hook_on_fit_end(self, ctx):
                ctx.eval_metrics = {f"{ctx.cur_split}_total": 3}


        register_trainer("own", lambda type: Own if type == "own" else None)
        """,
        "trainer.type", "own",
    )  # fmt: skip
    assert done.code != 0
    assert "eval.best_res_update_round_wise_key = 'val_acc'" in (shown := capsys.readouterr().err)
    assert "val_total" in shown


def test_an_optimizer_that_looks_for_its_own_parameters(rig: Any, outside: Any) -> None:
    """LoRA+ in the field's usual form: B learns faster; an empty group is an error in PyTorch."""
    source = """
    import torch
    from federatedscope.register import register_optimizer, register_scheduler


    def loraplus(model, type, lr, ratio=16.0, **kwargs):
        if type != "loraplus":
            return None
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        fast = [p for n, p in named if "lora_B" in n]
        slow = [p for n, p in named if "lora_B" not in n]
        return torch.optim.AdamW([{"params": slow, "lr": lr}, {"params": fast, "lr": lr * ratio}])


    def two_rates(optimizer, reg_type, **kwargs):
        if reg_type == "two_rates":
            return torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda t: 1.0, lambda t: 0.5])


    register_optimizer("loraplus", loraplus)
    register_scheduler("two_rates", two_rates)
    """
    options = ("train.optimizer.type", "loraplus", "train.scheduler.type", "two_rates")
    assert outside(source, *options, world=False).code == 0
    vera = ("llm.adapter.args", VERA)
    plain = source.replace("optimizer.type", "").replace(
        'fast = [p for n, p in named if "lora_B" in n]', "fast = [named[0][1]]"
    ).replace('slow = [p for n, p in named if "lora_B" not in n]',
              "slow = [p for _, p in named[1:]]")  # fmt: skip
    assert outside(plain, *options, *vera, world=False).code == 0


@pytest.mark.parametrize("method", ["FedAvg", "fedsa"])
def test_workers_that_send_whole_state_dicts_do_not_ship_the_base(
    outside: Any, rig: Any, method: str
) -> None:
    source = """
    from federatedscope.core.message import Message
    from federatedscope.core.workers import Client, Server
    from federatedscope.register import register_trainer
    from federatedscope_ext.trainers import GlueTrainer


    class Everything(GlueTrainer):
        def get_model_para(self):
            return {n: t.detach().clone() for n, t in self.ctx.model.state_dict().items()}


    register_trainer("everything", lambda type: Everything if type == "everything" else None)
    """
    done = outside(source, "trainer.type", "everything", "federate.method", method, world=False)
    assert done.code == 0
    plain = rig("federate.method", method)
    assert plain.code == 0
    sent = [event["bytes_up"] for event in done.of("round")]
    assert sent == [event["bytes_up"] for event in plain.of("round")]
    assert done.metrics == plain.metrics


def test_a_check_with_assert(outside: Any, capsys: Any) -> None:
    source = """
    from federatedscope.core.configs.config import CN
    from federatedscope.register import register_config


    def keys(cfg):
        cfg.mine = CN()
        cfg.mine.alpha = 0.5
        cfg.register_cfg_check_fun(check)


    def check(cfg):
        assert cfg.mine.alpha > 0, "mine.alpha must be positive"


    register_config("mine", keys)
    """
    assert outside(source, "mine.alpha", 0.0).code == 2
    assert capsys.readouterr().err == "Error: mine.alpha must be positive\n"


def test_the_data_know_the_number_of_clients_better(outside: Any, capsys: Any) -> None:
    """The world has three clients; a yaml that says two does not mean to sample two of three."""
    for number in (2, 5):
        done = outside("", "federate.client_num", number, "federate.total_round_num", 3)
        assert done.code == 0
        assert {len(event["sampled"]) for event in done.of("round")} == {3}
        assert "sample_client_num: -1" in (done.outdir / "config.yaml").read_text()
    assert outside("", "client_9.train.optimizer.lr", 0.1).code == 2
    assert "client_1 to client_3" in capsys.readouterr().err


def test_a_checkpoint_folder_is_there_for_a_plain_save(outside: Any) -> None:
    done = outside(
        """
        from federatedscope.core.aggregators import ClientsAvgAggregator
        from federatedscope.register import register_aggregator


        class Saves(ClientsAvgAggregator):
            def save_model(self, path, cur_round=-1):
                torch.save({"cur_round": cur_round, "model": {}}, path)


        register_aggregator("saves", lambda method, model=None, device=None, config=None:
                            Saves(model, device, config) if method == "saves" else None)
        """,
        "federate.method", "saves", "federate.save_to", "x.ckpt",
    )  # fmt: skip
    assert done.code == 0
    assert (done.outdir / "checkpoints" / "final_x.ckpt").is_file()


def test_a_trainer_that_converts_the_model_itself(outside: Any) -> None:
    done = outside(
        """
        from federatedscope.register import register_trainer
        from federatedscope_ext.trainers import GlueTrainer


        class Double(GlueTrainer):
            def _hook_on_fit_start_numerical_precision(self, ctx):
                ctx.model.double()


        register_trainer("double", lambda type: Double if type == "double" else None)
        """,
        "trainer.type", "double", "train.is_enable_half", True, "train.half_dtype", "bf16",
        world=False,
    )  # fmt: skip
    assert done.code == 0
    assert all(event["nonfinite"] == 0 for event in done.of("train"))


def test_a_registered_metric_of_a_language_model(
    outside: Any, rig: Any, tmp_path: Path, tiny_llama: Path
) -> None:
    import json

    rows = [{"instruction": "it was", "input": "", "output": "good"}] * 30
    (tmp_path / "own.json").write_text(json.dumps(rows))
    done = outside(
        """
        import math
        from federatedscope.register import register_metric


        def perplexity(ctx, **kwargs):
            return math.exp(ctx.loss_batch_total / ctx.num_samples)


        register_metric("perplexity", lambda types: ("perplexity", perplexity, False)
                        if "perplexity" in types else None)
        """,
        "data.root", tmp_path, "data.type", "own.json@llm", "trainer.type", "llmtrainer",
        "model.type", f"{tiny_llama}@huggingface_llm", "data.splitter", "iid",
        "data.splitter_args", "[]", "data.splits", "[0.5, 0.5, 0.0]",
        "eval.metrics", "['perplexity']",
        "eval.best_res_update_round_wise_key", "val_perplexity",
        world=False,
    )  # fmt: skip
    assert done.code == 0
    for event in done.of("eval"):
        metrics = event["metrics"]
        assert metrics["val_perplexity"] == pytest.approx(2.718281828 ** metrics["val_avg_loss"])

"""Data of any kind, the server's rows, the options and the device: what is settled at the start."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch.utils.data import DataLoader

from federatedscope.core import machine
from federatedscope.core.auxiliaries.model_builder import input_shape
from federatedscope.core.configs.config import global_cfg
from federatedscope.core.data import ClientData
from federatedscope.core.errors import ConfigError
from federatedscope.core.monitors.progress import print_run_summary
from federatedscope.core.preflight_clients import describe_clients
from federatedscope.core.preflight_options import method_options

LOOSE = """
import numpy as np
from torch.utils.data import DataLoader

SPLITS = ("train", "val", "test")
shapes = []


def loose(config, client_cfgs=None):
    if config.data.type == "loaders":
        data = {
            k: {s: DataLoader(rows(10 * k, k), batch_size=4, shuffle=s == "train") for s in SPLITS}
            for k in (1, 2, 3)
        }
    elif config.data.type == "arrays":
        x = {k: np.random.RandomState(k).randn(10 * k, 6).astype("float32") for k in (1, 2, 3)}
        data = {
            k: {s: {"x": v, "y": torch.from_numpy(v.sum(1) > 0).long()} for s in SPLITS}
            for k, v in x.items()
        }
        if config.data.root == "translated":
            from federatedscope.core.data import DummyDataTranslator

            config.federate.client_num = 3
            return DummyDataTranslator(config, client_cfgs)(data), config
    else:
        return None
    config.federate.client_num = 3
    return data, config


def last_axis(model_config, shape):
    if model_config.type == "lastaxis":
        shapes.append(shape)
        return ToyNet(shape[-1])


register_data("loose", loose)
register_model("lastaxis", last_axis)
"""


class TestLooseData:
    @pytest.mark.parametrize(
        ("kind", "root", "shape"),
        [
            ("loaders", "data", (4, 6)),
            ("arrays", "data", (10, 6)),
            ("arrays", "translated", (10, 6)),
        ],
    )
    def test_it_runs(self, outside: Any, kind: str, root: str, shape: tuple[int, int]) -> None:
        done = outside(LOOSE, "data.type", kind, "data.root", root, "model.type", "lastaxis")
        assert done.code == 0
        assert done.module.shapes == [shape]
        assert [c["rows"]["train"] for c in done.run["clients"]] == [10, 20, 30]
        assert sum(done.run["clients"][0]["labels"]["train"].values()) == 10
        assert done.of("round")[0]["weights"] == pytest.approx({"1": 1 / 6, "2": 2 / 6, "3": 3 / 6})

    def test_arrays_of_all_clients_at_the_server(self, outside: Any) -> None:
        done = outside(
            LOOSE, "data.type", "arrays", "data.root", "translated", "model.type", "lastaxis",
            "federate.merge_test_data", True, "eval.split", "['test']",
            "eval.best_res_update_round_wise_key", "test_acc",
        )  # fmt: skip
        assert done.code == 0
        assert done.of("eval", client=0)[0]["metrics"]["test_total"] == 60

    def test_shapes(self) -> None:
        pairs = [(torch.ones(3, 5), i) for i in range(4)]
        several = [([torch.ones(2), torch.ones(7)], 0)] * 4
        assert input_shape(ClientData(global_cfg, train=pairs)) == (3, 5)
        assert input_shape({"train": pairs}) == (3, 5)
        assert input_shape({"train": DataLoader(pairs, batch_size=2)}) == (2, 3, 5)
        assert input_shape({"train": DataLoader(several, batch_size=4)}) == (4, 2)
        assert input_shape({"train": {"x": np.ones((9, 3)), "y": np.ones(9)}}) == (9, 3)
        assert input_shape({"train": {"x": [1.0, 2.0], "y": [0, 1]}}) == 1
        test = {"x": np.ones((2, 3)), "y": np.ones(2)}
        assert input_shape({"train": pairs, "test": test}) == (2, 3)
        for nothing in (None, {}, {"train": None}, {"train": []}, ClientData(global_cfg)):
            assert input_shape(nothing) is None
        assert input_shape({"train": [{"input_ids": torch.ones(3)}]}) is None

    def test_looking_at_a_loader_moves_no_random_numbers(self) -> None:
        own = torch.Generator().manual_seed(3)
        pairs = [(torch.ones(2), i) for i in range(8)]
        for generator in (None, own):
            before = torch.get_rng_state(), own.get_state()
            assert input_shape({"train": DataLoader(pairs, 2, shuffle=True, generator=generator)})
            assert torch.equal(torch.get_rng_state(), before[0])
            assert torch.equal(own.get_state(), before[1])

    def test_arrays_of_whole_numbers_have_labels(self) -> None:
        cfg = global_cfg.clone()
        cfg.llm.adapter.use, cfg.data.num_labels = False, 2
        data = {1: {"train": {"x": np.ones((4, 2)), "y": np.array([0, 1, 1, 1])}}}
        (client,) = describe_clients(cfg, data)
        assert client.rows == {"train": 4, "val": 0, "test": 0}
        assert client.labels == {"train": {"0": 1, "1": 3}}


class TestTheServersRows:
    SERVERLESS = """
    from federatedscope.core.data import DummyDataTranslator


    def serverless(config, client_cfgs=None):
        if config.data.type == "serverless":
            data = {k: {s: rows(8, k) for s in ("train", "val", "test")} for k in (1, 2)}
            config.federate.client_num = 2
            return DummyDataTranslator(config, client_cfgs)(data), config


    register_data("serverless", serverless)
    """

    def test_none_to_evaluate_on(self, outside: Any, capsys: Any) -> None:
        options = ("data.type", "serverless", "federate.make_global_eval", True)
        done = outside(self.SERVERLESS, *options)
        assert done.code == 2
        error = capsys.readouterr().err
        assert error.startswith("Error: federate.make_global_eval = True")
        assert "federate.merge_test_data: True" in error and "make_global_eval: False" in error
        assert not done.outdir.exists()

    def test_the_remedies_work(self, outside: Any) -> None:
        asked = ("data.type", "serverless", "eval.split", "['test']")
        key = ("eval.best_res_update_round_wise_key", "test_acc")
        done = outside(self.SERVERLESS, *asked, *key, "federate.merge_test_data", True)
        assert done.code == 0
        assert done.of("eval", client=0)[0]["metrics"]["test_total"] == 16
        assert outside(self.SERVERLESS, *asked, *key).code == 0


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ((), {}),
            (("federate.method", "ffa"), {}),
            (("federate.method", "fedopt"), {}),
            (("federate.method", "FedAvg", "federate.freeze_A", True), {"freeze_A": True}),
            (
                ("fedopt.use", True, "fedopt.optimizer.lr", 0.5),
                {"fedopt": {"optimizer": "SGD", "lr": 0.5}},
            ),
            (("fedprox.use", True, "fedprox.mu", 0.1), {"fedprox": {"mu": 0.1}}),
            (
                ("federate.method", "FedAvg", "aggregator.robust_rule", "median"),
                {"robust_rule": "median"},
            ),
            (
                ("finetune.before_eval", True, "federate.shared_module", True),
                {"finetune": True, "shared_module": True},
            ),
        ],
    )
    def test_what_the_method_does_not_tell(self, rig: Any, options: Any, expected: Any) -> None:
        assert rig.prepared(*options).run["options"] == expected

    def test_a_method_that_only_asks_for_a_switch(
        self, outside: Any, rig: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(cfg: Any) -> Any:
            raise ConfigError("fedprox.use", False, "it is needed", "Write True")

        cfg = rig.prepared("fedprox.use", True, "fedprox.mu", 0.1).cfg
        monkeypatch.setattr("federatedscope.core.preflight_options.settled", refuse)
        assert method_options(cfg) == {"fedprox": {"mu": 0.1}}

    def test_they_are_shown_and_kept(self, rig: Any) -> None:
        done = rig("fedprox.use", True, "fedprox.mu", 0.1)
        assert done.run["options"] == {"fedprox": {"mu": 0.1}}
        console = Console(file=io.StringIO(), width=200)
        print_run_summary(done.run, console)
        (line,) = [li for li in console.file.getvalue().splitlines() if "fedprox" in li]  # type: ignore[attr-defined]
        assert "mu" in line and "0.1" in line


class TestHelp:
    KEYS = (
        "from federatedscope.core.configs.config import CN\n"
        "from federatedscope.register import register_config\n"
        "def keys(cfg):\n"
        "    cfg.{0} = CN()\n"
        "    cfg.{0}.strength = 0.5\n"
        "register_config('{0}', keys)\n"
    )

    @pytest.mark.parametrize("where", ["line", "file", "both"])
    def test_sections_of_extensions(
        self, rig: Any, tmp_path: Path, monkeypatch: Any, registry: None, capsys: Any, where: str
    ) -> None:
        monkeypatch.syspath_prepend(str(tmp_path))
        name = f"helped_{where}"
        (tmp_path / f"{name}.py").write_text(self.KEYS.format(name))
        yaml = tmp_path / "own.yaml"
        # The command line wins over the file, whose module does not exist then.
        yaml.write_text(f"extensions: ['{name if where == 'file' else 'no_such_module'}']\n")
        line = ["extensions", f"['{name}']"] if where != "file" else []
        file = ["--cfg", str(yaml)] if where != "line" else []
        assert rig.main("--help", name, *file, *line) == 0
        assert f"{name}.strength = 0.5" in capsys.readouterr().out


class TestTheDevice:
    @pytest.fixture
    def gpus(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        def there(count: int, **keys: Any) -> Any:
            monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
            monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
            cfg = global_cfg.clone()
            cfg.use_gpu = "auto"
            for key, value in keys.items():
                cfg[key] = value
            return cfg

        # Lines of the project do not reach the root logger once a run has set its own up.
        monkeypatch.setattr(logging.getLogger("federatedscope"), "propagate", True)
        return there

    def test_a_named_one_without_any(self, gpus: Any, caplog: Any) -> None:
        assert machine.choose_device(gpus(0, device=3)) == "cpu"
        assert "device 3" in caplog.text and "CPU" in caplog.text

    def test_none_named(self, gpus: Any, caplog: Any) -> None:
        assert machine.choose_device(gpus(0)) == "cpu"
        assert machine.choose_device(gpus(0, device=3, use_gpu=False)) == "cpu"
        assert not caplog.records

    @pytest.mark.parametrize("key", ["device", "eval_device"])
    def test_an_index_too_high(self, gpus: Any, key: str) -> None:
        with pytest.raises(ConfigError, match=rf"^{key} = 1: this machine has 1 CUDA"):
            machine.choose_device(gpus(1, **{key: 1}))

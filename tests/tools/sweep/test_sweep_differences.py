"""When a finished run is the one that is wanted."""

from __future__ import annotations

import math
from pathlib import Path

from federatedscope.core.cmd_args import parse_args
from federatedscope.core.configs.loading import build_config, check_run
from federatedscope_ext.tools.sweep.differences import config_differences, merged_settings

YAML = str(Path(__file__).resolve().parents[3] / "yamls" / "minilm.yaml")


def test_settings_count_and_places_do_not() -> None:
    wanted = {"seed": 1, "train.lr": 0.1, "train.opt": [1, {"a": 2}], "outdir": "x",
              "wandb.use": False, "device": 1}  # fmt: skip
    found = {"seed": 1, "train.lr": 0.1, "train.opt": (1, {"a": 2.0}), "outdir": "y",
             "wandb.use": True, "device": -1}  # fmt: skip
    assert config_differences(wanted, found) == []
    del found["train.opt"]
    found |= {"train.lr": 0.2, "train.old": 3}
    assert config_differences(wanted, found) == [
        "train.lr: 0.2 there, 0.1 here",
        "train.old: 3 there, not there here",
        "train.opt: not there there, [1, {'a': 2}] here",
    ]


def test_a_flag_is_no_number_and_nan_is_nan() -> None:
    assert config_differences({"a": True}, {"a": 1})
    assert not config_differences({"a": math.nan}, {"a": math.nan})
    assert config_differences({"a": [1, 2]}, {"a": [1]})


def test_the_miniature_may_have_moved() -> None:
    def embedded(cache: str, model: str) -> dict[str, object]:
        swap = {"field": "model.type", "was": model, "now": cache, "why": "x"}
        return {"embedded.use": True, "embedded.swaps": [swap], "model.type": cache}

    assert not config_differences(embedded("/a/m", "bert"), embedded("/b/m", "bert"))
    assert config_differences(embedded("/a/m", "bert"), embedded("/a/m", "llama"))


def test_clients_count_with_what_is_their_own(tmp_path: Path) -> None:
    file = tmp_path / "clients.yaml"
    file.write_text("client_2:\nclient_3.train.local_update_steps: 1\n")
    words = ["train.local_update_steps", "1", "client_1.train.optimizer.lr", "7"]
    settings = build_config(parse_args(["--cfg", YAML, "--client_cfg", str(file), *words]))
    check_run(settings)
    merged = merged_settings(settings)
    assert merged["client_1.train.optimizer.lr"] == 7
    assert {key.split(".")[0] for key in merged if key.startswith("client_")} == {"client_1"}
    assert merged["train.local_update_steps"] == 1

"""When a finished run is the one that is wanted."""

from __future__ import annotations

import math
from pathlib import Path

from federatedscope_ext.sweep.differences import config_differences, named_clients


def test_settings_count_and_places_do_not() -> None:
    wanted = {"seed": 1, "train": {"lr": 0.1, "opt": [1, {"a": 2}]}, "outdir": "x",
              "wandb": {"use": False}, "device": 1}  # fmt: skip
    found = {"seed": 1, "train": {"lr": 0.1, "opt": (1, {"a": 2.0})}, "outdir": "y",
             "wandb": {"use": True}, "device": -1}  # fmt: skip
    assert config_differences(wanted, found) == []
    found["train"] = {"lr": 0.2, "old": 3}
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
        return {"embedded": {"use": True, "swaps": [swap]}, "model": {"type": cache}}

    assert not config_differences(embedded("/a/m", "bert"), embedded("/b/m", "bert"))
    assert config_differences(embedded("/a/m", "bert"), embedded("/a/m", "llama"))


def test_clients_with_settings_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "clients.yaml"
    file.write_text("client_10:\n  train:\n    lr: 1\nclient_2:\n  a: 1\nclient_3:\n")
    pairs = [("client_2.a", "2"), ("seed", "3"), ("client_1.a.b", "x")]
    assert named_clients(file, pairs) == ["client_10", "client_2", "client_1"]
    assert named_clients(None) == []
    file.write_text("client_2:\nclient_3.a:\nclient_1.a.b: [1]\nclient_2.a: 1\nclient_4: {}")
    assert named_clients(file) == ["client_2", "client_3", "client_1"]
    file.write_text("[")
    assert named_clients(file) == named_clients(tmp_path / "none.yaml") == []

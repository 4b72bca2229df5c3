"""The configuration tree: declaration, conversion, merging, copies."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from federatedscope import register
from federatedscope.core.configs.config import (
    CN,
    CfgNode,
    apply_registered_configs,
    global_cfg,
    init_global_cfg,
    write_config,
)
from federatedscope.core.configs.reference import configuration_reference
from federatedscope.core.configs.yacs_config import Argument
from federatedscope.core.errors import ConfigError, UserError


@pytest.fixture
def cfg() -> CN:
    return global_cfg.clone()


@pytest.fixture
def config_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    monkeypatch.setattr(register, "config_dict", {})
    yield register.config_dict


def value(cfg: CN, dotted: str) -> Any:
    node: Any = cfg
    for part in dotted.split("."):
        node = node[part]
    return node


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, item in tree.items():
        if isinstance(item, dict) and item:
            leaves.update(flat(item, f"{prefix}{key}."))
        else:
            leaves[f"{prefix}{key}"] = item
    return leaves


OURS = {
    "eval_device": -1,
    "data.matched": True,
    "data.num_labels": 0,
    "data.label_list": [],
    "data.seed": 12345,
    "federate.freeze_A": False,
    "federate.shared_module": False,
    "federate.client_memory_mb": 4096,
    "train.vera.lr_c": 1e-4,
    "train.max_nonfinite_steps": 10,
    "aggregator.weights": "rows",
    "personalization.head": "auto",
    "eval.phases": ["after"],
    "eval.batch_size": 0,
    "dataloader.group_by_length": False,
    "tensorboard.use": False,
    "embedded.use": False,
    "extensions": ["federatedscope_ext"],
    "model.revision": "",
}


def test_defaults_of_the_project(cfg: CN) -> None:
    assert {key: value(cfg, key) for key in OURS} == OURS


def test_every_upstream_key_has_upstreams_default(cfg: CN) -> None:
    folder = os.environ.get("FEDERATEDSCOPE_TEST_DATA", "")
    path = Path(folder) / "fs_config_defaults.yaml"
    if not folder or not path.exists():
        pytest.skip("FEDERATEDSCOPE_TEST_DATA is not set")
    expected = flat(yaml.safe_load(path.read_text()))
    ours = {key: item for key, _, item in cfg.walk()}
    for key, item in expected.items():
        if item == {}:
            assert isinstance(value(cfg, key), CN)
        else:
            assert (key, ours[key], type(ours[key])) == (key, item, type(item))


def test_every_key_and_section_has_a_description(cfg: CN) -> None:
    assert [key for key, info, _ in cfg.walk() if not info.help.strip()] == []
    sections = [(key, node) for key, node in cfg.items() if isinstance(node, CN)]
    assert [key for key, _ in sections if not cfg.info(key).help] == []
    assert len(sections) > 20


MERGES = [
    # yaml text, key, expected value
    ("train: {optimizer: {lr: 2e-2}}", "train.optimizer.lr", 0.02),
    ("train: {optimizer: {lr: '2e-2'}}", "train.optimizer.lr", 0.02),
    ("train: {optimizer: {lr: 1}}", "train.optimizer.lr", 1.0),
    ("train: {optimizer: {weight_decay: 1e-4}}", "train.optimizer.weight_decay", 1e-4),
    ("train: {optimizer: {betas: [0.9, 0.99]}}", "train.optimizer.betas", [0.9, 0.99]),
    ("train: {scheduler: {total: 10, deep: {a: 1}}}", "train.scheduler.deep.a", 1),
    ("federate: {total_round_num: 3.0}", "federate.total_round_num", 3),
    ("federate: {mode: Standalone}", "federate.mode", "standalone"),
    ("use_gpu: auto", "use_gpu", "auto"),
    ("use_gpu: yes", "use_gpu", True),
    ("expname: 2024-01-02", "expname", "2024-01-02"),
    ("expname: 12", "expname", "12"),
    ("expname:", "expname", ""),
    ("data: {splits: '[0.9, 0.1, 0.0]'}", "data.splits", [0.9, 0.1, 0.0]),
    ("data: {splitter_args: [{alpha: 5e-1}]}", "data.splitter_args", [{"alpha": 0.5}]),
    ("aggregator: {BFT_args: {krum_agg_num: 2}}", "aggregator.BFT_args.krum_agg_num", 2),
    ("eval: {base: 0.5}", "eval.base", 0.5),
    ("attack: {attacker_id: [1, 2]}", "attack.attacker_id", [1, 2]),
    ("llm:", "llm.tok_len", 128),
    ("", "seed", 0),
]


@pytest.mark.parametrize(("text", "key", "expected"), MERGES)
def test_merge_from_file_converts(
    cfg: CN, tmp_path: Path, text: str, key: str, expected: Any
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    cfg.merge_from_file(file)
    result = value(cfg, key)
    assert (result, type(result)) == (expected, type(expected))


LISTS = [
    ("federate.client_num", "3", 3),
    ("use_gpu", "True", True),
    ("use_gpu", "true", True),
    ("use_gpu", "auto", "auto"),
    ("train.optimizer.lr", "1e-3", 1e-3),
    ("train.optimizer.momentum", "0.9", 0.9),
    ("train.optimizer.nesterov", "true", True),
    ("grad.grad_clip", "-1", -1.0),
    ("data.splits", "[0.8,0.1,0.1]", [0.8, 0.1, 0.1]),
    ("data.splits", "(0.8,0.1,0.1)", [0.8, 0.1, 0.1]),
    ("eval.metrics", "[acc, loss]", ["acc", "loss"]),
    ("llm.adapter.args", "[{'r': 8, 'lora_alpha': 16}]", [{"r": 8, "lora_alpha": 16}]),
    ("expname", "0.5", "0.5"),
    ("expname", "'quoted'", "quoted"),
    ("federate.save_to", "llama_30*500.ckpt", "llama_30*500.ckpt"),
    ("data.type", "a: b", "a: b"),
    ("train.optimizer", "{'lr': 0.3}", None),
]


@pytest.mark.parametrize(("key", "text", "expected"), LISTS)
def test_merge_from_list_reads_text(cfg: CN, key: str, text: str, expected: Any) -> None:
    cfg.merge_from_list([key, text])
    if expected is None:
        assert (cfg.train.optimizer.lr, cfg.train.optimizer.type) == (0.3, "SGD")
    else:
        result = value(cfg, key)
        assert (result, type(result)) == (expected, type(expected))


WRONG = [
    # yaml text, field of the error, words in the message
    (
        "federate: {sample_client_nmu: 3}",
        "federate.sample_client_nmu",
        ["federate.sample_client_num", "line 2", "run.yaml"],
    ),
    ("lr: 0.1", "lr", ["train.optimizer.lr"]),
    ("fedrate: {client_num: 3}", "fedrate", ["federate"]),
    ("federate:\n  method: fedavg\n  tok_len: 3", "federate.tok_len", ["llm.tok_len", "line 4"]),
    ("xyzzy: 1", "xyzzy", ["--help", "extensions"]),
    ("federate.client_num: 3", "federate.client_num", ["dots"]),
    ("client_1: {seed: 1}", "client_1", ["--client_cfg"]),
    ("federate: {client_num: three}", "federate.client_num", ["a whole number", "text"]),
    ("federate: {client_num: 2.5}", "federate.client_num", ["a whole number", "a number"]),
    ("federate: {client_num: true}", "federate.client_num", ["a whole number"]),
    ("federate: {client_num: }", "federate.client_num", ["nothing"]),
    ("federate: {online_aggr: 1}", "federate.online_aggr", ["True or False"]),
    ("train: {optimizer: {lr: fast}}", "train.optimizer.lr", ["a number"]),
    ("eval: {metrics: acc}", "eval.metrics", ["a list", "['acc']"]),
    ("federate: 3", "federate", ["section", "federate.method"]),
    ("data: {type: {a: 1}}", "data.type", ["text"]),
    ("use_gpu: maybe", "use_gpu", ["auto"]),
    ("aggregator: {robust_rule: medain}", "aggregator.robust_rule", ["median"]),
]


@pytest.mark.parametrize(("text", "field", "words"), WRONG)
def test_wrong_yaml_is_refused_and_nothing_merged(
    cfg: CN, tmp_path: Path, text: str, field: str, words: list[str]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("seed: 7\n" + text)
    before = cfg.to_dict()
    with pytest.raises(ConfigError) as caught:
        cfg.merge_from_file(file)
    assert caught.value.field == field
    message = str(caught.value)
    assert message.startswith(field)
    assert all(word in message for word in words), message
    assert "\n" not in message
    assert cfg.to_dict() == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1, 2\nb: 3", ["line 2", "not valid yaml"]),
        ("federate:\n\tclient_num: 3", ["line 2"]),
        ("seed: 1\nseed: 2", ["line 2", "twice"]),
        ("- 1\n- 2", ["keys and values"]),
    ],
)
def test_broken_yaml_names_the_line(cfg: CN, tmp_path: Path, text: str, words: list[str]) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        cfg.merge_from_file(file)
    assert all(word in str(caught.value) for word in ["broken.yaml", *words])


def test_missing_file_lists_yamls_nearby(cfg: CN, tmp_path: Path) -> None:
    (tmp_path / "fedsa_mnli.yaml").write_text("seed: 1")
    with pytest.raises(ConfigError, match=r"no such file.*fedsa_mnli\.yaml"):
        cfg.merge_from_file(tmp_path / "fedsa_mnl.yaml")


def test_several_wrong_pairs_change_nothing(cfg: CN) -> None:
    with pytest.raises(ConfigError):
        cfg.merge_from_list(["seed", "5", "federate.client_num", "x"])
    assert cfg.seed == 0
    with pytest.raises(ConfigError, match="has no value"):
        cfg.merge_from_list(["seed", "5", "federate.client_num"])
    cfg.merge_from_list(["seed", "5", "seed", "6"])
    assert cfg.seed == 6


def test_freeze_and_defrost(cfg: CN) -> None:
    cfg.freeze(check_cfg=False)
    assert cfg.is_frozen() and cfg.train.optimizer.is_frozen() and cfg.is_ready_for_run
    for change in (
        lambda: setattr(cfg, "seed", 1),
        lambda: cfg.train.optimizer.__setitem__("lr", 1.0),
        lambda: cfg.train.update(local_update_steps=2),
        lambda: cfg.pop("seed"),
        lambda: cfg.merge_from_list(["seed", "1"]),
    ):
        with pytest.raises(AttributeError, match="frozen"):
            change()
    twin = cfg.clone()
    assert twin.is_frozen()
    twin.defrost()
    twin.seed = 3
    assert (cfg.seed, twin.seed) == (0, 3)


def test_freeze_runs_checks_and_writes_nothing(
    cfg: CN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[int] = []
    extra = CN({"seed": 4})
    extra.register_cfg_check_fun(lambda c: seen.append(c.seed))
    extra.freeze(inform=True, save=True)
    assert seen == [4]
    assert list(tmp_path.iterdir()) == []


def test_copies_are_independent(cfg: CN) -> None:
    twin = cfg.clone()
    twin.train.optimizer.lr = 9.0
    twin.data.splits.append(0.0)
    assert cfg.train.optimizer.lr == 0.1
    assert cfg.data.splits == [0.8, 0.1, 0.1]
    for same in (copy.deepcopy(cfg), copy.copy(cfg)):
        assert same.to_dict() == cfg.to_dict()
        with pytest.raises(ConfigError):
            same.merge_from_list(["seed", "x"])


def test_dump_reads_back_to_the_same_values(cfg: CN, tmp_path: Path) -> None:
    cfg.merge_from_list(["train.optimizer.eps", "1e-8", "expname", "2e-2", "model.revision", "1e5"])
    file = write_config(cfg, tmp_path / "new" / "config.yaml")
    again = global_cfg.clone()
    again.merge_from_file(file)
    assert again.to_dict() == cfg.to_dict()
    assert again.expname == "2e-2"
    assert [p.name for p in file.parent.iterdir()] == ["config.yaml"]
    assert write_config(again, tmp_path / "b.yaml").read_text() == file.read_text()


def test_load_cfg_takes_text_file_and_path(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("client_1: {train: {optimizer: {lr: 1e-3}}}")
    with file.open() as stream:
        trees = [CfgNode.load_cfg(stream), CN.load_cfg(file), CN.load_cfg(str(file))]
    trees.append(CN.load_cfg(file.read_text()))
    for tree in trees:
        assert tree.client_1.train.optimizer.lr == 1e-3
        tree.merge_from_list(["client_2.seed", "4"])
        assert tree.client_2.seed == 4


def test_a_saved_upstream_configuration_loads(cfg: CN) -> None:
    text = "cfg_check_funcs: []\nis_ready_for_run: true\nwandb: {use: false}\nseed: 3"
    cfg.merge_from_other_cfg(yaml.safe_load(text))
    assert cfg.seed == 3 and "is_ready_for_run" not in cfg


def test_attribute_access() -> None:
    node = CN({"a": {"b": 1}}, new_allowed=True)
    assert node.a.b == 1 and node.get("zz") is None and not hasattr(node, "zz")
    node.c = {"d": 2}
    assert node.c.d == 2
    del node.a
    assert "a" not in node
    with pytest.raises(AttributeError):
        del node.a
    closed = CN({"x": {"y": 1}})
    closed.set_new_allowed(True)
    closed.merge_from_other_cfg({"x": {"z": 2}})
    assert closed.x.z == 2 and closed.x.is_new_allowed()


def test_argument_resolves_to_its_value(capsys: pytest.CaptureFixture[str]) -> None:
    node = CN()
    node.lr = Argument(0.1, description="a rate of my own")
    node.name = Argument(None, description="who", required_type=str, required=True)
    assert node.lr == 0.1 and node.info("lr").help == "a rate of my own"
    node.merge_from_list(["lr", "2", "name", "3"])
    assert (node.lr, node.name) == (2.0, "3")
    with pytest.raises(ConfigError):
        node.merge_from_list(["lr", "fast"])
    node.print_help()
    assert "a rate of my own" in capsys.readouterr().out


def test_required_key_without_value_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    node = CN()
    node.name = Argument(None, required=True)
    node.ready_for_run()
    assert "name" in caplog.text


def test_registered_configs_apply_once_per_tree(config_registry: dict[str, Any]) -> None:
    def extend(tree: CN) -> None:
        tree.mine = CN()
        tree.mine.rate = Argument(0.5, description="mine")

    tree = CN()
    init_global_cfg(tree)
    register.register_config("mine", extend)
    apply_registered_configs(tree)
    tree.merge_from_list(["mine.rate", "0.7"])
    apply_registered_configs(tree)
    twin = tree.clone()
    apply_registered_configs(twin)
    assert (tree.mine.rate, twin.mine.rate) == (0.7, 0.7)
    fresh = CN()
    init_global_cfg(fresh)
    assert fresh.mine.rate == 0.5
    assert "mine" not in global_cfg


def test_reference_lists_every_key_once(cfg: CN) -> None:
    text = configuration_reference(cfg)
    here, outside = text.split("## Features outside this project")
    for key, info, default in cfg.walk():
        section, _, name = key.rpartition(".")
        if f"| `{section}` |" in outside:
            (row,) = [line for line in outside.splitlines() if line.startswith(f"| `{section}` |")]
            assert f"`{name}`" in row
        else:
            assert here.count(f"| `{key}` | `{default!r}`") == 1, key
            assert info.help.replace("|", "\\|") in here
    assert "| `vertical` | Vertical federated learning |" in text
    assert all(line.count("|") >= 4 for line in text.splitlines() if line.startswith("|"))


def test_errors_are_user_errors_of_one_paragraph() -> None:
    error = ConfigError("a.b", "x" * 500, "is\nlong", "Write less")
    assert isinstance(error, ValueError) and error.is_user_error
    assert str(error).startswith("a.b = 'xxx") and str(error).endswith("is long. Write less.")
    assert len(str(error)) < 200
    assert str(copy.copy(error)) == str(error)
    assert UserError("plain").is_user_error and str(UserError("plain")) == "plain"

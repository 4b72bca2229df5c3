"""The command line and the way from it to a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from federatedscope import register
from federatedscope.core.cmd_args import CommandLine, check_presets, help_text, parse_args
from federatedscope.core.configs.config import CN, global_cfg
from federatedscope.core.configs.loading import (
    PER_CLIENT,
    build_config,
    check_run,
    client_config,
    load_client_cfgs,
)
from federatedscope.core.errors import ConfigError, UserError

PARSED = [
    ("", {}),
    ("--cfg a.yaml", {"cfg_file": "a.yaml"}),
    ("--cfg=a.yaml --check", {"cfg_file": "a.yaml", "check": True}),
    ("seed 1 --cfg a.yaml federate.client_num 3 --quiet",
     {"cfg_file": "a.yaml", "quiet": True, "opts": ["seed", "1", "federate.client_num", "3"]}),
    ("federate.sample_client_num -1 grad.grad_clip -1e-3",
     {"opts": ["federate.sample_client_num", "-1", "grad.grad_clip", "-1e-3"]}),
    ("seed=1 expname=a=b", {"opts": ["seed", "1", "expname", "a=b"]}),
    ("client_1.dataloader.batch_size 4 seed 2 client_12.seed=3",
     {"opts": ["seed", "2"],
      "client_opts": ["client_1.dataloader.batch_size", "4", "client_12.seed", "3"]}),
    ("--client_cfg c.yaml --outdir out", {"client_cfg_file": "c.yaml", "outdir": "out"}),
    ("--embedded seed 1 --tiny", {"presets": ["embedded", "tiny"], "opts": ["seed", "1"]}),
    ("--help", {"help": "all"}),
    ("--help federate", {"help": "federate"}),
    ("-h --cfg a.yaml", {"help": "all", "cfg_file": "a.yaml"}),
    ("--version", {"version": True}),
    ("--local_rank=2 seed 1", {"local_rank": 2, "opts": ["seed", "1"]}),
    ("--local-rank 2", {"local_rank": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("line", "expected"), PARSED)
def test_parse(line: str, expected: dict[str, Any]) -> None:
    assert parse_args(line.split()) == CommandLine(**expected)


REFUSED = [
    ("federate.client_num", "federate.client_num VALUE"),
    ("seed 1 federate.client_num", "federate.client_num VALUE"),
    ("federate.client_num --check", "federate.client_num VALUE"),
    ("--federate.client_num=3", "Write: federate.client_num 3"),
    ("--federate.client_num 3", "without dashes"),
    ("--seed=3", "Write: seed 3"),
    ("federate.client_num 3 4", "after 'federate.client_num 3'"),
    ("run.yaml seed 1", "--cfg run.yaml"),
    ("--cfg", "--cfg"),
    ("--local_rank x", "invalid int"),
]


@pytest.mark.parametrize(("line", "words"), REFUSED)
def test_wrong_command_lines_say_what_to_write(line: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_args(line.split())
    assert words in str(caught.value)


def test_unknown_flag_and_registered_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(register, "preset_dict", {"embedded": lambda cfg, given: []})
    check_presets(["embedded"])
    with pytest.raises(UserError, match=r"Did you mean --embedded\?"):
        check_presets(["embeded"])
    with pytest.raises(UserError, match=r"Did you mean --check\?"):
        check_presets(["chek"])


def test_help_lists_sections_and_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    def preset(cfg: CN, given: set[str]) -> list[dict[str, Any]]:
        """A small run."""
        return []

    monkeypatch.setattr(register, "preset_dict", {"small": preset})
    overview = help_text(global_cfg)
    for words in ("--client_cfg", "--small", "A small run.", "federate", "personalization"):
        assert words in overview
    section = help_text(global_cfg, "train.optimizer")
    assert section.startswith("train.optimizer.type = 'SGD'") and "train.optimizer.lr" in section
    assert "[auto, shared, local, frozen]" in help_text(global_cfg, "personalization.head")
    with pytest.raises(UserError, match=r"Did you mean federate\?"):
        help_text(global_cfg, "fedrate")


RUN = """
extensions: []
federate: {client_num: 2, total_round_num: 4}
data: {type: 'gsm8k@llm', splitter: iid}
model: {type: 'gpt2@huggingface_llm'}
trainer: {type: llmtrainer}
"""


def test_build_config_merges_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(cfg: CN, given: set[str]) -> list[dict[str, Any]]:
        was = cfg.llm.tok_len
        if "llm.tok_len" not in given:
            cfg.llm.tok_len = 16
        return [{"field": "llm.tok_len", "was": was, "now": 16, "why": "small"}]

    monkeypatch.setattr(register, "preset_dict", {"small": small})
    file = tmp_path / "run.yaml"
    file.write_text(RUN)
    line = f"--cfg {file} --small federate.total_round_num 9 --outdir {tmp_path}/o"
    run = build_config(parse_args(line.split()))
    assert (run.cfg.federate.client_num, run.cfg.federate.total_round_num) == (2, 9)
    assert (run.cfg.llm.tok_len, run.swaps[0]["was"]) == (16, 128)
    assert run.cfg.outdir == f"{tmp_path}/o" and run.cfg.cfg_file == str(file)
    assert {"federate.client_num", "federate.total_round_num", "outdir"} <= run.given
    assert "llm.tok_len" not in run.given
    check_run(run)
    assert run.cfg.federate.sample_client_num == 2
    assert global_cfg.federate.client_num == 0


def test_extensions_come_from_command_line_then_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("extensions: [no_such_extension]")
    with pytest.raises(ConfigError, match="no_such_extension"):
        build_config(parse_args(["--cfg", str(file)]))
    assert build_config(parse_args(["--cfg", str(file), "extensions", "[]"])).cfg.extensions == []
    (tmp_path / "my_extension_abc.py").write_text(
        "from federatedscope.register import register_config\n"
        "def f(cfg):\n    cfg.my_key_abc = 3\n"
        "register_config('my_key_abc', f)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(register, "config_dict", {})
    file.write_text("extensions: [my_extension_abc]\nmy_key_abc: 5")
    assert build_config(parse_args(["--cfg", str(file)])).cfg.my_key_abc == 5


def test_client_settings_are_typed_and_merged(tmp_path: Path) -> None:
    cfg = global_cfg.clone()
    cfg.merge_from_list(["federate.client_num", 2, "train.optimizer.lr", 0.5])
    file = tmp_path / "clients.yaml"
    file.write_text("client_1: {train: {optimizer: {lr: '1e-3', momentum: 0.9}}}\nclient_2: {}")
    opts = ["client_2.dataloader.batch_size", "4", "client_1.train.optimizer.lr", "2"]
    clients = load_client_cfgs(str(file), opts, cfg)
    assert clients is not None
    assert clients.to_dict() == {
        "client_1": {"train": {"optimizer": {"lr": 2.0, "momentum": 0.9}}},
        "client_2": {"dataloader": {"batch_size": 4}},
    }
    cfg.freeze()
    first, second = (client_config(cfg, clients, k) for k in (1, 2))
    assert first.train.optimizer.to_dict() == {"type": "SGD", "lr": 2.0, "momentum": 0.9}
    assert (second.dataloader.batch_size, second.train.optimizer.lr) == (4, 0.5)
    assert first.is_frozen() and cfg.train.optimizer.lr == 0.5
    assert client_config(cfg, None, 1).to_dict() == cfg.to_dict()
    assert load_client_cfgs(None, [], cfg) is None


@pytest.mark.parametrize(
    ("opts", "field"),
    [
        (["client_3.seed", "1"], "client_3"),
        (["client_0.seed", "1"], "client_0"),
        (["client_1.dataloader.batch_sze", "1"], "client_1.dataloader.batch_sze"),
        (["client_1.dataloader.batch_size", "x"], "client_1.dataloader.batch_size"),
        (["client_1.federate.method", "fedsa"], "client_1.federate.method"),
        (["client_1.outdir", "x"], "client_1.outdir"),
    ],
)
def test_wrong_client_settings_name_client_and_key(opts: list[str], field: str) -> None:
    cfg = global_cfg.clone()
    cfg.merge_from_list(["federate.client_num", 2])
    with pytest.raises(ConfigError) as caught:
        load_client_cfgs(None, opts, cfg)
    assert caught.value.field == field


def two_clients() -> CN:
    cfg = global_cfg.clone()
    cfg.merge_from_list(["federate.client_num", 2])
    return cfg


def declared_keys() -> list[tuple[str, Any]]:
    """Keys of the project with their values; those of the adapter have rules of their own."""
    walk = global_cfg.walk()
    return [(k, v) for k, info, v in walk if info.declared and k != "llm.adapter.args"]


@pytest.mark.parametrize(
    "key", ["data.type", "data.root", "data.splits", "data.label_list", "data.batch_size",
            "eval.freq", "eval.split", "eval.max_rows", "model.type", "train.is_enable_half",
            "train.half_dtype", "hpo.num_workers", "verbose", "outdir",
            "finetune.freeze_param", "dataloader.theta", "llm.tok_len", "llm.adapter.client_ranks"],
)  # fmt: skip
def test_keys_that_no_client_reads_for_itself(key: str, tmp_path: Path) -> None:
    """They were taken without a word, and did nothing."""
    value = dict(declared_keys())[key]
    file = tmp_path / "clients.yaml"
    file.write_text(f"client_2.{key}: {value!r}")
    for path, opts in ((None, [f"client_2.{key}", value]), (str(file), [])):
        with pytest.raises(ConfigError, match="would not be read") as caught:
            load_client_cfgs(path, opts, two_clients())
        assert caught.value.field == f"client_2.{key}"
        assert all(name in caught.value.remedy for name in PER_CLIENT)


def test_only_the_table_says_what_clients_may_have() -> None:
    """Every key of the project is either in the table or refused."""
    taken = set()
    for key, value in declared_keys():
        try:
            load_client_cfgs(None, [f"client_1.{key}", value], two_clients())
            taken.add(key)
        except ConfigError as error:
            assert "would not be read" in error.problem
    sections = {name for name in PER_CLIENT if any(key.startswith(f"{name}.") for key in taken)}
    listed = {key for key in taken if any(key.startswith(f"{name}.") for name in sections)}
    assert {*PER_CLIENT} - sections - taken == {"llm.adapter.args"}
    assert not taken - listed - {*PER_CLIENT}
    assert not any(key.startswith(("data.", "federate.", "model.", "llm.")) for key in taken)


def test_an_outsiders_key_may_be_a_clients() -> None:
    cfg = two_clients()
    cfg.mine = CN()
    cfg.mine.strength = 1.0
    assert load_client_cfgs(None, ["client_1.mine.strength", "2"], cfg) is not None
    cfg.mine.describe("strength", "Described, and read by the server.")
    with pytest.raises(ConfigError, match="would not be read"):
        load_client_cfgs(None, ["client_1.mine.strength", "2"], cfg)
    cfg.mine.describe("strength", "Read by clients.", of_client=True)
    assert load_client_cfgs(None, ["client_1.mine.strength", "2"], cfg) is not None


def test_client_file_of_another_kind(tmp_path: Path) -> None:
    file = tmp_path / "clients.yaml"
    file.write_text("client_group_1: {seed: 1}")
    with pytest.raises(ConfigError, match="not the name of a client"):
        load_client_cfgs(str(file), [], global_cfg.clone())


DOTTED = [
    "client_2.train.optimizer.lr: 0.1\nclient_2.llm.adapter.args: [{'r': 4}]",
    "client_1:\nclient_2:\n  train.optimizer.lr: 0.1\n  llm.adapter.args: [{'r': 4}]",
    "client_2.train:\n  optimizer: {lr: 0.1}\nclient_2: {llm: {adapter.args: [{'r': 4}]}}",
    "client_2:\nclient_2.train: {optimizer.lr: 0.1}\nclient_2.llm.adapter: {args: [{'r': 4}]}",
]


@pytest.mark.parametrize("text", DOTTED)
def test_client_files_may_have_keys_with_dots(tmp_path: Path, text: str) -> None:
    """FederatedScope's form: `client_1.llm.adapter.args: ...`."""
    cfg = global_cfg.clone()
    cfg.merge_from_list(["federate.client_num", 2, "llm.adapter.args", "[{'r': 8}]"])
    file = tmp_path / "clients.yaml"
    file.write_text(text)
    clients = load_client_cfgs(str(file), [], cfg)
    assert clients is not None
    own = {"train": {"optimizer": {"lr": 0.1}}, "llm": {"adapter": {"args": [{"r": 4}]}}}
    assert clients.to_dict()["client_2"] == own


def test_dots_in_lists_of_a_client_file_are_left_alone(tmp_path: Path) -> None:
    cfg = global_cfg.clone()
    cfg.merge_from_list(["federate.client_num", 2])
    file = tmp_path / "clients.yaml"
    file.write_text("client_1.llm.adapter.args: [{'rank_pattern': {'layer.0.query': 2}}]")
    clients = load_client_cfgs(str(file), [], cfg)
    assert clients is not None
    assert clients.client_1.llm.adapter.args == [{"rank_pattern": {"layer.0.query": 2}}]


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("client_1.dataloader.batch_size: 2\nclient_1: {dataloader: {batch_size: 4}}",
         "client_1.dataloader.batch_size", "twice, with dots and nested"),
        ("client_1: {dataloader.batch_size: 2,\n dataloader: {batch_size: 2}}",
         "client_1.dataloader.batch_size", "line 2"),
        ("client_1.dataloader: 2\nclient_1.dataloader.batch_size: 2",
         "client_1.dataloader", "as a value and as a section"),
        ("client_1.dataloader.batch_size: 2\nclient_1.dataloader: 2",
         "client_1.dataloader", "as a section and as a value"),
        ("client_1.dataloader.batch_sze: 2", "client_1.dataloader.batch_sze", "batch_size"),
        ("client_1.dataloader.batch_size: x", "client_1.dataloader.batch_size", "wrong type"),
        ("client_1.federate.method: fedsa", "client_1.federate.method", "same for all clients"),
        ("client_1.llm.adapter.args: [{'target_modules': ['q']}]", "client_1.llm.adapter.args",
         "same for all clients"),
        ("client_3.dataloader.batch_size: 2", "client_3", "only 2 clients"),
        ("clinet_1.dataloader.batch_size: 2", "clinet_1", "{'dataloader': {'batch_size': 2}}"),
        ("client_1.: {seed: 2}", "client_1.", "not the name of a client"),
        ("client_1..seed: 2", "client_1..seed", "unknown key"),
    ],
)  # fmt: skip
def test_wrong_keys_with_dots_in_client_files(
    tmp_path: Path, text: str, field: str, words: str
) -> None:
    cfg = global_cfg.clone()
    cfg.merge_from_list(["federate.client_num", 2])
    file = tmp_path / "clients.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_client_cfgs(str(file), [], cfg)
    assert caught.value.field == field
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "given", [{"r": 65537}, {"r": 4, "rank_pattern": {"query": 20_000_000_000}}]
)
@pytest.mark.parametrize("client", ["", "client_2."])
def test_a_rank_without_bounds_is_refused(
    tmp_path: Path, client: str, given: dict[str, Any]
) -> None:
    """Memory for it would be asked for while the model's shapes are looked at."""
    file = tmp_path / "run.yaml"
    file.write_text(RUN + "llm: {adapter: {use: True}}")
    key = f"{client}llm.adapter.args"
    with pytest.raises(ConfigError, match="Write at most 65536") as caught:
        check_run(build_config(parse_args(["--cfg", str(file), key, str([given])])))
    assert caught.value.field == key
    check_run(build_config(parse_args(["--cfg", str(file), key, "[{'r': 65536}]"])))


def test_client_ranks_of_a_wrong_type_are_told_their_forms(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(RUN + "llm: {adapter: {client_ranks: {client_1: 4}}}")
    with pytest.raises(ConfigError) as caught:
        build_config(parse_args(["--cfg", str(file)]))
    text = str(caught.value)
    for words in ("got a mapping", "run.yaml, line", "[4, 8, 8]", "uniform", ".yaml or .json",
                  "--client_cfg"):  # fmt: skip
        assert words in text
    assert "[]" not in text
    file.write_text(RUN)
    with pytest.raises(ConfigError, match=r"\[4, 8, 8\]"):
        build_config(parse_args(["--cfg", str(file), "llm.adapter.client_ranks.client_1", "4"]))


def test_refused_features_are_found_in_client_settings(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(RUN)
    line = ["--cfg", str(file), "client_2.trainer.type", "cvtrainer"]
    with pytest.raises(ConfigError) as caught:
        check_run(build_config(parse_args(line)))
    assert caught.value.field == "client_2.trainer.type"

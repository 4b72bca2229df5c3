"""Mistakes of a user: one paragraph with field, value and remedy, before any weights are read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest


def lora(**fields: Any) -> str:
    return str([{"adapter_package": "peft", "adapter_method": "lora", **fields}])


EMPTY_CLIENT = ("federate.client_num", 60, "data.splitter_args", "[{'alpha': 0.05}]")
NO_SUCH = "/no/such/place"

CASES: dict[str, tuple[tuple[Any, ...], list[str]]] = {
    # name: options; words of the message, the first one the field
    "wrong type": (
        ("federate.client_num", "three"), ["federate.client_num", "'three'", "whole number"]),
    "wrong type in a list": (
        ("personalization.local_param", "lora_B"), ["personalization.local_param", "['lora_B']"]),
    "unknown key": (
        ("federate.client_nun", 3), ["federate.client_nun", "federate.client_num"]),
    "unknown section": (("fedrate.method", "fedsa"), ["fedrate", "federate"]),
    "missing yaml": (("--cfg=no_such_file.yaml",), ["no_such_file.yaml", "no such file"]),
    "missing checkpoint": (
        ("federate.restore_from", NO_SUCH), ["federate.restore_from", NO_SUCH, "no such file"]),
    "missing data folder": (
        ("data.root", NO_SUCH), ["data.root", NO_SUCH, "--embedded"]),
    "missing data file": (
        ("data.type", f"{NO_SUCH}.jsonl@llm", "trainer.type", "llmtrainer"), [NO_SUCH]),
    "no such GLUE task": (("data.type", "mnly@glue"), ["data.type", "mnly", "mnli@glue"]),
    "device that is not there": (("use_gpu", True), ["use_gpu", "use_gpu: False"]),
    "empty client": (EMPTY_CLIENT, ["federate.client_num", "60", "fewer clients", "alpha"]),
    "fewer rows than a batch": (
        ("dataloader.batch_size", 64, "dataloader.drop_last", True),
        ["dataloader.drop_last", "64", "dataloader.drop_last: False"]),
    "metric of another task": (
        ("eval.metrics", "['pearson']", "eval.best_res_update_round_wise_key", "val_pearson"),
        ["eval.metrics", "pearson", "accuracy"]),
    "unknown metric": (
        ("eval.metrics", "['acuracy']", "eval.best_res_update_round_wise_key", "val_acuracy"),
        ["eval.metrics", "acuracy", "accuracy"]),
    "split without rows": (
        ("eval.split", "['test']", "eval.best_res_update_round_wise_key", "test_loss"),
        ["eval.split", "test", "val"]),
    "best by a split without rows": (
        ("eval.split", "['val', 'test']", "eval.best_res_update_round_wise_key", "test_accuracy"),
        ["eval.best_res_update_round_wise_key", "test_accuracy", "val_accuracy"]),
    "local_param that matches nothing": (
        ("federate.method", "FedAvg", "personalization.local_param", "['lora_C']"),
        ["personalization.local_param", "lora_C", "lora_A"]),
    "one of several that matches nothing": (
        ("federate.method", "FedAvg", "personalization.local_param", "['lora_B', 'clasifier']"),
        ["personalization.local_param", "clasifier", "classifier"]),
    "nothing left to share": (
        ("federate.method", "FedAvg", "personalization.local_param", "['lora', 'classifier']"),
        ["personalization.local_param", "exchange nothing", "federate.method: local"]),
    "shared head kept local": (
        ("personalization.head", "shared", "personalization.local_param", "['classifier']"),
        ["personalization.head", "personalization.head: local"]),
    "fedsa with a frozen A": (
        ("federate.freeze_A", True), ["federate.freeze_A", "ffa"]),
    "fedsa without an adapter": (
        ("llm.adapter.use", False), ["llm.adapter.use", "llm.adapter.use: True"]),
    "fedsa with prefix tuning": (
        ("llm.adapter.args", "[{'adapter_method': 'prefix', 'num_virtual_tokens': 4}]"),
        ["llm.adapter.args", "prefix", "lora"]),
    "more clients a round than there are": (
        ("federate.sample_client_num", 9), ["federate.sample_client_num", "9", "at most 3"]),
    "robust rule with too few clients": (
        ("federate.method", "FedAvg", "aggregator.robust_rule", "krum",
         "aggregator.byzantine_node_num", 1),
        ["aggregator.byzantine_node_num", "2f + 3 = 5"]),
    "robust rule without its number": (
        ("federate.method", "FedAvg", "aggregator.robust_rule", "normbounding"),
        ["aggregator.BFT_args.normbounding_norm_bound", "greater than 0"]),
    "krum of more updates than there are": (
        ("federate.method", "FedAvg", "aggregator.robust_rule", "krum",
         "aggregator.BFT_args.krum_agg_num", 4),
        ["aggregator.BFT_args.krum_agg_num", "at most 3"]),
    "robust rule with fedopt": (
        ("federate.method", "fedopt", "aggregator.robust_rule", "median"),
        ["aggregator.robust_rule", "fedopt"]),
    "refused feature": (
        ("nbafl.use", True), ["nbafl.use", "outside"]),
    "method of FederatedScope that is not here": (
        ("federate.method", "ditto"), ["federate.method", "Ditto", "fedsa"]),
    "unknown method": (("federate.method", "fedsaa"), ["federate.method", "fedsaa", "fedsa"]),
    "unknown trainer": (
        ("trainer.type", "gleutrainer"), ["trainer.type", "gleutrainer", "gluetrainer"]),
    "unknown splitter": (("data.splitter", "ldaa"), ["data.splitter", "ldaa", "lda"]),
    "unknown argument of a splitter": (
        ("data.splitter_args", "[{'beta': 1}]"), ["data.splitter_args", "beta", "alpha"]),
    "unknown optimizer": (
        ("train.optimizer.type", "AdmaW"), ["train.optimizer.type", "AdmaW", "AdamW"]),
    "unknown argument of an optimizer": (
        ("train.optimizer.wieght_decay", 0.1),
        ["train.optimizer.wieght_decay", "0.1", "weight_decay"]),
    "negative learning rate": (("train.optimizer.lr", -1), ["train.optimizer.lr", "at least 0"]),
    "unknown scheduler": (
        ("train.scheduler.type", "linear_warmpu"), ["train.scheduler.type", "linear_warmup"]),
    "unknown loss": (
        ("criterion.type", "CrossEntropy"), ["criterion.type", "CrossEntropyLoss"]),
    "unknown adapter field": (
        ("llm.adapter.args", lora(r=4, lora_alhpa=8)), ["llm.adapter.args", "lora_alpha"]),
    "unknown adapter": (
        ("llm.adapter.args", "[{'adapter_method': 'lorra'}]", "federate.method", "FedAvg"),
        ["llm.adapter.args", "lorra", "lora"]),
    "rank of 0": (("llm.adapter.args", lora(r=0)), ["llm.adapter.args", "r", "0"]),
    "target modules that match nothing": (
        ("llm.adapter.args", lora(r=4, target_modules=["q_proj"])),
        ["llm.adapter.args.target_modules", "q_proj", "'query', 'value'"]),
    "no such model folder": (
        ("model.type", f"{NO_SUCH}@huggingface_llm"), ["model.type", NO_SUCH, "--embedded"]),
    "no such model on an unreachable hub": (
        ("model.type", "some/model@huggingface_llm"),
        ["model.type", "some/model", "--embedded", "local folder"]),
    "model that nobody builds": (
        ("model.type", "mynet"), ["model.type", "mynet", "register_model"]),
    "settings for a client that does not exist": (
        ("client_7.train.optimizer.lr", 0.1), ["client_7", "client_1 to client_3"]),
    "setting that cannot differ between clients": (
        ("client_1.federate.method", "ffa"),
        ["client_1.federate.method", "whole run"],
    ),
    "file of a single client": (
        ("client_2.data.type", "other.csv@text"),
        ["client_2.data.type", "other.csv@text", "would not be read", "train.optimizer"]),
    "metric of a single client that is not there": (
        ("client_2.eval.metrics", "['accuracy', 'accurcy']"), ["client_2.eval.metrics", "accurcy"]),
    "trainer of a single client that is not there": (
        ("client_2.trainer.type", "mine"), ["client_2.trainer.type", "mine"]),
    "rank of 0 of a single client": (
        ("client_1.llm.adapter.args", lora(r=0), "federate.method", "flexlora"),
        ["client_1.llm.adapter.args", "0"]),
    "length of a single client's texts": (
        ("client_1.llm.tok_len", 64), ["client_1.llm.tok_len", "whole run"]),
    "unknown setting of a client": (
        ("client_1.train.optmizer.lr", 0.1), ["client_1.train.optmizer", "optimizer"]),
    "extension that is not there": (
        ("extensions", "['federatedscope_ext', 'no_such_module']"),
        ["extensions", "no_such_module", "PYTHONPATH"]),
    "unknown flag": (("--chekc",), ["--chekc", "--check"]),
    "best round by a misspelt metric": (
        ("eval.best_res_update_round_wise_key", "val_accuracyy"),
        ["eval.best_res_update_round_wise_key", "accuracyy", "val_loss"]),
    "server optimizer without an aggregation": (
        ("federate.method", "local", "fedopt.use", True), ["fedopt.use", "local"]),
    "trainer of another task": (
        ("trainer.type", "llmtrainer"), ["trainer.type", "llmtrainer", "gluetrainer"]),
    "classifier for text to write": (
        ("data.type", "gsm8k@llm"), ["trainer.type", "gsm8k@llm", "llmtrainer"]),
    "saved module that is not there": (
        ("llm.adapter.args", lora(r=4, modules_to_save=["clasifier"])),
        ["llm.adapter.args.modules_to_save", "clasifier", "'classifier'"]),
    "rank of a module that is not there": (
        ("llm.adapter.args", lora(r=4, rank_pattern={"nothing": 2})),
        ["llm.adapter.args.rank_pattern", "nothing", "query"]),
    "scale of 0": (
        ("llm.adapter.args", lora(r=4, lora_alpha=0)), ["llm.adapter.args", "lora_alpha", "16"]),
    "rank that is no whole number": (
        ("llm.adapter.args", lora(r=8.5)), ["llm.adapter.args", "8.5", "whole number"]),
    "value that PEFT has no code for": (
        ("llm.adapter.args", lora(r=4, bias="foo")), ["llm.adapter.args", "foo"]),
    "task of an adapter": (
        ("llm.adapter.args", lora(r=4, task_type="SEQ_CLS")),
        ["llm.adapter.args", "task_type", "Leave task_type out"]),
    "layers that are not there": (
        ("llm.adapter.args", lora(r=4, layers_to_transform=[99])),
        ["llm.adapter.args.layers_to_transform", "99"]),
    "optimizer for sparse gradients": (
        ("train.optimizer.type", "SparseAdam"), ["train.optimizer.type", "dense"]),
    "unknown optimizer argument of a client": (
        ("client_1.train.optimizer.l", 4),
        ["client_1.train.optimizer.l", "4", "no such argument"]),
    "checkpoint that is none": (
        ("federate.restore_from", __file__), [__file__, "safetensors"]),
    "checkpoint that cannot be written": (
        ("federate.save_to", "/proc/none/x.pt"), ["federate.save_to", "/proc/none"]),
}  # fmt: skip


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading weights is an error."""
    import transformers

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("weights were about to be read")

    for name in ("AutoModelForSequenceClassification", "AutoModelForCausalLM"):
        monkeypatch.setattr(getattr(transformers, name), "from_pretrained", refuse)


@pytest.mark.parametrize(("options", "words"), CASES.values(), ids=CASES.keys())
def test_a_mistake_is_one_paragraph(
    rig: Any, capsys: Any, no_weights: None, options: Any, words: list[str]
) -> None:
    done = rig(*options)
    shown = capsys.readouterr().err
    assert done.code == 2, shown
    assert not done.outdir.exists()
    (paragraph,) = [line for line in shown.splitlines() if line and not _is_warning(line)]
    assert paragraph.startswith("Error: ")
    for word in words:
        assert word in paragraph, paragraph
    assert paragraph.endswith((".", "?", "!"))
    assert len(paragraph) < 900


def _is_warning(line: str) -> bool:
    return line.startswith("WARNING: ")


def test_sound_input_reads_the_weights(rig: Any, no_weights: None) -> None:
    """So that the tests above can fail."""
    done = rig()
    assert done.code == 1
    assert "weights were about to be read" in done.run["error"]


def test_a_yaml_that_is_no_yaml(rig: Any, tmp_path: Path, capsys: Any, no_weights: None) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text("federate: [unclosed\n")
    assert rig(f"--cfg={file}").code == 2
    assert "broken.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("client_9:\n  train:\n    optimizer:\n      lr: 1.0\n", "client_9"),
        ("train:\n  optimizer:\n    lr: 1.0\n", "client_1"),
        ("client_1: 3\n", "client_1"),
    ],
)
def test_a_client_file(
    rig: Any, tmp_path: Path, capsys: Any, no_weights: None, text: str, word: str
) -> None:
    file = tmp_path / "clients.yaml"
    file.write_text(text)
    outdir = rig.folder()
    assert rig.main(f"--client_cfg={file}", f"--outdir={outdir}", *rig.argv()) == 2
    shown = capsys.readouterr().err
    assert word in shown
    assert shown.count("Error: ") == 1
    assert not outdir.exists()


def test_a_command_without_anything_helps(rig: Any, capsys: Any) -> None:
    assert rig.main() == 0
    assert "--cfg FILE" in capsys.readouterr().out


def test_help_for_a_section(rig: Any, capsys: Any) -> None:
    assert rig.main("--help", "federate") == 0
    assert "federate.total_round_num" in capsys.readouterr().out


def test_check_says_yes_and_runs_nothing(rig: Any, capsys: Any, no_weights: None) -> None:
    outdir = rig.folder()
    assert rig.main("--check", f"--outdir={outdir}", *rig.argv()) == 0
    shown = capsys.readouterr().out
    assert "Yes" in shown
    assert "FedSA-LoRA" in shown
    assert not outdir.exists()


def test_check_says_no(rig: Any, capsys: Any) -> None:
    assert rig.main("--check", *rig.argv("federate.method", "ditto")) == 2
    assert "ditto" in capsys.readouterr().err


def test_version(rig: Any, capsys: Any) -> None:
    from federatedscope import __version__

    assert rig.main("--version") == 0
    assert __version__ in capsys.readouterr().out


def test_an_outdir_that_is_a_file(rig: Any, tmp_path: Path, capsys: Any, no_weights: None) -> None:
    file = tmp_path / "taken"
    file.write_text("mine")
    for outdir in (file, file / "below"):
        assert rig.main(f"--outdir={outdir}", *rig.argv()) == 2
        shown = capsys.readouterr().err
        assert "Error: outdir" in shown
        assert "is a file" in shown
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x08" * 40), "damaged"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "no archive",
        ),
        (
            lambda folder: (folder / "model.safetensors").rename(
                folder / "consolidated.safetensors"
            ),
            "no weights",
        ),
        (
            lambda folder: (folder / "adapter_config.json").write_text("{}"),
            "merge it into its base",
        ),
        (lambda folder: (folder / "config.json").write_text("{"), "configuration cannot be loaded"),
        (
            lambda folder: (folder / "config.json").write_text(
                '{"model_type": "bert", "vocab_size": "many"}'
            ),
            "expected int",
        ),
        (
            lambda folder: (folder / "config.json").write_text(
                '{"model_type": "bert", "quantization_config": "gptq"}'
            ),
            "are quantised (gptq)",
        ),
    ],
)
def test_a_model_folder_without_whole_weights(
    rig: Any,
    tmp_path: Path,
    capsys: Any,
    no_weights: None,
    tiny_model: Path,
    damage: Any,
    word: str,
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    damage(folder)
    done = rig("model.type", f"{folder}@huggingface_llm")
    shown = capsys.readouterr().err
    assert done.code == 2
    assert "Error: model.type" in shown
    assert word in shown
    assert not done.outdir.exists()


INSTRUCTIONS = [{"instruction": "it was", "input": "", "output": "good"}] * 30


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ["model.type", "encoder", "decoder"]),
        (("eval.metrics", "['f1']"), ["eval.metrics", "f1", "['loss', 'acc']"]),
        (("eval.metrics", "['accuracy']"), ["eval.metrics", "accuracy", "answers are text"]),
    ],
)
def test_text_to_write(
    rig: Any, tmp_path: Path, capsys: Any, no_weights: None, options: Any, words: list[str]
) -> None:
    """The rig's model is an encoder."""
    (tmp_path / "own.json").write_text(json.dumps(INSTRUCTIONS))
    base = ("data.root", tmp_path, "data.type", "own.json@llm", "trainer.type", "llmtrainer",
            "data.splitter", "iid", "data.splitter_args", "[]", "eval.metrics", "[]",
            "eval.best_res_update_round_wise_key", "val_loss")  # fmt: skip
    done = rig(*base, *options)
    shown = capsys.readouterr().err
    assert done.code == 2, shown
    for word in words:
        assert word in shown

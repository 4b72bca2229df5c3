"""Models as users have them: padding tokens, heads, and what a folder cannot do."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import families
import family_models
from family_models import WORDS, build_family

from federatedscope.core.configs.config import global_cfg
from federatedscope.core.data.utils import rows_of
from federatedscope.core.errors import ConfigError
from federatedscope.llm.dataset.tokenizer import get_tokenizer
from federatedscope.llm.model.limits import check_positions, check_precision, positions
from federatedscope.llm.model.model_builder import build_skeleton, get_llm
from federatedscope.llm.model_files import check_model_source
from fedfiles.tokenizers import padding_token

LORA = {"adapter_package": "peft", "adapter_method": "lora", "r": 2, "target_modules": "all-linear"}
DECODERS = [
    "gpt2",
    "gptj",
    "gpt_neox",
    "opt",
    "bloom",
    "falcon",
    "mpt",
    "llama",
    "llama3",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen3",
    "phi",
    "gemma2",
    "gemma3_text",
    "olmo",
    "starcoder2",
    "xlnet",
]
ENCODERS = ["bert", "roberta", "distilbert", "deberta-v2", "mpnet", "modernbert", "bart", "t5"]

Family = Callable[..., Path]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("families")
    return lambda name: folder / name if (folder / name).exists() else build_family(name, folder)


@pytest.fixture
def family(built: Callable[[str], Path], tmp_path: Path) -> Family:
    """A family's folder; with changes to its files a copy with these (``None`` takes a key out)."""

    def of(name: str, config: Any = None, tokenizer: Any = None, drop: str = "") -> Path:
        folder = built(name)
        if not (config or tokenizer or drop):
            return folder
        copy = tmp_path / f"{name}-{len([*tmp_path.iterdir()])}"
        shutil.copytree(folder, copy)
        for file, changes in (("config.json", config), ("tokenizer_config.json", tokenizer)):
            content = json.loads((copy / file).read_text()) | (changes or {})
            kept = {key: value for key, value in content.items() if value is not None}
            (copy / file).write_text(json.dumps(kept))
        if drop:
            weights = load_file(copy / "model.safetensors")
            kept = {k: v for k, v in weights.items() if not re.search(drop, k)}
            assert len(kept) < len(weights)
            save_file(kept, copy / "model.safetensors", {"format": "pt"})
        return copy

    return of


def config(model: Path, labels: int = 2, *pairs: Any, **adapter: Any) -> Any:
    cfg = global_cfg.clone()
    cfg.model.type = f"{model}@huggingface_llm"
    cfg.data.num_labels = labels
    cfg.trainer.type = "gluetrainer" if labels else "llmtrainer"
    cfg.llm.tok_len = 64
    cfg.llm.adapter.use = adapter != {"use": False}
    cfg.llm.adapter.args = [{**LORA, **adapter}]
    cfg.merge_from_list(list(pairs))
    return cfg


def trained(model: torch.nn.Module) -> set[str]:
    return {n for n, p in model.named_parameters() if p.requires_grad}


def heads(model: torch.nn.Module) -> set[str]:
    """Modules that are trained whole, without PEFT's parts of their names."""
    names = {n.removeprefix("base_model.model.") for n in trained(model) if "lora_" not in n}
    return {name.split(".modules_to_save")[0] for name in names}


class TestThePaddingToken:
    @pytest.mark.parametrize(
        ("name", "tokenizer", "rows", "expected"),
        [
            ("llama", None, None, 2),  # its end-of-text token
            ("qwen2", None, None, 0),  # its own
            ("llama3", {"pad_token": WORDS[0]}, None, 3),
            ("bert", None, None, 0),
            # Where the own one has no row in the embedding, and where there is no end either.
            ("llama3", {"pad_token": WORDS[9]}, 5, 2),
            ("llama", {"eos_token": None}, None, 1),
        ],
    )
    def test_the_rule(
        self, family: Family, name: str, tokenizer: Any, rows: int | None, expected: int
    ) -> None:
        found, _ = get_tokenizer(str(family(name, tokenizer=tokenizer)))
        assert padding_token(found, rows) == expected

    @pytest.mark.parametrize("own", [None, -1, 5, 10_000])
    @pytest.mark.parametrize("name", ["llama3", "qwen2", "gemma3_text"])
    def test_tokenizer_model_and_generation_have_one(
        self, family: Family, name: str, own: int | None
    ) -> None:
        folder = family(name, {"pad_token_id": own})
        tokenizer, _ = get_tokenizer(str(folder))
        for labels in (0, 2):
            model = get_llm(config(folder, labels))
            assert model.config.get_text_config().pad_token_id == tokenizer.pad_token_id
            if not labels:
                assert model.generation_config.pad_token_id == tokenizer.pad_token_id

    def test_roberta_counts_positions_from_its_own(self, family: Family) -> None:
        folder = family("roberta", tokenizer={"pad_token": "<unk>"})
        assert get_tokenizer(str(folder))[0].pad_token_id == 3
        assert get_llm(config(folder)).config.pad_token_id == 1


@pytest.mark.parametrize("name", [*DECODERS, *ENCODERS])
def test_logits_do_not_depend_on_what_a_row_is_padded_with(family: Family, name: str) -> None:
    """Rows alone against rows of a batch, with padding, end and other special tokens in the text.

    In fp32 both differ by rounding, 1e-6 of the logits; another place of pooling makes 1e-2.
    """
    folder = family(name)
    model = get_llm(config(folder, 3)).eval()
    tokenizer, _ = get_tokenizer(str(folder))
    text = tokenizer("good film story was")["input_ids"]
    rows = [text, tokenizer(" ".join(WORDS[:30]))["input_ids"]]
    if name not in ("bart", "t5"):  # which want one end token a row
        rows.append(text[:1])
        for token in {*tokenizer.all_special_ids, tokenizer.pad_token_id}:
            rows += [[*text, token, token], [*text[:2], token, *text[2:]]]
    # Rotary and relative positions do not count padding on the left.
    sides = ["right"] if name in ("gpt2", *ENCODERS) else ["right", "left"]
    with torch.no_grad():
        alone = torch.cat([model(**padded([row], 0, "right")).logits for row in rows])
        for side in sides:
            both = model(**padded(rows, tokenizer.pad_token_id, side)).logits
            assert torch.allclose(both, alone, rtol=1e-4, atol=2e-6)


def padded(rows: list[list[int]], fill: int, side: str) -> dict[str, torch.Tensor]:
    longest = max(map(len, rows))

    def to_length(row: list[int], value: int) -> list[int]:
        more = [value] * (longest - len(row))
        return [*row, *more] if side == "right" else [*more, *row]

    return {
        "input_ids": torch.tensor([to_length(row, fill) for row in rows]),
        "attention_mask": torch.tensor([to_length([1] * len(row), 0) for row in rows]),
    }


@pytest.mark.parametrize("tokenizer", [{}, {"padding_side": "left"}, {"pad_token": WORDS[3]}])
@pytest.mark.parametrize("name", ["gemma2", "gpt2", "llama3", "xlnet"])
def test_scores_are_the_same_for_every_batch_size(
    rig: Any, family: Family, name: str, tokenizer: dict[str, str]
) -> None:
    folder = family(name, tokenizer=tokenizer)
    scores = [
        rig(
            "model.type", f"{folder}@huggingface_llm", "llm.adapter.args", [LORA],
            "federate.total_round_num", 0, "eval.batch_size", size,
        ).of("eval")[0]["metrics"]["val_avg_loss"]
        for size in (1, 16)
    ]  # fmt: skip
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)


class TestTheHead:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("bart", {"classification_head"}),
            ("t5", {"classification_head"}),
            ("xlnet", {"sequence_summary", "logits_proj"}),
            ("deberta-v2", {"pooler", "classifier"}),
            ("bert", {"bert.pooler.dense", "classifier"}),  # from BertForMaskedLM
            ("distilbert", {"pre_classifier", "classifier"}),
            ("llama", {"score"}),
        ],
    )
    def test_all_that_is_new_is_trained(
        self, family: Family, name: str, expected: set[str]
    ) -> None:
        cfg = config(family(name), 2)
        skeleton, model = build_skeleton(cfg), get_llm(cfg)
        assert trained(skeleton) == trained(model)
        assert heads(model) == expected
        assert all(new.startswith(tuple(expected)) for new in skeleton.new_tensors)

    @pytest.mark.parametrize("form", ["bin", "old bin", "shards"])
    def test_weights_in_other_files(self, tmp_path: Path, family: Family, form: str) -> None:
        from transformers import AutoModelForMaskedLM

        folder = family("bert", {"transformers_version": None})
        file = folder / "model.safetensors"
        if form != "shards":
            old = form == "old bin"
            file_of = folder / "pytorch_model.bin"
            torch.save(load_file(file), file_of, _use_new_zipfile_serialization=not old)
        else:
            model = AutoModelForMaskedLM.from_pretrained(folder)
            model.save_pretrained(folder, max_shard_size="20KB")
        file.unlink()
        assert "bert.pooler.dense.weight" in build_skeleton(config(folder)).new_tensors
        for part in sorted(folder.glob("*-of-*"))[:1]:
            part.unlink()
            with pytest.raises(ConfigError, match=f"lacks {part.name}"):
                check_model_source("model.type", str(folder))

    @pytest.mark.parametrize("method", ["prompt", "prefix", "p-tuning"])
    @pytest.mark.parametrize("name", ["bert", "llama", "electra"])
    def test_beside_adapters_of_prompts(self, family: Family, name: str, method: str) -> None:
        """The head is trained, and sees the text's last token behind the virtual ones."""
        cfg = config(family(name), 2)
        cfg.llm.adapter.args = [{"adapter_method": method, "num_virtual_tokens": 3}]
        assert trained(build_skeleton(cfg)) == trained(get_llm(cfg))
        assert any("modules_to_save" in name for name in trained(get_llm(cfg)))
        if name != "llama":
            return
        model, rows = get_llm(cfg).eval(), [[1, 5, 6], [1, 7, 8, 9, 2, 2]]
        with torch.no_grad():
            alone = torch.cat([model(**padded([row], 0, "right")).logits for row in rows])
            assert torch.allclose(model(**padded(rows, 2, "right")).logits, alone, atol=2e-6)

    def test_a_pooler_that_the_weights_have_stays_frozen(self, tiny_model: Path) -> None:
        assert heads(get_llm(config(tiny_model))) == {"classifier"}

    @pytest.mark.parametrize("name", ["xlnet", "bart", "bert"])
    @pytest.mark.parametrize("rule", ["shared", "local", "frozen"])
    def test_its_rule_holds_for_every_family(
        self, rig: Any, family: Family, name: str, rule: str
    ) -> None:
        run = rig.prepared(
            "model.type", f"{family(name)}@huggingface_llm", "llm.adapter.args", [LORA],
            "personalization.head", rule, "federate.method", "fedavg",
        )  # fmt: skip
        names = {n for n in trained(build_skeleton(run.cfg)) if "lora_" not in n}
        assert bool(names) is (rule != "frozen")
        kept = [n for n in names if any(word in n for word in run.cfg.personalization.local_param)]
        assert len(kept) == (len(names) if rule == "local" else 0)
        assert run.run["new_tensors"]

    def test_other_heads_need_an_adapter_for_their_rule(self, family: Family) -> None:
        cfg = config(family("xlnet"), 2, "personalization.head", "local", use=False)
        with pytest.raises(ConfigError, match="sequence_summary") as caught:
            build_skeleton(cfg)
        assert caught.value.field == "personalization.head"

    @pytest.mark.parametrize(
        ("name", "drop"), [("gpt_neox", "lm_head|embed_out"), ("llama", "layers.1.mlp")]
    )
    def test_weights_that_lack_more_than_a_head(self, family: Family, name: str, drop: str) -> None:
        with pytest.raises(ConfigError, match=r"lack .*(lm_head|mlp)"):
            build_skeleton(config(family(name, drop=drop), 0 if name == "gpt_neox" else 2))

    def tuned(self, tmp_path: Path, folder: Path, labels: dict[int, str]) -> Path:
        from transformers import AutoModelForSequenceClassification

        copy = tmp_path / "tuned"
        shutil.copytree(folder, copy)
        AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=len(labels), id2label=labels
        ).save_pretrained(copy)
        return copy

    @pytest.mark.parametrize("name", ["bert", "bart", "qwen2"])
    def test_one_for_other_labels(self, tmp_path: Path, family: Family, name: str) -> None:
        folder = self.tuned(tmp_path, family(name), {0: "no", 1: "maybe", 2: "yes"})
        with pytest.raises(ConfigError, match=r"trained for 3 label.*model\.new_head: True"):
            build_skeleton(config(folder, 2))
        assert build_skeleton(config(folder, 3)).new_tensors == []
        cfg = config(folder, 2, "model.new_head", True)
        head = {"bert": "classifier", "bart": "classification_head", "qwen2": "score"}[name]
        assert {n.split(".")[0] for n in build_skeleton(cfg).new_tensors} == {head}
        assert heads(get_llm(cfg)) == {head}

    def test_labels_of_other_names(self, tmp_path: Path, family: Family) -> None:
        folder = self.tuned(tmp_path, family("bert"), {0: "POSITIVE", 1: "NEGATIVE"})
        pairs = ("data.label_list", ["negative", "positive"])
        assert (
            "POSITIVE, NEGATIVE, in this order"
            in build_skeleton(config(folder, 2, *pairs)).notes[0]
        )
        assert not build_skeleton(
            config(folder, 2, "data.label_list", ["positive", "negative"])
        ).notes
        new = build_skeleton(config(folder, 2, *pairs, "model.new_head", True))
        assert not new.notes and new.new_tensors == ["classifier.bias", "classifier.weight"]


class TestKnownBeforehand:
    @pytest.mark.parametrize(
        ("name", "labels", "problem"),
        [
            ("cohere", 2, "a cohere has no class for classification"),
            ("mamba", 2, "a mamba has no class for classification"),
            ("t5", 0, "a t5 has an encoder beside its decoder"),
            ("bart", 0, "a bart has an encoder beside its decoder"),
            ("bert", 0, "a bert is an encoder"),
            ("xlnet", 0, "a xlnet is an encoder"),
        ],
    )
    def test_no_class_for_the_task(
        self, family: Family, name: str, labels: int, problem: str
    ) -> None:
        with pytest.raises(ConfigError, match=problem):
            build_skeleton(config(family(name), labels))

    @pytest.mark.parametrize(
        ("name", "table"),
        [("bert", 128), ("roberta", 128), ("mpnet", 128), ("gpt2", 128), ("gptj", 128),
         ("opt", 128), ("bart", 128), ("longformer", 128), ("distilbert", 128), ("mpt", 128),
         ("llama", None), ("t5", None), ("bloom", None), ("xlnet", None)],
    )  # fmt: skip
    def test_positions(self, family: Family, name: str, table: int | None) -> None:
        cfg = config(family(name), 2)
        assert positions(build_skeleton(cfg)) == table
        cfg.llm.tok_len = 129
        if table is None:
            notes = check_positions(build_skeleton(cfg), cfg)
            assert [bool(re.search("beyond the 128 positions", n)) for n in notes] in ([], [True])
            return
        with pytest.raises(ConfigError, match="has 128 positions") as caught:
            check_positions(build_skeleton(cfg), cfg)
        assert (caught.value.field, caught.value.value) == ("llm.tok_len", 129)
        cfg.llm.tok_len = 128
        model = get_llm(cfg).eval()
        row = torch.full((1, 128), 9)
        row[0, -1] = getattr(model.config, "eos_token_id", None) or 9
        assert model(input_ids=row, attention_mask=torch.ones_like(row)).logits.isfinite().all()

    def test_a_run_is_checked_for_them(self, rig: Any, capsys: Any) -> None:
        assert rig.main("--check", *rig.argv("llm.tok_len", 65)) == 2
        assert "llm.tok_len = 65: the model has 64 positions" in capsys.readouterr().err

    @pytest.mark.parametrize(("new", "outcome"), [(128, "refused"), (100, "note"), (8, "")])
    def test_generated_tokens(self, family: Family, new: int, outcome: str) -> None:
        cfg = config(family("gpt2"), 0, "eval.metrics", ["acc"], "eval.max_new_tokens", new)
        if outcome != "refused":
            notes = check_positions(build_skeleton(cfg), cfg)
            assert bool(notes) is bool(outcome)
            return
        with pytest.raises(ConfigError) as caught:
            check_positions(build_skeleton(cfg), cfg)
        assert caught.value.field == "eval.max_new_tokens"
        cfg.eval.metrics = ["loss"]
        check_positions(build_skeleton(cfg), cfg)

    def test_half_precision(self, family: Family) -> None:
        pairs = ("train.is_enable_half", True, "train.half_dtype")
        for name, dtype in (("deberta", "fp32"), ("deberta-v2", "bf16")):
            cfg = config(family(name), 2, *pairs, dtype)
            check_precision(build_skeleton(cfg), cfg)
        cfg = config(family("deberta"), 2, *pairs, "bf16")
        with pytest.raises(ConfigError, match="cannot compute in bf16"):
            check_precision(build_skeleton(cfg), cfg)

    def test_virtual_tokens_need_positions_too(self, family: Family) -> None:
        cfg = config(family("gpt2"), 0, "llm.tok_len", 120)
        cfg.llm.adapter.args = [{"adapter_method": "prompt", "num_virtual_tokens": 10}]
        with pytest.raises(ConfigError, match="at most 118"):
            check_positions(build_skeleton(cfg), cfg)

    def run(self, tmp_path: Path, rig: Any, model: Path, texts: list[str], *pairs: Any) -> Any:
        rows = [json.dumps({"text": text, "label": i % 2}) for i, text in enumerate(texts)]
        (tmp_path / "own.jsonl").write_text("\n".join(rows) + "\n")
        return rig.prepared(
            "model.type", f"{model}@huggingface_llm", "data.type", f"{tmp_path}/own.jsonl@text",
            "llm.adapter.args", [LORA], "data.splitter", "iid", "data.splitter_args", "[]", *pairs,
        )  # fmt: skip

    def test_tokens_beyond_the_embedding(self, tmp_path: Path, rig: Any, family: Family) -> None:
        from transformers import AutoTokenizer

        folder = family("llama", {"vocab_size": None})
        shutil.copy(family("llama") / "config.json", folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        rows = len(tokenizer)
        tokenizer.add_special_tokens({"pad_token": "[PAD]"})
        tokenizer.add_tokens(["zebra"])
        tokenizer.save_pretrained(folder)
        # A padding token of its own that has no row is not used, and what no text has does no harm.
        assert get_tokenizer(str(folder))[0].pad_token == "</s>"
        self.run(tmp_path, rig, folder, ["good film", "bad film"] * 12)
        with pytest.raises(ConfigError, match=f"makes token {rows + 1} of the rows") as caught:
            self.run(tmp_path, rig, folder, ["good zebra", "bad film"] * 12)
        assert "resize_token_embeddings" in caught.value.remedy

    @pytest.mark.parametrize("name", ["bart", "t5"])
    def test_end_tokens_in_a_text(
        self, tmp_path: Path, rig: Any, family: Family, name: str
    ) -> None:
        texts = ["good film", "bad"] * 12
        self.run(tmp_path, rig, family(name), texts)
        with pytest.raises(ConfigError, match=r"row 4 .* 2 end token"):
            self.run(tmp_path, rig, family(name), ["good", "bad", "dull", "a </s> b"] + ["a"] * 20)
        with pytest.raises(ConfigError, match="no padding token but the end token"):
            self.run(tmp_path, rig, family(name, None, {"pad_token": None}), texts)
        with pytest.raises(ConfigError, match="classifies at one"):
            self.run(tmp_path, rig, family(name, {"eos_token_id": [1, 2]}), texts)

    @pytest.mark.parametrize(("name", "token"), [("gpt2", 0), ("qwen2", 2)])
    def test_an_empty_text(
        self, tmp_path: Path, rig: Any, family: Family, caplog: Any, name: str, token: int
    ) -> None:
        for _ in range(2):  # the second time from the cache
            caplog.clear()
            data = self.run(tmp_path, rig, family(name), ["good film", "", "", "bad"] * 6).data
            rows = rows_of(data[1].train_data)[0]
            alone = [rows[i]["input_ids"].tolist() for i in range(24)]
            assert alone.count([token]) == 12
            assert "12 empty texts" in caplog.text

    def test_code_of_its_own(self, family: Family) -> None:
        folder = family("llama", {"model_type": "own", "auto_map": {"AutoConfig": "code.Config"}})
        with pytest.raises(ConfigError, match=r"auto_map.* is never run"):
            check_model_source("model.type", str(folder))

    def test_a_tokenizer_with_code_of_its_own(self, family: Family) -> None:
        own = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
        folder = family("llama", {"model_type": "own"}, own)
        (folder / "own.py").write_text("raise SystemExit('it was run')")
        with pytest.raises(ConfigError, match="code of its own, which is never run"):
            get_tokenizer(str(folder))

    @pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "nonsense"])
    def test_quantised_weights(self, family: Family, method: str) -> None:
        quantised = {"quant_method": method, "bits": 4, "load_in_4bit": True}
        folder = family("llama", {"quantization_config": quantised})
        with pytest.raises(ConfigError, match=rf"quantised \({method}\)"):
            check_model_source("model.type", str(folder))


class TestTheTable:
    def test_a_few_families(self, monkeypatch: Any, tmp_path: Path, capsys: Any) -> None:
        monkeypatch.setattr(
            families, "get_context", lambda _: SimpleNamespace(Pool=in_this_process)
        )
        monkeypatch.setenv("FEDERATEDSCOPE_CACHE", "")
        file = tmp_path / "cells.json"
        code = families.main(["--families", "bert,cohere", "--precisions", "fp32",
                              "--json", str(file)])  # fmt: skip
        cells = {(c["family"], c["task"]): c for c in json.loads(file.read_text())}
        outcomes = {key: cell["outcome"] for key, cell in cells.items()}
        assert code == 0
        assert {key for key, outcome in outcomes.items() if outcome == "refused"} == {
            ("bert", "generation"), ("cohere", "classification"),
        }  # fmt: skip
        assert set(outcomes.values()) == {"ok", "refused"}
        assert "| bert | ok | refused [1] |" in capsys.readouterr().out

    def test_every_family_is_buildable(self) -> None:
        assert len(family_models.FAMILIES) >= 35

    def test_unknown_names(self) -> None:
        with pytest.raises(SystemExit, match="There is no bret"):
            families.main(["--families", "bret"])


@contextlib.contextmanager
def in_this_process(jobs: int, maxtasksperchild: int) -> Iterator[Any]:
    """Stands in for processes of their own."""
    assert jobs and maxtasksperchild
    yield SimpleNamespace(imap=map)

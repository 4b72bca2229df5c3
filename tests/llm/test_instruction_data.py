"""Instruction data: prompts, masks, cuts, padding, files, categories, errors."""

from __future__ import annotations

import gzip
import json
import logging
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from federatedscope.core.auxiliaries.data_builder import get_data
from federatedscope.core.configs.config import global_cfg
from federatedscope.core.data.utils import label_histogram, labels_of, rows_of
from federatedscope.core.errors import ConfigError
from federatedscope.llm.dataset import (
    IGNORE_INDEX,
    InstructionRows,
    build_prompt,
    get_tokenizer,
    load_llm_dataset,
)

EOS, BOS = 1, 2


def make_tokenizer(**special):
    """Characters as tokens; no padding token, as LLaMA has it."""
    vocabulary = {"<unk>": 0, "</s>": EOS, "<s>": BOS, **{chr(c): c for c in range(3, 127)}}
    core = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", **{"eos_token": "</s>", **special}
    )


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def config(model, tmp_path):
    def build(data_type, **keys):
        cfg = global_cfg.clone()
        pairs = {
            "data.root": str(tmp_path),
            "data.type": data_type,
            "data.splitter": "iid",
            "data.splits": [0.8, 0.1, 0.1],
            "data.cache_dir": str(tmp_path / "cache"),
            "federate.client_num": 2,
            "model.type": f"{model}@huggingface_llm",
            "llm.tok_len": 400,
            "dataloader.batch_size": 3,
        }
        pairs |= {key.replace("__", "."): value for key, value in keys.items()}
        cfg.merge_from_list([item for pair in pairs.items() for item in pair])
        return cfg

    return build


def record(instruction="add", given="", output="ok", category=""):
    return {"instruction": instruction, "input": given, "output": output, "category": category}


def text(tokens):
    return "".join(chr(t) for t in tokens.tolist() if t > 2)


def write(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif file.suffix == ".gz":
        with gzip.open(file, "wt") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in rows)
    elif file.suffix == ".json":
        file.write_text(json.dumps(rows))
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_prompts():
    with_input = build_prompt(record("add", "1 2"))
    assert "### Instruction:\nadd\n\n### Input:\n1 2\n\n### Response:" in with_input
    without = build_prompt(record("add"))
    assert "Input" not in without and without.endswith("### Instruction:\nadd\n\n### Response:")


def test_loss_is_on_the_answer_and_the_end_only():
    rows = InstructionRows([record("add", "1 2", "3.")], make_tokenizer(), 500)
    item = rows[0]
    learned = item["labels"] != IGNORE_INDEX
    prompt = build_prompt(record("add", "1 2"))
    assert text(item["input_ids"]) == (prompt + "3.")
    assert item["input_ids"][learned].tolist() == [ord("3"), ord("."), EOS]
    assert torch.equal(item["labels"][learned], item["input_ids"][learned])
    assert rows.lengths.tolist() == [len(prompt) + 3]


@pytest.mark.parametrize(
    ("answer", "room", "kept_prompt", "kept_answer"),
    [
        (10, 11, 0, 11),  # everything just fits
        (10, 6, -5, 11),  # a short answer stays whole, the prompt loses its beginning
        (300, 60, 0, 60),  # a long answer loses its end
    ],
)
def test_cut_to_the_longest_row(answer, room, kept_prompt, kept_answer):
    """``room``: tokens that the whole prompt leaves for the answer."""
    prompt = len(build_prompt(record()))
    rows = InstructionRows([record(output="x" * answer)], make_tokenizer(), prompt + room)
    learned = int((rows[0]["labels"] != IGNORE_INDEX).sum())
    assert learned == kept_answer
    assert len(rows[0]["labels"]) - learned == prompt + kept_prompt


def test_prompt_longer_than_the_longest_row_leaves_a_quarter_for_the_answer():
    rows = InstructionRows([record(output="x" * 300)], make_tokenizer(), 80)
    learned = rows[0]["labels"] != IGNORE_INDEX
    assert (len(learned), int(learned.sum())) == (80, 20)
    assert text(rows[0]["input_ids"]).endswith("### Response:" + "x" * 20)


def test_beginning_token_survives_the_cut():
    tokenizer = make_tokenizer(bos_token="<s>")
    from tokenizers import processors

    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        "<s> $A", special_tokens=[("<s>", BOS)]
    )
    rows = InstructionRows([record(output="x" * 30)], tokenizer, 60)
    ids = rows[0]["input_ids"].tolist()
    assert ids[0] == BOS and ids.count(BOS) == 1 and len(ids) == 60


def test_mask_comes_from_lengths_though_padding_is_a_real_token():
    tokenizer = make_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    rows = InstructionRows([record(output="yes"), record("subtract", output="n")], tokenizer, 400)
    batch = rows.collate_fn([rows[0], rows[1]])
    lengths = rows.lengths.tolist()
    assert batch["attention_mask"].sum(1).tolist() == lengths
    short = lengths.index(min(lengths))
    assert batch["input_ids"][short, lengths[short] - 1] == EOS
    assert batch["attention_mask"][short, lengths[short] - 1] == 1
    assert batch["labels"][short, lengths[short] - 1] == EOS
    assert (batch["labels"][short, lengths[short] :] == IGNORE_INDEX).all()
    assert all(value.dtype == torch.int64 for value in batch.values())


def test_tokenizer_without_a_padding_token(model):
    tokenizer, added = get_tokenizer(str(model), None, 50)
    assert (tokenizer.pad_token_id, added, tokenizer.model_max_length) == (EOS, 0, 50)
    assert tokenizer.padding_side == "right"


@pytest.mark.parametrize(
    ("name", "package", "problem"),
    [("/no/such", "huggingface_llm", "no such folder"), ("x", "elsewhere", "source of models")],
)
def test_tokenizer_that_is_not_there(name, package, problem):
    with pytest.raises(ConfigError, match=problem):
        get_tokenizer(name, None, 50, package)


def test_raw_text_for_generation(config, tmp_path):
    rows = [record(f"task {i}", output=f"answer {i}") for i in range(20)]
    write(tmp_path / "own.json", rows)
    data, _ = get_data(config("own.json@llm"))
    base, indices = rows_of(data[1].train_data)
    raw = base.raw(int(indices[0]))
    assert raw["answer"] == rows[indices[0]]["output"]
    assert raw["prompt"] == build_prompt(rows[indices[0]])
    assert raw["instruction"] == rows[indices[0]]["instruction"]


@pytest.mark.parametrize("name", ["own.json", "own.jsonl", "absolute"])
def test_own_files(config, tmp_path, name):
    file = tmp_path / ("own.jsonl" if name == "absolute" else name)
    write(file, [{"instruction": "a", "output": "b", "category": f"c{i % 2}"} for i in range(40)])
    given = f"{file}@llm" if name == "absolute" else f"{name}@llm"
    data, _ = get_data(config(given, data__splitter="meta"))
    assert [data[0].rows(split) for split in ("train", "val", "test")] == [32, 4, 4]
    for client in (1, 2):
        assert len(set(labels_of(data[client].train_data))) == 1
        assert set(label_histogram(data[client].val_data)) <= set(
            label_histogram(data[client].train_data)
        )


def test_gsm8k_with_and_without_official_test_rows(config, tmp_path):
    rows = [{"question": f"{i}?", "answer": f"so\n#### {i}"} for i in range(50)]
    write(tmp_path / "gsm8k_train.jsonl", rows)
    data, _ = get_data(config("gsm8k@llm"))
    assert [data[0].rows(split) for split in ("train", "val", "test")] == [40, 5, 5]
    write(tmp_path / "gsm8k" / "test.parquet", rows[:7])
    data, _ = get_data(config("gsm8k@llm", data__splits=[0.9, 0.1, 0.0]))
    assert [data[0].rows(split) for split in ("train", "val", "test")] == [45, 5, 7]
    assert data[0].test_data.raw(3)["output"] == "so\nThe answer is 3"
    held = [i for s in ("train", "val") for i in rows_of(data[0].dataset(s))[1].tolist()]
    assert sorted(held) == list(range(50))


@pytest.mark.parametrize(
    ("name", "file", "row", "expected"),
    [
        (
            "alpaca",
            "alpaca_data.json",
            {"instruction": "i", "input": "x", "output": "o"},
            record("i", "x", "o"),
        ),
        (
            "alpaca_cleaned",
            "alpaca_data_cleaned.json",
            {"instruction": "i", "input": None, "output": "o"},
            record("i", "", "o"),
        ),
        (
            "dolly-15k",
            "databricks-dolly-15k.jsonl",
            {"instruction": "i", "context": "x", "response": "o", "category": "c"},
            record("i", "x", "o", "c"),
        ),
        (
            "dolly-15k",
            "dolly_15k/train.parquet",
            {"instruction": "i", "context": "x", "response": "o", "category": "c"},
            record("i", "x", "o", "c"),
        ),
        (
            "rosetta_alpaca",
            "rosetta_alpaca.json",
            {"instruction": "i", "input": "C", "output": "o"},
            record("i", "C", "o", "C"),
        ),
        (
            "code_search_net",
            "go/final/jsonl/train/go_train_0.jsonl.gz",
            {"docstring": "i", "code": "o", "language": "go"},
            record("go i", "go", "o", "go"),
        ),
    ],
)
def test_named_sets(config, tmp_path, name, file, row, expected):
    write(tmp_path / file, [row] * 4)
    rows, _ = load_llm_dataset(config(f"{name}@llm"))
    assert rows.records == [expected] * 4


def test_rare_language_is_left_out_with_meta(config, tmp_path):
    languages = ["C", "X86-64 Assembly", "Go"]
    write(
        tmp_path / "rosetta_alpaca.json",
        [{"instruction": "i", "input": language, "output": "o"} for language in languages],
    )
    rows, _ = load_llm_dataset(config("rosetta_alpaca@llm", data__splitter="meta"))
    assert set(rows.labels) == {"C", "Go"}
    assert rows.left_out == [("rosetta_alpaca", 1, "too few of their category for a client")]


def test_second_start_reads_the_cache(config, tmp_path, caplog):
    write(tmp_path / "own.json", [record(f"t{i}") for i in range(9)])
    first, _ = load_llm_dataset(config("own.json@llm"))
    with caplog.at_level(logging.INFO):
        second, _ = load_llm_dataset(config("own.json@llm"))
    assert "tokenised before" in caplog.text
    assert all(torch.equal(first[i]["labels"], second[i]["labels"]) for i in range(9))
    caplog.clear()
    with caplog.at_level(logging.INFO):
        load_llm_dataset(config("own.json@llm", llm__tok_len=300))
    assert "tokenised before" not in caplog.text


@pytest.mark.parametrize(
    ("kind", "content", "problem"),
    [
        ("no.json@llm", None, "no file"),
        ("own.json@llm", "[{", "cannot be read"),
        ("own.jsonl@llm", '{"instruction": "a"}', "no column output; there are instruction"),
        ("nothing@llm", None, r"gsm8k@llm.*FILE\.jsonl@llm"),
        ("code_search_net@llm", None, r"data\.root.*--embedded"),
    ],
)
def test_bad_input(config, tmp_path, kind, content, problem):
    if content is not None:
        (tmp_path / kind.partition("@")[0]).write_text(content)
    with pytest.raises(ConfigError, match=problem):
        get_data(config(kind))


def test_no_hub_and_no_file(config, monkeypatch):
    monkeypatch.setattr("fedfiles.hub.hub_is_reachable", lambda: False)
    with pytest.raises(ConfigError, match=r"gsm8k_train\.jsonl.*hub.*--embedded"):
        get_data(config("gsm8k@llm"))


def test_lda_needs_categories(config, tmp_path):
    write(tmp_path / "own.json", [record() for _ in range(20)])
    with pytest.raises(ConfigError, match=r"data\.splitter: iid"):
        get_data(config("own.json@llm", data__splitter="lda"))


SHARED = os.environ.get("FEDERATEDSCOPE_TEST_DATA", "")


@pytest.mark.skipif(not SHARED, reason="needs FEDERATEDSCOPE_TEST_DATA")
def test_real_rows_with_a_real_llama_tokenizer(config):
    data, _ = get_data(
        config(
            "gsm8k@llm",
            data__root=str(Path(SHARED) / "data"),
            data__splits=[0.98, 0.01, 0.01],
            federate__client_num=3,
            model__type=f"{Path(SHARED) / 'models' / 'stories260K'}@huggingface_llm",
            llm__tok_len=650,
        )
    )
    assert data[0].rows("train") + data[0].rows("val") == 7473
    assert data[0].rows("test") == 1319
    batch = next(iter(data[1]["train"]))
    assert ((batch["labels"] != IGNORE_INDEX).sum(1) > 0).all()
    assert (batch["labels"][batch["attention_mask"] == 0] == IGNORE_INDEX).all()

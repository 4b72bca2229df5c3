"""AG News and DBpedia-14, and the encoders of the replication paper: DistilBERT and ALBERT."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from federatedscope_ext.tasks import TEXT_TASKS
from federatedscope_ext.trainers.glue import accepted_inputs

WORDS = {"World": "good", "Sports": "bad", "Business": "film", "Sci/Tech": "music"}
TARGETS = {"distilbert": ["q_lin", "k_lin", "v_lin"], "albert": ["query", "key", "value"]}


def build(kind: str, vocabulary: int) -> Any:
    import transformers as hf

    if kind == "distilbert":
        return hf.DistilBertModel(
            hf.DistilBertConfig(
                vocab_size=vocabulary, dim=32, n_layers=2, n_heads=2, hidden_dim=48,
                max_position_embeddings=64, initializer_range=0.2,
            )
        )  # fmt: skip
    return hf.AlbertModel(
        hf.AlbertConfig(
            vocab_size=vocabulary, embedding_size=16, hidden_size=32, num_hidden_layers=3,
            num_attention_heads=2, intermediate_size=48, max_position_embeddings=64,
            initializer_range=0.2, classifier_dropout_prob=0.0,
        )
    )  # fmt: skip


@pytest.fixture(scope="session", params=["distilbert", "albert"])
def encoder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path
) -> tuple[str, Path]:
    """A random model of each kind with a tokenizer of BERT's kind, which makes token types."""
    folder = tmp_path_factory.mktemp("encoders") / request.param
    folder.mkdir()
    for file in tiny_model.glob("*token*"):
        shutil.copy(file, folder)
    from transformers import AutoTokenizer

    vocabulary = len(AutoTokenizer.from_pretrained(tiny_model))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        build(request.param, vocabulary).save_pretrained(folder)
    return request.param, folder


@pytest.fixture(scope="session")
def news(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows in the layout of AG News and DBpedia-14: training and test rows only."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = tmp_path_factory.mktemp("news")
    for task in TEXT_TASKS.values():
        rng = random.Random(4)  # a task more changes no other task's rows
        for split, rows in (("train", 240), ("test", 42)):
            labels = [i % task.num_labels for i in range(rows)]
            noise = [" ".join(rng.choices(["the", "a", "was", "plot"], k=4)) for _ in labels]
            words = [f"{text} w{label} w{label}" for text, label in zip(noise, labels, strict=True)]
            columns = {"text": words, "title": noise, "content": words, "label": labels}
            kept = {key: columns[key] for key in (*task.sentence_keys, "label")}
            file = root / task.name / f"{split}.parquet"
            file.parent.mkdir(exist_ok=True)
            pq.write_table(pa.table(kept), file)
    return root


def options(kind: str, folder: Path, *pairs: Any) -> tuple[Any, ...]:
    saved = ["pre_classifier", "classifier"] if kind == "distilbert" else ["classifier"]
    adapter = {
        "adapter_package": "peft", "adapter_method": "lora", "r": 4, "lora_alpha": 8,
        "target_modules": TARGETS[kind], "modules_to_save": saved,
    }  # fmt: skip
    return (
        "model.type", f"{folder}@huggingface_llm", "llm.adapter.args", f"[{adapter}]",
        "data.type", "ag_news@text", "federate.method", "fedavg", "eval.split", "['val', 'test']",
        *pairs,
    )  # fmt: skip


@pytest.mark.parametrize("task", ["ag_news", "dbpedia_14"])
def test_both_tasks_on_both_encoders(
    rig: Any, encoder: tuple[str, Path], news: Path, task: str
) -> None:
    labels = TEXT_TASKS[task].num_labels
    done = rig(*options(*encoder, "data.type", f"{task}@text", "data.root", news,
                        "train.local_update_steps", 8, "train.optimizer.lr", 0.02))  # fmt: skip
    assert done.code == 0
    assert done.run["label_names"] == list(TEXT_TASKS[task].labels)
    rows = {s: sum(c["rows"][s] for c in done.run["clients"]) for s in ("train", "val", "test")}
    # data.splits [0.8, 0.1, 0.1]: a ninth of the training rows validates, the test rows are given.
    assert rows == {"train": 213, "val": 27, "test": 42}
    losses = [line["Results_avg"]["val_avg_loss"] for line in done.lines[:-1]]
    assert losses[-1] < losses[0] < 2 * torch.log(torch.tensor(float(labels)))


def test_a_trained_encoder_tells_them_apart(
    rig: Any, encoder: tuple[str, Path], news: Path
) -> None:
    done = rig(*options(*encoder, "data.root", news, "train.local_update_steps", 20,
                        "train.optimizer.lr", 0.03, "data.splitter", "iid",
                        "data.splitter_args", "[]"))  # fmt: skip
    best = max(line["Results_avg"]["test_accuracy"] for line in done.lines[:-1])
    assert best > 0.6


def test_what_is_trained_and_sent(rig: Any, encoder: tuple[str, Path], news: Path) -> None:
    kind, folder = encoder
    runner = rig.runner(*options(kind, folder, "data.root", news))
    names = {n for n, p in runner.model.named_parameters() if p.requires_grad}
    factors = [n for n in names if "lora_" in n]
    # ALBERT's layers are one and the same, DistilBERT's are two.
    assert len(factors) == 2 * 3 * (2 if kind == "distilbert" else 1)
    assert all(any(f".{t}." in n for t in TARGETS[kind]) for n in factors)
    heads = {n.split(".modules_to_save")[0].split(".")[-1] for n in names - set(factors)}
    assert heads == ({"pre_classifier", "classifier"} if kind == "distilbert" else {"classifier"})
    assert set(runner.server.shared_state()) == names


def test_token_types_go_to_models_that_know_them(encoder: tuple[str, Path]) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    kind, folder = encoder
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    wanted = {"input_ids", "attention_mask", *(["token_type_ids"] if kind == "albert" else [])}
    assert set(accepted_inputs(model)) == wanted
    wrapped = get_peft_model(model, LoraConfig(target_modules=TARGETS[kind], task_type="SEQ_CLS"))
    assert set(accepted_inputs(wrapped)) == wanted


def test_models_of_ones_own() -> None:
    class Bare(torch.nn.Module):
        def forward(self, input_ids: Any, labels: Any = None) -> None:
            """Takes ids only."""

    class Anything(torch.nn.Module):
        def forward(self, **inputs: Any) -> None:
            """Takes all."""

    assert accepted_inputs(Bare()) == ("input_ids",)
    assert len(accepted_inputs(Anything())) == 3


def test_real_news_with_berts_vocabulary(rig: Any, tmp_path: Path) -> None:
    root = Path(os.environ.get("FEDERATEDSCOPE_TEST_DATA", ""))
    vocabulary = root / "models" / "bert_base_uncased_tokenizer" / "vocab.txt"
    if not vocabulary.is_file() or not (root / "data" / "ag_news").is_dir():
        pytest.skip("set FEDERATEDSCOPE_TEST_DATA to a folder with data/ag_news and models")
    shutil.copy(vocabulary, tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    build("distilbert", 30522).save_pretrained(tmp_path)
    for task, rows in (("ag_news", 6000), ("dbpedia_14", 1464)):
        pairs = ("data.root", root / "data", "data.type", f"{task}@text", "eval.max_rows", 5)
        done = rig(*options("distilbert", tmp_path, *pairs, "federate.total_round_num", 1))
        assert done.code == 0
        counts = [c["rows"]["train"] for c in done.run["clients"]]
        assert sum(counts) == round(rows * 8 / 9)

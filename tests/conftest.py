"""A tiny encoder, tiny data sets and full runs on them in about a second, without a hub."""

from __future__ import annotations

import ast
import copy
import json
import os
import queue
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch

from federatedscope import register
from federatedscope.core import launch
from federatedscope.core.callbacks import Callbacks
from federatedscope.core.cmd_args import parse_args
from federatedscope.core.configs.loading import build_config, check_run
from federatedscope.core.logging_setup import setup_console
from federatedscope.core.outdir import choose_outdir

GOOD = ["good", "fine", "great", "lovely", "bright", "warm", "happy", "superb"]
BAD = ["bad", "poor", "awful", "dull", "grim", "cold", "sad", "dreadful"]
PLAIN = ["the", "a", "film", "story", "scene", "actor", "music", "plot", "was", "seemed", "felt"]
NUMBERS = [f"w{i}" for i in range(40)]
WORDS = [*GOOD, *BAD, *PLAIN, *NUMBERS]
ROWS = {"train": 96, "val": 36}


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tokenised rows and the miniature go to a folder of this session, never to the user's cache.

    Workers of one session share it: building the miniature takes minutes.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with mock.patch.dict(os.environ, {"FEDERATEDSCOPE_CACHE": str(shared / "cache")}):
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of width 32 and two layers with a word-level tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny") / "bert"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = BertModel(
            BertConfig(
                vocab_size=len(vocabulary),
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=48,
                max_position_embeddings=64,
                initializer_range=0.2,
            )
        )
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaMA of width 32 and two layers with a word-level tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny") / "llama"
    vocabulary = {word: i for i, word in enumerate(["<unk>", "<s>", "</s>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(vocabulary),
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                intermediate_size=48,
                max_position_embeddings=128,
                bos_token_id=1,
                eos_token_id=2,
            )
        )
    model.save_pretrained(folder)
    return folder


def _sentence(rng: random.Random, label: int) -> str:
    words = rng.choices(PLAIN, k=rng.randint(3, 9)) + rng.choices((BAD, GOOD)[label], k=2)
    rng.shuffle(words)
    return " ".join(words)


def _pair(rng: random.Random, label: int) -> tuple[str, str]:
    subject = rng.choice(NUMBERS)
    kind = rng.choice((GOOD, BAD))
    other = {0: kind, 1: PLAIN, 2: BAD if kind is GOOD else GOOD}[label]
    premise = f"{subject} was {rng.choice(kind)} {' '.join(rng.choices(PLAIN, k=4))}"
    return premise, f"{subject} was {rng.choice(other)}"


@pytest.fixture(scope="session")
def glue_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated rows in the layout ``glue/TASK/SPLIT.parquet`` of sst2 and mnli."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = tmp_path_factory.mktemp("data")
    rng = random.Random(3)

    def write(task: str, split: str, columns: dict[str, list[Any]]) -> None:
        file = root / "glue" / task / f"{split}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), file)

    for split, rows in (("train", ROWS["train"]), ("validation", ROWS["val"])):
        labels = [i % 2 for i in range(rows)]
        write("sst2", split, {"sentence": [_sentence(rng, x) for x in labels], "label": labels})
    for split, rows in (
        ("train", 120),
        ("validation_matched", 36),
        ("validation_mismatched", 36),
    ):
        labels = [i % 3 for i in range(rows)]
        pairs = [_pair(rng, x) for x in labels]
        write(
            "mnli",
            split,
            {
                "premise": [p for p, _ in pairs],
                "hypothesis": [h for _, h in pairs],
                "label": labels,
            },
        )
    return root


LORA = "[{'adapter_package': 'peft', 'adapter_method': 'lora', 'r': 4, 'lora_alpha': 8}]"
VERA = "[{'adapter_package': 'peft', 'adapter_method': 'vera', 'r': 8, 'vera_dropout': 0.0}]"
DEFAULTS: dict[str, Any] = {
    "federate.method": "fedsa",
    "federate.client_num": 3,
    "federate.total_round_num": 2,
    "data.type": "sst2@glue",
    "data.splitter": "lda",
    "data.splitter_args": "[{'alpha': 0.5}]",
    "dataloader.batch_size": 8,
    "dataloader.drop_last": False,
    "llm.tok_len": 32,
    "llm.adapter.use": True,
    "llm.adapter.args": LORA,
    "train.local_update_steps": 2,
    "train.batch_or_epoch": "batch",
    "train.optimizer.type": "AdamW",
    "train.optimizer.lr": 0.01,
    "criterion.type": "CrossEntropyLoss",
    "trainer.type": "gluetrainer",
    "eval.freq": 1,
    "eval.split": "['val']",
    "eval.metrics": "['accuracy']",
    "eval.best_res_update_round_wise_key": "val_accuracy",
    "early_stop.patience": 0,
}


@dataclass
class Finished:
    """What a run left.

    Attributes
    ----------
    code : int
        Exit code.
    outdir : Path
        The run's folder.
    run : dict
        Content of ``run.json``.
    events : list of dict
        Lines of ``metrics.jsonl``.
    lines : list of dict
        Lines of ``eval_results.log``.
    """

    code: int
    outdir: Path
    run: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)

    def of(self, event: str, **wanted: Any) -> list[dict[str, Any]]:
        """Events of a kind, with the given values."""
        return [
            e
            for e in self.events
            if e["event"] == event and all(e.get(k) == v for k, v in wanted.items())
        ]

    @property
    def timeless(self) -> list[dict[str, Any]]:
        """The events without what a clock decides."""
        return [{k: v for k, v in e.items() if k != "seconds"} for e in self.events]

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Figures of all evaluations and trainings, in order."""
        return [
            {k: e[k] for k in ("event", "round", "client", "metrics")}
            for e in self.events
            if "metrics" in e
        ]


def read_run(code: int, outdir: Path) -> Finished:
    """Everything that a run left in its folder."""
    done = Finished(code, outdir)
    if (outdir / "run.json").exists():
        done.run = json.loads((outdir / "run.json").read_text())
    if (outdir / "metrics.jsonl").exists():
        text = (outdir / "metrics.jsonl").read_text()
        done.events = [json.loads(line) for line in text.splitlines()]
    if (outdir / "eval_results.log").exists():
        text = (outdir / "eval_results.log").read_text()
        done.lines = [ast.literal_eval(x) for x in text.splitlines()]
    return done


class Rig:
    """Runs on the tiny model and data; every option can be overridden by ``key value`` pairs."""

    def __init__(self, tmp_path: Path, model: Path, root: Path) -> None:
        # Registers its report, before a run takes back what was added for it.
        import federatedscope_ext.tools  # noqa: F401

        self.tmp_path = tmp_path
        self.defaults = {
            **DEFAULTS,
            "model.type": f"{model}@huggingface_llm",
            "data.root": str(root),
        }
        self.count = 0

    def argv(self, *opts: Any) -> list[str]:
        """The command line of a run: flags first, then all pairs."""
        flags = [str(o) for o in opts if str(o).startswith("--")]
        rest = [o for o in opts if not str(o).startswith("--")]
        pairs = {**self.defaults, **dict(zip(rest[0::2], rest[1::2], strict=True))}
        return [*flags, *(str(part) for pair in pairs.items() for part in pair)]

    def read(self, code: int, outdir: Path) -> Finished:
        """What a run left in its folder."""
        return read_run(code, outdir)

    def folder(self) -> Path:
        """A new run folder."""
        self.count += 1
        return self.tmp_path / f"run{self.count}"

    def __call__(self, *opts: Any, callbacks: tuple[Any, ...] = (), report: bool = False) -> Any:
        """A whole run through the command; returns what it left (:class:`Finished`).

        ``callbacks`` are added to the run's; without ``report`` no page and no curves are made.
        """
        outdir = self.folder()
        added = {f"test{i}": (lambda cfg, c=c: c) for i, c in enumerate(callbacks)}
        with mock.patch.dict(register.callback_dict, added):
            code = self.main("--quiet", f"--outdir={outdir}", *self.argv(*opts), report=report)
        return read_run(code, outdir)

    def main(self, *argv: str, report: bool = False) -> int:
        """The command in this process."""
        with mock.patch.dict(register.callback_dict):
            if not report:
                register.callback_dict.pop("report", None)
            return launch.main(list(argv))

    def prepared(self, *opts: Any) -> Any:
        """Everything before the weights are read."""
        setup_console(quiet=True)
        settings = build_config(parse_args(self.argv(*opts)))
        check_run(settings)
        prepared = launch.prepare(settings)
        settings.cfg.outdir = str(self.folder())
        launch.place_outputs(prepared, choose_outdir(settings.cfg, outdir_given=True))
        return prepared

    def runner(self, *opts: Any, callbacks: tuple[Any, ...] = (), **seams: Any) -> Any:
        """A runner with all its workers, nothing delivered yet.

        ``exchange`` and ``engine`` can be handed in.
        """
        return launch.build_runner(self.prepared(*opts), None, Callbacks(callbacks), **seams)


@pytest.fixture
def rig(tmp_path: Path, tiny_model: Path, glue_root: Path) -> Rig:
    """Runs on the tiny model and data."""
    return Rig(tmp_path, tiny_model, glue_root)


@pytest.fixture
def registry() -> Iterator[None]:
    """Put the registry back after a test that registers something."""
    import federatedscope_ext.tools  # noqa: F401  (part of what is there before)

    kinds = [d for name, d in vars(register).items() if name.endswith("_dict")]
    before = [dict(d) for d in kinds]
    yield
    for now, then in zip(kinds, before, strict=True):
        now.clear()
        now.update(then)


class Stopped(Exception):
    """A test has seen enough of a course."""


class Stepper:
    """Runs a runner's course in a thread that stands still around every hand-over."""

    def __init__(self, runner: Any) -> None:
        self.runner = runner
        self.shown: queue.Queue[Any] = queue.Queue()
        self.go_on: queue.Queue[bool] = queue.Queue()
        self.deliver = runner.exchange.deliver
        self.failure: BaseException | None = None

    def __iter__(self) -> Iterator[Any]:
        self.runner.exchange.deliver = self._stepwise
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            while (step := self.shown.get()) is not None:
                yield step
                self.go_on.put(True)
        finally:
            self.go_on.put(False)
            thread.join()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        torch.set_num_threads(1)
        try:
            self.runner.run()
        except Stopped:
            pass
        except Exception as error:  # noqa: BLE001 - raised again where the test looks
            self.failure = error
        self.shown.put(None)

    def _stepwise(self, message: Any, receiver: int) -> None:
        single = copy.copy(message)
        single.receiver = [receiver]
        self._show(single, ~receiver)
        self.deliver(message, receiver)
        self._show(single, receiver)

    def _show(self, message: Any, receiver: int) -> None:
        self.shown.put((message, receiver))
        if not self.go_on.get():
            raise Stopped


@pytest.fixture
def step() -> Callable[[Any], Iterator[Any]]:
    """Run a runner hand-over by hand-over: ``for message, receiver in step(runner)``.

    Each pair comes twice: ``receiver`` negative just before the message is handled (``~receiver``
    will handle it), and as it is just after.
    """
    return lambda runner: iter(Stepper(runner))


@dataclass
class Sent:
    """A message as it was sent; its tensors are copies."""

    type: str
    sender: int
    receivers: list[int]
    state: int
    content: Any

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors in it by name."""
        content = self.content[1] if isinstance(self.content, tuple) else self.content
        content = content if isinstance(content, dict) else {}
        return {k: v for k, v in content.items() if isinstance(v, torch.Tensor)}


@pytest.fixture
def mail(monkeypatch: pytest.MonkeyPatch) -> list[Sent]:
    """Every message that any worker sends from now on."""
    from federatedscope.core.communication import StandaloneCommManager

    sent: list[Sent] = []
    real = StandaloneCommManager.send

    def send(self: Any, message: Any) -> None:
        content = copy.deepcopy(message.content)
        sent.append(
            Sent(message.msg_type, message.sender, message.receivers, message.state, content)
        )
        real(self, message)

    monkeypatch.setattr(StandaloneCommManager, "send", send)
    return sent

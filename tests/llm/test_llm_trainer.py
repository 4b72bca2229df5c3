"""Causal language models: training on answers, and answers generated."""

from __future__ import annotations

import json
import random
import shutil
from itertools import takewhile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch

from federatedscope.core.configs.config import global_cfg
from federatedscope.llm.generation import (
    generate,
    generated_answers,
    number_match,
)


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    rng = random.Random(0)
    file = tmp_path / "own.jsonl"
    with file.open("w") as stream:
        for i in range(60):
            word = rng.choice(["good", "bad"])
            answer = "great fine" if word == "good" else "awful dull"
            record = {
                "instruction": f"the film was {word}", "input": "", "output": answer,
                "category": ("a", "b", "c")[i % 3],
            }  # fmt: skip
            stream.write(json.dumps(record) + "\n")
    return file


def options(file: Path, model: Path) -> tuple[Any, ...]:
    return (
        "data.type", f"{file}@llm", "model.type", f"{model}@huggingface_llm",
        "trainer.type", "llmtrainer", "data.splitter", "iid", "data.splits", "[0.8, 0.2, 0.0]",
        "eval.metrics", "[]", "eval.best_res_update_round_wise_key", "val_avg_loss",
        "llm.tok_len", 100, "train.optimizer.lr", 0.02, "train.local_update_steps", 3,
    )  # fmt: skip


class TestTraining:
    def test_fedsa_on_a_decoder(
        self, rig: Any, own_file: Path, tiny_llama: Path, mail: list[Any]
    ) -> None:
        rate = ("train.optimizer.lr", 0.1)
        done = rig(*options(own_file, tiny_llama), *rate, "federate.total_round_num", 4)
        assert done.code == 0
        assert (done.run["task_type"], done.run["head_rule"]) == ("CAUSAL_LM", "none")
        assert done.run["clients"][0]["majority"] is None
        names = {name for m in mail for name in m.tensors}
        assert names
        assert all("lora_A" in name for name in names)
        losses = [line["Results_avg"]["val_avg_loss"] for line in done.lines[:-1]]
        assert losses[-1] < losses[0]
        assert all(e["tokens"] > 0 for e in done.of("train"))

    def test_the_loss_is_the_models_own(self, rig: Any, own_file: Path, tiny_llama: Path) -> None:
        runner = rig.runner(*options(own_file, tiny_llama))
        trainer = runner.clients[1].trainer
        sums = []

        def look(ctx: Any) -> None:
            batch = ctx.data_batch
            with torch.no_grad():
                logits = ctx.model(
                    input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
                ).logits
            targets = batch["labels"][:, 1:]
            loss = torch.nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), targets.flatten(), ignore_index=-100
            )
            assert torch.allclose(loss, ctx.loss_batch, atol=1e-5)
            sums.append(float(loss) * len(targets))

        trainer.register_hook_in_eval(look, "on_batch_forward")
        metrics = trainer.evaluate("val")
        assert metrics["val_total"] == 4
        assert metrics["val_loss"] == pytest.approx(sum(sums), rel=1e-5)
        assert metrics["val_avg_loss"] == pytest.approx(sum(sums) / 4, rel=1e-5)

    def test_by_category(self, rig: Any, own_file: Path, tiny_llama: Path) -> None:
        done = rig(*options(own_file, tiny_llama), "data.splitter", "meta")
        assert done.code == 0
        for client in done.run["clients"]:
            assert len(client["labels"]["train"]) == 1

    def test_generated_answers_are_a_metric(
        self, rig: Any, own_file: Path, tiny_llama: Path
    ) -> None:
        done = rig(
            *options(own_file, tiny_llama), "eval.metrics", "['acc']", "eval.max_new_tokens", 2,
            "eval.max_generated_rows", 2, "federate.total_round_num", 1,
            "eval.best_res_update_round_wise_key", "val_acc",
        )  # fmt: skip
        assert done.code == 0
        assert all(e["metrics"]["val_acc"] == 0.0 for e in done.of("eval"))
        assert not any("train_acc" in e["metrics"] for e in done.of("train"))
        assert done.run["larger_is_better"] is True

    def test_in_half_precision(self, rig: Any, own_file: Path, tiny_llama: Path) -> None:
        done = rig(
            *options(own_file, tiny_llama), "train.is_enable_half", True, "train.half_dtype",
            "bf16", "eval.metrics", "['acc']", "eval.max_new_tokens", 2,
            "federate.total_round_num", 1,
        )  # fmt: skip
        assert done.code == 0
        assert all(e["nonfinite"] == 0 for e in done.of("train"))


class Spoken:
    """A tokenizer and model in one that knows its answers by heart."""

    pad_token_id, eos_token_id, sep_token_id = 0, 1, None

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers
        self.prompts = list(answers)
        self.calls: list[dict[str, Any]] = []

    def __call__(self, prompt: str, **options: Any) -> dict[str, list[int]]:
        number = self.prompts.index(prompt) + 2
        # The last token closes the text; an answer must not follow it.
        return {"input_ids": [9] * number + [number, self.eos_token_id]}

    def generate(self, input_ids: torch.Tensor, **options: Any) -> torch.Tensor:
        settings = options["generation_config"]
        self.calls.append({"input_ids": input_ids, **settings.to_dict(), **options})
        return torch.cat([input_ids, input_ids[:, -1:]], dim=1)

    def batch_decode(self, ids: list[list[int]], skip_special_tokens: bool) -> list[str]:
        assert all(len(row) == 1 for row in ids)
        return [self.answers[self.prompts[int(row[0]) - 2]] for row in ids]


class Rows:
    def __init__(self, speaker: Spoken, references: dict[str, str]) -> None:
        self.tokenizer = speaker
        self.rows = [{"prompt": p, "answer": a} for p, a in references.items()]

    def __len__(self) -> int:
        return len(self.rows)

    def raw(self, index: int) -> dict[str, str]:
        return self.rows[index]


@pytest.fixture
def real(tiny_llama: Path) -> Any:
    """A model and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    return model, AutoTokenizer.from_pretrained(tiny_llama)


class TestGeneration:
    def test_prompts_are_padded_on_the_left(self) -> None:
        speaker = Spoken({"a": "1", "b": "2", "c": "3"})
        texts = generate(speaker, speaker, ["a", "c", "b"], "cpu", 50, 7)
        assert texts == ["1", "3", "2"]
        (call,) = speaker.calls
        assert call["input_ids"].shape == (3, 5)
        assert call["input_ids"][0].tolist() == [0, 0, 9, 9, 2]
        assert call["attention_mask"][0].tolist() == [0, 0, 1, 1, 1]
        assert (call["max_new_tokens"], call["do_sample"]) == (7, False)

    def test_long_prompts_lose_their_beginning(self) -> None:
        speaker = Spoken({"a": "1", "b": "2"})
        generate(speaker, speaker, ["b"], "cpu", 2, 3)
        assert speaker.calls[0]["input_ids"].tolist() == [[9, 3]]

    @pytest.mark.parametrize(
        ("positions", "longest"), [(None, 9), (3, 9), (100, 9), (8, 1), (13, 6)]
    )
    def test_prompt_and_answer_fit_into_the_model(
        self, positions: int | None, longest: int
    ) -> None:
        """A model without positions beyond its own may not even run there."""
        speaker = Spoken({str(i): "x" for i in range(8)})
        if positions is not None:
            speaker.config = SimpleNamespace(max_position_embeddings=positions)
        cfg = global_cfg.clone()
        cfg.llm.tok_len, cfg.eval.max_new_tokens = 9, 7
        generated_answers(speaker, Rows(speaker, {"7": "x"}), cfg, "cpu")
        assert speaker.calls[0]["input_ids"].shape == (1, longest)

    def test_answers_come_in_the_rows_order(self) -> None:
        texts = {"a long prompt": "1", "b": "2", "cc c": "3"}
        speaker = Spoken(texts)
        cfg = global_cfg.clone()
        cfg.eval.batch_size = 2
        answers = generated_answers(speaker, Rows(speaker, {p: p for p in texts}), cfg, "cpu")
        assert [a.text for a in answers] == ["1", "2", "3"]
        assert [a.references for a in answers] == [[p] for p in texts]

    @pytest.mark.parametrize(("limit", "share"), [(0, 0.5), (1, 1.0), (3, 2 / 3)])
    def test_exact_match(self, limit: int, share: float) -> None:
        speaker = Spoken({
            "one": "3 + 4 is 7. The answer is 7.", "two": "The answer is 9.",
            "three": "it is 1,000", "four": "no idea",
        })  # fmt: skip
        rows = Rows(speaker, {"one": "#### 7", "two": "#### 8", "three": "#### 1000", "four": "x"})
        cfg = global_cfg.clone()
        cfg.eval.max_generated_rows = limit
        cfg.eval.batch_size = 2
        answers = generated_answers(speaker, rows, cfg, "cpu")
        assert number_match(answers) == pytest.approx(share)

    def test_a_real_model_continues_like_one_by_one(self, real: Any) -> None:
        """Padding changes no continuation."""
        model, tokenizer = real
        prompts = ["the film was good", "bad", "the story seemed rather dull and very sad"]
        together = generate(model, tokenizer, prompts, "cpu", 50, 5)
        alone = [generate(model, tokenizer, [p], "cpu", 50, 5)[0] for p in prompts]
        assert together == alone
        assert any(together)

    @pytest.mark.parametrize(
        ("template", "special", "kept"),
        [
            ("<s> $A", [1], [1]),
            ("<s> $A </s>", [1, 2], [1]),
            # The same token begins and ends a text.
            ("</s> $A </s>", [2], [2]),
            ("<s> <unk> $A", [1, 0], [1, 0]),
            ("$A </s>", [2], []),
        ],
    )
    def test_a_long_prompt_keeps_what_begins_every_text(
        self, real: Any, template: str, special: list[int], kept: list[int]
    ) -> None:
        from tokenizers.processors import TemplateProcessing

        model, tokenizer = real
        names = [(tokenizer.convert_ids_to_tokens(i), i) for i in special]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=template, special_tokens=names
        )
        prompts = ["good bad", "the film was good and bad and fine", "</s> <s> good fine great bad"]
        with mock.patch.object(model, "generate", wraps=model.generate) as spy:
            generate(model, tokenizer, prompts, "cpu", 5, 2)
        rows = spy.call_args.kwargs["input_ids"].tolist()
        for prompt, row in zip(prompts[1:], rows[1:], strict=True):
            whole = tokenizer(prompt, add_special_tokens=False)["input_ids"]
            assert row == [*kept, *whole[len(kept) - 5 :]]

    @pytest.mark.parametrize(
        "settings",
        [
            {"do_sample": True, "temperature": 5.0, "top_p": 0.9, "top_k": 3},
            {"repetition_penalty": 9.0, "no_repeat_ngram_size": 1, "num_beams": 3},
            {"max_length": 3, "min_new_tokens": 9, "suppress_tokens": [5, 6], "use_cache": False},
            {"forced_eos_token_id": 7, "bad_words_ids": [[11]]},
        ],
    )
    def test_the_folders_own_settings_change_no_answer(
        self, real: Any, tiny_llama: Path, tmp_path: Path, settings: dict[str, Any]
    ) -> None:
        """A ``generation_config.json`` that asks for sampling or a penalty, as Qwen's does."""
        from transformers import AutoModelForCausalLM

        folder = tmp_path / "model"
        shutil.copytree(tiny_llama, folder)
        (folder / "generation_config.json").write_text(json.dumps(settings))
        model, (plain, tokenizer) = AutoModelForCausalLM.from_pretrained(folder).eval(), real
        prompts = ["the film was good", "the story"]
        before = model.generation_config.to_dict()
        found = generate(model, tokenizer, prompts, "cpu", 50, 6)
        assert found == generate(plain, tokenizer, prompts, "cpu", 50, 6)
        assert model.generation_config.to_dict() == before

    def test_any_of_several_ends(self, real: Any) -> None:
        """As Llama-3 has them; what follows is padding, here a word of the vocabulary."""
        model, tokenizer = real
        tokenizer.pad_token = None
        model.generation_config.eos_token_id = None
        tokenizer.eos_token = None
        prompts = ["the film was good", "bad"]
        whole = [text.split() for text in generate(model, tokenizer, prompts, "cpu", 50, 6)]
        stops = [whole[0][2], whole[1][4]]
        model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(stops)
        cut = [" ".join(takewhile(lambda word: word not in stops, words)) for words in whole]
        assert generate(model, tokenizer, prompts, "cpu", 50, 6) == cut

    def test_adapters_generate_by_the_same_rule(self, real: Any) -> None:
        from peft import LoraConfig, PromptTuningConfig, get_peft_model

        model, tokenizer = real
        plain = generate(model, tokenizer, ["the film"], "cpu", 50, 6)
        model.generation_config.repetition_penalty = 9.0
        lora = get_peft_model(model, LoraConfig(r=2, task_type="CAUSAL_LM")).eval()
        assert generate(lora, tokenizer, ["the film"], "cpu", 50, 6) == plain
        lora.unload()
        virtual = PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
        prompted = get_peft_model(model, virtual).eval()
        (text,) = generate(prompted, tokenizer, ["the film"], "cpu", 50, 6)
        assert len(text.split()) == 6

    @pytest.mark.parametrize(
        "unlike", [{"config": SimpleNamespace(model_type="rwkv")},
                   {"active_peft_config": SimpleNamespace(is_prompt_learning=True)}],
    )  # fmt: skip
    def test_where_padding_would_count_there_is_none(self, unlike: dict[str, Any]) -> None:
        """RWKV's states take it in like any token, virtual tokens would stand further away."""
        texts = {"a": "1", "bb": "2", "ccc": "3"}
        speaker = Spoken(texts)
        vars(speaker).update(unlike)
        generated_answers(speaker, Rows(speaker, texts), global_cfg.clone(), "cpu")
        assert [call["attention_mask"].min() for call in speaker.calls] == [1, 1, 1]

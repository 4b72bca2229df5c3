"""The generated data have the columns, labels and honesty that they promise."""

from __future__ import annotations

import json
import random
import re
from collections import Counter

import pytest

from federatedscope_ext.data.glue import find_splits
from federatedscope_ext.tasks import GLUE_TASKS, TEXT_TASKS
from federatedscope_ext.tools.embedded.corpora import (
    arithmetic,
    instructions,
    lexicon,
    pairs,
    tasks,
    write,
)
from federatedscope_ext.tools.embedded.corpora import documents as texts
from federatedscope_ext.tools.embedded.corpora.scenes import alter, render, sample_scene

TASKS = {**{name: ("glue/", task) for name, task in GLUE_TASKS.items()},
         **{name: ("", task) for name, task in TEXT_TASKS.items()}}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write.write_all(folder)
    return folder


def test_every_file_is_written(root):
    found = {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()}
    tables = {f"{name}.parquet" for name in write.TABLES}
    assert found == {*tables, *write.JSON_FILES, *write.JSON_LINES}


@pytest.mark.parametrize("name", sorted(TASKS))
def test_each_task_has_its_columns_and_balanced_labels(name):
    folder, task = TASKS[name]
    splits = [table for table in write.TABLES if table.startswith(f"{folder}{name}/")]
    wanted = {"train", *task.validation, *([task.test] if task.test else [])}
    assert {split.rsplit("/", 1)[1] for split in splits} >= wanted - {"test_matched"}
    for split in splits:
        rows = write.table(split)
        assert {*task.sentence_keys, "label", "idx"} == set(rows[0])
        assert all(row[key].strip() for row in rows for key in task.sentence_keys)
        labels = [row["label"] for row in rows]
        if task.is_regression:
            assert min(labels) >= 0.0 and max(labels) <= 5.0 and len(set(labels)) > 20
            continue
        counts = Counter(labels)
        assert set(counts) == set(range(task.num_labels))
        assert max(counts.values()) < 1.25 * min(counts.values())


@pytest.mark.parametrize(
    "name",
    ["glue/mnli/train", "glue/sst2/validation", "gsm8k/test", "natural_instructions/test"],
)
def test_the_same_rows_every_time(name):
    assert write.table(name) == write.table(name)


HELD_OUT = sorted(name for name in write.TABLES if not name.endswith("/train"))


@pytest.mark.parametrize("name", HELD_OUT)
def test_no_row_for_evaluation_is_one_of_training(name):
    train = {write.text_of(row) for row in write.table(f"{name.rpartition('/')[0]}/train")}
    held = [write.text_of(row) for row in write.table(name)]
    assert len(set(held)) == len(held) == write.TABLES[name][1]
    assert not train & set(held)
    labels = Counter(row.get("label") for row in write.table(name))
    if all(isinstance(label, int) for label in labels):
        assert max(labels.values()) - min(labels.values()) <= 1


def accuracy_of_words(rows, column):
    """What single words of one half of a pair give: a logistic regression, on held-out rows."""
    text = pytest.importorskip("sklearn.feature_extraction.text")
    linear = pytest.importorskip("sklearn.linear_model")
    words = text.CountVectorizer(token_pattern=r"[^ ]+")
    counts = words.fit_transform(row[column] for row in rows)
    labels = [row["label"] for row in rows]
    cut = 2 * len(rows) // 3
    model = linear.LogisticRegression(C=0.3, max_iter=300).fit(counts[:cut], labels[:cut])
    return model.score(counts[cut:], labels[cut:])


@pytest.mark.parametrize(
    ("maker", "column", "most"),
    [
        (pairs.mnli, "premise", 0.37),
        (pairs.mnli, "hypothesis", 0.43),
        (pairs.rte, "sentence1", 0.53),
        (pairs.rte, "sentence2", 0.55),
    ],
)
def test_half_a_pair_does_not_give_the_label_away(maker, column, most):
    assert accuracy_of_words(maker("check", 6000), column) < most


def test_mismatched_rows_are_of_other_genres():
    matched = {word for genre in lexicon.MATCHED for word in genre.places}
    other = {word for genre in lexicon.MISMATCHED for word in genre.places}
    rows = write.table("glue/mnli/validation_mismatched")
    words = Counter(word for row in rows for word in row["premise"].split())
    assert sum(words[word] for word in other) > 3 * sum(words[word] for word in matched - other)


@pytest.mark.parametrize("seed", range(5))
def test_an_altered_scene_differs_in_that_slot_only(seed):
    rng = random.Random(seed)
    scene = sample_scene(rng, lexicon.MATCHED)
    for slot in ("actor", "count", "trait", "place", "time", "mood"):
        changed = alter(rng, scene, slot)
        different = {name for name in vars(scene) if vars(scene)[name] != vars(changed)[name]}
        assert different == {slot}


@pytest.mark.parametrize(
    ("levels", "negated", "pattern"),
    [
        ({"actor": False, "act": False}, False, r"(the|some|an?) \w+ (is|are) \w+.* \."),
        ({"actor": True, "place": True}, False, r".*(in|out)doors \."),
        ({"actor": False, "place": False}, True, r"the \w+ (is|are) not in the \w+ \."),
        (
            {"actor": False, "count": False},
            False,
            r"there (is|are) (one|two|three|four|five) \w+ \.",
        ),
        ({"actor": False, "mood": False}, False, r"the \w+ (is|are) \w+ \."),
    ],
)
def test_sentences_say_what_they_mention(levels, negated, pattern):
    rng = random.Random(0)
    for _ in range(50):
        scene = sample_scene(rng, lexicon.MATCHED)
        text = render(rng, scene, levels, negated)
        assert re.fullmatch(pattern, text), text


@pytest.mark.parametrize(
    "relation", [pairs.ENTAILMENT, pairs.NEUTRAL, pairs.CONTRADICTION], ids=str
)
def test_negation_does_not_give_the_label_away(relation):
    rng = random.Random(0)
    said = [pairs.pose(rng, sample_scene(rng, lexicon.MATCHED), relation) for _ in range(2000)]
    assert 300 < sum(" not " in hypothesis for _, hypothesis in said) < 500


def test_a_change_of_place_is_a_contradiction_and_a_mood_is_open():
    rng = random.Random(1)
    moods = {word for pair in lexicon.MOODS for word in pair}
    rows = pairs.mnli("check", 3000)
    open_rows = [row for row in rows if moods & set(row["hypothesis"].split())]
    right = sum(row["label"] == pairs.NEUTRAL for row in open_rows)
    assert open_rows and right > 0.95 * len(open_rows)
    place = re.compile(f"in the ({'|'.join(lexicon.PLACES)})")
    for row in rng.sample(rows, 3000):
        said = place.findall(row["premise"]), place.findall(row["hypothesis"])
        if said[0] and said[1] and said[0] != said[1] and " not " not in row["hypothesis"]:
            right += row["label"] == pairs.CONTRADICTION
            open_rows.append(row)
    assert right > 0.95 * len(open_rows)


def evaluate(term: str) -> int:
    left, sign, right = re.fullmatch(r"(\d+)([-+*/])(\d+)", term).groups()
    results = {
        "+": int(left) + int(right),
        "-": int(left) - int(right),
        "*": int(left) * int(right),
    }
    return results[sign] if sign != "/" else int(left) // int(right)


def test_chains_of_reasoning_are_right():
    rows = arithmetic.gsm8k("check", 500)
    for row in rows:
        steps = re.findall(r"<<([^=]+)=(\d+)>>(\d+)", row["answer"])
        assert len(steps) == 2
        for term, inside, after in steps:
            assert evaluate(term) == int(inside) == int(after) >= 0
        assert row["answer"].endswith(f"\n#### {steps[-1][1]}")
    assert len({row["question"] for row in rows}) > 480


def test_pretraining_has_no_problem_of_the_task():
    asked = ("now?", "besides.", "together?", "left?", "has each")
    for text in texts.llama_documents("check", 800):
        assert not any(mark in text for mark in asked), text


def test_dolly_has_eight_balanced_categories():
    counts = Counter(row["category"] for row in instructions.dolly("check", 800))
    assert len(counts) == 8 and set(counts.values()) == {100}


def test_json_forms_hold_the_rows_of_the_tables(root):
    lines = (root / "gsm8k_train.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == write.table("gsm8k/train")
    assert set(json.loads((root / "alpaca_data.json").read_text())[0]) >= {"instruction", "output"}


def test_documents_agree_with_themselves():
    for document in texts.encoder_documents("check", 500):
        assert 2 <= len(document.sentences) <= 3 and document.topic
        assert all(sentence.strip() for sentence in document.sentences)


def test_the_layout_is_the_one_that_the_loader_reads(root):
    from federatedscope.core.configs.config import global_cfg

    cfg = global_cfg.clone()
    cfg.data.root = str(root)
    task = GLUE_TASKS["mnli"]
    sources = find_splits(cfg, task, ("train", "validation_matched"), ("glue",))
    assert len(sources) == 2


class TestNaturalInstructions:
    """Forty clients, a task each."""

    def test_columns_and_sizes(self):
        splits = {s: write.table(f"natural_instructions/{s}") for s in tasks.SIZES}
        for split, rows in splits.items():
            assert len(rows) == tasks.SIZES[split]
            assert {*rows[0]} == {
                "client_id", "idx", "category", "instruction", "input", "output",
            }  # fmt: skip
            for client in range(len(tasks.TASKS)):
                mine = [row for row in rows if row["client_id"] == client]
                wanted = tasks.training_rows(client) if split == "train" else tasks.EVALUATED
                assert len(mine) == wanted
                assert len({row["category"] for row in mine}) == min(1, wanted)
        assert {tasks.training_rows(k) for k in range(40)} == {0, *range(8, 25)}

    def test_the_answer_follows_from_instruction_and_input(self):
        known: dict[tuple[str, str], str] = {}
        for split in tasks.SIZES:
            for row in write.table(f"natural_instructions/{split}"):
                key = (row["instruction"], row["input"])
                assert key not in known and row["output"]
                known[key] = row["output"]
        assert known

    def test_answers_differ_within_a_task(self):
        for client in range(len(tasks.TASKS)):
            rows = [
                row
                for split in tasks.SIZES
                for row in write.table(f"natural_instructions/{split}")
                if row["client_id"] == client
            ]
            most = Counter(row["output"] for row in rows).most_common(1)[0][1]
            assert most <= 0.7 * len(rows)

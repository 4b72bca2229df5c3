"""The number that an answer ends in."""

from __future__ import annotations

import itertools

import pytest

from federatedscope.llm.generation import Answer, final_number, number_match

MARKERS = ["The answer is", "the answer is:", "THE ANSWER IS ", "The  answer\nis", "####", "#### "]
RUN_ON = "\n\nQuestion: Ann has 5 eggs and finds 3.\nAnswer: "


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 3 + 4. The answer is 7.", 7),
        ("#### 1,234", 1234),
        ("The answer is 2. No: The answer is -3.5 apples, of 9", 2),
        ("#### 4\nThe answer is 5", 4),
        ("The answer is 5 #### 4", 5),
        ("first 4 then 12", 12),
        ("nothing", None),
        ("", None),
        ("The answer is unknown, 5 of them", 5),
        ("5 of them. The answer is unknown", None),
        ("The answer is unknown.\n\nQuestion: 5 eggs. The answer is 7", None),
        ("The answer is unknown. The answer is 7", None),
        ("The answer is:\n\n  12 eggs", 12),
        ("The answer is\n**$1,200**", 1200),
        ("The answer is:\n\nQuestion: 12 eggs", None),
        ("The answer isn't 4 but 6", 6),
        ("the answer is **18** eggs.", 18),
        ("The answer is $\\boxed{-18}$.", -18),
        ("it was 1920-25", 25),
        ("The answer is $-18", -18),
        ("x=-18", -18),
        ("pages 3\u20135", 5),
        ("on 2024-05-17", 17),
        ("so (4)-2", 2),
        ("it is...5", 5),
        ("The answer is No.5", 5),
    ],
)
def test_which_number(text: str, number: float | None) -> None:
    assert final_number(text) == number


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("7", 7),
        ("7.", 7),
        ("7...", 7),
        ("12.0", 12),
        ("012", 12),
        (".5", 0.5),
        ("$.50", 0.5),
        ("$18", 18),
        ("\\$18", 18),
        ("$ 18", 18),
        ("\u20ac18", 18),
        ("18%", 18),
        ("18eggs", 18),
        ("1,234", 1234),
        ("1,000,000.25", 1000000.25),
        ("1,00,000", 100000),
        ("1,2", 1),
        ("1,2345", 1),
        ("1, 200", 1),
        ("1e3", 1000),
        ("1.5E-2", 0.015),
        ("1e400", 1),
        ("2em", 2),
    ],
)
@pytest.mark.parametrize("sign", ["", "-", "\u2212", "\u2013"])
def test_how_it_is_written(sign: str, written: str, number: float) -> None:
    wanted = -number if sign else number
    assert final_number(f"The answer is {sign}{written} of 9") == wanted
    assert final_number(f"####{sign}{written}") == wanted


@pytest.mark.parametrize(("marker", "other"), itertools.product(MARKERS, MARKERS))
def test_what_comes_after_the_first_answer_does_not_count(marker: str, other: str) -> None:
    text = f"6 and 6 make 12. {marker} 12.{RUN_ON}8. {other} 8."
    assert final_number(text) == 12
    answers = [Answer(text, ["#### 12.0"]), Answer(text, [f"{marker} 8"])]
    assert number_match(answers) == 0.5


@pytest.mark.parametrize(
    ("text", "references", "right"),
    [
        ("so 12", ["12.0"], 1.0),
        ("so 12", ["#### 7", "the answer is 12"], 1.0),
        ("so 12", ["7", "8"], 0.0),
        ("no idea", ["no number"], 0.0),
        ("no idea", ["12"], 0.0),
    ],
)
def test_any_reference_counts(text: str, references: list[str], right: float) -> None:
    assert number_match([Answer(text, references)]) == right
    assert number_match([]) == 0.0

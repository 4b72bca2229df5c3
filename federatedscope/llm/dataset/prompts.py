"""The text that a model is asked with: the Alpaca format.

Taori et al., *Stanford Alpaca*, https://github.com/tatsu-lab/stanford_alpaca. Models tuned on it
expect these very words.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["PROMPT_DICT", "build_prompt"]

_TASK = "Below is an instruction that describes a task"
_ASK = "Write a response that appropriately completes the request.\n\n"

PROMPT_DICT = {
    "prompt_input": (
        f"{_TASK}, paired with an input that provides further context. {_ASK}"
        "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
    ),
    "prompt_no_input": f"{_TASK}. {_ASK}### Instruction:\n{{instruction}}\n\n### Response:",
}


def build_prompt(record: Mapping[str, str]) -> str:
    """The prompt of a record, with its ``input`` where that is not empty."""
    kind = "prompt_input" if record.get("input") else "prompt_no_input"
    return PROMPT_DICT[kind].format_map(record)

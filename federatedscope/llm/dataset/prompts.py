"""The text that a model is asked with: the Alpaca format.

Taori et al., *Stanford Alpaca*, https://github.com/tatsu-lab/stanford_alpaca. Models tuned on it
expect these very words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["PROMPT_DICT", "build_prompt", "in_context"]

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


def in_context(instruction: str, system: str, history: Sequence[Sequence[str]]) -> str:
    """An instruction after what the model is told first and the turns before, which stand as the
    template has them.

    Parameters
    ----------
    instruction, system : str
        The texts; ``system`` may be empty.
    history : sequence of (str, str)
        Earlier instructions and their answers, in order.
    """
    turns = (f"{asked}\n\n### Response:{answer}\n\n### Instruction:\n" for asked, answer in history)
    return (f"{system}\n\n" if system.strip() else "") + "".join(turns) + instruction

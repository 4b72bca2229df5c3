"""Instruction data for causal language models."""

from federatedscope.llm.dataset.instruction_files import INSTRUCTION_DATA
from federatedscope.llm.dataset.instruction_rows import IGNORE_INDEX, InstructionRows
from federatedscope.llm.dataset.llm_dataset import load_llm_dataset, split_llm_dataset
from federatedscope.llm.dataset.prompts import PROMPT_DICT, build_prompt
from federatedscope.llm.dataset.tokenizer import get_tokenizer

__all__ = [
    "IGNORE_INDEX",
    "INSTRUCTION_DATA",
    "PROMPT_DICT",
    "InstructionRows",
    "build_prompt",
    "get_tokenizer",
    "load_llm_dataset",
    "split_llm_dataset",
]

"""What tests of instruction data have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def options(tiny_llama: Path) -> tuple[Any, ...]:
    """A small run on Natural Instructions, all tasks as clients."""
    return (
        "data.type", "natural_instructions@llm", "model.type", f"{tiny_llama}@huggingface_llm",
        "trainer.type", "llmtrainer", "data.splitter", "", "data.splitter_args", "[]",
        "federate.client_num", 0, "federate.method", "fedavg", "llm.tok_len", 60,
        "eval.split", "['val']", "eval.metrics", "['rougeL']", "eval.max_new_tokens", 3,
        "eval.best_res_update_round_wise_key", "val_rougeL", "dataloader.batch_size", 4,
    )  # fmt: skip

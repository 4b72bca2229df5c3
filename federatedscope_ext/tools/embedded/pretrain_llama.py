"""Brief pretraining of the LLaMA: the next word of generated text.

The text has the numbers, the notation and the format of the arithmetic task, in problems of other
types.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from federatedscope_ext.tools.embedded import models
from federatedscope_ext.tools.embedded.corpora import instructions
from federatedscope_ext.tools.embedded.corpora.documents import llama_documents
from federatedscope_ext.tools.embedded.pretrain import optimizer_of
from federatedscope_ext.tools.embedded.vectors import SEED

#: called with the finished share of the work, 0 to 1
Report = Callable[[float], None]


@dataclass(frozen=True)
class LlamaSchedule:
    """How the LLaMA is pretrained.

    Attributes
    ----------
    documents, steps, batch
        Texts to generate, optimizer steps, and blocks of each step.
    length
        Tokens of a block.
    lr, warmup
        AdamW's peak learning rate and the steps that lead up to it.
    """

    documents: int = 14000
    steps: int = 350
    batch: int = 16
    length: int = 128
    lr: float = 3e-3
    warmup: int = 50


def pack(rows: Sequence[Sequence[int]], end: int, length: int) -> Tensor:
    """Tokens of all rows, one after another with ``end`` between, in blocks of ``length``.

    Returns
    -------
    Tensor
        Shape ``(blocks, length)``; what does not fill the last block is left out.
    """
    stream = np.concatenate([np.asarray([*row, end], dtype=np.int64) for row in rows])
    blocks = len(stream) // length
    return torch.from_numpy(stream[: blocks * length].reshape(blocks, length))


def train_llama(folder: Path, report: Report, schedule: LlamaSchedule | None = None) -> None:
    """Pretrain a LLaMA and save it with its tokenizer.

    Parameters
    ----------
    folder
        Where to save, in Hugging Face's format.
    report
        Told the finished share.
    schedule
        Defaults to `LlamaSchedule`'s own values.
    """
    schedule = schedule or LlamaSchedule()
    texts = llama_documents("llama", schedule.documents)
    # Words of code and of instructions get tokens too, though no text of theirs is trained on.
    words = [str(value) for row in instructions.code("words", 300) for value in row.values()]
    words += [str(value) for row in instructions.dolly("words", 800) for value in row.values()]
    tokenizer = models.llama_tokenizer([*texts[:8000], *words])
    rows = [item.ids for item in tokenizer.backend_tokenizer.encode_batch(texts)]
    blocks = pack(rows, tokenizer.eos_token_id, schedule.length)
    # The caller's random numbers are his own.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = models.llama(len(tokenizer))
        _fit(model, blocks, schedule, report)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _fit(model: Any, blocks: Tensor, schedule: LlamaSchedule, report: Report) -> None:
    optimizer, scheduler = optimizer_of(model, schedule.lr, schedule.warmup, schedule.steps)
    generator = torch.Generator().manual_seed(SEED)
    model.train()
    step = 0
    while step < schedule.steps:
        order = torch.randperm(len(blocks), generator=generator).split(schedule.batch)
        for rows in order[: schedule.steps - step]:
            ids = blocks[rows]
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits
            loss = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            step += 1
            if step % 50 == 0:
                report(step / schedule.steps)

"""Brief pretraining: the loop of both models, and the LLaMA's next word of generated text.

The text has the numbers, the notation and the format of the arithmetic task, in problems of other
types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from federatedscope_ext.tools.embedded import models
from federatedscope_ext.tools.embedded.corpora import instructions
from federatedscope_ext.tools.embedded.corpora.documents import llama_documents
from federatedscope_ext.tools.embedded.vectors import SEED

#: called with the finished share of the work, 0 to 1
Report = Callable[[float], None]

#: AdamW's peak learning rate, and the steps that lead up to it
LR, WARMUP = 3e-3, 50
#: texts to generate, optimizer steps, blocks of each step, and tokens of a block
DOCUMENTS, STEPS, BATCH, LENGTH = 14000, 350, 16, 128


def fit(module: nn.Module, losses: Iterator[Tensor], steps: int, report: Report) -> None:
    """Train on ``steps`` of the losses: AdamW with weight decay on matrices; warm-up and decay."""
    parameters = list(module.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.02},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.98))

    def factor(step: int) -> float:
        return min((step + 1) / WARMUP, 1.0, max(0.01, 1.5 * (1.0 - step / steps)))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    module.train()
    # The range comes first, so that no loss is computed for nothing at the end.
    for step, loss in zip(range(1, steps + 1), losses, strict=False):
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        scheduler.step()
        if step % 50 == 0:
            report(step / steps)


def pack(rows: Sequence[Sequence[int]], end: int, length: int) -> Tensor:
    """Tokens of all rows, one after another with ``end`` between, ``(blocks, length)``.

    What does not fill the last block is left out.
    """
    stream = np.concatenate([np.asarray([*row, end], dtype=np.int64) for row in rows])
    blocks = len(stream) // length
    return torch.from_numpy(stream[: blocks * length].reshape(blocks, length))


def _losses(model: Any, blocks: Tensor) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(SEED)
    while True:
        for rows in torch.randperm(len(blocks), generator=generator).split(BATCH):
            ids = blocks[rows]
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits
            yield functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def train_llama(folder: Path, report: Report) -> None:
    """Pretrain a LLaMA and save it with its tokenizer, in Hugging Face's format."""
    texts = llama_documents("llama", DOCUMENTS)
    # Words of code and of instructions get tokens too, though no text of theirs is trained on.
    other = instructions.code("words", 300) + instructions.dolly("words", 800)
    words = [str(value) for row in other for value in row.values()]
    tokenizer = models.llama_tokenizer([*texts[:8000], *words])
    rows = [item.ids for item in tokenizer.backend_tokenizer.encode_batch(texts)]
    blocks = pack(rows, tokenizer.eos_token_id, LENGTH)
    # The caller's random numbers are his own.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = models.llama(len(tokenizer))
        fit(model, _losses(model, blocks), STEPS, report)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

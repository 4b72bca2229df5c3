"""FederatedScope contract on today's stack: federated fine-tuning of language models."""

from __future__ import annotations

import os

__version__ = "0.1.0"

# PyTorch's threads spin for some 3 ms before they sleep while they wait for each other. Where the
# machine does something else too, they take the cores from those they wait for. GNU's OpenMP reads
# this once, when PyTorch is loaded, so it stands where every command begins. The user's word wins.
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "1000"

# The core asks for language models by name only; here the runtime is put together.
import federatedscope.llm  # noqa: F401

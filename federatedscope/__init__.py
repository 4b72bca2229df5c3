"""FederatedScope contract on today's stack: federated fine-tuning of language models."""

from __future__ import annotations

__version__ = "0.1.0"

# The core asks for language models by name only; here the runtime is put together.
import federatedscope.llm  # noqa: F401

"""The algebra of LoRA states: names, pairs, ranks, scales, means, sums, uploads.

Pure PyTorch, nothing federated and no configuration: the runtime and the extension both stand on
it. A LoRA module computes ``W0 x + s B A x`` with A of shape ``(r, d_in)`` and B ``(d_out, r)``.
"""

from __future__ import annotations

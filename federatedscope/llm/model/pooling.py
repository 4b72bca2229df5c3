"""Where a decoder that classifies looks for its answer: at the last token of the text.

Hugging Face's classes take the last token that is not the padding token. That is another place in
texts that end in this token, as all texts may where it is the end-of-text token; XLNet takes
the last place of the batch. The attention mask knows better.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["is_encoder", "pool_at_the_end"]


def is_encoder(config: Any) -> bool:
    """Whether a model's tokens see the ones after them, as BERT's do."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    decodes = getattr(config, "is_decoder", False) or config.is_encoder_decoder
    return str(config.model_type) in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not decodes


def pool_at_the_end(model: Any) -> None:
    """Let a decoder's classifier see the last token under the attention mask, whatever is padded
    with, on which side, and whichever tokens the text has.

    Encoders, which look at their first token, and encoder-decoders are left as they are.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    config = model.config
    decoder = str(config.model_type) in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if decoder and not is_encoder(config) and not config.is_encoder_decoder:
        base = getattr(model, model.base_model_prefix)
        base.register_forward_hook(_only_the_last, with_kwargs=True)


def _only_the_last(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> Any:
    """Hidden states of shape ``(batch, tokens, width)``, each row's last one in all its places."""
    mask = kwargs.get("attention_mask")
    if not isinstance(mask, torch.Tensor) or mask.dim() != 2:
        return None
    hidden = output[0]
    # Prefix tuning: the mask begins with places that are no tokens of the text.
    mask = mask[:, -hidden.shape[1] :]
    last = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).argmax(1)
    rows = torch.arange(len(mask), device=hidden.device)
    pooled = hidden[rows, last.to(hidden.device)].unsqueeze(1).expand_as(hidden)
    if isinstance(output, tuple):
        return (pooled, *output[1:])
    output["last_hidden_state"] = pooled
    return output

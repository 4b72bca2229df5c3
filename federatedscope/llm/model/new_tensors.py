"""A model's head as the model itself has it, and what of a model starts at random."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch

from federatedscope.core.errors import ConfigError
from fedlora.heads import SAVED, is_head

__all__ = ["check_trained", "head_modules", "other_labels", "start_anew", "wrong_shapes"]

_MANY = 8


def _outside_the_base(model: Any) -> list[str]:
    """Modules that the task's class has beside the base model: ``classifier`` of BERT's,
    ``sequence_summary`` and ``logits_proj`` of XLNet's.
    """
    return [
        name
        for name, child in model.named_children()
        if name != model.base_model_prefix and any(True for _ in child.parameters())
    ]


def head_modules(model: Any, missing: Iterable[str]) -> list[str]:
    """Modules of the head: those outside the base model, and in it poolers that the weights lack.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A sequence classifier without an adapter.
    missing : iterable of str
        Tensors that its weights lack.
    """
    poolers = {name.rpartition(".")[0] for name in missing if ".pooler." in f".{name}"}
    outside = _outside_the_base(model)
    return [*outside, *sorted(name for name in poolers if name.split(".")[0] not in outside)]


def start_anew(model: Any) -> set[str]:
    """Give a classifier a new head in place of its own; returns the names of its tensors."""
    names = set()
    with torch.no_grad():
        for name in _outside_the_base(model):
            head = model.get_submodule(name)
            for inner, parameter in head.named_parameters():
                parameter._is_hf_initialized = False
                names.add(f"{name}.{inner}")
            for module in head.modules():
                model._init_weights(module)
    return names


def check_trained(model: Any, head: Collection[str], missing: Iterable[str], cfg: Any) -> None:
    """Is all that starts at random trained, and does the head's rule hold for all of the head?

    Parameters
    ----------
    model : torch.nn.Module
        With its adapter, if it has one.
    head, missing
        See :func:`head_modules`.

    Raises
    ------
    ConfigError
        Something would stay as random as it starts, or would not follow ``personalization.head``.
    """
    rule = cfg.personalization.head
    if not cfg.llm.adapter.use:
        local = cfg.personalization.local_param
        stray = [
            name
            for name in head
            if rule in ("local", "frozen")
            and not is_head(f"{name}.weight")
            and not (rule == "local" and any(keyword in name for keyword in local))
        ]
        if stray:
            problem = f"{_listed(stray)} of the head would not follow it, without an adapter"
            remedy = "Write llm.adapter.use: True, or personalization.head: shared"
            raise ConfigError("personalization.head", rule, problem, remedy)
        return
    # Adapters of layers put the model at base_model.model, those of prompts at base_model.
    trained = {
        name.removeprefix(start).replace(f".{SAVED}.default.", ".")
        for name, parameter in model.named_parameters()
        for start in ("base_model.model.", "base_model.")
        if parameter.requires_grad
    }
    frozen = tuple(f"{name}." for name in head) if rule == "frozen" else ()
    random = [n for n in missing if n not in trained and not n.startswith(frozen or "\0")]
    if random:
        raise ConfigError(
            "model.type",
            cfg.model.type,
            f"its weights lack {_listed(random)}, which would stay as random as they start",
            "Give a folder with all weights of the model, or name their modules in "
            "llm.adapter.args.modules_to_save, which trains them",
        )


def wrong_shapes(mismatched: Iterable[Sequence[Any]], model: Any, cfg: Any) -> ConfigError | None:
    """The error of weights that have other shapes than the model; ``None`` where all fit.

    Parameters
    ----------
    mismatched : iterable of (str, shape, shape)
        Names, shapes of the weights and of the model.
    """
    wrong = sorted(mismatched, key=lambda each: str(each[0]))
    if not wrong:
        return None
    if all(name.split(".")[0] in _outside_the_base(model) for name, *_ in wrong):
        return ConfigError(
            "model.type",
            cfg.model.type,
            f"its head was trained for {wrong[-1][1][0]} label(s), and the data have "
            f"{cfg.data.num_labels}",
            "Write model.new_head: True to start with a new head, or give a model without one",
        )
    shapes = (f"{name} is {tuple(has)} and not {tuple(wants)}" for name, has, wants in wrong)
    return ConfigError(
        "model.type",
        cfg.model.type,
        f"its weights do not fit its config.json: {_listed(list(shapes))}",
        "Give a folder whose files belong together",
    )


def other_labels(model: Any, cfg: Any) -> list[str]:
    """A note where the head of the model's weights was trained for labels of other names."""
    names, own = dict(model.config.id2label or {}), [str(n) for n in cfg.data.label_list]
    theirs = [str(names.get(i, "")) for i in range(len(own))]
    unnamed = all(name.startswith("LABEL_") for name in theirs)
    if unnamed or [n.lower() for n in theirs] == [n.lower() for n in own]:
        return []
    return [
        f"The model's head was trained for the labels {_listed(theirs)}, in this order, and starts "
        f"as it is; the data's are {_listed(own)}. model.new_head: True starts with a new one."
    ]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MANY} more" if len(names) > _MANY else ""
    return ", ".join(names[:_MANY]) + more

"""A rule from outside that only knows how to aggregate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from federatedscope.core.aggregators.aggregator import Aggregator, takes_singly


class RegisteredAggregator(Aggregator):
    """Lends a registered rule what the server needs beside ``aggregate``: checkpoints.

    Everything that the rule has itself is the rule's (``reset``, ``inc``, ``weights``,
    ``diagnostics``, ...).

    Parameters
    ----------
    rule : object
        With ``aggregate(agg_info) -> state dict``.
    model, device, config
        See :class:`Aggregator`.
    """

    def __init__(
        self, rule: Any, model: nn.Module | None = None, device: Any = "cpu", config: Any = None
    ) -> None:
        self.rule = rule
        super().__init__(model, device, config)

    @property
    def takes_singly(self) -> bool:
        """Whether the rule takes in uploads one at a time."""
        return takes_singly(self.rule)

    def reset(self, agg_info: Mapping[str, Any] | None = None) -> None:
        """See :meth:`Aggregator.reset`."""
        if self.takes_singly:
            self.rule.reset(agg_info)

    def inc(
        self,
        content: tuple[float, Mapping[str, Tensor]],
        client_id: int | None = None,
        scales: Mapping[str, float] | None = None,
    ) -> None:
        """See :meth:`Aggregator.inc`."""
        self.rule.inc(content, client_id, scales)

    def aggregate(self, agg_info: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """See :meth:`Aggregator.aggregate`."""
        result: dict[str, Tensor] = self.rule.aggregate(agg_info)
        return result

    def weights(self, agg_info: Mapping[str, Any] | None = None) -> dict[int, float]:
        """The rule's own weights, or the normalised sample sizes."""
        own = getattr(self.rule, "weights", None)
        return dict(own(agg_info)) if callable(own) else super().weights(agg_info)

    def state_dict(self) -> dict[str, Any]:
        """The rule's, where it has one."""
        own = getattr(self.rule, "state_dict", None)
        return dict(own()) if callable(own) else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Give the rule its state back."""
        if state:
            self.rule.load_state_dict(state)

    def __getattr__(self, name: str) -> Any:
        if name == "rule":  # not set yet: copying an object asks before __init__
            raise AttributeError(name)
        return getattr(self.rule, name)


def with_checkpoints(rule: Any, model: nn.Module | None, device: Any, config: Any) -> Any:
    """``rule`` itself where it saves and loads, else wrapped so that it can."""
    if all(callable(getattr(rule, name, None)) for name in ("update", "save_model", "load_model")):
        return rule
    return RegisteredAggregator(rule, model, device, config)

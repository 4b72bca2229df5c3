"""What every server rule offers."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from federatedscope.core.aggregators.uploads import normalised_weights, read_uploads
from federatedscope.core.checkpoint import load_checkpoint, save_checkpoint
from federatedscope.core.client_store import checkpoint_tensors
from federatedscope.core.errors import UserError


class Aggregator(ABC):
    """A server rule. Subclasses write :meth:`aggregate`; the rest is there.

    Parameters
    ----------
    model : torch.nn.Module, optional
        The server's model. Needed by :meth:`update`, :meth:`save_model` and :meth:`load_model`.
    device : str
        Where to compute; results are on it.
    config : CN, optional
        The run's configuration. Reads ``federate.ignore_weight`` and ``aggregator.weights``.
    """

    def __init__(
        self, model: nn.Module | None = None, device: Any = "cpu", config: Any = None
    ) -> None:
        self.model = model
        self.device = device
        self.cfg = config
        # Frozen tensors of the last checkpoint that are more precise than the model's own.
        self.finer: dict[str, Tensor] = {}

    @abstractmethod
    def aggregate(self, agg_info: Mapping[str, Any]) -> dict[str, Tensor]:
        """Combine the uploads of a round. Inputs are not changed and not part of the result.

        Parameters
        ----------
        agg_info : mapping
            ``client_feedback``: list of ``(sample_size, state_dict)``; ``staleness``: list of
            ``(client_id, staleness)`` in the same order; ``current``: the server's state of the
            shared names before this round (optional; the model's own otherwise);
            ``recover_fun``: always ``None`` here.

        Returns
        -------
        dict of str to Tensor
            New values of the shared tensors, in the dtype of the uploads.
        """

    def weights(self, agg_info: Mapping[str, Any]) -> dict[int, float]:
        """The weight of each client ID in :meth:`aggregate`; they add up to 1."""
        return normalised_weights(read_uploads(agg_info), self.uniform)

    @property
    def uniform(self) -> bool:
        """Whether all clients weigh the same, whatever their sample sizes."""
        if self.cfg is None:
            return False
        return bool(self.cfg.federate.ignore_weight) or self.cfg.aggregator.weights == "uniform"

    def update(self, model_parameters: Mapping[str, Tensor]) -> None:
        """Copy a state into the server's model.

        Raises
        ------
        UserError
            A name the model does not have, or another shape.
        """
        mine = self._model_tensors()
        unknown = sorted(model_parameters.keys() - mine.keys())
        if unknown:
            raise UserError(
                f"The model has no tensor {unknown[0]} ({len(unknown)} of {len(model_parameters)} "
                "names are unknown to it). The state belongs to another model or adapter."
            )
        for name, value in model_parameters.items():
            if mine[name].shape != value.shape:
                raise UserError(
                    f"{name} is {tuple(value.shape)} in the state and {tuple(mine[name].shape)} in "
                    "the model. Check the adapter's rank and data.num_labels."
                )
        with torch.no_grad():
            for name, value in model_parameters.items():
                mine[name].copy_(value)

    def save_model(self, path: str | os.PathLike[str], cur_round: int = -1) -> None:
        """Write the server's tensors (frozen adapter factors included) and the round, atomically.

        Parameters
        ----------
        path : path
            ``.safetensors``, otherwise PyTorch's format: ``{'cur_round': t, 'model': state}``.
        cur_round : int
            Rounds completed.
        """
        save_checkpoint(path, checkpoint_tensors(self._required_model()), cur_round)

    def load_model(self, path: str | os.PathLike[str]) -> int:
        """Read a checkpoint of :meth:`save_model` or of FederatedScope; returns its round.

        Raises
        ------
        UserError
            No such file, a file that is no checkpoint, or one of another model.
        """
        state, cur_round = load_checkpoint(path)
        if not state:
            raise UserError(f"The checkpoint {path} holds no tensors.")
        try:
            self.update(state)
        except UserError as error:
            raise UserError(f"The checkpoint {path} does not fit this run: {error}") from error
        mine = self._model_tensors()
        self.finer = {
            name: value
            for name, value in state.items()
            if not mine[name].requires_grad and value.dtype.itemsize > mine[name].dtype.itemsize
        }
        return cur_round

    def _required_model(self) -> nn.Module:
        if self.model is None:
            raise UserError(f"{type(self).__name__} was built without a model; pass model=.")
        return self.model

    def _model_tensors(self) -> dict[str, Tensor]:
        """The model's parameters and buffers by name (tied ones under each name)."""
        model = self._required_model()
        tensors: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
        tensors.update(model.named_buffers(remove_duplicate=False))
        return tensors

    def _current(self, agg_info: Mapping[str, Any], names: Iterable[str]) -> dict[str, Tensor]:
        """The server's values of ``names`` before this round."""
        given = agg_info.get("current")
        source = self._model_tensors() if given is None else given
        missing = [name for name in names if name not in source]
        if missing:
            raise UserError(
                f"Clients sent {missing[0]}, which the server does not have ({len(missing)} such "
                f"names); {type(self).__name__} needs the server's value to compute the update."
            )
        return {name: source[name].detach() for name in names}

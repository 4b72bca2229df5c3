"""What every server rule offers."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from federatedscope.core.checkpoint import load_checkpoint, save_checkpoint
from federatedscope.core.client_store import checkpoint_tensors
from federatedscope.core.errors import UserError
from fedlora.errors import AggregationError
from fedlora.uploads import Intake, Upload, client_ids, normalised_weights


class Aggregator:
    """A server rule: uploads are taken in one at a time, then combined.

    A round is :meth:`reset`, :meth:`inc` per upload, :meth:`aggregate`; or :meth:`aggregate` alone
    with all uploads. Subclasses write :meth:`_begin`, :meth:`_add` and :meth:`_combine`, or, as in
    FederatedScope, :meth:`aggregate` alone, which then gets a round's uploads all at once.

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
        # Not the subclass's: one from outside may not be ready for it yet.
        Aggregator.reset(self)

    def reset(self, agg_info: Mapping[str, Any] | None = None) -> None:
        """Start a round; nothing of the one before is kept.

        Parameters
        ----------
        agg_info : mapping, optional
            What is known beforehand, see :meth:`aggregate`.
        """
        self._info: dict[str, Any] = dict(agg_info or {})
        self._intake = Intake()
        self._begin()

    def inc(
        self,
        content: tuple[float, Mapping[str, Tensor]],
        client_id: int | None = None,
        scales: Mapping[str, float] | None = None,
    ) -> None:
        """Take in one upload.

        Parameters
        ----------
        content : tuple
            ``(sample_size, state_dict)``.
        client_id : int, optional
            Who sent it; counted from 1 when not given.
        scales : mapping of str to float, optional
            The client's LoRA scales, for rules that combine unequal ranks.

        Raises
        ------
        AggregationError
            An ID twice, other names or shapes than the uploads before, values that are not finite.
        """
        self._add(self._intake.take(content, client_id))

    def aggregate(self, agg_info: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """Combine the uploads of a round. Inputs are not changed and not part of the result.

        Parameters
        ----------
        agg_info : mapping, optional
            ``client_feedback``: list of ``(sample_size, state_dict)``, without it the uploads that
            :meth:`inc` took in; ``staleness``: list of ``(client_id, staleness)`` in the same
            order; ``current``: the server's state of the shared names before this round (the
            model's own otherwise); ``recover_fun``: always ``None`` here.

        Returns
        -------
        dict of str to Tensor
            New values of the shared tensors, in the dtype of the uploads.

        Raises
        ------
        AggregationError
            No upload, weights that add up to zero, or what :meth:`inc` refuses.
        """
        info = dict(agg_info or {})
        if "client_feedback" in info:
            # Not a subclass's: one from outside may mean something else by these names.
            Aggregator.reset(self, info)
            for client, content in zip(client_ids(info), info["client_feedback"], strict=True):
                Aggregator.inc(self, content, client)
        self._info |= info
        if not self._intake.sizes:
            raise AggregationError("There is nothing to aggregate: no client sent an update.")
        return self._combine()

    def weights(self, agg_info: Mapping[str, Any] | None = None) -> dict[int, float]:
        """The weight of each client ID in :meth:`aggregate`; they add up to 1.

        Parameters
        ----------
        agg_info : mapping, optional
            With ``client_feedback``: the weights of those uploads. Otherwise those of the uploads
            since :meth:`reset`.
        """
        if agg_info is None or not agg_info.get("client_feedback"):
            return self._shares(self._intake.sizes, self._kept())
        intake, uploads = Intake(), []
        for client, content in zip(client_ids(agg_info), agg_info["client_feedback"], strict=True):
            uploads.append(intake.take(content, client))
        return self._shares(intake.sizes, uploads)

    def _begin(self) -> None:
        """Nothing has been taken in yet."""

    def _add(self, upload: Upload) -> None:
        """Take in one upload that has been read and checked."""
        raise NotImplementedError

    def _combine(self) -> dict[str, Tensor]:
        """The server's new state of the shared names."""
        raise NotImplementedError

    def _kept(self) -> Sequence[Upload]:
        """The uploads themselves, for rules that keep them."""
        return ()

    def _shares(self, sizes: Mapping[int, float], uploads: Sequence[Upload]) -> dict[int, float]:
        """Weights by client ID."""
        if not sizes:
            raise AggregationError("There is nothing to aggregate: no client sent an update.")
        return normalised_weights(sizes, self.uniform)

    @property
    def uniform(self) -> bool:
        """Whether all clients weigh the same, whatever their sample sizes."""
        if self.cfg is None:
            return False
        return bool(self.cfg.federate.ignore_weight) or self.cfg.aggregator.weights == "uniform"

    def _check_sizes(self) -> None:
        """Refuse sample sizes that add up to zero."""
        normalised_weights(self._intake.sizes, self.uniform)

    def _size(self, upload: Upload) -> float:
        """What an upload counts in a mean; not normalised."""
        return 1.0 if self.uniform else upload.sample_size

    def state_dict(self) -> dict[str, Any]:
        """What the next rounds depend on, tensors and JSON; nothing for most rules."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`state_dict`."""

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

    def _current(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The server's values of ``names`` before this round."""
        given = self._info.get("current")
        source = self._model_tensors() if given is None else given
        missing = [name for name in names if name not in source]
        if missing:
            raise UserError(
                f"Clients sent {missing[0]}, which the server does not have ({len(missing)} such "
                f"names); {type(self).__name__} needs the server's value to compute the update."
            )
        return {name: source[name].detach() for name in names}


def takes_singly(aggregator: Any) -> bool:
    """Whether an aggregator takes in uploads one at a time as they come, each with its scales.

    One that writes ``aggregate``, ``reset`` or ``weights`` anew without such an ``inc``, as rules
    from outside do, looks for all uploads of a round in its ``agg_info``. A class that says
    ``takes_singly`` itself is believed; its subclasses are not.
    """
    if "takes_singly" in vars(type(aggregator)):
        return bool(aggregator.takes_singly)
    lineage, own = type(aggregator).__mro__, getattr(aggregator, "__dict__", {})
    taking = next((c for c in lineage if "inc" in vars(c)), None)
    if taking is None or "scales" not in inspect.signature(vars(taking)["inc"]).parameters:
        return False
    for name in ("aggregate", "reset", "weights"):
        owner = next((c for c in lineage if name in vars(c)), None)
        if name in own or owner is None or not issubclass(taking, owner):
            return False
    return True

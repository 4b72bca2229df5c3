"""The configured data of all workers."""

from __future__ import annotations

from typing import Any

from federatedscope import register
from federatedscope.core.data.base_data import ClientData, StandaloneDataDict
from federatedscope.core.data.participation import limit_rows, note_untrained
from federatedscope.core.data.utils import count_rows, isolated_rng
from federatedscope.core.errors import ConfigError

__all__ = ["get_data"]


def get_data(config: Any, client_cfgs: Any = None) -> tuple[dict[int, Any], Any]:
    """Build the data that ``data.type`` names, registered builders first.

    ``client_cfgs`` is ``{'client_1': CN, ...}`` with what single clients have of their own.

    Returns
    -------
    tuple
        ``{0: server, 1..N: ClientData}``, and the configuration as the data complete it
        (numbers of labels and clients); the one given is left as it is.

    Raises
    ------
    ConfigError
        No builder knows ``data.type``, or the data cannot be found or split.

    Notes
    -----
    All random choices come from ``data.seed``; the global generators' states are put back.
    """
    modified = config.clone()
    modified.defrost()
    with isolated_rng(config.data.seed):
        built = register.first_answer(register.data_dict, modified, client_cfgs)
        if built is None:
            known = ", ".join(sorted(register.data_dict)) or "none"
            raise ConfigError(
                "data.type",
                str(modified.data.type),
                "no data set of this name is known",
                "Write TASK@glue (for example sst2@glue), NAME@llm (for example gsm8k@llm), "
                f"FILE.json@llm or FILE.jsonl@llm; registered builders: {known}",
            )
    data, modified = built
    if modified is config:
        modified = config.clone()
    modified.defrost()
    data = _selected(data, modified)
    limit_rows(data, modified)
    note_untrained(data, modified)
    if config.is_frozen():
        modified.freeze(save=False)
    return data, modified


def _selected(data: Any, config: Any) -> dict[int, Any]:
    """Apply ``federate.method: global`` and ``federate.client_idx_for_local_train``."""
    federate = config.federate
    if federate.method.lower() == "global":
        if sum(worker > 0 for worker in data) > 1 and isinstance(data[1], ClientData):
            data = StandaloneDataDict(data, config)
        _one_client(federate)
        return dict(data)
    chosen = federate.client_idx_for_local_train
    if chosen:
        if chosen not in data:
            clients = max(data)
            problem = f"the clients are numbered 1 to {clients}"
            remedy = f"Write a number from 1 to {clients}, or 0 to train all of them"
            raise ConfigError("federate.client_idx_for_local_train", chosen, problem, remedy)
        _count_others(data, chosen)
        data = {**({0: data[0]} if 0 in data else {}), 1: data[chosen]}
        _one_client(federate)
    return dict(data)


def _count_others(data: Any, chosen: int) -> None:
    """Note the rows of the clients that are not trained."""
    lost = sum(count_rows(data[k], "train") for k in data if k not in (0, chosen))
    if isinstance(data[chosen], ClientData):
        reason = f"federate.client_idx_for_local_train {chosen}"
        data[chosen].left_out.append(("train rows of other clients", lost, reason))


def _one_client(federate: Any) -> None:
    federate.client_num, federate.sample_client_num, federate.sample_client_rate = 1, -1, -1.0

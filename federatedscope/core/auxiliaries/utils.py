"""Small helpers under the names that extension modules import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from federatedscope.core.seeding import setup_seed

__all__ = ["merge_dict_of_results", "merge_param_dict", "param2tensor", "setup_seed"]


def merge_dict_of_results(dict1: dict[str, Any], dict2: Mapping[str, Any]) -> dict[str, Any]:
    """Append the values of one result to the lists of values of many, ``dict1``, which is
    changed and returned. A key that it lacks starts a list.

    Examples
    --------
    >>> merge_dict_of_results({"acc": [0.5]}, {"acc": 0.75, "raw": {"loss": 2.0}})
    {'acc': [0.5, 0.75], 'raw': {'loss': [2.0]}}
    """
    for key, value in dict2.items():
        if isinstance(value, Mapping):
            merge_dict_of_results(dict1.setdefault(key, {}), value)
        else:
            dict1.setdefault(key, []).append(value)
    return dict1


def merge_param_dict(
    raw_param: dict[str, Any], filtered_param: Mapping[str, Any]
) -> dict[str, Any]:
    """Overwrite parameters with those of the same name in ``filtered_param``, in place."""
    raw_param.update(filtered_param)
    return raw_param


def param2tensor(param: Any) -> Any:
    """A number or a (nested) list of numbers as a tensor; anything else as it is.

    Lists and floats become float32, integers int64.

    Raises
    ------
    TypeError
        ``param`` is text, which elsewhere stands for a pickled object. Reading one can run any
        code, so none is read here.
    """
    if isinstance(param, str | bytes):
        raise TypeError(
            "A parameter came as text, that is as a pickled object, which is never read. Send "
            "tensors, arrays, lists or numbers."
        )
    if isinstance(param, list):
        return torch.tensor(param, dtype=torch.float32)
    if isinstance(param, int):
        return torch.tensor(param, dtype=torch.int64)
    return torch.tensor(param, dtype=torch.float32) if isinstance(param, float) else param

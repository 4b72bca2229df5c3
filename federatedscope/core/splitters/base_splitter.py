"""What a splitter is."""

from __future__ import annotations

import abc
import inspect
from typing import Any

__all__ = ["BaseSplitter"]


class BaseSplitter(abc.ABC):
    """Divides the rows of a dataset among clients.

    Further arguments than the number of parts (``data.splitter_args``) are kept as attributes.

    Notes
    -----
    Splitters draw from NumPy's global generator. The data translator seeds it with ``data.seed``
    around every split and puts its state back.
    """

    def __init__(self, client_num: int, **kwargs: Any) -> None:
        self.client_num = client_num
        for name, value in kwargs.items():
            setattr(self, name, value)

    @abc.abstractmethod
    def __call__(self, dataset: Any, *args: Any, **kwargs: Any) -> list[Any]:
        """Split a dataset into ``client_num`` parts: datasets, lists of rows, or lists of indices
        into it. With ``prior``, for each client the labels of its training rows, the parts follow
        these distributions.
        """

    def __repr__(self) -> str:
        names = [
            name
            for name, parameter in inspect.signature(type(self).__init__).parameters.items()
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        ]
        shown = ", ".join(f"{n}={getattr(self, n)!r}" for n in names if hasattr(self, n))
        return f"{type(self).__name__}({shown})"

"""Errors that a user can repair.

All are :class:`ValueError` and carry ``is_user_error = True``: a command line prints their text as
one paragraph instead of a traceback.
"""

from __future__ import annotations

__all__ = ["AggregationError", "FieldError", "UserError"]


class UserError(ValueError):
    """A mistake that is not about one field (a file, an argument, a module).

    Parameters
    ----------
    message : str
        One paragraph: what is wrong and what to do instead.
    """

    is_user_error = True


class FieldError(UserError):
    """A field has a value that cannot be used.

    Parameters
    ----------
    field : str
        Full dotted key, for example ``"federate.sample_client_num"``.
    value : object
        The value that was given.
    problem : str
        Why it cannot be used.
    remedy : str
        What to write instead.

    Notes
    -----
    The rendered form is one paragraph: ``field = value: problem. remedy.``
    """

    def __init__(self, field: str, value: object, problem: str, remedy: str) -> None:
        self.field = field
        self.value = value
        self.problem = problem
        self.remedy = remedy
        super().__init__(field, value, problem, remedy)

    def __str__(self) -> str:
        text = f"{self.field} = {_shorten(self.value)}: {_sentence(self.problem)}"
        if self.remedy:
            text = f"{text} {_sentence(_capitalised(self.remedy))}"
        return text


class AggregationError(UserError):
    """Uploads that cannot be aggregated.

    Parameters
    ----------
    message : str
        One paragraph: what is wrong and what to do.
    client_id : int, optional
        The client that sent it.
    key : str, optional
        The tensor it is about.
    """

    def __init__(self, message: str, client_id: int | None = None, key: str | None = None) -> None:
        self.client_id = client_id
        self.key = key
        super().__init__(message)


def _shorten(value: object, limit: int = 120) -> str:
    """``repr`` of a value, cut in the middle where it is long."""
    text = repr(value)
    if len(text) <= limit:
        return text
    half = limit // 2 - 2
    return f"{text[:half]} ... {text[-half:]}"


def _capitalised(text: str) -> str:
    """The first letter large, unless the first word is a key to type as it is."""
    first = text.split(maxsplit=1)[0] if text.split() else ""
    return text if "." in first.rstrip(".:,") or "_" in first else text[:1].upper() + text[1:]


def _sentence(text: str) -> str:
    """One line that ends with a full stop."""
    line = " ".join(text.split())
    return line if not line or line[-1] in ".!?" else f"{line}."

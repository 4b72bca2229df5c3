"""The error that a user can repair."""

from __future__ import annotations

__all__ = ["ExtensionError"]


class ExtensionError(ValueError):
    """A configuration key has a value that cannot be used.

    Parameters
    ----------
    field : str
        Full dotted key, for example ``"eval.metrics"``.
    value : object
        The value that was given.
    problem : str
        Why it cannot be used.
    remedy : str
        What to write instead.

    Notes
    -----
    ``str(error)`` is one paragraph: ``field = value: problem. remedy.`` ``is_user_error`` tells
    the command line to print it without a traceback.
    """

    is_user_error = True

    def __init__(self, field: str, value: object, problem: str, remedy: str) -> None:
        self.field = field
        self.value = value
        self.problem = problem
        self.remedy = remedy
        super().__init__(field, value, problem, remedy)

    def __str__(self) -> str:
        text = f"{self.field} = {self.value!r}: {_sentence(self.problem)}"
        return (
            f"{text} {_sentence(self.remedy[:1].upper() + self.remedy[1:])}"
            if self.remedy
            else text
        )


def _sentence(text: str) -> str:
    """One line that ends with a full stop."""
    line = " ".join(text.split())
    return line if not line or line[-1] in ".!?" else f"{line}."

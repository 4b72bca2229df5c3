"""The error of a sweep that a user can repair."""

from __future__ import annotations

__all__ = ["SweepError"]


class SweepError(ValueError):
    """A sweep cannot start; ``is_user_error`` tells the command line to show no traceback.

    Parameters
    ----------
    message : str
        What is wrong, where, and what to do instead; may have several lines, one per point.
    """

    is_user_error = True

"""Names of modes, hook triggers and lifetimes, as extensions use them."""

from __future__ import annotations


class MODE:
    """What a routine does."""

    TRAIN = "train"
    TEST = "test"
    VAL = "val"
    FINETUNE = "finetune"


class TRIGGER:
    """Where hooks run inside a routine."""

    ON_FIT_START = "on_fit_start"
    ON_EPOCH_START = "on_epoch_start"
    ON_BATCH_START = "on_batch_start"
    ON_BATCH_FORWARD = "on_batch_forward"
    ON_BATCH_BACKWARD = "on_batch_backward"
    ON_BATCH_END = "on_batch_end"
    ON_EPOCH_END = "on_epoch_end"
    ON_FIT_END = "on_fit_end"

    ALL = (
        ON_FIT_START,
        ON_EPOCH_START,
        ON_BATCH_START,
        ON_BATCH_FORWARD,
        ON_BATCH_BACKWARD,
        ON_BATCH_END,
        ON_EPOCH_END,
        ON_FIT_END,
    )

    @classmethod
    def contains(cls, item: str) -> bool:
        """Whether ``item`` is a trigger."""
        return item in cls.ALL


class LIFECYCLE:
    """How long a context variable lives."""

    ROUTINE = "routine"
    EPOCH = "epoch"
    BATCH = "batch"
    NONE = None

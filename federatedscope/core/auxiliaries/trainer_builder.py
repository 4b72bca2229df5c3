"""Which trainer a worker gets."""

from __future__ import annotations

from typing import Any

from federatedscope import register
from federatedscope.core.errors import ConfigError

BUILT_IN = ("general", "torchtrainer")


def get_trainer_cls(trainer_type: str) -> type[Any]:
    """The class for ``trainer.type``: registered ones first, then the built-in ones.

    Raises
    ------
    ConfigError
        Nobody knows the type.
    """
    trainer_cls: type[Any] | None = register.first_answer(register.trainer_dict, trainer_type)
    if trainer_cls is not None:
        return trainer_cls
    if trainer_type.lower() in ("general", "torchtrainer"):
        from federatedscope.core.trainers.torch_trainer import GeneralTorchTrainer

        return GeneralTorchTrainer
    known = sorted({*BUILT_IN, *register.trainer_dict.built_in, *register.trainer_dict})
    raise ConfigError(
        "trainer.type",
        trainer_type,
        "no trainer of this name is built in or registered",
        f"use one of {', '.join(known)}, or import the module that registers it (extensions)",
    )


def get_trainer(
    model: Any = None,
    data: Any = None,
    device: Any = None,
    config: Any = None,
    only_for_eval: bool = False,
    is_attacker: bool = False,
    monitor: Any = None,
) -> Any:
    """Build a worker's trainer.

    Parameters
    ----------
    model, data, device, config, monitor
        Of the worker.
    only_for_eval : bool
        The server's trainer only evaluates.
    is_attacker : bool
        Kept for extensions; attacks are outside this project.
    """
    trainer_cls = get_trainer_cls(config.trainer.type)
    return trainer_cls(
        model=model,
        data=data,
        device=device,
        config=config,
        only_for_eval=only_for_eval,
        monitor=monitor,
    )

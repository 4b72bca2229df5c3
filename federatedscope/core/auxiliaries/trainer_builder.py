"""Which trainer a worker gets."""

from __future__ import annotations

from typing import Any

from federatedscope.core.auxiliaries.resolve import look_up, resolve


def get_trainer_cls(trainer_type: str) -> type[Any]:
    """The class for ``trainer.type``: registered ones first, then the built-in ones; a
    :class:`ConfigError` where nobody knows the type.
    """

    def built_in() -> Any:
        from federatedscope.core.trainers.torch_trainer import GeneralTorchTrainer

        known = dict.fromkeys(("general", "torchtrainer"), GeneralTorchTrainer)
        kind = trainer_type.lower()
        return look_up("trainer", "trainer.type", kind if kind in known else trainer_type, known)

    trainer_cls: type[Any] = resolve("trainer", built_in, trainer_type)
    return trainer_cls


def get_trainer(
    model: Any = None,
    data: Any = None,
    device: Any = None,
    config: Any = None,
    only_for_eval: bool = False,
    is_attacker: bool = False,
    monitor: Any = None,
) -> Any:
    """Build a worker's trainer; the server's is ``only_for_eval``. ``is_attacker`` is kept for
    extensions: attacks are outside this project.
    """
    given = {"model": model, "data": data, "device": device, "config": config, "monitor": monitor}
    return get_trainer_cls(config.trainer.type)(**given, only_for_eval=only_for_eval)

"""The global configuration and what makes it.

``global_cfg`` holds every key with its default. A run works on ``global_cfg.clone()``: extensions
add their keys (:func:`apply_registered_configs`), yaml and command line are merged, the checks
run, then the tree is frozen.
"""

from __future__ import annotations

from pathlib import Path

from federatedscope import register
from federatedscope.core.configs import (
    cfg_data,
    cfg_evaluation,
    cfg_federate,
    cfg_llm,
    cfg_model,
    cfg_outside,
    cfg_run,
    cfg_training,
)
from federatedscope.core.configs.checks import check_configuration
from federatedscope.core.configs.node import CN, Argument
from federatedscope.core.configs.schema import declare
from federatedscope.core.files import write_text

# fmt: off
__all__ = [
    "CN", "Argument", "CfgNode", "apply_registered_configs", "global_cfg", "init_global_cfg",
    "write_config",
]

CfgNode = CN

_TABLES = (
    cfg_run, cfg_federate, cfg_data, cfg_model, cfg_llm, cfg_training, cfg_evaluation, cfg_outside,
)
# fmt: on


def init_global_cfg(cfg: CN) -> None:
    """Declare every key of the project on ``cfg``, then those that extensions registered."""
    for table in _TABLES:
        declare(cfg, table.SECTIONS)
    cfg.register_cfg_check_fun(check_configuration)
    apply_registered_configs(cfg)


def apply_registered_configs(cfg: CN) -> None:
    """Call every function of ``register_config`` that has not yet been applied to this tree.

    Safe to call again, for example after an extension was imported: a function runs once per tree
    (clones remember it), so values merged since are not reset.
    """
    applied = cfg.__dict__["_applied"]
    for key, extend in list(register.config_dict.items()):
        if applied.get(key) is not extend:
            applied[key] = extend
            extend(cfg)


def write_config(cfg: CN, path: str | Path) -> Path:
    """Write ``cfg`` as yaml, atomically, in a folder that is created where it is missing.

    Running the file, whose path is returned, repeats the run.
    """
    write_text(path, cfg.dump(sort_keys=True, allow_unicode=True))
    return Path(path)


global_cfg = CN()
init_global_cfg(global_cfg)

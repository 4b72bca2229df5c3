"""The folder of a run."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any


def choose_outdir(cfg: Any, outdir_given: bool) -> Path:
    """The folder that this run writes to.

    ``outdir`` itself where the user named one, ``outdir/expname`` with an ``expname``, and
    ``exp/METHOD_MODEL_on_DATA_lrX_lstepN`` where neither is set. A folder that already
    holds a run is never written to: the new one becomes ``sub_exp_TIME`` inside it.
    """
    folder = Path(cfg.outdir)
    if cfg.expname or not outdir_given:
        folder = folder / (cfg.expname or default_name(cfg))
    if cfg.expname_tag:
        folder = folder.with_name(f"{folder.name}_{cfg.expname_tag}")
    if not (folder / "config.yaml").exists():
        return folder
    stamp = datetime.now().strftime("%Y%m%d%H%M%S")
    target, count = folder / f"sub_exp_{stamp}", 1
    while target.exists():
        target, count = folder / f"sub_exp_{stamp}_{count}", count + 1
    return target


def default_name(cfg: Any) -> str:
    """``fedsa_roberta-large_on_mnli@glue_lr0.02_lstep10``."""
    model = Path(cfg.model.type.rpartition("@")[0] or cfg.model.type).name
    data = cfg.data.type.replace("/", "_")
    return (
        f"{cfg.federate.method}_{model}_on_{data}_lr{cfg.train.optimizer.lr}"
        f"_lstep{cfg.train.local_update_steps}"
    )

"""TensorBoard and Weights & Biases, both optional."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from federatedscope.core.callbacks import Callback, Event
from federatedscope.core.errors import ConfigError
from federatedscope.core.monitors.means import EvaluationMeans


class _MeanTracker(EvaluationMeans):
    """Hands over every client's figures, and one mean over clients per metric and round."""

    _round = 0

    def log(self, values: dict[str, float], rnd: int) -> None:
        """Write scalars of a round."""
        raise NotImplementedError

    def close(self) -> None:
        """Everything is written."""

    def on_train(self, event: Event) -> None:
        """Log a client's training loss."""
        loss = event["metrics"].get("train_avg_loss")
        if loss is not None:
            self.log({f"client_{event['client']}/train_avg_loss": loss}, event["round"])

    def on_eval(self, event: Event) -> None:
        """Log a client's figures and collect them for the mean."""
        if event["round"] != self._round:
            self._flush()
            self._round = event["round"]
        super().on_eval(event)
        who = f"client_{event['client']}" if event["client"] else "server"
        values = {k: v for k, v in event["metrics"].items() if not k.endswith("_total")}
        self.log({f"{who}/{event['phase']}/{k}": v for k, v in values.items()}, event["round"])

    def on_round(self, event: Event) -> None:
        """Log the bytes of a round."""
        sent = {k: float(sum(event[f"bytes_{k}"].values())) for k in ("up", "down")}
        self.log({f"bytes/{k}": v for k, v in sent.items()}, event["round"])

    def on_traffic(self, event: Event) -> None:
        """Log what was sent beside training: ``bytes/evaluation``, ``bytes/finish``."""
        sent = sum(event.get("bytes_up", {}).values()) + sum(event["bytes_down"].values())
        self.log({f"bytes/{event['kind']}": float(sent)}, event["round"])

    def on_run_end(self, run: Event, outdir: str) -> None:
        """Write what is left and close."""
        self._flush()
        self.close()

    def _flush(self) -> None:
        means, count = self.take_means()
        if count:
            self.log({f"mean/{k}": v for k, v in means.items()}, self._round)


class TensorBoardTracker(_MeanTracker):
    """Scalars for TensorBoard under ``tensorboard.dir``, by default ``OUTDIR/tensorboard``."""

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        from torch.utils.tensorboard import SummaryWriter

        folder = cfg.tensorboard.dir or str(Path(cfg.outdir) / "tensorboard")
        self.writer = SummaryWriter(folder)

    def log(self, values: dict[str, float], rnd: int) -> None:
        """Write scalars of a round."""
        for key, value in values.items():
            self.writer.add_scalar(key, value, rnd)

    def close(self) -> None:
        """Close the file."""
        self.writer.close()


class WandbTracker(_MeanTracker):
    """Scalars for Weights & Biases (``wandb.name_user``, ``wandb.name_project``)."""

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        import wandb  # type: ignore[import-not-found, unused-ignore]

        self.session = wandb.init(
            entity=cfg.wandb.name_user or None,
            project=cfg.wandb.name_project or None,
            name=cfg.expname or Path(cfg.outdir).name,
            config=cfg.to_dict(),
            dir=cfg.outdir,
        )

    def log(self, values: dict[str, float], rnd: int) -> None:
        """Write scalars of a round."""
        self.session.log({**values, "round": rnd})

    def close(self) -> None:
        """End the session."""
        self.session.finish()


# By their package, which is also their section.
_TRACKERS: dict[str, Any] = {"tensorboard": TensorBoardTracker, "wandb": WandbTracker}


def tracker_callbacks(cfg: Any) -> list[Callback]:
    """The trackers that ``tensorboard.use`` and ``wandb.use`` switch on."""
    return [tracker(cfg) for name, tracker in _TRACKERS.items() if cfg[name].use]


def check_trackers(cfg: Any) -> None:
    """Are the packages of the chosen trackers installed? A :class:`ConfigError` where not."""
    for package in _TRACKERS:
        if cfg[package].use and find_spec(package) is None:
            problem = f"the package {package} is not installed"
            raise ConfigError(f"{package}.use", True, problem, f"Install it: pip install {package}")

"""From a command line to a finished run, in the order in which a reader expects it."""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console

from federatedscope import __version__, register
from federatedscope.core.cmd_args import CommandLine, help_text, parse_args
from federatedscope.core.configs.config import (
    CN,
    apply_registered_configs,
    global_cfg,
    write_config,
)
from federatedscope.core.configs.loading import RunConfig, build_config, check_run
from federatedscope.core.errors import is_user_error
from federatedscope.core.extensions import load_extensions
from federatedscope.core.logging_setup import (
    log_to_folder,
    setup_console,
    stop_logging_to_folder,
)
from federatedscope.core.outdir import choose_outdir

logger = logging.getLogger(__name__)

EXIT_OK, EXIT_FAILED, EXIT_USER_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code.

    0: finished; 1: failed while running; 2: a mistake in configuration or data, found before
    anything started; 130: interrupted with Ctrl-C, with everything finished so far on disk.
    """
    errors = Console(stderr=True)
    try:
        with _terminate_like_ctrl_c():
            return _main(argv)
    except KeyboardInterrupt:
        errors.print("Interrupted.")
        return EXIT_INTERRUPTED
    except Exception as error:
        if not is_user_error(error):
            raise
        errors.print(f"Error: {error}", style="red", highlight=False, soft_wrap=True, markup=False)
        return EXIT_USER_ERROR


def _main(argv: Sequence[str] | None) -> int:
    arguments = parse_args(sys.argv[1:] if argv is None else argv)
    setup_console(arguments.quiet)
    if arguments.version:
        Console().print(f"federatedscope-ext {__version__}", highlight=False)
        return EXIT_OK
    if arguments.help or not (arguments.cfg_file or arguments.opts):
        return _print_help(arguments)
    settings = build_config(arguments)
    check_run(settings)
    if arguments.check:
        return _check_only(settings)
    return run(settings, quiet=arguments.quiet)


def _print_help(arguments: CommandLine) -> int:
    cfg = global_cfg.clone()
    load_extensions(cfg.extensions)
    apply_registered_configs(cfg)
    Console().print(help_text(cfg, arguments.help or "all"), highlight=False, markup=False)
    return EXIT_OK


@contextmanager
def _terminate_like_ctrl_c() -> Iterator[None]:
    """Batch systems stop a job with SIGTERM: end as cleanly as after Ctrl-C."""

    def interrupt(signum: int, frame: Any) -> None:
        raise KeyboardInterrupt

    try:
        previous = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _check_only(settings: RunConfig) -> int:
    from federatedscope.core.monitors.progress import print_run_summary

    prepared = prepare(settings)
    print_run_summary(prepared.run, Console())
    Console().print(f"Yes: {settings.cfg.cfg_file or 'this configuration'} runs.", highlight=False)
    return EXIT_OK


class Prepared:
    """What :func:`prepare` found out: settled configuration, data, device, precision, summary."""

    def __init__(
        self, cfg: Any, data: Any, device: str, precision: Any, run: dict[str, Any]
    ) -> None:
        self.cfg = cfg
        self.data = data
        self.device = device
        self.precision = precision
        self.run = run


def prepare(settings: RunConfig) -> Prepared:
    """Everything before weights are read: machine, data, model's shapes, method, checks."""
    cfg = settings.cfg
    # Imported here: errors of the configuration are shown before PyTorch has loaded.
    from federatedscope.core.auxiliaries.data_builder import get_data
    from federatedscope.core.auxiliaries.dataloader_builder import check_loadable
    from federatedscope.core.auxiliaries.optimizer_builder import check_optimizer
    from federatedscope.core.auxiliaries.scheduler_builder import check_scheduler
    from federatedscope.core.machine import choose_device, use_all_cores
    from federatedscope.core.monitors.trackers import check_trackers
    from federatedscope.core.precision import choose_precision
    from federatedscope.core.preflight import describe_run
    from federatedscope.core.seeding import setup_seed
    from federatedscope.core.sharing import settled
    from federatedscope.llm.hub import check_model_source
    from federatedscope.llm.task import split_model_type

    device = choose_device(cfg)
    threads = use_all_cores()
    name, hub = split_model_type(cfg.model.type)
    if hub == "huggingface_llm":
        check_model_source("model.type", name)
    check_trackers(cfg)
    check_optimizer("train.optimizer", **cfg.train.optimizer)
    check_scheduler("train.scheduler", **cfg.train.scheduler)
    setup_seed(cfg.seed)
    data, modified = get_data(cfg.clone(), settings.client_cfgs)
    cfg.merge_from_other_cfg(modified)
    cfg.assert_cfg()
    check_loadable(data, cfg)
    run_cfg = settled(cfg)
    precision = choose_precision(run_cfg, device)
    run_cfg.train.half_dtype = precision.name
    skeleton = None
    if hub:
        from federatedscope.llm.model.model_builder import build_skeleton

        skeleton = build_skeleton(run_cfg)
    description = describe_run(
        run_cfg, data, device, precision, threads, skeleton, cfg.personalization.local_param
    )
    return Prepared(run_cfg, data, device, precision, description)


def run(settings: RunConfig, quiet: bool = False) -> int:
    """Prepare and run a merged, checked configuration; returns the exit code.

    Parameters
    ----------
    settings : RunConfig
        See :func:`federatedscope.core.configs.loading.build_config`.
    quiet : bool
        No progress and no summary.
    """
    cfg = settings.cfg
    prepared = prepare(settings)
    outdir = choose_outdir(cfg, outdir_given="outdir" in settings.given)
    handler = log_to_folder(outdir)
    try:
        write_config(cfg, outdir / "config.yaml")
        place_outputs(prepared, outdir)
        for swap in prepared.run["swaps"]:
            logger.info("Swapped %(field)s: %(was)r -> %(now)r (%(why)s)", swap)
        return _execute(prepared, settings.client_cfgs, quiet)
    finally:
        stop_logging_to_folder(handler)


def place_outputs(prepared: Prepared, outdir: Path) -> None:
    """Settle where the run writes; a relative ``federate.save_to`` lies in the run's folder."""
    cfg = prepared.cfg
    cfg.outdir = str(outdir)
    if cfg.federate.save_to and not Path(cfg.federate.save_to).is_absolute():
        cfg.federate.save_to = str(outdir / "checkpoints" / cfg.federate.save_to)
    cfg.freeze(save=False, check_cfg=False)
    prepared.run["name"] = outdir.name


def build_callbacks(cfg: Any, quiet: bool) -> Any:
    """The runtime's own callbacks, then the registered ones."""
    from federatedscope.core.callbacks import Callbacks
    from federatedscope.core.monitors.progress import Progress
    from federatedscope.core.monitors.recorder import Recorder
    from federatedscope.core.monitors.trackers import tracker_callbacks

    members: list[Any] = [Recorder(cfg.outdir)]
    if not quiet:
        steps = cfg.train.local_update_steps if cfg.train.batch_or_epoch == "batch" else 0
        members.append(Progress(cfg.federate.total_round_num, steps))
    members += tracker_callbacks(cfg)
    for builder in register.callback_dict.values():
        callback = builder(cfg)
        if callback is not None:
            members.append(callback)
    return Callbacks(members)


def _execute(prepared: Prepared, clients: CN | None, quiet: bool) -> int:
    from federatedscope.core.machine import peak_memory_bytes
    from federatedscope.core.monitors.progress import print_run_summary

    cfg, description = prepared.cfg, prepared.run
    if not quiet:
        print_run_summary(description, Console(stderr=True))
    callbacks = build_callbacks(cfg, quiet)
    started = time.perf_counter()
    runner = None
    status, stopped_by, failure = "failed", "error", None
    callbacks.on_run_start(description)
    try:
        runner = build_runner(prepared, clients, callbacks)
        runner.run()
        status = "finished"
        stopped_by = "early_stop" if getattr(runner.server, "stopped_early", False) else "rounds"
    except KeyboardInterrupt:
        status, stopped_by = "interrupted", "ctrl_c"
    except Exception as error:
        failure = error
        logger.exception("The run failed.")
    description |= {
        "status": status,
        "stopped_by": stopped_by,
        "error": None if failure is None else f"{type(failure).__name__}: {failure}",
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - started, 3),
        "last_round": min(
            getattr(getattr(runner, "server", None), "state", 0), cfg.federate.total_round_num
        ),
        "peak_memory_bytes": peak_memory_bytes(),
    }
    callbacks.on_run_end(description, cfg.outdir)
    if runner is not None:
        runner.close()
    if failure is not None:
        raise failure
    if not quiet or status != "finished":
        print(
            f"{status.capitalize()} after round {description['last_round']}: {cfg.outdir}",
            file=sys.stderr,
        )
    return EXIT_OK if status == "finished" else EXIT_INTERRUPTED


def build_runner(prepared: Prepared, clients: CN | None, callbacks: Any) -> Any:
    """Read the weights once and build the workers around them."""
    from federatedscope.core.auxiliaries.model_builder import get_model
    from federatedscope.core.auxiliaries.worker_builder import get_client_cls, get_server_cls
    from federatedscope.core.fed_runner import StandaloneRunner
    from federatedscope.core.seeding import seeded

    cfg = prepared.cfg
    with seeded(cfg.seed, "initial model"):
        model = get_model(cfg, prepared.data.get(1), prepared.precision.base_dtype)
    model.to(prepared.device)
    return StandaloneRunner(
        data=prepared.data,
        server_class=get_server_cls(cfg),
        client_class=get_client_cls(cfg),
        config=cfg,
        model=model,
        client_configs=clients,
        device=prepared.device,
        callbacks=callbacks,
    )

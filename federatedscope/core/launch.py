"""From a command line to a finished run, in the order in which a reader expects it."""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
from federatedscope.core.files import check_writable, make_folder
from federatedscope.core.logging_setup import log_to_folder, setup_console, stop_logging_to_folder
from federatedscope.core.outdir import choose_outdir

logger = logging.getLogger(__name__)

EXIT_OK, EXIT_FAILED, EXIT_USER_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code.

    0: finished; 1: failed while running; 2: a mistake in configuration or data, found before
    anything started; 130: interrupted with Ctrl-C, with everything finished so far on disk.
    """
    try:
        # Batch systems stop a job with SIGTERM: end as cleanly as after Ctrl-C.
        with _on_signal(_interrupt, signal.SIGTERM):
            return _main(argv)
    except KeyboardInterrupt:
        Console(stderr=True).print("Interrupted.")
        return EXIT_INTERRUPTED
    except Exception as error:
        if not is_user_error(error):
            raise
        _print_error(error)
        return EXIT_USER_ERROR


def _print_error(error: Exception) -> None:
    text = f"Error: {error}"
    Console(stderr=True).print(text, style="red", highlight=False, soft_wrap=True, markup=False)


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
    from federatedscope.core.configs.loading import extension_names
    from federatedscope.core.configs.merging import nest
    from federatedscope.core.configs.yaml_io import read_yaml_file

    # What extensions add has help too; the other keys of file and command line do not matter.
    tree = read_yaml_file(arguments.cfg_file)[0] if arguments.cfg_file else {}
    load_extensions(extension_names(tree, nest(arguments.opts)))
    cfg = global_cfg.clone()
    apply_registered_configs(cfg)
    Console().print(help_text(cfg, arguments.help or "all"), highlight=False, markup=False)
    return EXIT_OK


def _interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


@contextmanager
def _on_signal(handler: Any, *signals: signal.Signals) -> Iterator[None]:
    """Handle ``signals`` this way for a while; outside the main thread they are not ours."""
    try:
        previous = {number: signal.signal(number, handler) for number in signals}
    except ValueError:  # not the main thread
        previous = {}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def _check_only(settings: RunConfig) -> int:
    from federatedscope.core.monitors.progress import print_run_summary

    prepared = prepare(settings)
    print_run_summary(prepared.run, Console())
    Console().print(f"Yes: {settings.cfg.cfg_file or 'this configuration'} runs.", highlight=False)
    return EXIT_OK


@dataclass
class Prepared:
    """What :func:`prepare` found out.

    Attributes
    ----------
    cfg, data, device, precision
        The settled configuration; rows by participant, 0 for the server; where and how to compute.
    run : dict
        The run's description.
    model : torch.nn.Module or None
        A registered model, which can be looked at only by building it; a Hugging Face model is
        read later.
    layouts : Layouts or None
        Ranks and scales of the LoRA modules, for each participant.
    """

    cfg: Any
    data: Any
    device: str
    precision: Any
    run: dict[str, Any]
    model: Any = None
    layouts: Any = None


def prepare(settings: RunConfig) -> Prepared:
    """Everything before weights are read: machine, data, model's shapes, method, checks."""
    cfg = settings.cfg
    # Imported here: errors of the configuration are shown before PyTorch has loaded.
    from federatedscope.core.auxiliaries.data_builder import get_data
    from federatedscope.core.auxiliaries.dataloader_builder import check_loadable
    from federatedscope.core.component_checks import check_client_components, check_components
    from federatedscope.core.configs.loading import check_client_names
    from federatedscope.core.machine import choose_device, use_all_cores
    from federatedscope.core.participants import untrained_clients
    from federatedscope.core.precision import choose_precision
    from federatedscope.core.preflight import describe_run
    from federatedscope.core.ranks import settle_ranks
    from federatedscope.core.seeding import setup_seed
    from federatedscope.core.sharing import settled
    from federatedscope.core.task import split_model_type

    device = choose_device(cfg)
    threads = use_all_cores()
    check_writable("outdir", choose_outdir(cfg, outdir_given="outdir" in settings.given))
    check_components(cfg)
    check_client_components(cfg, settings.client_cfgs)
    setup_seed(cfg.seed)
    if "federate.sample_client_num" not in settings.given:
        # Derived from a number of clients that the data may know better.
        cfg.federate.sample_client_num = -1
    data, modified = get_data(cfg.clone(), settings.client_cfgs)
    cfg.merge_from_other_cfg(modified)
    cfg.assert_cfg()
    check_client_names(settings.client_cfgs, cfg)
    check_loadable(data, cfg, skip=untrained_clients(cfg))
    run_cfg = settled(cfg)
    precision = choose_precision(run_cfg, device)
    run_cfg.train.half_dtype = precision.name
    declared_local = cfg.personalization.local_param
    hub = split_model_type(run_cfg.model.type)[1]
    model = None if hub else build_model(run_cfg, data)
    skeleton = register.hub_dict[hub].skeleton(run_cfg) if hub else model
    layouts = settle_ranks(run_cfg, settings.client_cfgs, skeleton if hub else None)
    if hub and layouts is not None and layouts.vary:
        # At the server's ranks, so that shapes and sizes below are what will be there.
        skeleton = register.hub_dict[hub].skeleton(run_cfg)
    if hub:
        register.hub_dict[hub].check_rows(run_cfg, skeleton, data)
    description = describe_run(
        run_cfg, data, device, precision, threads, skeleton, declared_local, layouts
    )
    return Prepared(run_cfg, data, device, precision, description, model, layouts)


def build_model(cfg: Any, data: Any, base_dtype: Any = None) -> Any:
    """The run's model at the random start that the seed gives, the same in every process."""
    from federatedscope.core.auxiliaries.model_builder import get_model
    from federatedscope.core.seeding import seeded

    with seeded(cfg.seed, "initial model"):
        return get_model(cfg, data.get(1), base_dtype)


def run(settings: RunConfig, quiet: bool = False) -> int:
    """Prepare and run a merged, checked configuration; returns the exit code. With ``quiet`` no
    progress and no summary are shown.
    """
    cfg = settings.cfg
    # What the data decide (labels, one client of many) they decide again when the file is run.
    given = cfg.clone()
    if "federate.sample_client_num" not in settings.given:
        given.federate.sample_client_num = -1
    prepared = prepare(settings)
    outdir = choose_outdir(cfg, outdir_given="outdir" in settings.given)
    if Path(cfg.federate.save_to).is_absolute():
        make_folder("federate.save_to", Path(cfg.federate.save_to).parent)
    make_folder("outdir", outdir)
    if outdir.name.startswith("sub_exp_"):
        # Said with --quiet too: a script would read the old run's files.
        line = f"{outdir.parent} holds a run already; this one goes to {outdir}"
        Console(stderr=True).print(line, highlight=False, soft_wrap=True, markup=False)
    handler = log_to_folder(outdir)
    try:
        write_config(given, outdir / "config.yaml")
        if settings.client_cfgs:
            write_config(settings.client_cfgs, outdir / "client_config.yaml")
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
    if cfg.federate.save_to:
        make_folder("federate.save_to", Path(cfg.federate.save_to).parent)
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
    registered = (builder(cfg) for builder in register.callback_dict.values())
    return Callbacks([*members, *(callback for callback in registered if callback is not None)])


def _execute(prepared: Prepared, clients: CN | None, quiet: bool) -> int:
    from federatedscope.core.machine import peak_memory_bytes
    from federatedscope.core.monitors.progress import print_run_summary
    from federatedscope.core.records import RunInfo

    cfg, description = prepared.cfg, prepared.run
    if not quiet:
        print_run_summary(description, Console(stderr=True))
    callbacks = build_callbacks(cfg, quiet)
    started = time.perf_counter()
    runner = None
    status, stopped_by, failure = "failed", "error", None
    try:
        callbacks.on_run_start(description)
        runner = build_runner(prepared, clients, callbacks)
        runner.run()
        status = "finished"
        stopped_by = "early_stop" if runner.server.stopped_early else "rounds"
    except KeyboardInterrupt:
        status, stopped_by = "interrupted", "ctrl_c"
    except Exception as error:  # noqa: BLE001 - whatever fails, the records are completed first
        failure = error
    server = getattr(runner, "server", None)
    results = getattr(server, "results", None)
    description |= replace(
        RunInfo.from_json(description),
        status=status,
        stopped_by=stopped_by,
        error=None if failure is None else f"{type(failure).__name__}: {failure}",
        finished=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - started, 3),
        best_round=getattr(results, "best_round", None),
        best_round_weighted=getattr(results, "best_round_weighted", None),
        last_round=min(getattr(server, "state", 0), cfg.federate.total_round_num),
        peak_memory_bytes=peak_memory_bytes(),
    ).to_json()
    if status == "interrupted":
        Console(stderr=True).print("Stopping; writing the records and the report ...")
    # A second Ctrl-C does not cut off what the first one asked to keep.
    with _on_signal(signal.SIG_IGN, signal.SIGINT, signal.SIGTERM):
        callbacks.on_run_end(description, cfg.outdir)
        if runner is not None:
            runner.close()
    if failure is not None:
        _report_failure(failure)
    if not quiet or status != "finished":
        last = description["last_round"]
        line = f"{status.capitalize()} after round {last}: {cfg.outdir}"
        Console(stderr=True).print(line, highlight=False, soft_wrap=True, markup=False)
    return {"finished": EXIT_OK, "interrupted": EXIT_INTERRUPTED}.get(status, EXIT_FAILED)


def _report_failure(failure: Exception) -> None:
    """The whole story to the log; on the terminal a sentence where the user can repair it."""
    if is_user_error(failure):
        logger.info("The run failed.", exc_info=failure)
        _print_error(failure)
    else:
        logger.error("The run failed.", exc_info=failure)


def build_runner(
    prepared: Prepared, clients: CN | None, callbacks: Any, exchange: Any = None, engine: Any = None
) -> Any:
    """Read the weights once and build the workers around them.

    Parameters
    ----------
    prepared, clients, callbacks
        The checked run, settings of single clients, and who is told what happens.
    exchange : Exchange, optional
        Carries the messages. When not given: a registered one, else in this process.
    engine : TorchEngine, optional
        Computes. When not given: a registered one, else PyTorch on one device.
    """
    from federatedscope.core.auxiliaries.worker_builder import get_client_cls, get_server_cls
    from federatedscope.core.fed_runner import StandaloneRunner

    cfg, model = prepared.cfg, prepared.model
    if model is None:
        model = build_model(cfg, prepared.data, prepared.precision.base_dtype)
    model.to(prepared.device)
    if exchange is None:
        exchange = register.first_answer(register.exchange_dict, cfg)
    if engine is None:
        engine = register.first_answer(register.engine_dict, cfg)
    return StandaloneRunner(
        data=prepared.data,
        server_class=get_server_cls(cfg),
        client_class=get_client_cls(cfg),
        config=cfg,
        model=model,
        client_configs=clients,
        layouts=prepared.layouts,
        device=prepared.device,
        callbacks=callbacks,
        exchange=exchange,
        engine=engine,
    )

"""The report as part of a run: made when the run ends, whatever way it ends."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from federatedscope.register import register_callback
from federatedscope_ext.tools.report.console import print_summary
from federatedscope_ext.tools.report.records import RunRecord
from federatedscope_ext.tools.report.summary import RunSummary

__all__ = ["ReportCallback", "make_report"]

logger = logging.getLogger(__name__)


def make_report(record: RunRecord) -> list[Path]:
    """Write ``metrics.csv``, ``curves/*.png`` and ``report.html`` into the run's folder.

    Returns
    -------
    list of Path
        The files written, ``report.html`` last.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    # Drawing is imported here: a run should not pay for matplotlib before it starts.
    from federatedscope_ext.tools.report.csv import write_csv
    from federatedscope_ext.tools.report.curves import draw_curves
    from federatedscope_ext.tools.report.page import write_html

    summary = RunSummary(record)
    return [write_csv(record), *draw_curves(summary), write_html(summary)]


class ReportCallback:
    """Run callback that prints the result and leaves the report in the run folder.

    Parameters
    ----------
    cfg : CN
        The run's configuration (nothing of it is needed yet).
    """

    def __init__(self, cfg: Any = None) -> None:
        self.cfg = cfg

    def on_run_end(self, run: Mapping[str, Any], outdir: str | Path) -> None:
        """Print the result and make the report; a failure here never costs the run.

        A run that ended before its first evaluation has no result to print.

        Parameters
        ----------
        run : mapping
            The content of ``run.json`` as it is at the end.
        outdir : str or Path
            The run folder.
        """
        try:
            record = RunRecord.load(outdir, run=run)
            if record.evals:
                print_summary(record)
            written = make_report(record)
        except (OSError, ValueError, ImportError) as error:
            logger.warning(
                "The run is complete, but its report could not be made (%s). Make it again with: "
                "python -m federatedscope_ext report %s",
                error,
                outdir,
            )
            return
        logger.info("Report: %s", written[-1])


register_callback("report", ReportCallback)

"""``report.html``: one self-contained page about one run."""

from __future__ import annotations

from pathlib import Path

from federatedscope_ext.report.aggregation import aggregation_section
from federatedscope_ext.report.client_sections import clients_section
from federatedscope_ext.report.files import write_text
from federatedscope_ext.report.page import document, figure, section
from federatedscope_ext.report.sections import (
    evaluated_section,
    header,
    headline,
    means_section,
    notices,
    rounds_section,
)
from federatedscope_ext.report.setup_sections import (
    again_section,
    communication_section,
    data_section,
    setup_section,
)
from federatedscope_ext.report.summary import RunSummary
from federatedscope_ext.report.wording import title_text

__all__ = ["render_html", "write_html"]


def render_html(summary: RunSummary, curves: Path | None = None) -> str:
    """The page as text.

    Parameters
    ----------
    summary : RunSummary
        The run.
    curves : Path, optional
        Folder with the PNG curves to inline (default ``OUTDIR/curves``); a missing one is left
        out.
    """
    folder = curves or summary.record.outdir / "curves"
    return document(
        title_text(summary.info),
        [
            header(summary),
            headline(summary),
            notices(summary),
            evaluated_section(summary),
            clients_section(summary, figure(folder / "metric.png", _metric_caption(summary))),
            means_section(summary),
            section("Loss", figure(folder / "loss.png", "Loss per row in training and evaluation")),
            communication_section(
                summary, figure(folder / "bytes.png", "Bytes of all clients, added up over rounds")
            ),
            aggregation_section(summary, folder),
            setup_section(summary),
            data_section(summary),
            rounds_section(summary),
            again_section(summary),
        ],
    )


def write_html(summary: RunSummary, path: Path | None = None) -> Path:
    """Write the page (default ``OUTDIR/report.html``); returns its path."""
    target = path or summary.record.outdir / "report.html"
    return write_text(target, render_html(summary))


def _metric_caption(summary: RunSummary) -> str:
    return f"{summary.metric} by round"

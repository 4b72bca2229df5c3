"""What a run leaves to look at: tables, curves, one self-contained page, and comparisons.

Everything is a function of the run folder (``run.json`` and ``metrics.jsonl``). Importing this
package registers :class:`ReportCallback`, which makes the report when a run ends.
"""

from __future__ import annotations

from federatedscope_ext.tools.report.callback import ReportCallback, make_report
from federatedscope_ext.tools.report.console import print_summary
from federatedscope_ext.tools.report.records import RunRecord
from federatedscope_ext.tools.report.summary import RunSummary

__all__ = ["ReportCallback", "RunRecord", "RunSummary", "make_report", "print_summary"]

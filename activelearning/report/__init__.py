"""Pure reading functions over the campaign store, for the command line, the flows and benchmarks."""

from activelearning.report.diagnostics import diagnostics
from activelearning.report.prequential import Forecast, forecasts
from activelearning.report.progress import TracePoint, batch, rounds, trace
from activelearning.report.reading import campaign_names
from activelearning.report.results import EXPORT_COLUMNS, best, export_rows, why_no_best
from activelearning.report.status import status

__all__ = [
    "EXPORT_COLUMNS",
    "Forecast",
    "TracePoint",
    "batch",
    "best",
    "campaign_names",
    "diagnostics",
    "export_rows",
    "forecasts",
    "rounds",
    "status",
    "trace",
    "why_no_best",
]

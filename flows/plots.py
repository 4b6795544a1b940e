"""Pictures for artifacts."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from activelearning.report import TracePoint


def best_against_cost(points: Sequence[TracePoint], *, label: str, total: float) -> bytes:
    """PNG of the best value at the target fidelity against cumulative cost, one dotted line per round.

    Args:
        points: The campaign's trace.
        label: Label of the ordinate: property and unit.
        total: Total budget, the right end of the abscissa.
    """
    # The object interface, and no pyplot: its global state is not for threads, and a server has no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    known = [(point.spent, point.best) for point in points if point.best is not None]
    ends = {point.round: point.spent for point in points}
    for spent in ends.values():
        axes.axvline(spent, color="0.85", linestyle=":", linewidth=1.0, zorder=0)
    if known:
        axes.step(*zip(*known, strict=True), where="post", color="tab:blue")
        axes.plot(*known[-1], "o", color="tab:blue")
    else:
        axes.text(0.5, 0.5, "nothing yet", ha="center", transform=axes.transAxes)
    axes.set_xlim(0.0, total)
    axes.set_xlabel("cumulative cost")
    axes.set_ylabel(f"best {label}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def data_uri(png: bytes) -> str:
    """A PNG as a URI that holds it, so that the picture lives in Prefect's database and needs no file server."""
    return "data:image/png;base64," + base64.b64encode(png).decode()

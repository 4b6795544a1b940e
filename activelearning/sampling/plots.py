"""Pictures of the run page, as SVG that needs no file beside the page."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from activelearning.crystals.symmetry import CRYSTAL_SYSTEMS, LATTICE_SYSTEMS, POINT_SYMMETRIES, space_groups
from activelearning.sampling.statistics import Array, CrystalCounts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = {
    "samples": "#0072B2",
    "untrained": "#8C8C8C",
    "unrestricted": "#009E73",
    "validation": "#D55E00",
}
_SYSTEM_COLOURS = ("#999999", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2")
_STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "activelearning",  # equal data give equal files
}
N_BINS = 40


def minus(number: str) -> str:
    """A number as text with the sign that the axes have."""
    return number.replace("-", "−")


@dataclass(frozen=True)
class Sample:
    """A named set of numbers or counts to compare with others."""

    key: str
    label: str
    n: int

    @property
    def legend(self) -> str:
        """The label, with the number of crystals that the set's pictures rest on."""
        return f"{self.label}, n = {self.n}"

    @property
    def colour(self) -> str:
        """The set's colour, the same in every picture."""
        return COLOURS[self.key]


def draw(paint: Callable[..., None], *, rows: int = 1, columns: int = 1, width: float, height: float) -> str:
    """A figure as SVG text.

    Args:
        paint: Given the axes, row by row.
        rows: Rows of axes.
        columns: Columns of axes.
        width: In inches.
        height: In inches.
    """
    # The object interface, and no pyplot: its global state is not for threads, and a server has no display.
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        paint(*figure.subplots(rows, columns, squeeze=False).flatten())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def histograms(
    axes: Axes,
    sets: Mapping[Sample, Array],
    *,
    label: str,
    is_log: bool = False,
    is_whole: bool = False,
) -> None:
    """Shares of each set over common bins; the outer half per cent on either side is gathered in the last bins.

    Args:
        axes: Where to draw.
        sets: Numbers of each set; those that are not finite are left out.
        label: Of the abscissa.
        is_log: Whether shares are on a logarithmic scale, for sets with most of their mass in few places.
        is_whole: Whether the numbers are whole, so that each bin holds as many of them.
    """
    known = {sample: values[np.isfinite(values)] for sample, values in sets.items()}
    pooled = np.concatenate([*known.values(), np.zeros(0)])
    axes.set_xlabel(label)
    axes.set_ylabel("crystals, %")
    if not len(pooled):
        axes.text(0.5, 0.5, "no values", ha="center", transform=axes.transAxes)
        return
    low, high = np.quantile(pooled, [0.005, 0.995])
    if not high > low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, N_BINS + 1)
    if is_whole:
        width = max(1, int(np.ceil((high - low + 1.0) / N_BINS)))
        edges = np.arange(np.floor(low), np.ceil(high) + width + 1, width) - 0.5
    for sample, values in known.items():
        if not len(values):
            continue
        shares = 100.0 * np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / len(values)
        is_main = sample.key == "samples"
        axes.stairs(shares, edges, fill=is_main, alpha=0.35 if is_main else 1.0, color=sample.colour)
        axes.stairs(shares, edges, color=sample.colour, linewidth=1.4, label=sample.legend)
    if is_log:
        axes.set_yscale("log")
        _plain_ticks(axes)


def legend_above(axes: Axes, *, n_columns: int) -> None:
    """The names of the sets above the axes, where they hide nothing."""
    axes.legend(ncols=n_columns, loc="lower center", bbox_to_anchor=(0.5, 1.0), columnspacing=1.2)


def legend_of_figure(axes: Axes, *, n_columns: int) -> None:
    """The names of the sets that axes show, above the whole figure, of which they are one part."""
    handles, labels = axes.get_legend_handles_labels()
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.legend(handles, labels, ncols=n_columns, loc="outside upper center", columnspacing=1.2)


def _plain_ticks(axes: Axes) -> None:
    """Numbers in place of powers on a logarithmic ordinate."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_ylim()
    subdivisions = (1.0,) if high > 300.0 * low else (1.0, 2.0, 5.0)
    axes.yaxis.set_major_locator(LogLocator(subs=subdivisions))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def bars(axes: Axes, names: Sequence[str], sets: Mapping[Sample, Sequence[float]], *, label: str) -> None:
    """Shares of each set in each class, side by side."""
    width = 0.8 / max(len(sets), 1)
    places = np.arange(len(names))
    for position, (sample, shares) in enumerate(sets.items()):
        offset = (position - (len(sets) - 1) / 2) * width
        axes.bar(places + offset, list(shares), width, color=sample.colour, label=sample.legend)
    axes.set_xticks(places, list(names))
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("crystals, %")
    axes.set_xlabel(label)


def curve(axes: Axes, steps: Sequence[float], values: Sequence[float], *, label: str, is_log: bool) -> None:
    """A figure of the training over its steps."""
    axes.plot(steps, values, color=COLOURS["samples"], linewidth=1.2)
    if is_log and all(value > 0.0 for value in values if value == value):
        axes.set_yscale("log")
        _plain_ticks(axes)
    axes.set_xlabel("training steps")
    axes.set_ylabel(label)


def scatter(axes: Axes, log_rewards: Array, log_probabilities: Array, log_z: float, exponent: float) -> None:
    """Log-probability against log reward, with the line on which a sampler of R^exponent is exact."""
    axes.scatter(
        log_rewards,
        log_probabilities,
        s=7,
        alpha=0.35,
        color=COLOURS["samples"],
        linewidths=0,
        rasterized=True,
    )
    ends = np.array([log_rewards.min(), log_rewards.max()])
    factor = "" if exponent == 1.0 else f"{exponent:.3g} "
    line = f"{factor}log R − log Z, with log Z = {minus(f'{log_z:.2f}')}"
    axes.plot(ends, exponent * ends - log_z, color="black", linewidth=1.0, label=line)
    axes.set_xlabel("log reward")
    axes.set_ylabel("log-probability density")
    legend_above(axes, n_columns=1)


def space_group_bars(axes: Axes, counts: CrystalCounts, n: int) -> None:
    """Share of each space group, by its number, coloured by crystal system."""
    groups = space_groups()
    for system, colour in zip(CRYSTAL_SYSTEMS, _SYSTEM_COLOURS, strict=True):
        numbers = [group.number for group in groups if group.crystal_system == system]
        shares = [100.0 * counts.space_groups[number] / n for number in numbers]
        axes.bar(numbers, shares, 0.9, color=colour, label=system)
    axes.set_xlim(0, 231)
    axes.set_xlabel("space group (international number)")
    axes.set_ylabel("crystals, %")
    axes.grid(visible=False, axis="x")
    legend_above(axes, n_columns=7)


def system_shares(counts: CrystalCounts, n: int) -> list[float]:
    """Share of each of the eight crystal-lattice systems, in per cent."""
    return [100.0 * counts.lattice_systems[system.value] / n for system in LATTICE_SYSTEMS]


def symmetry_shares(counts: CrystalCounts, n: int) -> list[float]:
    """Share of each of the five point symmetries, in per cent."""
    return [100.0 * counts.point_symmetries[symmetry.value] / n for symmetry in POINT_SYMMETRIES]

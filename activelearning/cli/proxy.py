"""`activelearning proxy`: train the machine-learned proxy anew, and measure how good it is."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from activelearning.cli.common import JsonOption, print_json

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The machine-learned proxy.")

PropertyOption = Annotated[
    str,
    typer.Option(
        "--property",
        help="What is predicted: formation_energy, band_gap, energy_above_hull or log10_conductivity.",
    ),
]
DataOption = Annotated[
    Path,
    typer.Option("--data", help="The data set: a table of materials (CSV), or OBELiX's folder or CSV."),
]


@app.command()
def train(
    property: PropertyOption,
    data: DataOption,
    out: Annotated[
        Path | None, typer.Option("--out", help="Weights to write (.npz).", show_default="PROPERTY.npz")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of folds and models.")] = 0,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Of log10_conductivity: process (Gaussian) or forest.",
            show_default="the best in cross-validation",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Train on a data set; the figures are those of cross-validation by groups."""
    from oracles.ml_proxy import train as training

    weights = (out or Path(f"{property}.npz")).expanduser()
    _show(training.train(property, data, weights, seed, progress=_tell, model=model), json)
    if not json:
        typer.echo(f"weights       {weights}")


@app.command()
def evaluate(
    property: PropertyOption,
    data: DataOption,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="Weights to use.", show_default="those shipped")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Compare predictions with a table; no row is judged by a model that has seen its group."""
    from oracles.ml_proxy import train as training

    _show(training.evaluate(property, data, weights), json)


@app.command()
def fetch(
    out: Annotated[Path, typer.Option("--out", help="Folder to make.")] = Path("obelix"),
    json: JsonOption = False,
) -> None:
    """Download OBELiX, the measurements that log10_conductivity is learned from, by its package obelix-data."""
    from oracles.ml_proxy.fetching import fetch_obelix

    _show(fetch_obelix(out.expanduser()), json)


@app.command()
def tables(
    data: Annotated[
        Path | None,
        typer.Option("--data", help="OBELiX's folder.", show_default="that of ACTIVELEARNING_OBELIX"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write to.", show_default="campaign/ in the data's")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Make of OBELiX what campaigns take: known measurements to start from, and a pool of real materials."""
    from oracles.ml_proxy.data import find_obelix
    from oracles.obelix import write_tables

    source = find_obelix(data)
    written = write_tables(source, (out or source / "campaign").expanduser())
    _show({name: str(v) if isinstance(v, Path) else v for name, v in asdict(written).items()}, json)


def _show(figures: dict[str, Any], json: bool) -> None:
    if json:
        print_json(figures)
        return
    for name, value in figures.items():
        typer.echo(f"{name:12s}  {value:.4g}" if isinstance(value, float) else f"{name:12s}  {value}")


def _tell(text: str) -> None:
    typer.echo(text, err=True)

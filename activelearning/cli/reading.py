"""Commands that read the store: `status`, `best`, `export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from activelearning.cli.common import (
    CampaignArgument,
    JsonOption,
    StoreOption,
    open_store,
    print_json,
    print_table,
)


class ExportFormat(StrEnum):
    """Formats that `export` writes."""

    CSV = "csv"
    PARQUET = "parquet"
    JSON = "json"
    CIF = "cif"


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(status)
    app.command()(best)
    app.command()(export)


def status(name: CampaignArgument, json: JsonOption = False, store: StoreOption = None) -> None:
    """Show where a campaign stands: state, rounds, budget, evaluations, best."""
    from activelearning import report
    from activelearning.report.text import best_text, diagnostics_text

    with open_store(store) as database:
        standing = report.status(database, name)
        if json:
            print_json(standing)
            return
        model = report.diagnostics(database, name)
        best = standing["best"]
        said = report.why_no_best(database, name) if best is None else best_text(best)
    reason = f" ({standing['reason']})" if standing["reason"] else ""
    budget = standing["budget"]
    typer.echo(f"{standing['campaign']}: {standing['state']}{reason}")
    typer.echo(f"rounds       {standing['rounds']}")
    typer.echo(
        f"budget       {budget['spent']:g} spent, {budget['reserved']:g} reserved, "
        f"{budget['remaining']:g} of {budget['total']:g} left"
    )
    for fidelity, states in standing["evaluations"].items():
        counts = ", ".join(f"{n} {state}" for state, n in states.items()) or "none"
        typer.echo(f"evaluations  {fidelity}: {counts}")
    typer.echo(f"best         {said}")
    for fidelity, judged in model.items():
        typer.echo(f"model        {fidelity}: {diagnostics_text(judged)}")


def best(
    name: CampaignArgument,
    n: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 10,
    json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """List the best candidates measured at the target fidelity; of several objectives, those that none beats."""
    from activelearning import report

    with open_store(store) as database:
        rows = report.best(database, name, n)
        reason = "" if rows else report.why_no_best(database, name)
    if json:
        print_json(rows)
    elif rows:
        print_table(_shown(rows))
    else:
        typer.echo(f"{reason[0].upper()}{reason[1:]}.", err=True)


def _shown(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    from activelearning.report.text import candidate_text, value_text

    if rows and "objectives" in rows[0]:
        return [
            {
                **{
                    prop: value_text(goal["value"], goal["std"], goal["censoring"])
                    for prop, goal in _goals(row)
                },
                "candidate": candidate_text(row["candidate"]),
                "key": row["key"][:16],
            }
            for row in rows
        ]
    return [
        {
            "value": value_text(row["value"], row["std"]),
            "predicted": value_text(row["predicted_mean"], row["predicted_std"]),
            "candidate": candidate_text(row["candidate"]),
            "key": row["key"][:16],
        }
        for row in rows
    ]


def _goals(row: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [*row["objectives"].items(), *row["constraints"].items()]


def export(
    name: CampaignArgument,
    out: Annotated[
        Path, typer.Option("--out", help="File to write; for cif a folder, one file a measured crystal.")
    ],
    format: Annotated[ExportFormat, typer.Option("--format", help="Format to write.")] = ExportFormat.CSV,
    json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """Write every evaluation of a campaign to a file, or its crystals as CIF."""
    from activelearning import report
    from activelearning.cli import export as writers

    with open_store(store) as database:
        if format is ExportFormat.CIF:
            from activelearning.report.crystals import crystals

            n = writers.write_cifs(crystals(database, name), out)
        else:
            n = writers.write_table(report.export_rows(database, name), out, format.value)
    if json:
        print_json({"campaign": name, "format": format.value, "out": str(out), "n": n})
    else:
        typer.echo(f"{n} {'crystals' if format is ExportFormat.CIF else 'evaluations'} written to {out}")

"""`activelearning lab`: what laboratories are asked for, and what they found."""

from __future__ import annotations

from typing import Annotated

import typer

from activelearning.cli.common import JsonOption, StoreOption, open_store, print_json, print_table

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Requests to laboratories and their results."
)


@app.command("list")
def list_requests(
    campaign: Annotated[str | None, typer.Option("--campaign", help="Only this campaign's.")] = None,
    all: Annotated[bool, typer.Option("--all", help="Answered and cancelled ones too.")] = False,
    json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """List the requests that wait for a result."""
    from activelearning.report.text import candidate_text, value_text
    from oracles import lab

    with open_store(store) as database:
        requests = lab.list_requests(database, campaign=campaign, state=None if all else lab.OPEN)
    if json:
        print_json(requests)
        return
    if not requests:
        typer.echo("No request waits for a result.", err=True)
    rows = []
    for request in requests:
        result = request["result"]
        row = {
            "key": request["key"][:16],
            "campaign": request["campaign"],
            "wanted": f"{request['property']} [{request['unit'] or 'no unit'}]",
            "candidate": candidate_text(request["candidate"]),
        }
        if all:
            row["state"] = request["state"]
            row["result"] = (
                "-" if result is None else value_text(result["value"], result["std"], result["censoring"])
            )
        rows.append(row)
    print_table(rows)


@app.command()
def record(
    key: Annotated[str, typer.Argument(help="The request's key, or a beginning that only it has.")],
    value: Annotated[
        str, typer.Option("--value", help="What was measured; a bound is written as '<1e-10' or '>1e-3'.")
    ],
    std: Annotated[float | None, typer.Option("--std", help="One standard error, in the same unit.")] = None,
    unit: Annotated[
        str | None, typer.Option("--unit", help="Unit of value and error; default: the request's.")
    ] = None,
    method: Annotated[str | None, typer.Option("--method", help="How it was measured.")] = None,
    by: Annotated[str | None, typer.Option("--by", help="Who measured it.")] = None,
    cost: Annotated[float | None, typer.Option("--cost", help="What it took, in the cost unit.")] = None,
    json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """Record a result; the campaign takes it in at its next `run` or `tick`."""
    from activelearning.report.text import candidate_text, value_text
    from oracles import lab

    number, censoring = lab.parse_value(value)
    with open_store(store) as database:
        request = lab.record(
            database, key, number, std=std, unit=unit, censoring=censoring, method=method, by=by, cost=cost
        )
    if json:
        print_json(request)
        return
    result = request["result"]
    shown = value_text(result["value"], result["std"], result["censoring"])
    typer.echo(
        f"Recorded {shown} {result['unit'] or ''} for {candidate_text(request['candidate'])}; "
        f"`activelearning tick {request['campaign']}` takes it in."
    )

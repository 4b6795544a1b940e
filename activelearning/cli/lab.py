"""`activelearning lab`: what laboratories are asked for, and what they found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from activelearning.cli.common import JsonOption, StoreOption, open_store, print_json, print_table
from activelearning.errors import InputError

if TYPE_CHECKING:
    from oracles.lab import NewResult

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Requests to laboratories and their results."
)

KeyArgument = Annotated[str, typer.Argument(help="The request's key, or a beginning that only it has.")]


@app.command("list")
def list_requests(
    campaign: Annotated[str | None, typer.Option("--campaign", help="Only this campaign's.")] = None,
    all: Annotated[
        bool, typer.Option("--all", help="Answered, rejected and cancelled ones too.")
    ] = False,
    json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """List the requests that wait for a result."""
    from activelearning.report.text import candidate_text
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
        row = {
            "key": request["key"][:16],
            "campaign": request["campaign"],
            "wanted": f"{request['property']} [{request['unit'] or 'no unit'}]",
            "candidate": candidate_text(request["candidate"]),
        }
        if all:
            row["state"] = request["state"]
            row["results"] = "; ".join(_result_text(result) for result in request["results"]) or "-"
        rows.append(row)
    print_table(rows)


def _result_text(result: Mapping[str, Any]) -> str:
    from activelearning.report.text import value_text

    shown = value_text(result["value"], result["std"], result["censoring"])
    corrected = "" if result["corrected_by"] is None else f" (corrected by {result['corrected_by']})"
    return f"{result['number']}: {shown} {result['unit'] or ''}".rstrip() + corrected


@app.command()
def record(
    value: Annotated[
        str, typer.Option("--value", help="What was measured; a bound is written as '<1e-10' or '>1e-3'.")
    ],
    key: Annotated[
        str | None, typer.Argument(help="The request's key, or a beginning that only it has.")
    ] = None,
    std: Annotated[float | None, typer.Option("--std", help="One standard error, in the same unit.")] = None,
    unit: Annotated[
        str | None, typer.Option("--unit", help="Unit of value and error; default: the request's.")
    ] = None,
    corrects: Annotated[
        int | None,
        typer.Option("--corrects", metavar="N", help="Takes the place of the request's result number N."),
    ] = None,
    replicate: Annotated[
        bool, typer.Option("--replicate", help="Another measurement beside those that are there.")
    ] = False,
    method: Annotated[str | None, typer.Option("--method", help="How it was measured.")] = None,
    by: Annotated[str | None, typer.Option("--by", help="Who measured it.")] = None,
    cost: Annotated[float | None, typer.Option("--cost", help="What it took, in the cost unit.")] = None,
    note: Annotated[str | None, typer.Option("--note", help="Anything else.")] = None,
    file: Annotated[
        list[Path] | None, typer.Option("--file", help="A file to keep with it; as often as needed.")
    ] = None,
    candidate: Annotated[
        Path | None,
        typer.Option("--candidate", metavar="FILE", help="Instead of KEY: a material nobody asked for, CIF or JSON."),
    ] = None,
    campaign: Annotated[
        str | None, typer.Option("--campaign", help="With --candidate: the campaign that is to know it.")
    ] = None,
    fidelity: Annotated[
        str | None, typer.Option("--fidelity", help="With --candidate: which of several laboratories.")
    ] = None,
    json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """Record a result; the campaign takes it in at its next `run` or `tick`."""
    from activelearning.report.text import candidate_text, value_text
    from oracles import lab
    from oracles.lab.files import read_upload
    from oracles.lab.unrequested import read_candidate

    of: str | lab.Unrequested
    if candidate is not None:
        if key is not None:
            raise InputError("KEY and --candidate exclude one another: a material was asked for, or was not.")
        if campaign is None:
            raise InputError("--candidate needs --campaign NAME: the campaign that is to know the result.")
        material = read_upload(candidate)
        of = lab.Unrequested(read_candidate(str(candidate), material.content), campaign, fidelity)
    elif key is None:
        raise InputError("Name the request by its KEY (`activelearning lab list`), or a material by --candidate.")
    elif campaign is not None or fidelity is not None:
        raise InputError("--campaign and --fidelity go with --candidate; a KEY says both.")
    else:
        of = key
    number, censoring = lab.parse_value(value)
    new = lab.NewResult(
        of,
        number,
        censoring,
        std=std,
        unit=unit,
        corrects=corrects,
        is_replicate=replicate,
        method=method,
        by=by,
        cost=cost,
        note=note,
        files=tuple(read_upload(path) for path in file or ()),
    )
    with open_store(store) as database:
        request = lab.read_request(database, lab.record_all(database, [new])[0])
    _wake([request])
    if json:
        print_json(request)
        return
    result = request["results"][-1]
    shown = f"{value_text(result['value'], result['std'], result['censoring'])} {result['unit'] or ''}".rstrip()
    how = f" in place of result {corrects}" if corrects is not None else ""
    taken = request["taken"]
    mean = ""
    if replicate:
        mean = f" (with the others: {value_text(taken['value'], taken['std'], taken['censoring'])} {taken['unit'] or ''})"
    typer.echo(
        f"Recorded {shown} for {candidate_text(request['candidate'])}{how}{mean}; "
        f"`activelearning tick {request['campaign']}` takes it in."
    )


@app.command()
def reject(
    key: KeyArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why it can't be done; the campaign keeps it.")],
    by: Annotated[str | None, typer.Option("--by", help="Who says so.")] = None,
    cost: Annotated[
        float | None, typer.Option("--cost", help="What was spent in trying; default: nothing.")
    ] = None,
    json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """Say that a request can't be fulfilled; its evaluation fails with the reason."""
    from activelearning.report.text import candidate_text
    from oracles import lab

    with open_store(store) as database:
        request = lab.reject(database, key, reason=reason, by=by, cost=cost)
    _wake([request])
    if json:
        print_json(request)
    else:
        typer.echo(
            f"Rejected {candidate_text(request['candidate'])}; `activelearning tick {request['campaign']}` takes it in."
        )


def _wake(requests: list[dict[str, Any]]) -> None:
    """Tell Prefect, where a server is set up, so that a deployment goes on at once."""
    from flows.events import lab_recorded

    for campaign in sorted({request["campaign"] for request in requests}):
        lab_recorded(campaign)

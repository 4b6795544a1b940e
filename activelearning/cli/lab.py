"""`activelearning lab`: what laboratories are asked for, and what they found."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from activelearning.cli.common import JsonOption, StoreOption, open_store, print_json, print_table
from activelearning.errors import InputError

if TYPE_CHECKING:
    from oracles.lab.web import Access

LAB_PORT = 8765

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Requests to laboratories and their results."
)

KeyArgument = Annotated[str, typer.Argument(help="The request's key, or a beginning that only it has.")]


@app.command("list")
def list_requests(
    campaign: Annotated[str | None, typer.Option("--campaign", help="Only this campaign's.")] = None,
    all: Annotated[bool, typer.Option("--all", help="Answered, rejected and cancelled ones too.")] = False,
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
        typer.Option(
            "--candidate", metavar="FILE", help="Instead of KEY: a material nobody asked for, CIF or JSON."
        ),
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
        raise InputError(
            "Name the request by its KEY (`activelearning lab list`), or a material by --candidate."
        )
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
    shown = (
        f"{value_text(result['value'], result['std'], result['censoring'])} {result['unit'] or ''}".rstrip()
    )
    how = f" in place of result {corrects}" if corrects is not None else ""
    taken = request["taken"]
    mean = ""
    if replicate:
        whole = value_text(taken["value"], taken["std"], taken["censoring"])
        mean = f" (with the others: {whole} {taken['unit'] or ''}".rstrip() + ")"
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


@app.command("import")
def import_results(
    table: Annotated[
        Path, typer.Argument(metavar="FILE", help="CSV with 'key' and 'value', as `lab export` writes it.")
    ],
    json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """Record the results of a table: all of them, or none and every line that is wrong."""
    from oracles import lab
    from oracles.lab.files import read_upload
    from oracles.lab.tables import import_table

    content = read_upload(table).content
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{table} is not encoded in UTF-8 ({error}); save it as 'CSV UTF-8'.") from error
    with open_store(store) as database:
        keys = import_table(database, text, lambda name: read_upload(table.parent / name))
        requests = [lab.read_request(database, key) for key in dict.fromkeys(keys)]
    _wake(requests)
    if json:
        print_json(requests)
    else:
        results = "1 result" if len(keys) == 1 else f"{len(keys)} results"
        typer.echo(f"Recorded {results} of {len(requests)} materials.")


@app.command()
def export(
    out: Annotated[Path, typer.Option("--out", help="CSV to write; '-' for standard output.")],
    campaign: Annotated[str | None, typer.Option("--campaign", help="Only this campaign's.")] = None,
    all: Annotated[
        bool, typer.Option("--all", help="All requests, a row for each result, corrected ones too.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Write the open requests as a table to fill in, which `lab import` reads back."""
    from oracles.lab.tables import export_table

    with open_store(store) as database:
        text = export_table(database, campaign=campaign, all=all)
    if str(out) == "-":
        typer.echo(text, nl=False)
        return
    _write(out, text)
    n = text.count("\n") - 1
    typer.echo(f"{n} rows written to {out}", err=False)


@app.command()
def sheet(
    key: KeyArgument,
    cif: Annotated[
        Path | None, typer.Option("--cif", metavar="FILE", help="Write the material as CIF, too.")
    ] = None,
    json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """Show a request's sheet: the material, what is predicted, why it was chosen, its priority."""
    from oracles.lab.sheet import read_sheet

    with open_store(store) as database:
        found = read_sheet(database, key)
    if cif is not None:
        if found.cif is None:
            raise InputError(
                f"The request {found.request['key'][:16]} is of no crystal with a lattice; it has no CIF."
            )
        _write(cif, found.cif)
    if json:
        prediction = found.prediction
        print_json(
            {
                "request": found.request,
                "sheet": dict(found.rows()),
                "priority": found.priority,
                "predicted": None
                if prediction is None
                else {
                    "mean": prediction.mean,
                    "std": prediction.std,
                    "interval_90": list(prediction.interval),
                },
                "cif": found.cif,
            }
        )
    else:
        typer.echo(found.text(), nl=False)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror or error}.") from error


@app.command()
def serve(
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = LAB_PORT,
    url: Annotated[
        str | None,
        typer.Option("--url", help="Where people reach it, if not there: https://… of a proxy in front."),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Serve a form in the browser for the same; prints its address with the token. Ctrl-C ends it.

    The token is new with each start, unless ACTIVELEARNING_LAB_TOKEN holds one.
    """
    import uvicorn

    from flows.events import lab_recorded
    from oracles.lab.web import make_app

    with open_store(store) as database, _listener(host, port) as listener:
        access = _access(host, listener.getsockname()[1], url)
        app = make_app(database, access, lab_recorded)
        typer.echo(f"The laboratory's form: {access.origins[0]}/?token={access.token}")
        typer.echo("Who has this address may record; Ctrl-C ends it.")
        sys.stdout.flush()
        # No log of accesses: the first address has the token in it.
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=64,
            timeout_graceful_shutdown=3,  # browsers hold connections open
        )
        uvicorn.Server(config).run(sockets=[listener])


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # whoever opens the printed address at once waits, and is not refused
    except OSError as error:
        listener.close()
        raise InputError(
            f"--host {host} --port {port}: {error.strerror or error}; name another port (0 takes a free one)."
        ) from error
    return listener


def _access(host: str, port: int, url: str | None) -> Access:
    """Where the form is reached, and its token."""
    from urllib.parse import urlsplit

    from oracles.lab.web import Access

    is_loopback = host in ("127.0.0.1", "localhost", "::1")
    if url is not None:
        parts = urlsplit(url)
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.path.strip("/")
            or parts.query
        ):
            raise InputError(
                f"--url {url}: write scheme, host and port alone, as in https://lab.example.org."
            )
        origins = [f"{parts.scheme}://{parts.netloc}"]
    elif host in ("0.0.0.0", "::"):
        raise InputError(
            f"--host {host} is no name that a browser could use: say by --url where people reach it."
        )
    else:
        origins = []
    if is_loopback or url is None:
        named = f"[{host}]" if ":" in host else host
        names = dict.fromkeys([named, "localhost"] if is_loopback else [named])
        where = "" if port == 80 else f":{port}"  # browsers leave the usual port out
        origins += [f"http://{name}{where}" for name in names]
    if not is_loopback and not origins[0].startswith("https:"):
        typer.echo(
            "The form is reached from other machines without encryption: who listens on the way has the token. Put a "
            "proxy with TLS in front of it, and name that by --url.",
            err=True,
        )
    token = os.environ.get("ACTIVELEARNING_LAB_TOKEN")
    if token is None:
        return Access(tuple(origins))
    if not re.fullmatch(r"[A-Za-z0-9_-]{16,128}", token):
        raise InputError("ACTIVELEARNING_LAB_TOKEN: a token has 16 to 128 letters, digits, '-' and '_'.")
    return Access(tuple(origins), token)

"""Commands about the installation: `plugins`, `schema`, `doctor`, `ui`, `db upgrade`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from activelearning.cli.common import DEFAULT_STORE, JsonOption, StoreOption, print_json, print_table

PREFECT_PORT = 4200

database_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The store's schema.")


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(plugins)
    app.command()(schema)
    app.command()(doctor)
    app.command()(ui)


def plugins(json: JsonOption = False) -> None:
    """List the short names of oracles, samplers, surrogates, acquisitions, spaces and rewards."""
    from activelearning.cli.plugins import list_plugins

    found = list_plugins()
    if json:
        print_json(found)
        return
    print_table([{k: p[k] for k in ("group", "name", "doc")} for p in found])


def schema(
    sample: Annotated[
        bool, typer.Option("--sample", help="That of a config for `activelearning sample`.")
    ] = False,
) -> None:
    """Print the JSON schema of a campaign's config, for editors."""
    from activelearning.cli.schema import config_schema, sample_schema

    print_json(sample_schema() if sample else config_schema())


def doctor(json: JsonOption = False, store: StoreOption = None) -> None:
    """Check the installation; exits with 1 where something is broken."""
    from activelearning.cli.doctor import examine

    findings = examine(store or DEFAULT_STORE)
    if json:
        print_json([finding.to_json() for finding in findings])
    else:
        for finding in findings:
            typer.echo(f"{finding.mark:7s} {finding.what}: {finding.says}")
    if any(finding.is_broken for finding in findings):
        raise typer.Exit(1)


def ui(
    port: Annotated[
        int, typer.Option("--port", min=1, max=65535, help="Port on the loopback.")
    ] = PREFECT_PORT,
) -> None:
    """Start Prefect's server, and say where its pages are; Ctrl-C ends it."""
    from flows.settings import configure

    configure()
    address = f"http://127.0.0.1:{port}"
    # The pages are told where the API is; the default is right for Prefect's own port only.
    environment = {**os.environ, "PREFECT_UI_API_URL": f"{address}/api", "PREFECT_CLI_PROMPT": "false"}
    typer.echo(f"Prefect's pages: {address}")
    typer.echo(f"To watch a campaign while it runs: PREFECT_API_URL={address}/api activelearning run CONFIG")
    sys.stdout.flush()
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    os.execve(sys.executable, command, environment)


@database_app.command("upgrade")
def upgrade(store: StoreOption = None) -> None:
    """Bring a store of an older version up to this version's schema."""
    from alembic.util import CommandError

    from activelearning.errors import StoreError
    from activelearning.store import database as stores

    url = stores.resolve_url(store or DEFAULT_STORE)
    shown = stores.shown(url)
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
        raise StoreError(f"There is no store {shown}; `activelearning run CONFIG` makes one.")
    stores.check_reachable(url)
    database = stores.Database(url)
    try:
        revision = stores.upgrade(database)
    except CommandError as error:
        raise StoreError(
            f"The store {shown} can't be upgraded: {error}. It was written by a later version of activelearning; "
            f"install that one."
        ) from error
    finally:
        database.close()
    typer.echo(f"{shown} has the schema {revision}.")

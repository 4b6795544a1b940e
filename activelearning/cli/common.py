"""What the commands share: options, opening the store, and plain output."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from activelearning.store.database import Database

# As in activelearning.campaign.config, which imports torch: commands that only read stay quick.
DEFAULT_STORE = "sqlite:///activelearning.db"

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        envvar="ACTIVELEARNING_STORE",
        help="Database URL of the campaign store.",
        show_default=DEFAULT_STORE,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, a stable interface.")]
CampaignArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of a campaign in the store.")]


@contextmanager
def open_store(url: str | None) -> Iterator[Database]:
    """The store that a reading command works on.

    Raises:
        StoreError: there is none, or it can't be read.
    """
    from activelearning.store.database import open_database

    database = open_database(url or DEFAULT_STORE)
    try:
        yield database
    finally:
        database.close()


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(rows: Sequence[Mapping[str, str]]) -> None:
    """Print rows of equal keys in columns, their keys as head."""
    if not rows:
        return
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    for row in [{name: name for name in widths}, *rows]:
        typer.echo("  ".join(row[name].ljust(width) for name, width in widths.items()).rstrip())

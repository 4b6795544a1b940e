"""Commands that run campaigns: `run`, `tick`, `serve`, `cancel`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from activelearning.cli.common import DEFAULT_STORE, CampaignArgument, JsonOption, StoreOption, print_json
from activelearning.errors import ActiveLearningError, ConfigError, InputError, StoreError

if TYPE_CHECKING:
    from activelearning.campaign.config import CampaignConfig
    from activelearning.campaign.engine import Engine
    from activelearning.campaign.stopping import Decision

WAITING = 3


class StoppedError(ActiveLearningError):
    """Stopped by Ctrl-C."""

    exit_code = 130


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(run)
    app.command()(tick)
    app.command()(serve)
    app.command()(cancel)


def run(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or a shipped config's name.")],
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="Run until nothing more can be started now (the default).")
    ] = False,
    rounds: Annotated[
        int | None,
        typer.Option("--rounds", min=1, help="Stop after N more rounds; the initial design is none."),
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a dotted key of the config."),
    ] = None,
    json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """Create a campaign, or continue it, and run its rounds.

    Exits with 3 where it waits for outside results; the same command goes on when they are there.
    """
    if until_idle and rounds is not None:
        raise InputError("--until-idle and --rounds exclude one another; give one of them.")
    from activelearning.campaign.shipped import find_config

    path = find_config(config)
    loaded = _load(path, set or [])
    _work(loaded, path.parent, store, again=f"activelearning run {config}", rounds=rounds, json=json)


def tick(
    campaign: Annotated[
        str, typer.Argument(metavar="CONFIG|NAME", help="A config, or a campaign's name in the store.")
    ],
    json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """Run one round's steps: take in results, decide, and start what is due."""
    loaded, folder = _config_or_name(campaign, store)
    _work(loaded, folder, store, again=f"activelearning tick {campaign}", one_tick=True, json=json)


def serve(
    campaigns: Annotated[
        list[str], typer.Argument(metavar="CONFIG|NAME", help="Configs, or names of campaigns in the store.")
    ],
    every: Annotated[
        float, typer.Option("--every", min=1.0, help="Minutes between runs that nothing else starts.")
    ] = 15.0,
    store: StoreOption = None,
) -> None:
    """Go on with campaigns as deployments of a Prefect server: on a schedule, and when a laboratory has recorded.

    Ctrl-C ends it, and nothing is lost: the next `serve`, `run` or `tick` goes on.
    """
    from datetime import timedelta

    from activelearning.campaign.engine import Engine
    from activelearning.store.database import resolve_url
    from flows.server import PrefectError, check_api, configured_url

    if configured_url() is None:
        raise PrefectError(
            "`activelearning serve` needs a Prefect server that stays: start `activelearning ui`, and set "
            "PREFECT_API_URL=http://127.0.0.1:4200/api."
        )
    check_api()
    url = resolve_url(store or DEFAULT_STORE).render_as_string(hide_password=False)
    names = []
    for campaign in dict.fromkeys(campaigns):
        loaded, folder = _config_or_name(campaign, url)
        # Whatever is wrong is said here, and not by a run in a server's log; a new campaign is in the store by then.
        with Engine.open(loaded, folder=folder, store=url) as engine:
            names.append(engine.name)
    from flows.deployment import serve_campaigns

    typer.echo(
        f"Going on with {', '.join(names)} every {every:g} min, and when a laboratory has recorded. Ctrl-C ends it."
    )
    with _interruptible("activelearning serve " + " ".join(campaigns)):
        serve_campaigns(names, url, timedelta(minutes=every))


def cancel(
    name: CampaignArgument,
    reason: Annotated[
        str, typer.Option("--reason", help="Why; kept in the store.")
    ] = "cancelled by the user",
    store: StoreOption = None,
) -> None:
    """End a campaign: open evaluations are cancelled, also outside, and what they reserved is released."""
    from activelearning.campaign.engine import Engine
    from activelearning.errors import LeaseHeldError
    from activelearning.store.models import CampaignState
    from activelearning.store.repository import Repository

    loaded, folder = _stored(name, store)
    with Engine.open(loaded, folder=folder, store=store or DEFAULT_STORE) as engine:
        repository = Repository(engine.database, name)
        state, _ = repository.state()
        if state in (CampaignState.FINISHED, CampaignState.CANCELLED):
            raise InputError(f"The campaign {name!r} is {state} already; there is nothing to cancel.")
        # Said first: a process that runs the campaign sees it before its next step and stops by itself.
        repository.set_state(CampaignState.CANCELLED, reason)
        try:
            with engine.lease():
                engine.reconcile()
        except LeaseHeldError:
            typer.echo(f"{name} is cancelled; the process that runs it stops before its next step.")
            return
    typer.echo(f"{name} is cancelled: {reason}")


def parse_overrides(texts: Sequence[str]) -> dict[str, str]:
    """Read `KEY=VALUE` texts.

    Raises:
        InputError: one has no key or no equals sign.
    """
    overrides = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (equals and key.strip()):
            raise InputError(f"--set {text}: write KEY=VALUE, as in --set budget.total=10.")
        overrides[key.strip()] = value
    return overrides


def _load(path: Path, overrides: Sequence[str]) -> CampaignConfig:
    from activelearning.campaign.config import load_config

    return load_config(path, parse_overrides(overrides))


def _config_or_name(text: str, store: str | None) -> tuple[CampaignConfig, Path]:
    """A file's config; else the campaign of that name in the store; else a shipped config."""
    from activelearning.campaign.shipped import find_config

    if not Path(text).expanduser().is_file():
        try:
            return _stored(text, store)
        except (InputError, StoreError) as missing:
            try:
                path = find_config(text)
            except ConfigError:
                raise missing from None
    else:
        path = find_config(text)
    return _load(path, []), path.parent


def _stored(name: str, store: str | None) -> tuple[CampaignConfig, Path]:
    """A campaign's config and folder as the store keeps them."""
    from activelearning.campaign.continuation import stored_config
    from activelearning.cli.common import open_store

    with open_store(store) as database:
        return stored_config(database, name)


def _work(
    config: CampaignConfig,
    folder: Path,
    store: str | None,
    *,
    again: str,
    rounds: int | None = None,
    one_tick: bool = False,
    json: bool = False,
) -> None:
    """Open the campaign and run it under Prefect; ends with the exit code of what was decided."""
    from activelearning import report
    from activelearning.cli.display import make_display
    from flows.launch import prefect_api, run_campaign, run_tick

    with prefect_api() as server, _interruptible(again):
        from activelearning.campaign.engine import Engine

        display = make_display(quiet=json)
        with Engine.open(config, folder=folder, store=store, observer=display.observe) as engine:
            with display.of(engine), _marking(engine):
                decision = (
                    run_tick(engine, server, notice=_warn)
                    if one_tick
                    else run_campaign(engine, server, rounds=rounds, notice=_warn)
                )
            if json:
                print_json(report.status(engine.database, engine.name))
            else:
                display.conclude(decision, report.status(engine.database, engine.name))
    _exit(decision)


def _warn(text: str) -> None:
    typer.echo(text, err=True)


def _exit(decision: Decision) -> None:
    from activelearning.campaign.stopping import Action

    if decision.action is Action.WAITING:
        raise typer.Exit(WAITING)


@contextmanager
def _marking(engine: Engine) -> Iterator[None]:
    """Leave word in the store of a run that was stopped or that failed."""
    from sqlalchemy.exc import SQLAlchemyError

    from activelearning.errors import LeaseHeldError

    try:
        yield
    except KeyboardInterrupt:
        engine.mark_interrupted("stopped by Ctrl-C")
        raise
    except LeaseHeldError:
        raise  # another process runs the campaign, and its state is for that one to tell
    except Exception as error:
        with suppress(SQLAlchemyError):  # the store may be what failed; the first error is the one to tell
            engine.mark_failed(f"{type(error).__name__}: {' '.join(str(error).split())}")
        raise


@contextmanager
def _interruptible(again: str) -> Iterator[None]:
    """Ctrl-C ends cleanly and says how to go on; a second one ends at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    how = f"Everything that was committed is in the store; `{again}` goes on from there."

    def first(_signal: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, second)
        typer.echo("\nStopping. Press Ctrl-C again to stop at once.", err=True)
        raise KeyboardInterrupt

    def second(_signal: int, _frame: object) -> None:
        import os

        # Threads may be in the middle of anything; the store does not mind, and only leaving is surely quick.
        os.write(2, f"\nStopped. {how}\n".encode())
        os._exit(StoppedError.exit_code)

    before = signal.signal(signal.SIGINT, first)
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedError(f"Stopped by Ctrl-C. {how}") from None
    finally:
        signal.signal(signal.SIGINT, before)

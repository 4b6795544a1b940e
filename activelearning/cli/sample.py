"""`activelearning sample`: train the sampler of a space on a property, and write crystals."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from activelearning.cli.common import JsonOption, print_json
from activelearning.errors import InputError

if TYPE_CHECKING:
    from activelearning.sampling.events import Observer, Progress, Stage

LINES = 20  # of progress, where standard output is no terminal


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(sample)


def sample(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or a shipped config's name.")],
    n: Annotated[int, typer.Option("--n", min=1, help="Crystals to write.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of checkpoint and results.")],
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", min=1, help="Training steps in all; a finished training is taken further only by more."
        ),
    ] = None,
    trained: Annotated[
        Path | None,
        typer.Option("--trained", metavar="DIR", help="Take the sampler that was trained in this folder."),
    ] = None,
    restrict: Annotated[
        list[str] | None,
        typer.Option("--restrict", metavar="KEY=VALUE", help="Sample a part of the space, without training."),
    ] = None,
    validation: Annotated[
        Path | None, typer.Option("--validation", help="Table of known crystals to compare with.")
    ] = None,
    structures: Annotated[
        int, typer.Option("--structures", min=0, help="Best crystals that are written with their atoms.")
    ] = 20,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a dotted key of the config."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Train a sampler on a property and write crystals in proportion to its reward.

    An interrupted training goes on from its checkpoint with the same command.
    """
    if trained is not None and steps is not None:
        raise InputError("--trained takes a sampler as it is, and --steps trains one; give one of them.")
    from activelearning.sampling.config import find_sample_config, load_sample_config
    from activelearning.sampling.run import Request
    from activelearning.sampling.run import sample as run

    path = find_sample_config(config)
    out = out.expanduser()
    overrides = _overrides("--set", set or [], "--set sampler.steps=200")
    overrides |= {
        f"restrict.{key}": text
        for key, text in _overrides("--restrict", restrict or [], "--restrict elements=[Fe,O]").items()
    }
    if validation is not None:
        overrides["validation"] = str(validation.expanduser().absolute())
    loaded = load_sample_config(path, overrides)
    request = Request(
        n=n,
        out=out,
        steps=steps,
        trained=None if trained is None else trained.expanduser(),
        structures=structures,
    )
    with _interruptible() as stopped, _display(quiet=json) as observe:
        summary = run(loaded, request, folder=path.parent, observe=observe, must_stop=stopped.is_set)
    if json:
        print_json(summary)
    else:
        _conclude(summary, out)


def _overrides(option: str, texts: Sequence[str], example: str) -> dict[str, str]:
    """Read `KEY=VALUE` texts.

    Raises:
        InputError: one has no key or no equals sign, or its value is no YAML.
    """
    import yaml

    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (equals and key.strip()):
            raise InputError(f"{option} {text}: write KEY=VALUE, as in {example}.")
        try:
            yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(
                f"{option} {text}: the value is not valid YAML; write KEY=VALUE, as in {example}."
            ) from error
        found[key.strip()] = value
    return found


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, so that the training ends with a checkpoint; a second Ctrl-C ends at once."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def first(_signal: int, _frame: object) -> None:
        stopped.set()
        signal.signal(signal.SIGINT, before)
        typer.echo("\nStopping after this piece of work. Press Ctrl-C again to stop at once.", err=True)

    before = signal.signal(signal.SIGINT, first)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _display(*, quiet: bool) -> Iterator[Observer]:
    """Shows a run's stages and progress: a bar on a terminal, lines elsewhere, nothing if quiet."""
    if quiet:
        yield lambda _event: None
    elif sys.stdout.isatty():
        with _bar() as observe:
            yield observe
    else:
        yield _Lines()


class _Lines:
    """A line a stage, and `LINES` lines of training."""

    def __init__(self) -> None:
        self._shown = -1

    def __call__(self, event: Progress | Stage) -> None:
        from activelearning.sampling.events import Progress

        if not isinstance(event, Progress):
            typer.echo(event.text)
        elif (part := LINES * event.step // max(event.steps, 1)) > self._shown:
            self._shown = part
            typer.echo(f"training: step {event.step} of {event.steps}{_told(event)}")
        sys.stdout.flush()


@contextmanager
def _bar() -> Iterator[Observer]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from activelearning.sampling.events import Progress as Advanced

    console = Console(highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task("starting", total=None, told="")

        def observe(event: Advanced | Stage) -> None:
            if isinstance(event, Advanced):
                progress.update(
                    task,
                    description=f"training, step {event.step} of {event.steps}",
                    total=event.steps,
                    completed=event.step,
                    told=_told(event).removeprefix(", "),
                )
            else:
                progress.reset(task, total=None, description=escape(event.text), told="")

        yield observe


def _told(event: Progress) -> str:
    names = {"loss": "loss", "log_z": "log Z", "mean_log_reward": "mean log reward"}
    return "".join(f", {names[key]} {value:.4g}" for key, value in event.figures.items() if key in names)


def _conclude(summary: dict[str, Any], out: Path) -> None:
    """Say what came out, and where it is."""
    typer.echo(
        f"{summary['name']}: {summary['n']} crystals after {summary['steps']} steps, {summary['unique']} unique"
    )
    for name, found in summary["properties"].items():
        if found["samples"] is None:
            typer.echo(f"{name}: not known of any sample")
            continue
        unit = f" {found['unit']}" if found["unit"] else ""
        before = found["untrained"]
        known = found["validation"]
        note = "" if before is None else f" (untrained {before['median']:.4g})"
        note += "" if known is None else f", known crystals {known['median']:.4g} (n = {known['n']})"
        typer.echo(f"{name}: median {found['samples']['median']:.4g}{unit}{note}")
    pair = summary["correlation"]
    if pair is not None and pair["pearson"] is not None:
        typer.echo(f"log-probability and log reward correlate by {pair['pearson']:.4f}")
    if pair is not None and pair["left_out"]:
        typer.echo(f"{pair['left_out']} crystals are left out of that: their log-probability is not finite")
    if summary["failed"]:
        typer.echo(f"{summary['failed']} crystals have no property and the least reward")
    typer.echo(
        f"crystals {out / 'samples.csv'}, {summary['structures']} of them with atoms; page {out / 'run.html'}"
    )

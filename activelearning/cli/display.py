"""What a person sees while a campaign runs: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from activelearning.report.text import best_text, candidate_text, value_text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from activelearning.campaign.engine import Engine
    from activelearning.campaign.stopping import Decision

# Steps that take no time worth a line of their own.
_QUIET_STEPS = frozenset({"reconcile", "ingest", "decide", "commit", "submit"})
_REFRESH_SECONDS = 1.0
Facts = Mapping[str, Any]


def make_display(*, quiet: bool = False) -> Display:
    """The display for this process's standard output."""
    if quiet:
        return Display()
    return LiveDisplay() if sys.stdout.isatty() else PlainDisplay()


class Display:
    """Shows nothing; the base of the others. `observe` may be called from several threads."""

    def observe(self, event: str, facts: Facts) -> None:
        """Take notice of what the engine does."""

    @contextmanager
    def of(self, engine: Engine) -> Iterator[None]:
        """Show an engine's work for a while."""
        yield

    def conclude(self, decision: Decision, standing: Mapping[str, Any]) -> None:
        """Say how the run ended."""
        reason = f": {decision.reason}" if decision.reason else ""
        budget = standing["budget"]
        typer.echo(f"{standing['campaign']} is {standing['state']}{reason}")
        typer.echo(
            f"{standing['rounds']} rounds, {budget['spent']:g} spent and {budget['reserved']:g} reserved of "
            f"{budget['total']:g}"
        )
        if standing["state"] == "waiting":
            typer.echo(f"out: {_out(standing['evaluations'])}")
        best = standing["best"]
        if best is not None:
            if "hypervolume" in best:
                typer.echo(f"best {best_text(best)}")
                return
            shown = value_text(best["value"], best["std"])
            typer.echo(f"best {best['property']} {shown}: {candidate_text(best['candidate'])}")


def _out(evaluations: Mapping[str, Mapping[str, int]]) -> str:
    """Numbers of open evaluations by fidelity, in words."""
    from activelearning.store.models import OPEN_STATES

    n_open = {name: sum(states.get(s, 0) for s in OPEN_STATES) for name, states in evaluations.items()}
    return ", ".join(f"{n} at {name}" for name, n in n_open.items() if n) or "nothing"


class PlainDisplay(Display):
    """One line per step, round and evaluation, for logs and pipes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def observe(self, event: str, facts: Facts) -> None:
        """Print a line where there is something to say."""
        line = describe(event, facts)
        if line is not None:
            with self._lock:
                typer.echo(line)
                sys.stdout.flush()


def describe(event: str, facts: Facts) -> str | None:
    """One line for an event of the engine, None for one that needs none."""
    kind, _, what = event.partition(".")
    if kind == "step" and what not in _QUIET_STEPS:
        if "fidelity" in facts:
            return f"{what} {facts['n']} at {facts['fidelity']}"
        return f"round {facts['round']}: {what}"
    if event == "oracle.unreachable":
        return f"  {facts['fidelity']}: {facts['reason']}; the next tick tries again"
    if event == "round.committed":
        return f"round {facts['round']}: {facts['n']} evaluations committed"
    if event == "evaluation.succeeded":
        shown = value_text(facts["value"], censoring=facts.get("censoring"))
        return f"  {facts['fidelity']} {facts['key'][:8]} {shown}{_seconds(facts)}"
    if event == "evaluation.failed":
        return f"  {facts['fidelity']} {facts['key'][:8]} failed: {facts['reason']}{_seconds(facts)}"
    return None


def _seconds(facts: Facts) -> str:
    seconds = facts.get("seconds")
    return f" ({seconds:.1f} s)" if seconds is not None and seconds >= 0.05 else ""


class LiveDisplay(Display):
    """A few lines that stay in place: round, step, evaluations, budget, best; finished work scrolls above."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console: Console = Console(highlight=False)
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._step = "opening"
        self._since = time.monotonic()
        self._standing: Mapping[str, Any] | None = None
        self._read_at = float("-inf")

    def observe(self, event: str, facts: Facts) -> None:
        """Remember the step; print what is finished above the live lines."""
        from rich.markup import escape

        kind, _, what = event.partition(".")
        if kind == "step":
            with self._lock:
                number = f"round {facts['round']}, " if "round" in facts else ""
                at = f" at {facts['fidelity']}" if "fidelity" in facts else ""
                self._step, self._since = f"{number}{what}{at}", time.monotonic()
        elif (line := describe(event, facts)) is not None:
            self._console.print(escape(line))

    @contextmanager
    def of(self, engine: Engine) -> Iterator[None]:
        """Keep the live lines up to date while the engine works."""
        from rich.live import Live

        self._engine = engine
        with Live(console=self._console, get_renderable=self._render, refresh_per_second=4, transient=True):
            yield

    def _render(self) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        standing = self._read()
        with self._lock:
            step, seconds = self._step, time.monotonic() - self._since
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold")
        grid.add_column()
        if standing is None:
            grid.add_row("step", step)
            return grid
        budget = standing["budget"]
        used = budget["spent"] + budget["reserved"]
        best = standing["best"]
        grid.add_row(standing["campaign"], f"{step} ({seconds:.0f} s)")
        bar = Table.grid(padding=(0, 2))
        bar.add_row(ProgressBar(total=budget["total"], completed=used, width=40), _money(budget))
        grid.add_row("budget", bar)
        for fidelity, states in standing["evaluations"].items():
            grid.add_row(fidelity, ", ".join(f"{n} {state}" for state, n in states.items()) or "none")
        grid.add_row("best", "-" if best is None else best_text(best))
        return grid

    def _read(self) -> Mapping[str, Any] | None:
        """The campaign's standing, read at most once a second."""
        from sqlalchemy.exc import SQLAlchemyError

        from activelearning import report

        if self._engine is not None and time.monotonic() - self._read_at >= _REFRESH_SECONDS:
            self._read_at = time.monotonic()
            try:
                self._standing = report.status(self._engine.database, self._engine.name)
            except SQLAlchemyError:
                # A picture that is a second old will do; the engine meets the fault itself.
                return self._standing
        return self._standing


def _money(budget: Mapping[str, float]) -> str:
    return f"{budget['spent']:g} spent, {budget['reserved']:g} reserved of {budget['total']:g}"

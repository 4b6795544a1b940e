"""Running a campaign in forked processes that are killed (SIGKILL) at chosen events."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import text

from activelearning.campaign.config import CampaignConfig
from activelearning.campaign.engine import Engine
from activelearning.campaign.tick import run
from activelearning.store.database import open_database

# Times, and who worked when: the only columns that a kill may change.
TIMES = {"created_at", "updated_at", "finished_at", "committed_at", "at", "timings", "seconds"}
UNCOMPARED_TABLES = {"workers", "leases", "alembic_version"}


def in_child(work: Callable[[], None]) -> int:
    """Run in a forked process; returns its wait status."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(70)
    _, status = os.waitpid(child, 0)
    return status


def run_whole(config: CampaignConfig, folder: Path, store: str) -> list[str]:
    """Run to the end in this process; returns its events. Forked processes then find every module loaded."""
    events = []

    def observe(event: str, facts: Mapping[str, Any]) -> None:
        events.append(f"{event} {facts.get('round', '')} {facts.get('fidelity', '')}")

    with Engine.open(config, folder=folder, store=store, observer=observe) as engine:
        run(engine)
    return events


def run_killed(config: CampaignConfig, folder: Path, store: str, kill_at: int | None) -> bool:
    """Run to the end, or kill the process at its `kill_at`-th event (from 0); returns whether it ended."""

    def work() -> None:
        count = 0

        def observe(_event: str, _facts: Mapping[str, Any]) -> None:
            nonlocal count
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1

        with Engine.open(config, folder=folder, store=store, observer=observe) as engine:
            run(engine)

    status = in_child(work)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0
    return True


def tables(store: str) -> dict[str, list[dict[str, Any]]]:
    """All rows of a store, times aside, in the order of their primary keys."""
    database = open_database(store)
    found = {}
    with database.read() as session:
        names = session.scalars(
            text("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        ).all()
        for name in names:
            if name in UNCOMPARED_TABLES:
                continue
            rows = [dict(row) for row in session.execute(text(f'SELECT * FROM "{name}"')).mappings()]
            for row in rows:
                for column in TIMES & set(row):
                    del row[column]
            found[name] = sorted(rows, key=repr)
    database.close()
    return found

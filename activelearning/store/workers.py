"""Live processes, and the lease that makes one of them the only one to run a campaign's steps."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import delete
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from activelearning.errors import LeaseHeldError
from activelearning.store.database import Database
from activelearning.store.models import Campaign, Lease, Worker

HEARTBEAT_SECONDS = 5.0
LAPSE_SECONDS = 30.0


def _process_started(pid: int) -> str | None:
    """A text that tells a process from a later one of the same number; None where there is no such process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""  # no /proc on this system: the number has to do
    return None if fields[0] == "Z" else fields[19]


def is_alive(worker: Worker | None) -> bool:
    """Whether a worker still works: dead at once where its process is gone from this host, else by its heartbeat."""
    if worker is None:
        return False
    if worker.host == socket.gethostname():
        started = _process_started(worker.pid)
        if started is None or started != worker.process_started:
            return False
    return time.time() - worker.heartbeat <= LAPSE_SECONDS


class WorkerRegistration:
    """This process as a worker in the store, with a thread that renews its heartbeat.

    `campaign` is the one it has open, by which reports tell a running campaign from an interrupted one.
    """

    def __init__(self, database: Database, campaign: str | None = None) -> None:
        self.id = uuid.uuid4().hex
        self._campaign = campaign
        self._database = database
        self._stop = threading.Event()
        self.beat()
        self._thread = threading.Thread(target=self._beat_on, name="activelearning-heartbeat", daemon=True)
        self._thread.start()

    def beat(self) -> None:
        """Renew the heartbeat; a row that another process took for dead and removed is written anew."""
        with self._database.write() as session:
            row = session.get(Worker, self.id)
            if row is not None:
                row.heartbeat = time.time()
                return
            session.add(
                Worker(
                    id=self.id,
                    campaign=self._campaign,
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    process_started=_process_started(os.getpid()) or "",
                    heartbeat=time.time(),
                )
            )

    def _beat_on(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                self.beat()
            except SQLAlchemyError:
                # A store out of reach for a moment is met by whoever needs it next; a lapse is what the lease is for.
                continue

    def close(self) -> None:
        """Give everything back."""
        self._stop.set()
        self._thread.join()
        with self._database.write() as session:
            session.execute(delete(Lease).where(Lease.worker == self.id))
            session.execute(delete(Worker).where(Worker.id == self.id))

    @contextmanager
    def lease(self, campaign: str) -> Iterator[None]:
        """Hold the campaign's lease.

        Raises:
            LeaseHeldError: another live process holds it.
        """
        with self._database.write() as session:
            # The campaign's row serialises takers on databases without a single write lock.
            session.get(Campaign, campaign, with_for_update=True)
            held = session.get(Lease, campaign)
            if held is not None and held.worker != self.id:
                holder = session.get(Worker, held.worker)
                if holder is not None and is_alive(holder):
                    raise LeaseHeldError(
                        f"The campaign {campaign!r} is being run by process {holder.pid} on {holder.host}; "
                        f"wait for it, or stop it first."
                    )
                if holder is not None:
                    session.delete(holder)
                held.worker = self.id
            elif held is None:
                session.add(Lease(campaign=campaign, worker=self.id))
        try:
            yield
        finally:
            with self._database.write() as session:
                session.execute(delete(Lease).where(Lease.campaign == campaign, Lease.worker == self.id))

    def check_lease(self, session: Session, campaign: str) -> None:
        """Make sure, inside a transaction, that the lease was not taken over meanwhile.

        Raises:
            LeaseHeldError: it was.
        """
        # Locked where the database locks rows: a taker has to wait until this transaction is done.
        held = session.get(Lease, campaign, with_for_update=True)
        if held is None or held.worker != self.id:
            raise LeaseHeldError(
                f"The campaign {campaign!r} was taken over by another process while this one did not answer; "
                f"nothing of this step was kept."
            )

"""Opening a store: what SQLite is set to, what is refused, and many processes at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import func, inspect, select, text

from activelearning.errors import StoreError
from activelearning.store.database import (
    Database,
    head_revision,
    now,
    open_database,
    resolve_url,
    shown,
    upgrade,
)
from activelearning.store.models import Base, LedgerEntry
from activelearning.store.repository import Repository


@pytest.fixture
def url(tmp_path: Path) -> str:
    """URL of a store that is not there yet."""
    return f"sqlite:///{tmp_path / 'store.db'}"


def test_sqlite_is_set_up_for_many_processes(url: str) -> None:
    database = open_database(url, create=True)
    for connect in (database.read, database.write):
        with connect() as session:
            pragmas = {
                name: session.scalar(text(f"PRAGMA {name}"))
                for name in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
            }
        assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 2, "busy_timeout": 60_000}
    database.close()


def test_the_migrations_make_the_models(url: str) -> None:
    database = open_database(url, create=True)
    with database.read() as session:
        inspector = inspect(session.connection())
        made = {
            table: sorted((c["name"], c["nullable"]) for c in inspector.get_columns(table))
            for table in inspector.get_table_names()
            if table != "alembic_version"
        }
    wanted = {
        name: sorted((c.name, bool(c.nullable)) for c in table.columns)
        for name, table in Base.metadata.tables.items()
    }
    assert made == wanted
    database.close()


def test_a_reader_sees_one_moment(url: str) -> None:
    database = open_database(url, create=True)
    repository = Repository(database, "c")
    with database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM campaigns")) == 0
        repository.save({}, "", "")
        assert session.scalar(text("SELECT count(*) FROM campaigns")) == 0
    with database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM campaigns")) == 1
        session.execute(text("DELETE FROM campaigns"))  # nothing a reader changes is kept
    assert repository.stored_config() == {}
    database.close()


def test_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_url("sqlite:///a.db").database == str(tmp_path / "a.db")
    assert resolve_url("sqlite:////data/a.db").database == "/data/a.db"
    assert resolve_url("postgresql://u:p@h/d").drivername == "postgresql+psycopg"
    assert shown("postgresql://u:secret@h/d") == "postgresql://u:***@h/d"
    assert "secret" in Database(resolve_url("postgresql://u:secret@h/d")).text


def test_a_store_that_is_not_there(url: str, tmp_path: Path) -> None:
    with pytest.raises(
        StoreError, match=r"There is no store .*store\.db; `activelearning run CONFIG` makes one"
    ):
        open_database(url)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database(url: str, tmp_path: Path) -> None:
    (tmp_path / "store.db").write_text("a note, far longer than the header of a database would ever be")
    with pytest.raises(StoreError, match="is not a SQLite database"):
        open_database(url, create=True)


def test_a_database_that_is_broken(url: str, tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"SQLite format 3\x00" + b"\x07" * 4096)
    with pytest.raises(StoreError, match=r"store\.db can't be opened: "):
        open_database(url, create=True)


def test_an_empty_file_is_a_new_store(url: str, tmp_path: Path) -> None:
    (tmp_path / "store.db").touch()
    with pytest.raises(StoreError, match="holds no campaigns yet"):
        open_database(url)
    open_database(url, create=True).close()
    open_database(url).close()


def test_a_database_of_another_program(url: str) -> None:
    database = Database(resolve_url(url))
    with database.write() as session:
        session.execute(text("CREATE TABLE campaigns (id INTEGER)"))
    database.close()
    with pytest.raises(StoreError, match="has tables of this name but no schema revision"):
        open_database(url, create=True)


def _stamp(url: str, revision: str) -> None:
    database = open_database(url, create=True)
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = :r"), {"r": revision})
    database.close()


def test_a_newer_schema_is_refused(url: str) -> None:
    _stamp(url, "9999")
    for create in (False, True):
        with pytest.raises(StoreError, match=f"has the schema 9999, which is newer .*{head_revision()}"):
            open_database(url, create=create)


def test_an_older_schema_asks_for_an_upgrade(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from activelearning.store import database as module

    open_database(url, create=True).close()
    # The present revision, seen by a version of the code that has one more.
    monkeypatch.setattr(module, "head_revision", lambda: "9999")
    with pytest.raises(StoreError, match=r"older schema .*`activelearning db upgrade` brings it to 9999"):
        open_database(url)


def test_upgrading_twice_changes_nothing(url: str) -> None:
    database = open_database(url, create=True)
    Repository(database, "c").save({"a": 1}, "", "")
    assert upgrade(database) == head_revision()
    assert Repository(database, "c").stored_config() == {"a": 1}
    database.close()


def test_a_store_of_the_first_schema_keeps_its_rows(url: str) -> None:
    from alembic import command
    from alembic.config import Config

    from activelearning.store.database import MIGRATIONS

    database = Database(resolve_url(url))
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with database._writers.connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    with database.write() as session:
        session.execute(
            text(
                "INSERT INTO campaigns VALUES ('c', '{\"a\": 1}', '.', '.', 'running', NULL, 'then', 'then')"
            )
        )
    with pytest.raises(StoreError, match="older schema 0001"):
        open_database(url)
    upgrade(database)
    assert Repository(database, "c").stored_config() == {"a": 1}
    assert Repository(database, "c").evaluations() == []
    database.close()


AT_ONCE = """
import sys, time
from activelearning.store.database import open_database
from activelearning.store.repository import Repository
url, go = sys.argv[1], sys.argv[2]
import alembic.command, alembic.config, pathlib  # what is slow to import is there before the start
print("ready", flush=True)
while not pathlib.Path(go).exists():
    time.sleep(0.001)
database = open_database(url, create=True)
Repository(database, "c").save({"same": True}, "", "")
database.close()
"""

WRITER = """
import sys
from activelearning.store.database import now, open_database
from activelearning.store.models import LedgerEntry
from sqlalchemy import func, select
database = open_database(sys.argv[1])
for i in range(40):
    with database.write() as session:
        # Read, then write, in one transaction: what fails where the lock is taken late.
        n = session.scalar(select(func.count()).select_from(LedgerEntry))
        session.add(LedgerEntry(evaluation_key="k", sequence=n, campaign="c", kind="reserve", reserved=1.0,
                                spent=0.0, at=now()))
database.close()
"""


def _finish(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors


def _start(script: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _created_at_once(url: str, tmp_path: Path, n: int) -> None:
    processes = [_start(AT_ONCE, url, str(tmp_path / "go")) for _ in range(n)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    _finish(processes)
    database = open_database(url)
    with database.read() as session:
        assert session.scalars(text("SELECT version_num FROM alembic_version")).all() == [head_revision()]
        assert session.scalars(text("SELECT name FROM campaigns")).all() == ["c"]
    database.close()


def _written_at_once(url: str, n: int) -> None:
    _finish([_start(WRITER, url) for _ in range(n)])
    database = open_database(url)
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(LedgerEntry)) == 40 * n
    database.close()


def _with_an_evaluation(url: str) -> None:
    from activelearning.candidate import BoxCandidate
    from activelearning.store.records import NewEvaluation, NewRound
    from activelearning.store.workers import WorkerRegistration

    database = open_database(url, create=True)
    repository = Repository(database, "c")
    repository.save({}, "", "")
    worker = WorkerRegistration(database)
    new = NewEvaluation("k", "content", BoxCandidate((1.0,)), "f", "o", "1", "y", 1.0)
    with worker.lease("c"):
        repository.commit_round(NewRound(0, [new]), total=1.0, worker=worker)
    worker.close()
    with database.write() as session:
        session.execute(text("DELETE FROM ledger"))
    database.close()


def test_processes_create_one_store_at_once(url: str, tmp_path: Path) -> None:
    _created_at_once(url, tmp_path, 4)


def test_processes_write_at_once(url: str) -> None:
    _with_an_evaluation(url)
    _written_at_once(url, 4)


def test_postgres_is_created_at_once(postgres_url: str, tmp_path: Path) -> None:
    _created_at_once(postgres_url, tmp_path, 4)


def test_postgres_refuses_a_newer_schema(postgres_url: str) -> None:
    _stamp(postgres_url, "9999")
    with pytest.raises(StoreError, match="has the schema 9999, which is newer"):
        open_database(postgres_url)


def test_postgres_that_holds_nothing_yet(postgres_url: str) -> None:
    with pytest.raises(StoreError, match="holds no campaigns yet"):
        open_database(postgres_url)


def test_times_are_utc() -> None:
    assert now().endswith("+00:00")
    assert len(now()) == 32


def test_opening_a_store_again_keeps_the_locks_of_the_first(url: str) -> None:
    """A process with two connections, and another one that comes and goes: nothing is removed under the two."""
    database = open_database(url, create=True)
    repository = Repository(database, "c")
    with database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM campaigns")) == 0
    again = open_database(url)  # as an oracle does that works through the store
    write = (
        "import sys\n"
        "from activelearning.store.database import open_database\n"
        "from activelearning.store.repository import Repository\n"
        "database = open_database(sys.argv[1])\n"
        "Repository(database, sys.argv[2]).save({}, '', '')\n"
        "database.close()\n"
    )
    subprocess.run([sys.executable, "-c", write, url, "other"], check=True)
    log = Path(f"{resolve_url(url).database}-wal")
    assert log.exists()  # the other process was not the last
    repository.save({}, "", "")
    with again.read() as session:
        assert session.scalar(text("SELECT count(*) FROM campaigns")) == 2
        assert session.scalar(text("PRAGMA integrity_check")) == "ok"
    again.close()
    database.close()

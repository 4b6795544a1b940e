"""Opening the store: SQLite (WAL, foreign keys) by default, PostgreSQL by URL; schema by Alembic."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Session

from activelearning.errors import StoreError

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_SECONDS = 60


def now() -> str:
    """The present in UTC, ISO-8601."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def resolve_url(url: str) -> URL:
    """Parse a database URL and make a SQLite file's path absolute, from the working directory on.

    Args:
        url: As SQLAlchemy reads it, such as `sqlite:///campaigns.db` or `postgresql+psycopg://…`.

    Raises:
        StoreError: the URL can't be read or its database is not supported.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreError(
            f"The store {url!r} is no database URL; write for example 'sqlite:///campaigns.db' or "
            f"'postgresql+psycopg://user:password@host/database'."
        ) from error
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise StoreError(
            f"The store {parsed.render_as_string()!r} is not supported: use SQLite or PostgreSQL."
        )
    if not parsed.database or parsed.database == ":memory:":
        raise StoreError(
            "The store must be a file ('sqlite:///campaigns.db'): a campaign must outlive its process."
        )
    path = Path(parsed.database).expanduser()
    return parsed.set(database=str(Path.cwd() / path))


def shown(url: URL | str) -> str:
    """The URL as text with its password hidden."""
    return make_url(url).render_as_string(hide_password=True)


class Database:
    """Connections to one store, with short transactions.

    `write()` takes the write lock at its beginning (SQLite's BEGIN IMMEDIATE), so that a transaction that reads before
    it writes can't fail half-way on a lock; `read()` sees one consistent snapshot.
    """

    def __init__(self, url: URL) -> None:
        self.url = url
        self._readers = _engine(url, "BEGIN")
        self._writers = _engine(url, "BEGIN IMMEDIATE")

    @property
    def text(self) -> str:
        """The whole URL, password included, for handing to a worker process of this machine."""
        return self.url.render_as_string(hide_password=False)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading; nothing it changes is kept."""
        with Session(self._readers, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session whose changes are committed together at the end, or not at all."""
        with Session(self._writers, expire_on_commit=False) as session, session.begin():
            yield session

    def close(self) -> None:
        """Drop all connections."""
        self._readers.dispose()
        self._writers.dispose()


def _engine(url: URL, begin: str) -> Engine:
    if url.get_backend_name() != "sqlite":
        # Serialisable reads are not needed: every decision is re-checked by a conditional update or a unique key.
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin where we say, not where the driver guesses
        cursor = connection.cursor()
        _use_wal(cursor)
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA synchronous=FULL")  # an answer of a laboratory must survive a power cut
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _use_wal(cursor: sqlite3.Cursor) -> None:
    """Switch a database to write-ahead logging, which it then keeps.

    SQLite does not wait for other connections here, whatever its timeout; two processes that open a new store at once
    are in each other's way for a moment.
    """
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.01)


def check_reachable(url: URL) -> None:
    """Make sure that the store can be opened or created, without creating anything.

    Raises:
        StoreError: with the reason.
    """
    if url.get_backend_name() == "sqlite":
        path = Path(str(url.database))
        folder = path.parent
        if path.is_dir():
            raise StoreError(f"The store {path} is a folder; name a file in it.")
        if path.exists():
            _check_sqlite_file(path)
        elif not folder.is_dir():
            raise StoreError(f"The store {path} can't be created: the folder {folder} does not exist.")
        elif not os.access(folder, os.W_OK):
            raise StoreError(f"The store {path} can't be created: the folder {folder} is not writable.")
        return
    engine = create_engine(url)
    try:
        with engine.connect():
            pass
    except (SQLAlchemyError, NoSuchModuleError) as error:
        raise StoreError(f"The store {shown(url)} can't be reached: {_first_line(error)}.") from error
    finally:
        engine.dispose()


def _check_sqlite_file(path: Path) -> None:
    if not _is_database(path) and not path.read_bytes()[:16].startswith(b"SQLite format 3"):
        raise StoreError(f"The store {path} is not a SQLite database; name another file or another URL.")
    if not os.access(path, os.W_OK):
        raise StoreError(f"The store {path} is not writable.")


def _is_database(path: Path) -> bool:
    """Whether SQLite takes a file for a database, or an empty one.

    SQLite is asked, since it must be the only one to open the file: a process that closes a file loses all of its
    POSIX locks on it, those of its other connections too. Another process that then closes the store takes itself for
    the last, and removes the write-ahead log under them (SQLite, "How to corrupt", section 2.2).
    """
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)
    except sqlite3.OperationalError:
        return True  # it can't be opened at all, and who opens it is told why
    try:
        connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.DatabaseError as error:
        return error.sqlite_errorcode != sqlite3.SQLITE_NOTADB
    finally:
        connection.close()
    return True


def _first_line(error: BaseException) -> str:
    original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return str(original).strip().split("\n")[0].rstrip(".")


def open_database(url: str | URL, *, create: bool = False) -> Database:
    """Open a store and check its schema.

    Args:
        url: Database URL.
        create: Make the schema where there is none yet.

    Raises:
        StoreError: it can't be reached, holds no campaigns (and `create` is false), or is of another schema.
    """
    parsed = resolve_url(url) if isinstance(url, str) else url
    if not create and parsed.get_backend_name() == "sqlite" and not Path(str(parsed.database)).exists():
        raise StoreError(
            f"There is no store {parsed.database}; `activelearning run CONFIG` makes one, `--store URL` names another."
        )
    check_reachable(parsed)
    database = Database(parsed)
    try:
        _check_schema(database, create=create)
    except SQLAlchemyError as error:
        database.close()
        raise StoreError(f"The store {shown(parsed)} can't be opened: {_first_line(error)}.") from error
    except BaseException:
        database.close()
        raise
    return database


def head_revision() -> str:
    """The schema revision that this version of the code works with."""
    from alembic.script import ScriptDirectory

    head = ScriptDirectory(str(MIGRATIONS)).get_current_head()
    if head is None:
        raise StoreError("This installation has no schema migrations; install activelearning again.")
    return head


def _check_schema(database: Database, *, create: bool) -> None:
    shown_url = shown(database.url)
    with database.read() as session:
        tables = inspect(session.connection()).get_table_names()
        rows = (
            session.execute(text("SELECT version_num FROM alembic_version")).all()
            if "alembic_version" in tables
            else []
        )
    found = rows[0][0] if rows else None
    head = head_revision()
    if found == head:
        return
    if found is None:
        if "campaigns" in tables:
            raise StoreError(
                f"The store {shown_url} has tables of this name but no schema revision; name another store."
            )
        if not create:
            raise StoreError(
                f"The store {shown_url} holds no campaigns yet; `activelearning run CONFIG` makes one."
            )
        upgrade(database)
        return
    if found in _known_revisions():
        raise StoreError(
            f"The store {shown_url} has the older schema {found}; `activelearning db upgrade` brings it to {head}."
        )
    raise StoreError(
        f"The store {shown_url} has the schema {found}, which is newer than this version of activelearning knows "
        f"({head}). Install the version that wrote it, or a later one."
    )


def _known_revisions() -> set[str]:
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}


def upgrade(database: Database) -> str:
    """Bring the schema to this version's; returns the revision."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    # The lock is taken before the revision is read, so that two processes that start at once migrate once.
    with database._writers.connect() as connection, connection.begin():
        if database.url.get_backend_name() == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(7316104)"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return head_revision()

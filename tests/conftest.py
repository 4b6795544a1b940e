"""What every test stands on: one thread, a Prefect home of its own, data sets, a PostgreSQL."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Before torch or numpy is imported by any test, and inherited by every process that a test starts.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

_home = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Cut the run off from the user's Prefect profile, server and campaign store."""
    config.stash[_home] = home = Path(tempfile.mkdtemp(prefix="activelearning-prefect-"))
    os.environ["PREFECT_HOME"] = str(home)
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    os.environ["DO_NOT_TRACK"] = "1"
    for variable in ("PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_PROFILE", "ACTIVELEARNING_STORE"):
        os.environ.pop(variable, None)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the run's Prefect home."""
    shutil.rmtree(config.stash[_home], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the fixtures they use, and keep what shares costly fixtures on one worker."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "postgres_server" in fixtures:
            item.add_marker(pytest.mark.postgres)
        # Prefect's test server takes half a minute to start: one worker runs all that needs it. Elsewhere a
        # module's tests stay together, so that its module fixtures are built once.
        if item.get_closest_marker("xdist_group") is None:
            group = "prefect" if "prefect_harness" in fixtures else item.nodeid.split("::")[0]
            item.add_marker(pytest.mark.xdist_group(group))


def _data(variable: str) -> Path:
    where = os.environ.get(variable)
    if not where:
        pytest.skip(
            f"{variable} is not set: it names the folder of the data set, which is not part of the code"
        )
    if not Path(where).is_dir():
        pytest.fail(f"{variable} names no folder: {where}")
    return Path(where)


@pytest.fixture(scope="session")
def obelix() -> Path:
    """Folder of the OBELiX data set."""
    return _data("ACTIVELEARNING_OBELIX")


@pytest.fixture(scope="session")
def materials_project() -> Path:
    """Folder of the Materials Project extract."""
    return _data("ACTIVELEARNING_MP")


@pytest.fixture(scope="session")
def check_crystal() -> Callable[..., None]:
    """The independent check of a crystal in `crystal_checks.py`, which needs PyXtal."""
    spec = importlib.util.spec_from_file_location(
        "crystal_checks", Path(__file__).parent / "crystal_checks.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast("Callable[..., None]", module.check_crystal)


@pytest.fixture(scope="session")
def prefect_harness() -> Iterator[None]:
    """A Prefect server and database of the session's own."""
    from prefect.testing.utilities import prefect_test_harness

    # Its default limit of 30 s is too short on a small or busy machine.
    with prefect_test_harness(server_startup_timeout=120):
        yield


def _postgres_binaries() -> Path | None:
    """Folder with initdb and pg_ctl: on PATH, or where Debian keeps them off it."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    installed = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(installed, key=lambda path: int(path.parts[-3]), default=None)
    return newest.parent if newest else None


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a PostgreSQL server's `postgres` database, on a socket in a temporary folder.

    `ACTIVELEARNING_TEST_POSTGRES` names a server that is there already; its user must be able to create
    databases.
    """
    given = os.environ.get("ACTIVELEARNING_TEST_POSTGRES")
    if given:
        yield given
        return
    binaries = _postgres_binaries()
    if binaries is None:
        pgserver = pytest.importorskip(
            "pgserver", reason="neither a PostgreSQL server nor pgserver is installed"
        )
        with tempfile.TemporaryDirectory(prefix="activelearning-pg-") as folder:
            server = pgserver.get_server(folder, cleanup_mode="stop")
            yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
            server.cleanup()
        return
    # PostgreSQL refuses to run as root; its package brings a user of its own.
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="activelearning-pg-"))
    if as_user:
        entry = pwd.getpwnam("postgres")
        os.chown(folder, entry.pw_uid, entry.pw_gid)

    def run(*command: str) -> None:
        subprocess.run([*as_user, *command], cwd=folder, check=True, stdout=subprocess.DEVNULL)

    data = str(folder / "data")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
    try:
        run(str(binaries / "initdb"), "-D", data, "-U", "postgres", "--auth=trust", "--no-sync")
        run(str(binaries / "pg_ctl"), "-D", data, "-l", str(folder / "log"), "-o", options, "-w", "start")
        try:
            yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
        finally:
            run(str(binaries / "pg_ctl"), "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """URL of an empty PostgreSQL database of the test's own."""
    from sqlalchemy import create_engine, make_url, text

    name = f"al_{uuid.uuid4().hex}"
    admin = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    try:
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        yield make_url(postgres_server).set(database=name).render_as_string(hide_password=False)
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    finally:
        admin.dispose()

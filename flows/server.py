"""A Prefect server for the time of one command, where the user has set up none.

It writes to Prefect's usual database, so that `activelearning ui` shows its runs later. Prefect has such a
server of its own, but that one is stopped by Ctrl-C together with the command it serves, and outlives a
command that is killed; this one does neither, and can start while the campaign is being opened.

`python -m flows.server FD` is the server's process: it listens on an inherited socket and ends with its
parent.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from types import TracebackType

from activelearning.errors import ActiveLearningError
from flows.settings import configure

START_SECONDS = 120.0
STOP_SECONDS = 10.0
RESTARTS = 3
PATIENCE_SECONDS = 15.0


class PrefectError(ActiveLearningError):
    """Prefect can't be used, or was lost; the campaign's store is whole."""


class TemporaryServer:
    """A Prefect server in a process of its own, on a free port of the loopback interface.

    A server that dies is started again on the same socket, a few times; meanwhile its clients wait.
    """

    def __init__(self) -> None:
        configure()
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/api"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by stop)
        self._stopping = threading.Event()
        self._is_up = False
        self._process = self._start()
        self._keeper = threading.Thread(target=self._keep, name="prefect-server-keeper", daemon=True)
        self._keeper.start()

    def _start(self) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C is for the command, which then still tells the server how its runs
        # ended. Its standard input ends when this process does, in whatever way.
        return subprocess.Popen(
            [sys.executable, "-m", "flows.server", str(self._listener.fileno())],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            pass_fds=[self._listener.fileno()],
            start_new_session=True,
        )

    def _keep(self) -> None:
        for attempt in range(RESTARTS + 1):
            self._process.wait()
            if self._stopping.is_set() or not self._is_up or attempt == RESTARTS:
                break
            self._process = self._start()
        # From here on connections must be refused, not wait for a server that never comes.
        self._listener.close()

    def wait(self, timeout: float = START_SECONDS) -> str:
        """Wait until the server answers; returns the API's URL.

        Raises:
            PrefectError: it ended, or did not answer in time.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise PrefectError(
                    f"Prefect's server did not start: it ended with code {self._process.returncode}"
                    f"{self._last_words()}. `activelearning doctor` checks the installation; PREFECT_API_URL "
                    f"names a server that runs already."
                )
            if _answers(self.url, timeout=2.0):
                self._is_up = True
                return self.url
            time.sleep(0.1)
        raise PrefectError(
            f"Prefect's server did not answer within {timeout:g} s{self._last_words()}. PREFECT_API_URL names a "
            f"server that runs already; `activelearning ui` starts one."
        )

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f" ({lines[-1].strip()})" if lines else ""

    def stop(self) -> None:
        """End the server and wait for it."""
        self._stopping.set()
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._keeper.join()
        self._log.close()

    def __enter__(self) -> TemporaryServer:
        """Use as a context manager that stops the server at its end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server."""
        self.stop()


def configured_url() -> str | None:
    """The API that the user has set up, by PREFECT_API_URL or a Prefect profile; None where there is none."""
    configure()
    from prefect.settings import get_current_settings

    return get_current_settings().api.url


def server_fault() -> str | None:
    """Why Prefect's server can't be imported with the packages installed here; None where it can."""
    import traceback

    configure()
    try:
        import prefect.server.api.server  # noqa: F401
    except Exception as error:
        return traceback.format_exception_only(error)[-1].strip()
    return None


def check_api() -> None:
    """Make sure that the configured API answers.

    Raises:
        PrefectError: it does not.
    """
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        error = client.api_healthcheck()
    if error is not None:
        raise PrefectError(
            f"No Prefect server answers at {configured_url()} ({type(error).__name__}: {error}). Start it, or "
            f"remove PREFECT_API_URL, so that the command starts a server of its own."
        )


def require_api(patience: float = PATIENCE_SECONDS) -> None:
    """Make sure that the API in use is still there.

    Prefect's own client tries each request for a minute; asking first makes a loss cost less.

    Raises:
        PrefectError: it has not answered for as long as `patience`, in seconds.
    """
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    deadline = time.monotonic() + patience
    while url is not None and not _answers(url, timeout=patience):
        if time.monotonic() > deadline:
            raise PrefectError(f"no server answers at {url}")
        time.sleep(1.0)


def _answers(url: str, *, timeout: float) -> bool:
    """Whether something answers at an API's URL; a refusal (a server that wants a key) is an answer too."""
    # A proxy of the site's can't reach this machine's loopback.
    is_here = (urllib.parse.urlsplit(url).hostname or "") in ("127.0.0.1", "localhost", "::1")
    handlers = [urllib.request.ProxyHandler({})] if is_here else []
    try:
        with urllib.request.build_opener(*handlers).open(f"{url}/health", timeout=timeout):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _end_with_parent() -> None:
    """Ask this process to stop, as a supervisor would, when the parent closes our standard input or is gone."""
    import signal

    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os._exit(1)


def main() -> None:
    """Serve Prefect's API on the socket that the parent handed over."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    configure()
    import uvicorn
    from prefect.server.api.server import create_app

    listener = socket.socket(fileno=int(sys.argv[1]))
    config = uvicorn.Config(create_app(ephemeral=True, final=True), log_level="error", lifespan="on")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()

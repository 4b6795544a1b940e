"""What `activelearning doctor` looks at: every part that a campaign needs, each judged by trying it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from activelearning.contracts.registry import GROUPS, load_plugin, plugin_names
from activelearning.errors import ActiveLearningError

# Top-level packages of ours with names that others may have taken.
ROOMS = ("flows", "oracles", "samplers", "surrogates")
_PACKAGES = (
    "torch",
    "botorch",
    "gpytorch",
    "pymatgen",
    "ase",
    "mace-torch",
    "e3nn",
    "chgnet",
    "pyxtal",
    "prefect",
    "fastapi",
    "sqlalchemy",
    "alembic",
)
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `state` is `ok`, `note` (works, but worth knowing) or `broken`."""

    what: str
    state: str
    says: str

    @property
    def is_broken(self) -> bool:
        """Whether a campaign would fail on it."""
        return self.state == "broken"

    @property
    def mark(self) -> str:
        """The state as the text report shows it."""
        return self.state.upper() if self.is_broken else self.state

    def to_json(self) -> dict[str, str]:
        """Plain JSON value."""
        return asdict(self)


def examine(store: str) -> list[Finding]:
    """Look at everything; nothing is created that stays.

    Args:
        store: Database URL of the campaign store.
    """
    checks: list[Callable[[], Iterator[Finding]]] = [
        _versions,
        _threads,
        _rooms,
        _plugins,
        _potentials,
        _proxy,
        _prefect,
        partial(_store, store),
        _folders,
    ]
    findings = []
    for check in checks:
        try:
            findings += list(check())
        except Exception as error:
            # A check that fails in an unforeseen way is a finding too: the others must still be made.
            findings.append(Finding(_name(check), "broken", f"{type(error).__name__}: {error}"))
    return findings


def _name(check: Callable[[], Iterator[Finding]]) -> str:
    function = check.func if isinstance(check, partial) else check
    return function.__name__.strip("_")


def _versions() -> Iterator[Finding]:
    running = sys.version_info[:2]
    state = "ok" if (3, 11) <= running < (3, 13) else "broken"
    yield Finding("python", state, f"{platform.python_version()} (3.11 or 3.12 is wanted)")
    for name in _PACKAGES:
        try:
            yield Finding(name, "ok", version(name))
        except PackageNotFoundError:
            yield Finding(name, "broken", f"is not installed: pip install {name}")


def _threads() -> Iterator[Finding]:
    set_ = {name: os.environ[name] for name in _THREADS if name in os.environ}
    many = not set_ or any(value != "1" for value in set_.values())
    shown = ", ".join(f"{k}={v}" for k, v in set_.items()) or "none of " + ", ".join(_THREADS) + " is set"
    advice = "; the engine computes with one thread, OMP_NUM_THREADS=1 keeps libraries from starting more"
    yield Finding(
        "threads", "note" if many else "ok", f"{os.cpu_count()} cores, {shown}{advice if many else ''}"
    )


def _rooms() -> Iterator[Finding]:
    home = Path(importlib.import_module("activelearning").__file__ or "").resolve().parents[1]
    for room in ROOMS:
        spec = importlib.util.find_spec(room)
        found = [Path(p).resolve() for p in (spec.submodule_search_locations or [])] if spec else []
        if found and found[0].parent == home:
            yield Finding(f"package {room}", "ok", str(found[0]))
        elif found or spec is not None:
            where = found[0] if found else getattr(spec, "origin", "?")
            yield Finding(
                f"package {room}",
                "broken",
                f"a foreign {room!r} at {where} hides ours in {home}; rename or remove it, or start elsewhere",
            )
        else:
            yield Finding(f"package {room}", "broken", f"is missing beside {home / 'activelearning'}")


def _plugins() -> Iterator[Finding]:
    for group in GROUPS:
        names = plugin_names(group)
        broken = []
        for name in names:
            try:
                load_plugin(group, name)
            except ActiveLearningError as error:
                broken.append(str(error))
        if broken or not names:
            says = " ".join(broken) or "no entry points; install activelearning again"
            yield Finding(f"plug-ins {group}", "broken", says)
        else:
            yield Finding(f"plug-ins {group}", "ok", ", ".join(names))


def _potentials() -> Iterator[Finding]:
    from oracles.potentials import load_calculator

    for name in ("mace:student", "chgnet"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about the libraries' own future; nothing a user can act on
                load_calculator(name)
        except Exception as error:
            yield Finding(f"potential {name}", "broken", f"{type(error).__name__}: {error}")
        else:
            yield Finding(f"potential {name}", "ok", "its weights load")


def _proxy() -> Iterator[Finding]:
    from oracles.ml_proxy import MLProxyOracle

    try:
        MLProxyOracle()
    except Exception as error:
        yield Finding("proxy weights", "broken", f"{type(error).__name__}: {error}")
    else:
        yield Finding("proxy weights", "ok", "load")


def _prefect() -> Iterator[Finding]:
    from flows.server import configured_url, server_fault

    fault = server_fault()
    pair = f"prefect {version('prefect')} with fastapi {version('fastapi')}"
    if fault is None:
        yield Finding("prefect server", "ok", f"{pair}: the server imports")
    else:
        says = f"{pair}: the server does not import ({fault}); 'fastapi<=0.150' is known to work"
        yield Finding("prefect server", "broken", says)
    url = configured_url()
    if url is None:
        yield Finding("prefect api", "ok", "none is set up; each command starts a server of its own")
        return
    from flows.server import check_api

    try:
        check_api()
    except ActiveLearningError as error:
        yield Finding("prefect api", "broken", str(error))
    else:
        yield Finding("prefect api", "ok", f"answers at {url}")


def _store(url: str) -> Iterator[Finding]:
    from activelearning.report import campaign_names
    from activelearning.store import database as stores

    try:
        parsed = stores.resolve_url(url)
        shown = stores.shown(parsed)
        if parsed.get_backend_name() == "sqlite" and not Path(str(parsed.database)).exists():
            stores.check_reachable(parsed)
            yield Finding("store", "ok", f"{shown} does not exist yet and can be created")
            return
        database = stores.open_database(parsed)
    except ActiveLearningError as error:
        yield Finding("store", "broken", str(error))
        return
    try:
        with database.read() as session:
            names = campaign_names(session)
    finally:
        database.close()
    yield Finding("store", "ok", f"{shown}, schema {stores.head_revision()}, {len(names)} campaigns")


def _folders() -> Iterator[Finding]:
    folders = {
        "working folder": Path.cwd(),
        "Prefect's home": _prefect_home(),
        "temporary folder": Path(tempfile.gettempdir()),
    }
    for what, folder in folders.items():
        existing = next(p for p in (folder, *folder.parents) if p.exists())
        try:
            with tempfile.NamedTemporaryFile(dir=existing):
                pass
        except OSError as error:
            yield Finding(what, "broken", f"{folder} is not writable: {error.strerror}")
        else:
            yield Finding(what, "ok", f"{folder} is writable")


def _prefect_home() -> Path:
    settings: Any = importlib.import_module("prefect.settings")
    return Path(settings.get_current_settings().home)

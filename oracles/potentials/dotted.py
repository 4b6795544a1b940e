"""Any ASE calculator by the dotted path of its class, and what tells it from others."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import inspect
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ase.calculators.calculator import BaseCalculator

from activelearning.candidate import canonical_json
from activelearning.errors import ConfigError
from oracles.potentials.naming import Potential

NEEDED = ("energy", "forces")
WORKING_FOLDER = (
    "directory"  # of ASE's calculators, by their name for it: they write there, it says nothing of them
)


def calculator_class(potential: Potential) -> type[Any]:
    """The class of a dotted path.

    Raises:
        ConfigError: it can't be imported, or is no ASE calculator.
    """
    module_name, _, attribute = potential.name.rpartition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigError(
            f"potential: {potential.name!r} can't be imported ({type(error).__name__}: {error}); the module "
            f"{module_name!r} must be installed or on PYTHONPATH."
        ) from error
    found = getattr(module, attribute, None)
    if not (isinstance(found, type) and issubclass(found, BaseCalculator)):
        raise ConfigError(
            f"potential: {potential.name!r} names "
            f"{'nothing' if found is None else f'a {type(found).__name__}'}, not a class of ASE calculators; write "
            f"package.module:Class, such as ase.calculators.lj:LennardJones."
        )
    return found


def construct(potential: Potential) -> Any:
    """The calculator, with the parameters given.

    Raises:
        ConfigError: as `calculator_class`, the class refuses its parameters, or it lacks energies or forces.
    """
    kind = calculator_class(potential)
    try:
        calculator = kind(**potential.parameters)
    except Exception as error:
        raise ConfigError(
            f"potential: {potential.name!r} can't be made with the parameters {dict(potential.parameters)}: "
            f"{type(error).__name__}: {error}."
        ) from error
    # Some know only when they are made.
    missing = [prop for prop in NEEDED if prop not in calculator.implemented_properties]
    if missing:
        raise ConfigError(f"potential: {potential.name!r} does not compute {' and '.join(missing)}.")
    return calculator


def fingerprint(potential: Potential) -> str:
    """SHA-256 (hex) of path, parameters (files and folders by their content) and version of the code behind the class.

    Raises:
        ConfigError: as `calculator_class`, a parameter is no JSON value, or a file that it names can't be read.
    """
    kind = calculator_class(potential)
    try:
        plain = {
            name: value if name == WORKING_FOLDER else _content(value)
            for name, value in potential.parameters.items()
        }
    except OSError as error:
        raise ConfigError(
            f"potential: a file among the parameters of {potential.name!r} can't be read: {error}."
        ) from error
    try:
        text = canonical_json({"class": potential.name, "parameters": plain, "code": _version(kind)})
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"potential: the parameters of {potential.name!r} are no plain values: {error}."
        ) from error
    return hashlib.sha256(text.encode()).hexdigest()


def _content(value: Any) -> Any:
    """A parameter, with files and folders named anywhere within it by what they hold."""
    if isinstance(value, Mapping):
        return {str(key): _content(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_content(item) for item in value]
    if isinstance(value, str) and value:
        path = Path(value)
        if path.is_file():
            return {"sha256": _file_digest(path)}
        if path.is_dir():
            files = sorted(found for found in path.rglob("*") if found.is_file())
            return {"files": {str(file.relative_to(path)): _file_digest(file) for file in files}}
    return value


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _version(kind: type[Any]) -> str:
    """Distribution and version that a class comes from; the checksum of its source where there is none."""
    top = kind.__module__.partition(".")[0]
    distributions = sorted(set(_distributions().get(top, ())))
    if distributions:
        return " ".join(f"{name} {importlib.metadata.version(name)}" for name in distributions)
    source = inspect.getsourcefile(kind)
    if source is None:
        raise ConfigError(
            f"potential: the version of {kind.__module__} is not known, so its answers can't be told apart."
        )
    return hashlib.sha256(Path(source).read_bytes()).hexdigest()


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Names of the distributions that each package comes from; it takes half a second, and is asked for each answer."""
    return importlib.metadata.packages_distributions()

"""Potentials by name: what a configuration writes, as an ASE calculator, with a checksum of the weights behind it.

Names are `mace:student` and `mace:student-lipscl` (shipped with this package), `mace:<path of a model file>`,
`mace:<foundation model>` (downloaded and cached by mace-torch), `chgnet` (weights inside its wheel), and any ASE
calculator by the dotted path of its class. Where a name is not all, a mapping holds it with `parameters` (of a class)
or `trust_code` (of a model file).

A model file in our own format (`mace_model.save`) is data. As mace-torch writes and publishes models they are pickles,
which run code when they are loaded: only where the configuration says `trust_code: true` are they.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ase.data import chemical_symbols

from activelearning.errors import ConfigError
from oracles.potentials import dotted
from oracles.potentials.naming import Potential, Spec

if TYPE_CHECKING:
    import torch
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from oracles.potentials.reliability import Reliability

Dtype = Literal["float32", "float64"]
_WEIGHTS = Path(__file__).parent / "weights"
# By what follows `mace:`; the second knows Li, P, S and Cl alone, is smaller, and better on their random crystals.
STUDENTS = {"student": _WEIGHTS / "mace_student.pt", "student-lipscl": _WEIGHTS / "mace_student_lipscl.pt"}
STUDENT = STUDENTS["student"]
# The 89 elements of CHGNet's training set (Deng et al., Nat. Mach. Intell. 2023, 5, 1031): H to Pu but five.
CHGNET_ELEMENTS = frozenset(chemical_symbols[1:95]) - {"Po", "At", "Rn", "Fr", "Ra"}
_KNOWN = (
    "mace:student, mace:student-lipscl, mace:<model file>, mace:<foundation model, such as small or medium-mpa-0>, "
    "chgnet or the dotted path of an ASE calculator, such as ase.calculators.lj:LennardJones"
)


def load_calculator(spec: Spec | Potential, *, device: str = "cpu", dtype: Dtype = "float32") -> Calculator:
    """A potential as an ASE calculator, with energy, forces and (all but some of ASE's own) stress in eV and Å.

    Args:
        spec: A name, or a mapping of `name` and `parameters` or `trust_code`.
        device: Torch device. A class by its dotted path takes its device, if any, as a parameter.
        dtype: Precision of a MACE; CHGNet computes in single precision always.

    Raises:
        ConfigError: the name is unknown, its file is missing, unreadable or code that is not trusted, or it can't be
            downloaded or made.
    """
    potential = Potential.of(spec)
    if potential.name == "chgnet":
        return _chgnet(device)
    if potential.is_dotted:
        return dotted.construct(potential)
    from oracles.potentials import mace_model

    precision = _torch_dtype(dtype)
    model, reliability = _mace(potential, precision)
    return mace_model.MaceCalculator(model, dtype=precision, device=device, reliability=reliability)


def check_potential(spec: Spec | Potential) -> None:
    """Raise a `ConfigError` where a potential can't work; a model file that is not ours is loaded to find out."""
    potential = Potential.of(spec)
    if potential.name == "chgnet":
        _chgnet_file()
    elif potential.is_dotted:
        dotted.construct(potential)
    elif model_file(potential.name) not in STUDENTS.values():
        _mace(potential, _torch_dtype("float32"))


def checksum(spec: Spec | Potential) -> str:
    """SHA-256 (hex) of what a potential is, so that an answer is shared only where the potential is the same.

    Of the weights' file; of a class by its dotted path, of path, parameters and the version of its package.

    Raises:
        ConfigError: as `load_calculator`.
    """
    potential = Potential.of(spec)
    if potential.is_dotted:
        return dotted.fingerprint(potential)
    path = _chgnet_file() if potential.name == "chgnet" else model_file(potential.name)
    return _digest(path, path.stat().st_mtime_ns)


@cache
def _digest(path: Path, modified: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def unsupported_elements(calculator: Calculator, elements: Sequence[str]) -> list[str]:
    """Those of the elements that a potential does not cover; none where it does not say what it covers."""
    known = getattr(calculator, "elements", None)
    return [] if known is None else sorted(set(elements) - set(known))


@dataclass(frozen=True)
class ForceErrors:
    """What a potential expects of its own error on some atoms, against the teacher that it was distilled from.

    Attributes:
        mean: Expected mean absolute error of a force component over the atoms, eV/Å.
        largest: That of the worst atom, eV/Å.
        threshold: Mean above which the potential is outside what it was trained on, eV/Å.
    """

    mean: float
    largest: float
    threshold: float

    @property
    def is_high(self) -> bool:
        """Whether the atoms are outside what the potential was trained on."""
        return self.mean > self.threshold


def expected_force_errors(calculator: Calculator, atoms: Atoms) -> ForceErrors | None:
    """A potential's estimate of its own error; None where it makes none, as CHGNet and models of the user's do.

    It costs next to nothing where the calculator's last forces were those on these atoms, as within dynamics.
    """
    from oracles.potentials.mace_model import MaceCalculator

    if not isinstance(calculator, MaceCalculator) or calculator.reliability is None:
        return None
    errors = calculator.estimated_force_errors(atoms)
    return ForceErrors(float(errors.mean()), float(errors.max()), calculator.reliability.threshold)


def model_file(name: str) -> Path:
    """File of a MACE by its name; a foundation model is downloaded where mace-torch's cache lacks it.

    Raises:
        ConfigError: the name is unknown, the file is missing or can't be downloaded.
    """
    family, _, rest = name.partition(":")
    if family != "mace" or not rest:
        raise ConfigError(f"potential: {name!r} is unknown; use {_KNOWN}.")
    if rest in STUDENTS:
        return STUDENTS[rest]
    path = Path(rest).expanduser()
    if path.is_file():
        return path
    from oracles.potentials.mace_model import mace_imports

    with mace_imports():
        from mace.calculators.foundations_models import download_mace_mp_checkpoint, mace_mp_names
    foundation = [known for known in mace_mp_names if known]
    if rest not in foundation:
        raise ConfigError(
            f"potential: {name!r} is neither a file that exists ({path.absolute()}) nor one of mace-torch's foundation "
            f"models ({', '.join(sorted(foundation))})."
        )
    try:
        return Path(download_mace_mp_checkpoint(rest))
    except Exception as error:
        raise ConfigError(
            f"potential: the weights of {name!r} are not in mace-torch's cache and can't be downloaded ({error}). "
            f"Fetch them where there is a network and write potential: mace:<path of the file>, or use mace:student or "
            f"chgnet, whose weights are installed."
        ) from error


def _torch_dtype(dtype: Dtype) -> torch.dtype:
    import torch

    return {"float32": torch.float32, "float64": torch.float64}[dtype]


def _mace(potential: Potential, dtype: torch.dtype) -> tuple[torch.nn.Module, Reliability | None]:
    """A MACE and its estimate of errors from its file: one of ours, or a whole pickled model where that is trusted."""
    from oracles.potentials import mace_model

    path = model_file(potential.name)
    try:
        saved = mace_model.read(path)
        return saved.model(dtype), saved.reliability
    except mace_model.DamagedError as error:
        raise ConfigError(
            f"potential: the model file {path} of {potential.name!r} was written by another version of this package, "
            f"or is damaged ({error}). Write or fetch it anew."
        ) from error
    except (OSError, ValueError):
        if path in STUDENTS.values():  # no trust mends a file that was shipped
            raise
    if not potential.trust_code:
        raise ConfigError(
            f"potential: {potential.name!r} ({path}) is no file in this package's own format, and a model pickled "
            f"whole runs code when it is loaded. If you trust where it comes from, write potential: {{name: "
            f"{potential.name!r}, trust_code: true}}."
        )
    return _whole_model(path, potential.name), None


def _whole_model(path: Path, name: str) -> torch.nn.Module:
    import torch

    from oracles.potentials.mace_model import mace_imports

    with mace_imports():
        import mace.modules  # noqa: F401  (the classes that the pickle names)
    try:
        model = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise ConfigError(
            f"potential: {name!r} can't be loaded from {path} ({type(error).__name__}: {error}). It must be a model as "
            f"mace_run_train writes it, pickled with the installed e3nn."
        ) from error
    if not (hasattr(model, "atomic_numbers") and hasattr(model, "r_max")):
        raise ConfigError(f"potential: {path} of {name!r} holds a {type(model).__name__}, not a MACE model.")
    return model


def _chgnet_file() -> Path:
    import importlib.util

    spec = importlib.util.find_spec("chgnet")
    if spec is None or spec.origin is None:
        raise ConfigError("potential: 'chgnet' needs the package chgnet, which is not installed.")
    files = sorted(Path(spec.origin).parent.glob("pretrained/0.3.0/*.pth.tar"))
    if not files:
        raise ConfigError(
            "potential: the installed chgnet lacks the weights 0.3.0; install chgnet 0.4 or later."
        )
    return files[0]


def _chgnet(device: str) -> Calculator:
    _chgnet_file()
    # CHGNet announces itself on standard output, which is not ours to write on.
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        from chgnet.model.model import CHGNet

        from oracles.potentials.chgnet import LeanCHGNetCalculator

        model = CHGNet.load(model_name="0.3.0", use_device=device, verbose=False)
        model.requires_grad_(False)
        calculator: Any = LeanCHGNetCalculator(model=model, use_device=device, on_isolated_atoms="ignore")
    calculator.elements = CHGNET_ELEMENTS
    return calculator

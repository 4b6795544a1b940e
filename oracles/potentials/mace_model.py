"""MACE models: built from a plain description, kept as a state dict, evaluated as an ASE calculator.

A MACE model is usually shipped as a pickle of the whole object, which runs code when loaded and breaks when e3nn moves.
Ours is shipped as its architecture (plain values) and its state dict (tensors), which `torch.load(weights_only=True)`
reads. The model is that of Batatia et al., NeurIPS 2022, with the Ziegler-Biersack-Littmark pair repulsion.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import chemical_symbols
from ase.stress import full_3x3_to_voigt_6_stress

from activelearning.errors import ActiveLearningError
from oracles.potentials.compiled import CompiledMace, Evaluation, is_compilable, kinds_of, neighbours
from oracles.potentials.contraction import use_scalar_contractions
from oracles.potentials.convolution import use_scalar_convolutions
from oracles.potentials.reliability import Reliability
from oracles.potentials.selection import use_element_maps

FAMILY = "activelearning-mace-"
FORMAT = f"{FAMILY}1"
Graph = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Architecture:
    """What a MACE is made of, in plain values.

    Attributes:
        atomic_numbers: Elements it knows, rising, in the order of their one-hot code.
        channels: Scalar channels of each node.
        max_l: Highest order of the messages between nodes.
        max_ell: Highest order of the spherical harmonics of an edge.
        correlation: Body order of a layer's product, less one.
        n_layers: Message-passing layers.
        r_max: Cutoff in Å.
        n_bessel: Radial basis functions.
        radial_width: Width of the two-layer radial network.
        average_neighbors: Mean number of neighbours in training, by which messages are divided.
        energy_scale: Scale of the interaction energy in eV.
    """

    atomic_numbers: tuple[int, ...]
    channels: int = 32
    max_l: int = 0
    max_ell: int = 2
    correlation: int = 2
    n_layers: int = 2
    r_max: float = 5.0
    n_bessel: int = 8
    radial_width: int = 64
    average_neighbors: float = 25.0
    energy_scale: float = 1.0


@contextmanager
def mace_imports() -> Iterator[None]:
    """Import mace and e3nn without what they leave behind.

    `import mace` makes every later `torch.load` of the process unpickle code (e3nn 0.4.4 needs that while it is being
    imported); afterwards the guard is put back. What they print is swallowed.
    """
    name = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Build modules in a floating-point type without leaving it as the process's default."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def build(architecture: Architecture, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """An untrained MACE; its parameters come from torch's global generator."""
    with mace_imports():
        import mace  # noqa: F401  (before e3nn, which can't be imported without it)
        from e3nn import o3
        from mace.modules import interaction_classes
        from mace.modules.models import ScaleShiftMACE

    block = interaction_classes["RealAgnosticResidualInteractionBlock"]
    parities = "eo"
    hidden = "+".join(f"{architecture.channels}x{k}{parities[k % 2]}" for k in range(architecture.max_l + 1))
    with default_dtype(dtype), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TorchScript, a dozen for each model
        model: torch.nn.Module = ScaleShiftMACE(
            atomic_inter_scale=architecture.energy_scale,
            atomic_inter_shift=0.0,
            r_max=architecture.r_max,
            num_bessel=architecture.n_bessel,
            num_polynomial_cutoff=5,
            max_ell=architecture.max_ell,
            interaction_cls=block,
            interaction_cls_first=block,
            num_interactions=architecture.n_layers,
            num_elements=len(architecture.atomic_numbers),
            hidden_irreps=o3.Irreps(hidden),
            MLP_irreps=o3.Irreps("16x0e"),
            atomic_energies=np.zeros((1, len(architecture.atomic_numbers))),
            avg_num_neighbors=architecture.average_neighbors,
            atomic_numbers=list(architecture.atomic_numbers),
            correlation=architecture.correlation,
            gate=torch.nn.functional.silu,
            pair_repulsion=True,
            radial_MLP=[architecture.radial_width] * 2,
        )
    use_scalar_convolutions(model)
    use_scalar_contractions(model)
    use_element_maps(model)
    return model


def save(
    path: Path, model: torch.nn.Module, architecture: Architecture, reliability: Reliability | None = None
) -> None:
    """Write the architecture and the state dict, in single precision where the state is floating.

    An estimate of the model's errors goes with it where there is one.
    """
    state = {
        name: tensor.detach().to("cpu", torch.float32 if tensor.is_floating_point() else tensor.dtype).clone()
        for name, tensor in model.state_dict().items()
    }
    plain = {**asdict(architecture), "atomic_numbers": list(architecture.atomic_numbers)}
    content: dict[str, Any] = {"format": FORMAT, "architecture": plain, "state": state}
    if reliability is not None:
        content["reliability"] = reliability.to_dict()
    torch.save(content, path)


@dataclass(frozen=True)
class Saved:
    """What a file of `save` holds.

    Attributes:
        architecture: What the model is made of.
        state: Its tensors by name.
        reliability: Estimate of its errors; None where it was saved without one.
    """

    architecture: Architecture
    state: Mapping[str, torch.Tensor]
    reliability: Reliability | None

    def model(self, dtype: torch.dtype) -> torch.nn.Module:
        """The model, built anew.

        Raises:
            DamagedError: the tensors are not those of the architecture.
        """
        try:
            model = build(self.architecture, dtype)
            model.load_state_dict(self.state)
        except Exception as error:  # whatever mace and torch may stumble over
            raise DamagedError(f"its tensors do not fit its architecture: {_told(error)}") from error
        return model.to(dtype)


class DamagedError(ActiveLearningError):
    """A file is of this package's format, or another version of it, and can't be read; the message says why."""


def read(path: Path) -> Saved:
    """Read a file written by `save`; no code in a file is run to find out whether it is one.

    Raises:
        OSError: the file can't be read.
        ValueError: it is of another format.
        DamagedError: it is of another version of the format, or holds too little, too much or something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a pickle of classes, or no file of torch's at all
        raise ValueError(f"{path} is not of the format {FORMAT}: {error}") from error
    held = content.get("format") if isinstance(content, dict) else None
    if not (isinstance(held, str) and held.startswith(FAMILY)):
        raise ValueError(f"{path} is not of the format {FORMAT}")
    if held != FORMAT:
        raise DamagedError(f"its format is {held}, this version reads {FORMAT}")
    try:
        plain: dict[str, Any] = dict(content["architecture"])
        plain["atomic_numbers"] = tuple(plain["atomic_numbers"])
        architecture = Architecture(**plain)
        state = content["state"]
        estimate = content.get("reliability")
        reliability = None if estimate is None else Reliability.from_dict(estimate)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(_told(error)) from error
    return Saved(architecture, state, reliability)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def load(path: Path, dtype: torch.dtype) -> torch.nn.Module:
    """Read a model written by `save`; it fails as `read` does."""
    return read(path).model(dtype)


def load_with_architecture(path: Path, dtype: torch.dtype) -> tuple[torch.nn.Module, Architecture]:
    """Read a model written by `save`, and what it is made of; it fails as `read` does."""
    saved = read(path)
    return saved.model(dtype), saved.architecture


def graph(atoms: Atoms, model: torch.nn.Module, dtype: torch.dtype, device: str = "cpu") -> Graph:
    """One structure as tensors for a MACE: positions `n x 3`, edges `2 x n_edges`, one-hot codes `n x n_elements`.

    Raises:
        ValueError: an element is unknown to the model, or positions or the cell are not finite.
    """
    network: Any = model
    known = network.atomic_numbers.cpu().numpy()
    kinds = kinds_of(atoms, known)
    sender, receiver, unit_shifts = neighbours(atoms, float(network.r_max), "ijS")
    cell = np.asarray(atoms.cell)

    def real(array: Any) -> torch.Tensor:
        return torch.as_tensor(np.asarray(array), dtype=dtype, device=device)

    def whole(array: Any) -> torch.Tensor:
        return torch.as_tensor(np.asarray(array), dtype=torch.int64, device=device)

    n = len(atoms)
    return {
        "positions": real(atoms.positions),
        "cell": real(cell),
        "edge_index": whole(np.stack([sender, receiver])),
        "unit_shifts": real(unit_shifts),
        "shifts": real(unit_shifts @ cell),
        "node_attrs": torch.nn.functional.one_hot(whole(kinds), len(known)).to(dtype),
        "batch": torch.zeros(n, dtype=torch.int64, device=device),
        "ptr": torch.tensor([0, n], dtype=torch.int64, device=device),
    }


def join(graphs: Sequence[Graph]) -> Graph:
    """Several graphs as one of unconnected parts; cells are stacked to `3 n x 3`, indices shifted."""
    sizes = torch.tensor([len(g["positions"]) for g in graphs])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    joined = {
        name: torch.cat([g[name] for g in graphs])
        for name in ("positions", "cell", "unit_shifts", "shifts", "node_attrs")
    }
    shifts: list[int] = offsets[:-1].tolist()
    joined["edge_index"] = torch.cat(
        [g["edge_index"] + k for g, k in zip(graphs, shifts, strict=True)], dim=1
    )
    joined["batch"] = torch.cat([g["batch"] + k for k, g in enumerate(graphs)])
    joined["ptr"] = offsets.to(joined["batch"].device)
    return joined


class MaceCalculator(Calculator):  # type: ignore[misc]
    """A MACE as an ASE calculator: energy (eV), forces (eV/Å) and stress (eV/Å³).

    mace-torch's own calculator changes the process's default floating-point type, on which Gaussian processes in the
    same process depend, and takes a detour through data loaders at every step. This one is a pure function of the
    atoms: the neighbour list is made anew each time, so a trajectory that is resumed goes on bit for bit.

    Args:
        model: The MACE. Later changes of it are not seen.
        dtype: Its precision from here on.
        device: Where it is evaluated.
        reliability: Estimate of its errors, where there is one.
        compiled: Whether compiled loops evaluate a model that has them (`oracles.potentials.compiled`), on a CPU.

    Raises:
        ValueError: the model's atomic numbers do not rise.
    """

    implemented_properties: list[str] = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        dtype: torch.dtype,
        device: str = "cpu",
        reliability: Reliability | None = None,
        compiled: bool = True,
    ) -> None:
        super().__init__()
        self.reliability = reliability
        self._node_features: torch.Tensor | None = None
        # TorchScript recompiles e3nn's functions as it sees new shapes (numbers of edges), and what it fuses
        # rounds otherwise: forces would depend on the calls before, and a resumed trajectory would part.
        torch.jit.set_fusion_strategy([])
        self.model: Any = model.to(device=device, dtype=dtype).eval()
        numbers: Any = self.model.atomic_numbers
        if not (numbers.diff() > 0).all():
            raise ValueError("the atomic numbers of a MACE must rise, each one once")
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        self._dtype = dtype
        self._device = device
        heads = list(getattr(model, "heads", None) or ["Default"])
        named = [k for k, head in enumerate(heads) if str(head).lower() == "default"]
        self._head = named[0] if named else len(heads) - 1
        self._compiled: Callable[[Atoms], Evaluation] | None = None
        if compiled and torch.device(device).type == "cpu" and is_compilable(self.model):
            self._compiled = CompiledMace(self.model, dtype)

    @property
    def elements(self) -> frozenset[str]:
        """Symbols of the elements the model knows."""
        return frozenset(chemical_symbols[z] for z in self.model.atomic_numbers.tolist())

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Compute everything at once; the stress costs next to nothing beside the forces."""
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        (found,) = self.evaluate([self.atoms])
        self._node_features = found.features
        self.results = {
            "energy": found.energy,
            "free_energy": found.energy,
            "forces": found.forces,
            "stress": full_3x3_to_voigt_6_stress(found.stress),
        }

    def evaluate(self, structures: Sequence[Atoms]) -> list[Evaluation]:
        """What the model says of several structures, in order, by one call of it on a GPU.

        Raises:
            ValueError: an element is unknown to the model, or positions or the cell are not finite.
        """
        if self._compiled is not None:
            return [self._compiled(atoms) for atoms in structures]
        data = join([graph(atoms, self.model, self._dtype, self._device) for atoms in structures])
        data["head"] = torch.full((len(structures),), self._head, dtype=torch.int64, device=self._device)
        out = {
            name: tensor.detach().cpu()
            for name, tensor in self.model(data, compute_force=True, compute_stress=True).items()
            if name in ("energy", "forces", "stress", "node_feats")
        }
        sizes = [len(atoms) for atoms in structures]
        return [
            Evaluation(float(energy), forces.double().numpy(), stress.double().numpy(), features)
            for energy, forces, stress, features in zip(
                out["energy"],
                out["forces"].split(sizes),
                out["stress"],
                out["node_feats"].split(sizes),
                strict=True,
            )
        ]

    def estimated_force_errors(self, atoms: Atoms) -> np.ndarray:
        """Expected error of each atom's force components against the teacher's, eV/Å, `n`.

        It costs next to nothing where the forces on these atoms were the last that were asked for.

        Raises:
            ValueError: the model came without an estimate of its errors.
        """
        if self.reliability is None:
            raise ValueError("this MACE came without an estimate of its errors")
        forces = torch.as_tensor(self.get_forces(atoms))
        assert self._node_features is not None
        known = self.model.atomic_numbers.cpu()
        kinds = torch.searchsorted(known, torch.as_tensor(atoms.numbers, dtype=known.dtype))
        errors = self.reliability.force_errors(self._node_features.cpu(), kinds, forces)
        return np.asarray(errors.double().numpy())

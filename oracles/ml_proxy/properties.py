"""What the proxy can predict: each property with its unit, its data and its shipped weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from activelearning.errors import ConfigError

WEIGHTS = Path(__file__).parent / "weights"
GENERATED = WEIGHTS / "generated_crystals.csv.gz"


@dataclass(frozen=True)
class ProxyProperty:
    """A property the proxy knows.

    Attributes:
        name: Name in a config.
        unit: Its unit.
        spellings: Units taken as the same.
        data: What it is trained on, with source and licence, for the model card.
        required_elements: A crystal without one of these has no such property.
    """

    name: str
    unit: str
    spellings: frozenset[str]
    data: str
    required_elements: tuple[str, ...] = ()

    @property
    def weights(self) -> Path:
        """The weights that are shipped."""
        return WEIGHTS / f"{self.name}.npz"


@dataclass(frozen=True)
class MeasuredProperty(ProxyProperty):
    """A property of a few hundred measured crystals, learned from a table in OBELiX's format.

    Attributes:
        repeatability: Error between repeated measurements, in `unit`: no prediction is more certain.
    """

    repeatability: float = 0.0


@dataclass(frozen=True)
class ComputedProperty(ProxyProperty):
    """A property of many computed crystals, learned by an ensemble of networks from a table of materials.

    Attributes:
        column: Its column in the table.
        auxiliary: Columns learned along with it, where a row has them.
        lower: Least value it can have, or None.
        uses_generated: Whether crystals of a sampler's own making, labelled by a potential, are added to the table.
    """

    column: str = ""
    auxiliary: tuple[str, ...] = ()
    lower: float | None = None
    uses_generated: bool = False


MATERIALS = (
    "The Materials Project (Jain et al., APL Materials 1, 011002, 2013; CC BY 4.0): PBE and PBE+U calculations, with "
    "composition, space group and lattice of the relaxed conventional cell. "
)
GENERATED_NOTE = (
    "To these are added crystals of a sampler's own making, `generated_crystals.csv.gz` beside the weights: known "
    "materials lie near the hull, and a model that knows only them is optimistic elsewhere. Each was given atoms on "
    "its own lattice and space group several times and relaxed at fixed cell with CHGNet 0.3.0, and the lowest energy "
    "kept (`python -m oracles.ml_proxy.label`). "
)
EV_PER_ATOM = frozenset({"eV/atom", "eV per atom", "eV atom-1", "eV atom^-1"})

PROPERTIES: Mapping[str, ProxyProperty] = {
    p.name: p
    for p in (
        ComputedProperty(
            name="formation_energy",
            unit="eV/atom",
            spellings=EV_PER_ATOM,
            data=MATERIALS + GENERATED_NOTE,
            column="formation_energy_per_atom",
            uses_generated=True,
        ),
        ComputedProperty(
            name="band_gap",
            unit="eV",
            spellings=frozenset({"eV"}),
            data=MATERIALS
            + "Gaps are those of the Kohn-Sham bands, which are too narrow: experiment finds about half as much again. "
            "Formation energies, of all rows and of generated crystals, are learned along with them.",
            column="band_gap",
            auxiliary=("formation_energy_per_atom",),
            lower=0.0,
            uses_generated=True,
        ),
        ComputedProperty(
            name="energy_above_hull",
            unit="eV/atom",
            spellings=EV_PER_ATOM,
            data=MATERIALS
            + GENERATED_NOTE
            + "Their distance is that from the hull of the table's own materials.",
            column="e_above_hull",
            auxiliary=("formation_energy_per_atom",),
            lower=0.0,
            uses_generated=True,
        ),
        MeasuredProperty(
            name="log10_conductivity",
            unit="log10(S/cm)",
            spellings=frozenset({"log10(S/cm)", "log10 S/cm", "log10(S cm-1)", "log10(S cm^-1)"}),
            data=(
                "Training entries of OBELiX (Therrien et al., arXiv 2502.14234, CC BY 4.0): room-temperature ionic "
                "conductivities of lithium solid electrolytes, with composition, space group and lattice from "
                "experiment. Rows that state an upper bound are kept as such. Its repeated measurements differ by "
                "0.41 on average, which is the least error the model ever states."
            ),
            required_elements=("Li",),
            repeatability=0.41,
        ),
    )
}


def proxy_property(name: str) -> ProxyProperty:
    """Look a property up.

    Raises:
        ConfigError: the proxy does not know it.
    """
    if name not in PROPERTIES:
        raise ConfigError(f"The ML proxy knows no property {name!r}; it knows {', '.join(PROPERTIES)}.")
    return PROPERTIES[name]

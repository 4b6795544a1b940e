"""What the proxy can predict: each property with its unit, its data format and its shipped weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from activelearning.errors import ConfigError
from oracles.ml_proxy.data import CrystalTable, read_evaluation, read_training

WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class ProxyProperty:
    """A property the proxy knows.

    Attributes:
        name: Name in a config.
        unit: Its unit.
        spellings: Units taken as the same.
        required_elements: A crystal without one of these has no such property.
        repeatability: Error between repeated measurements, in `unit`: no prediction is more certain.
        data: What it is trained on, with source and licence, for the model card.
        read_training: Reads the rows to train on.
        read_evaluation: Reads the rows to evaluate on.
    """

    name: str
    unit: str
    spellings: frozenset[str]
    required_elements: tuple[str, ...]
    repeatability: float
    data: str
    read_training: Callable[[Path], CrystalTable]
    read_evaluation: Callable[[Path], CrystalTable]

    @property
    def weights(self) -> Path:
        """The weights that are shipped."""
        return WEIGHTS / f"{self.name}.npz"


PROPERTIES: Mapping[str, ProxyProperty] = {
    p.name: p
    for p in (
        ProxyProperty(
            name="log10_conductivity",
            unit="log10(S/cm)",
            spellings=frozenset({"log10(S/cm)", "log10 S/cm", "log10(S cm-1)", "log10(S cm^-1)"}),
            required_elements=("Li",),
            repeatability=0.41,
            data=(
                "Training entries of OBELiX (Therrien et al., arXiv 2502.14234, CC BY 4.0): room-temperature ionic "
                "conductivities of lithium solid electrolytes, with composition, space group and lattice from "
                "experiment. Rows that state an upper bound are kept as such. Its repeated measurements differ by "
                "0.41 on average, which is the least error the model ever states."
            ),
            read_training=read_training,
            read_evaluation=read_evaluation,
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

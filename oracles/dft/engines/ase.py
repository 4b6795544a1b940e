"""Any ASE calculator, by name and parameters."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ase import Atoms

from activelearning.errors import ConfigError
from oracles.dft.engines.base import Engine, given

_DOTTED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class ASEEngine(Engine):
    """A calculator of ASE or of any package, made in the job's own environment.

    Args:
        calculator: `module:Class`, as in `ase.calculators.emt:EMT` or `xtb.ase.calculator:XTB`.
        parameters: Of its constructor, plain values; an object is `{class: "module:Class", params: {...}}`.
        modules: Packages whose versions results state, `mpi4py` among them where a launcher starts several processes.
        python: The interpreter that has it; by default this one.
        launcher: What goes before the interpreter.
        setup: Lines of the job's script before it.
        environment: Variables set for the job.
    """

    def __init__(
        self,
        calculator: str,
        parameters: dict[str, Any] | None = None,
        modules: list[str] | None = None,
        python: str | None = None,
        launcher: str = "",
        setup: list[str] | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        super().__init__(
            **given(python=python), launcher=launcher, setup=setup or (), environment=environment
        )
        if not _DOTTED.fullmatch(calculator):
            raise ConfigError(
                f"engine.calculator is {calculator!r}; name a class as in 'ase.calculators.emt:EMT'."
            )
        try:
            self.parameters: dict[str, Any] = json.loads(json.dumps(parameters or {}, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"engine.parameters must be plain values: {error}.") from error
        self.name = calculator
        self.modules = ("ase", *(modules or ()))

    def calculator(
        self, atoms: Atoms, *, for_stress: bool = False, for_dynamics: bool = False
    ) -> Mapping[str, Any]:
        """As configured, whatever the atoms."""
        return {"class": self.name, "params": self.parameters}

    def content(self) -> Mapping[str, Any]:
        """Class and parameters."""
        return {"engine": "ase", "calculator": self.name, "parameters": self.parameters}

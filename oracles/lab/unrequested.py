"""Results for materials that no campaign asked for: reading the material, and finding whom it concerns."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from activelearning.candidate import Candidate, CrystalCandidate, candidate_from_dict
from activelearning.errors import ActiveLearningError, InputError
from activelearning.store.database import Database
from oracles.lab.results import Unrequested

# Distance in Å within which atoms of a CIF are images of one another: that of deposited structures' digits.
_SYMMETRY_PRECISION = 0.01


@dataclass(frozen=True)
class Known:
    """A material that was measured unasked, and what the campaign measures of it."""

    candidate: Candidate
    campaign: str
    fidelity: str
    property: str
    unit: str | None


def check_unrequested(database: Database, what: Unrequested) -> Known:
    """Find the campaign and its laboratory, and make sure that its model can learn from the material.

    It need not be of the campaign's space, but the space must have features for it.

    Raises:
        InputError: no such campaign, no such laboratory, or a material that the space can't describe.
    """
    from activelearning.campaign.continuation import stored_config
    from activelearning.campaign.parts import fidelities_of, make_space
    from activelearning.contracts.registry import load_plugin
    from oracles.lab.oracle import LabOracle

    config, folder = stored_config(database, what.campaign)
    labs = {}
    for fidelity, section in zip(fidelities_of(config), config.fidelities, strict=True):
        if issubclass(load_plugin("oracles", section.oracle, folder=folder), LabOracle):
            labs[fidelity.name] = fidelity
    if not labs:
        raise InputError(f"The campaign {what.campaign!r} has no fidelity that is a laboratory.")
    name = what.fidelity or next(iter(labs))
    if name not in labs or (what.fidelity is None and len(labs) > 1):
        raise InputError(
            f"--fidelity names one of the campaign's laboratories ({', '.join(labs)}), not {what.fidelity!r}."
        )
    try:
        candidate = candidate_from_dict(what.candidate)
        space = make_space(config, folder)
        if isinstance(candidate, CrystalCandidate):
            candidate = _as_sampled(candidate, space)
        space.features([candidate])
    except InputError:
        raise
    except (ActiveLearningError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"The campaign {what.campaign!r} can't learn from this material: {error}."
        ) from error
    found = labs[name]
    return Known(candidate, what.campaign, name, found.property, found.unit)


def _as_sampled(crystal: CrystalCandidate, space: Any) -> CrystalCandidate:
    """The crystal with as much of it as the space's own have, so that the same crystal has the same key."""
    return CrystalCandidate(
        crystal.space_group,
        crystal.composition,
        crystal.lattice if getattr(space, "has_lattice", True) else None,
        crystal.wyckoff if getattr(space, "wyckoff", False) else None,
        crystal.structure if getattr(space, "coordinates", False) else None,
    )


def read_candidate(name: str, content: bytes) -> Mapping[str, Any]:
    """A material from a file: a CIF, or a candidate's JSON value as `lab export` writes it.

    Args:
        name: Name of the file, by whose ending it is told what it is.
        content: The file.

    Raises:
        InputError: naming the file and what is wrong with it.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is no text: {error}.") from error
    if name.lower().endswith(".cif"):
        return _read_cif(name, text).to_dict()
    try:
        value = json.loads(text)
        if not isinstance(value, Mapping):
            raise ValueError(f"it holds a {type(value).__name__}, not a mapping")
        return candidate_from_dict(value).to_dict()
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{name} is neither a CIF (a name that ends in .cif) nor the JSON of a candidate: {error}."
        ) from error


def _read_cif(name: str, text: str) -> CrystalCandidate:
    """A crystal on the conventional cell of the International Tables (groups with an R lattice: hexagonal axes)."""
    from pymatgen.io.cif import CifParser
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            structure = CifParser.from_str(text).parse_structures(primitive=False)[0]
            if not structure.is_ordered:
                raise InputError(
                    f"{name} has partly occupied sites; a material is recorded by one composition of whole atoms. Give "
                    f"an ordered model of it, or a JSON candidate."
                )
            found = SpacegroupAnalyzer(structure, symprec=_SYMMETRY_PRECISION)
            cell, group = found.get_refined_structure(), int(found.get_space_group_number())
    except InputError:
        raise
    except Exception as error:  # the parser's complaints are of many kinds
        raise InputError(f"{name} can't be read as a CIF: {error}.") from error
    composition = {str(e): round(n) for e, n in cell.composition.element_composition.items()}
    cell.remove_oxidation_states()
    a, b, c, alpha, beta, gamma = cell.lattice.parameters
    return CrystalCandidate(group, composition, (a, b, c, alpha, beta, gamma), structure=cell)

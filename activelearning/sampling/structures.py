"""Atoms of sampled crystals: their own where the sampler gives coordinates, else drawn by PyXtal."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activelearning.campaign.seeds import seed_for
from activelearning.candidate import CrystalCandidate
from activelearning.crystals.realise import RealisationError, realise
from activelearning.errors import InputError
from activelearning.sampling.statistics import finite

if TYPE_CHECKING:
    from pymatgen.core import Structure

FOLDER = "structures"
TABLE = "structures.json"
OURS = re.compile(
    r"\d{3,}_[A-Z][A-Za-z0-9]*_\d{1,3}\.cif"
)  # names of the CIF files: rank, formula, space group
# Crystals that PyXtal can't place are passed over; after this many a structure wanted, there are fewer structures.
TRIES = 3


@dataclass(frozen=True)
class Realised:
    """A crystal with its atoms.

    Attributes:
        row: Its row among the samples, from 0.
        crystal: The crystal.
        structure: The conventional cell with its atoms.
        is_sampled: Whether the sampler gave the coordinates; else PyXtal drew them, and they are one possibility.
    """

    row: int
    crystal: CrystalCandidate
    structure: Structure
    is_sampled: bool


def realise_best(
    crystals: Sequence[CrystalCandidate], ranking: Sequence[int], n: int, seed: int
) -> list[Realised]:
    """Atoms of the first n crystals of a ranking that can be given any.

    Args:
        crystals: All samples.
        ranking: Their rows, the best first.
        n: How many are wanted.
        seed: Of the draws.
    """
    from pymatgen.io.ase import AseAtomsAdaptor

    found: list[Realised] = []
    for row in ranking[: TRIES * n]:
        if len(found) == n:
            break
        crystal = crystals[row]
        if crystal.structure is not None:
            found.append(Realised(row, crystal, crystal.structure, True))
            continue
        if crystal.lattice is None:
            continue
        try:
            # Keyed by the crystal: its atoms do not depend on what else was sampled.
            best = realise(crystal, n_trials=1, seed=seed_for(seed, 0, f"structure {crystal.key}"))[0]
        except RealisationError:
            continue
        structure = AseAtomsAdaptor.get_structure(best.atoms)
        found.append(Realised(row, crystal, structure, False))
    return found


def write_structures(
    folder: Path,
    realised: Sequence[Realised],
    properties: Mapping[str, Sequence[float]],
    log_rewards: Sequence[float],
) -> list[str]:
    """Write a folder of CIF files and one JSON file of pymatgen structures; returns the names of the CIF files.

    Raises:
        InputError: a file can't be written.
    """
    names = []
    entries: list[dict[str, Any]] = []
    try:
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        for rank, found in enumerate(realised, start=1):
            formula = found.crystal.formula.replace(" ", "")
            name = f"{rank:03d}_{formula}_{found.crystal.space_group}.cif"
            (folder / FOLDER / name).write_text(str(found.structure.to(fmt="cif")), encoding="utf-8")
            names.append(name)
            entries.append(
                {
                    "row": found.row,
                    "candidate": found.crystal.to_dict(),
                    "properties": {p: finite(values[found.row]) for p, values in properties.items()},
                    "log_reward": finite(log_rewards[found.row]),
                    "coordinates": "sampled" if found.is_sampled else "drawn by PyXtal",
                    "structure": found.structure.as_dict(),
                }
            )
        (folder / TABLE).write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"Structures can't be written to {folder}: {error.strerror or error}.") from error
    return names

"""Label crystals of the sampler's own making with a potential: the lowest energy of several relaxed realisations.

    python -m oracles.ml_proxy.label label --crystals samples.csv --out labels.jsonl
    python -m oracles.ml_proxy.label references --data materials.csv.gz --out references.json
    python -m oracles.ml_proxy.label table --labels labels.jsonl --references references.json --out own.csv.gz

`label` draws atoms for each crystal on its own lattice and space group, relaxes the most promising draws with CHGNet at
fixed cell, and appends one line of JSON a crystal; called again, it goes on where it was. `references` fits the energy
of each element so that the potential's energies of known crystals give their DFT formation energies. `table` puts the
two together. The table of the shipped weights was made so; see their model cards.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from activelearning.candidate import digest
from activelearning.errors import ActiveLearningError, InputError
from oracles.ml_proxy.placement import place
from oracles.ml_proxy.relaxation import Potential, Relaxed, relax

LATTICE = ("a", "b", "c", "alpha", "beta", "gamma")
N_DRAWS = 6  # placements of the atoms
N_TRIED = 3  # of them, those with least overlap, relaxed for SHORT steps
SHORT, LONG = 8, 40  # steps for each tried placement, and further steps for the lowest of them
LEAST_RATIO = (
    0.45  # closest atoms over the sum of their covalent radii; below, a potential is not to be asked
)
CHUNK = 12  # crystals at a time


@dataclass(frozen=True)
class Crystal:
    """A crystal to be labelled: space group, composition and lattice of the conventional cell."""

    space_group: int
    composition: Mapping[str, int]
    lattice: tuple[float, ...]

    @property
    def key(self) -> str:
        """Name by content, 16 hexadecimal digits."""
        return digest(self.to_dict())[:16]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON value."""
        return {
            "space_group": self.space_group,
            "composition": dict(self.composition),
            "lattice": [round(x, 4) for x in self.lattice],
        }


def read_crystals(path: Path) -> list[Crystal]:
    """Crystals of a table as `activelearning sample` writes it (`samples.csv`).

    Raises:
        InputError: the file can't be read, or a row is no crystal.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}.") from error
    crystals = []
    for line, row in enumerate(rows, start=2):
        try:
            composition = {str(s): int(n) for s, n in json.loads(row["composition"]).items()}
            crystals.append(
                Crystal(int(row["space_group"]), composition, tuple(float(row[x]) for x in LATTICE))
            )
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path}, line {line}: {error!r}. A table of crystals has the columns space_group, composition (JSON) "
                f"and {', '.join(LATTICE)}."
            ) from error
    return crystals


def label(crystals: Sequence[Crystal], potential: Potential, seed: int = 0) -> Iterator[dict[str, Any]]:
    """The lowest energy met for each crystal.

    Args:
        crystals: The crystals.
        potential: The potential.
        seed: Of the placements; each crystal's depend on the seed and the crystal alone.

    Yields:
        The crystal as a dict, with `key`, `energy` (eV/atom, the potential's own; None where no placement keeps atoms
        apart), `initial_energy`, `max_force` (eV/Å), `n_atoms` (of the primitive cell) and `distance_ratio` (closest
        atoms over the sum of their covalent radii, at most 1.1, before relaxation).
    """
    for start in range(0, len(crystals), CHUNK):
        part = crystals[start : start + CHUNK]
        placed = [
            place(c.composition, c.space_group, c.lattice, n_draws=N_DRAWS, seed=[seed, int(c.key, 16)])
            for c in part
        ]
        tried = [[p for p in found if p.distance_ratio >= LEAST_RATIO][:N_TRIED] for found in placed]
        owners = [i for i, found in enumerate(tried) for _ in found]
        short = relax([p.cell for found in tried for p in found], potential, SHORT)
        lowest: dict[int, Relaxed] = {}
        for owner, relaxed in zip(owners, short, strict=True):
            if np.isfinite(relaxed.energy) and (owner not in lowest or relaxed.energy < lowest[owner].energy):
                lowest[owner] = relaxed
        final = dict(zip(lowest, relax([r.cell for r in lowest.values()], potential, LONG), strict=True))
        for i, crystal in enumerate(part):
            row: dict[str, Any] = {"key": crystal.key, **crystal.to_dict(), "energy": None}
            row["distance_ratio"] = round(placed[i][0].distance_ratio, 3) if placed[i] else None
            if i in final:
                row |= {
                    "energy": round(final[i].energy, 4),
                    "initial_energy": round(lowest[i].initial_energy, 4),
                    "max_force": round(final[i].max_force, 3),
                    "n_atoms": len(final[i].cell),
                    "n_tried": len(tried[i]),
                }
            yield row


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Finished lines of a file of labels; a last one that a kill cut short is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def label_file(crystals: Path, out: Path, seed: int, limit: int | None) -> None:
    """Label a table of crystals; what `out` already holds is not done again."""
    import torch

    from oracles.ml_proxy.relaxation import CHGNetPotential

    torch.set_num_threads(1)
    done = {row["key"] for row in read_lines(out)}
    wanted = {c.key: c for c in read_crystals(crystals)}
    todo = [c for key, c in wanted.items() if key not in done][:limit]
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a", encoding="utf-8") as file:
        for n, row in enumerate(label(todo, CHGNetPotential(), seed), start=1):
            file.write(json.dumps(row) + "\n")
            file.flush()
            if n % CHUNK == 0:
                print(f"{n} of {len(todo)} crystals", file=sys.stderr)


def main(arguments: Iterable[str] | None = None) -> int:
    """Run one of the steps."""
    parser = argparse.ArgumentParser(
        prog="python -m oracles.ml_proxy.label",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    steps = parser.add_subparsers(required=True, dest="step")
    step = steps.add_parser("label", help="energies of crystals, by the potential")
    step.add_argument(
        "--crystals", type=Path, required=True, help="table as `activelearning sample` writes it"
    )
    step.add_argument("--out", type=Path, required=True, help="lines of JSON to append to")
    step.add_argument("--seed", type=int, default=0, help="of the placements")
    step.add_argument("--limit", type=int, help="label that many at most")
    options = parser.parse_args(None if arguments is None else list(arguments))
    try:
        label_file(options.crystals, options.out, options.seed, options.limit)
    except ActiveLearningError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

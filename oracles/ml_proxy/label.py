"""Label crystals of the sampler's own making with a potential: the lowest energy of several relaxed realisations.

    python -m oracles.ml_proxy.label label --crystals samples.csv --out labels.jsonl
    python -m oracles.ml_proxy.label strain --data materials.csv.gz --out strained.jsonl
    python -m oracles.ml_proxy.label references --data materials.csv.gz --out references.json
    python -m oracles.ml_proxy.label table --data materials.csv.gz --references references.json \\
        --labels labels.jsonl --strained strained.jsonl --out generated_crystals.csv.gz

`label` draws atoms for each crystal on its own lattice and space group, relaxes the draws of lowest energy with CHGNet
at fixed cell, and appends one line of JSON a crystal; called again, it goes on where it was. `strain` squeezes and
stretches known materials and records how their energy rises. `references` fits the energy of each element so that the
potential's energies of known materials give their DFT formation energies. `table` puts all together. The table of the
shipped weights was made so; see their model cards.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from activelearning.candidate import digest
from activelearning.errors import ActiveLearningError, InputError
from oracles.ml_proxy.hull import Hull
from oracles.ml_proxy.materials import CRYSTAL_COLUMNS, LATTICE, find_materials, read_materials
from oracles.ml_proxy.placement import distance_ratio, place
from oracles.ml_proxy.references import References, elements, fit_references, read_structures
from oracles.ml_proxy.relaxation import Cell, Potential, Relaxed, relax

N_DRAWS = 60  # placements of the atoms, of all of which the energy is asked
N_TRIED = 4  # the lowest of them, relaxed for SHORT steps
SHORT, LONG = 8, 40  # steps for each tried placement, and further steps for the lowest of them
# Closest atoms over the sum of their covalent radii: below the first a potential is not to be asked; of relaxed atoms
# the least that is believed (bonds are 0.75 and more, N2 being the shortest).
LEAST_RATIO, RELAXED_RATIO = 0.45, 0.55
CHUNK = 12  # crystals at a time
STRAINS = (0.5, 2.0)  # of the volume; further out a network potential trained near equilibrium knows nothing
STRAIN_ATOMS, STRAIN_CHUNK = 14, 100
CAP = 4.0  # eV/atom
UNSETTLED = 5.0  # eV/Å: atoms that still fall so steeply have found a hole in the potential
BELOW = 0.1  # eV/atom below the hull of known materials: there the potential is wrong, not the crystal new


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


def label(
    crystals: Sequence[Crystal], potential: Potential, seed: int = 0, *, with_cells: bool = False
) -> Iterator[dict[str, Any]]:
    """The lowest energy met for each crystal.

    Args:
        crystals: The crystals.
        potential: The potential.
        seed: Of the placements; each crystal's depend on the seed and the crystal alone.
        with_cells: Whether to add the atoms of the lowest energy, as `cell`.

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
        apart = [[p.cell for p in found if p.distance_ratio >= LEAST_RATIO] for found in placed]
        energies = iter(
            potential.evaluate([cell for cells in apart for cell in cells], forces=False)[0].tolist()
        )
        asked = [sorted([(next(energies), k) for k in range(len(cells))])[:N_TRIED] for cells in apart]
        tried = [[cells[k] for _, k in chosen] for cells, chosen in zip(apart, asked, strict=True)]
        owners = [i for i, cells in enumerate(tried) for _ in cells]
        short = relax([cell for cells in tried for cell in cells], potential, SHORT)
        lowest: dict[int, Relaxed] = {}
        for owner, relaxed in zip(owners, short, strict=True):
            if _is_sound(relaxed) and (owner not in lowest or relaxed.energy < lowest[owner].energy):
                lowest[owner] = relaxed
        final = {
            owner: after if _is_sound(after) else before
            for (owner, before), after in zip(
                lowest.items(), relax([r.cell for r in lowest.values()], potential, LONG), strict=True
            )
        }
        for i, crystal in enumerate(part):
            row: dict[str, Any] = {"key": crystal.key, **crystal.to_dict(), "energy": None}
            row["distance_ratio"] = round(max(p.distance_ratio for p in placed[i]), 3) if placed[i] else None
            if i in final:
                row |= {
                    "energy": round(final[i].energy, 4),
                    "initial_energy": round(lowest[i].initial_energy, 4),
                    "max_force": round(final[i].max_force, 3),
                    "n_atoms": len(final[i].cell),
                    "n_tried": len(tried[i]),
                }
                if with_cells:
                    row["cell"] = {name: value.tolist() for name, value in vars(final[i].cell).items()}
            yield row


def _is_sound(relaxed: Relaxed) -> bool:
    """False where atoms have fallen into each other: a hole of the potential, whose energy means nothing."""
    return bool(np.isfinite(relaxed.energy)) and distance_ratio(relaxed.cell) >= RELAXED_RATIO


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


def strain(data: Path, out: Path, n: int, seed: int) -> None:
    """Scale the cells of known materials and record how the potential's energy changes, in eV/atom.

    Volumes are spread evenly in their logarithm over `STRAINS`. Where atoms come too close, the material is left out.
    """
    import torch

    from oracles.ml_proxy.relaxation import CHGNetPotential

    torch.set_num_threads(1)
    potential = CHGNetPotential()
    rng = np.random.default_rng(seed)
    materials = read_structures(data, n, seed=seed, n_atoms=(1, STRAIN_ATOMS))
    with out.open("w", encoding="utf-8") as file:
        for start in range(0, len(materials), STRAIN_CHUNK):
            part = materials[start : start + STRAIN_CHUNK]
            factors = np.exp(
                rng.uniform(math.log(STRAINS[0]), math.log(STRAINS[1]), len(part)) / 3.0
            ).tolist()
            scaled = [
                Cell(m.cell.numbers, m.cell.matrix * f, m.cell.fractional)
                for m, f in zip(part, factors, strict=True)
            ]
            kept = [i for i, cell in enumerate(scaled) if distance_ratio(cell) >= LEAST_RATIO]
            relaxed, _ = potential.evaluate([part[i].cell for i in kept], forces=False)
            strained, _ = potential.evaluate([scaled[i] for i in kept], forces=False)
            for i, change in zip(kept, (strained - relaxed).tolist(), strict=True):
                material = part[i]
                lattice = (*(x * factors[i] for x in material.lattice[:3]), *material.lattice[3:])
                crystal = Crystal(
                    material.space_group, {s: int(k) for s, k in material.composition.items()}, lattice
                )
                row = {**crystal.to_dict(), "formation_energy": round(material.formation_energy + change, 4)}
                file.write(json.dumps(row) + "\n")
            print(
                f"{min(start + STRAIN_CHUNK, len(materials))} of {len(materials)} materials", file=sys.stderr
            )


def check(
    data: Path,
    n: int,
    seed: int,
    elements: Sequence[str] | None = None,
    n_atoms: tuple[int, int] = (1, STRAIN_ATOMS),
) -> dict[str, float]:
    """How far labels lie above the truth: known materials, labelled as if their atoms were not known.

    Args:
        data: Table of materials with structures.
        n: Materials.
        seed: Of materials and placements.
        elements: Only materials made of these; all by default.
        n_atoms: Least and most atoms of their primitive cells.

    Returns:
        `n`, and of the label less the potential's energy at the known atoms, relaxed, eV/atom: `median, mean, q90`; and
        `found`, the share within 0.02 eV/atom.
    """
    import torch

    from oracles.ml_proxy.relaxation import CHGNetPotential

    torch.set_num_threads(1)
    potential = CHGNetPotential()
    materials = read_structures(data, n, elements, seed, n_atoms=n_atoms)
    crystals = [
        Crystal(m.space_group, {s: int(k) for s, k in m.composition.items()}, m.lattice) for m in materials
    ]
    known = [r.energy for r in relax([m.cell for m in materials], potential, LONG)]
    excess = np.array(
        [
            CAP if row["energy"] is None else row["energy"] - energy
            for row, energy in zip(label(crystals, potential, seed), known, strict=True)
        ]
    )
    return {
        "n": len(excess),
        "median": round(float(np.median(excess)), 3),
        "mean": round(float(excess.mean()), 3),
        "q90": round(float(np.quantile(excess, 0.9)), 3),
        "found": round(float((excess < 0.02).mean()), 3),
    }


def fit_to_materials(data: Path, out: Path, elements: Sequence[str] | None) -> None:
    """Fit reference energies to the materials of a table that are made of some elements."""
    import torch

    from oracles.ml_proxy.relaxation import CHGNetPotential

    torch.set_num_threads(1)
    potential = CHGNetPotential()
    materials = read_structures(data, elements=elements)
    energies, _ = potential.evaluate([m.cell for m in materials], forces=False)
    references = fit_references(
        potential.name,
        [m.composition for m in materials],
        energies,
        np.array([m.formation_energy for m in materials]),
    )
    references.save(out)
    print(f"{references.n} materials, mean absolute residual {references.mae} eV/atom", file=sys.stderr)


def _energy(row: Mapping[str, Any]) -> float:
    return math.inf if row["energy"] is None else float(row["energy"])


def tabulate(
    data: Path, references: Path, labels: Sequence[Path], strained: Sequence[Path], out: Path
) -> None:
    """Write labelled crystals as a table of materials (CSV, gzipped), the same bytes for the same input.

    Elements in their simple structures are added, at zero, for tables of compounds lack them.
    Formation energies and distances from the hull of the table's materials end at `CAP`: beyond, all are equally bad,
    and potentials know little. A crystal whose atoms find no room in its cell is put there too. Left out is what shows
    a hole of the potential: more than `BELOW` under the hull of known materials, or not settled.
    """
    known = read_materials(data, ["formation_energy_per_atom", "e_above_hull"])
    hull = Hull(
        known.compositions(),
        # Of a phase above the hull, the hull's energy at its composition is known all the same.
        known.values["formation_energy_per_atom"] - known.values["e_above_hull"],
    )
    converted = References.load(references)
    rows: dict[str, dict[str, Any]] = {}
    for found in chain.from_iterable(map(read_lines, labels)):
        other = rows.get(found["key"])
        if other is None or _energy(found) < _energy(other):
            rows[found["key"]] = found
    entries: list[tuple[str, Mapping[str, Any], float]] = []
    n_written = n_left_out = 0
    for found in rows.values():
        energy = CAP
        if found["energy"] is not None:
            own = np.array([found["energy"]])
            energy = float(converted.formation_energies([found["composition"]], own)[0])
            if found["max_force"] > UNSETTLED and energy < CAP:
                n_left_out += 1
                continue
        entries.append(("sampled", found, energy))
    entries += [("strained", row, row["formation_energy"]) for path in strained for row in read_lines(path)]
    entries += [("element", Crystal(*element).to_dict(), 0.0) for element in elements()]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*CRYSTAL_COLUMNS, "formation_energy_per_atom", "e_above_hull", "origin"])
    for origin, row, energy in entries:
        above = energy - hull.energy(row["composition"])
        if above < -BELOW:
            n_left_out += 1
            continue
        above = min(CAP, max(0.0, above))
        crystal = [row["space_group"], json.dumps(row["composition"]), *row["lattice"]]
        writer.writerow([*crystal, round(min(CAP, energy), 4), round(above, 4), origin])
        n_written += 1
    # Without a time stamp, so that equal tables are equal files.
    out.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))
    print(f"{n_written} crystals written, {n_left_out} left out", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the steps."""
    parser = argparse.ArgumentParser(
        prog="python -m oracles.ml_proxy.label",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    steps = parser.add_subparsers(required=True, dest="step", metavar="STEP")
    step = steps.add_parser("label", help="energies of crystals, by the potential")
    step.add_argument(
        "--crystals", type=Path, required=True, help="table as `activelearning sample` writes it"
    )
    step.add_argument("--out", type=Path, required=True, help="lines of JSON to append to")
    step.add_argument("--seed", type=int, default=0, help="of the placements")
    step.add_argument("--limit", type=int, help="label that many at most")
    step = steps.add_parser("strain", help="energies of known materials at other volumes")
    step.add_argument(
        "--data", type=Path, help="table of materials with structures (default: $ACTIVELEARNING_MP)"
    )
    step.add_argument("--out", type=Path, required=True, help="lines of JSON to write")
    step.add_argument("--n", type=int, default=2500, help="materials")
    step.add_argument("--seed", type=int, default=0, help="of materials and volumes")
    step = steps.add_parser("check", help="how far labels of known materials lie above the truth")
    step.add_argument(
        "--data", type=Path, help="table of materials with structures (default: $ACTIVELEARNING_MP)"
    )
    step.add_argument("--n", type=int, default=100, help="materials")
    step.add_argument("--seed", type=int, default=0, help="of materials and placements")
    step.add_argument("--elements", nargs="+", help="only materials made of these")
    step.add_argument(
        "--atoms",
        type=int,
        nargs=2,
        default=(1, STRAIN_ATOMS),
        metavar=("LEAST", "MOST"),
        help="of their primitive cells",
    )
    step = steps.add_parser("references", help="energies of the elements")
    step.add_argument(
        "--data", type=Path, help="table of materials with structures (default: $ACTIVELEARNING_MP)"
    )
    step.add_argument("--out", type=Path, required=True, help="JSON to write")
    step.add_argument("--elements", nargs="+", help="only materials made of these")
    step = steps.add_parser("table", help="labels as a table of materials")
    step.add_argument("--data", type=Path, help="table of materials (default: $ACTIVELEARNING_MP)")
    step.add_argument("--references", type=Path, required=True)
    step.add_argument("--labels", type=Path, nargs="+", required=True)
    step.add_argument("--strained", type=Path, nargs="*", default=[])
    step.add_argument("--out", type=Path, required=True, help="gzipped CSV to write")
    options = parser.parse_args(arguments)
    try:
        if options.step == "label":
            label_file(options.crystals, options.out, options.seed, options.limit)
        elif options.step == "strain":
            strain(find_materials(options.data), options.out, options.n, options.seed)
        elif options.step == "check":
            data, n_atoms = find_materials(options.data), tuple(options.atoms)
            figures = check(data, options.n, options.seed, options.elements, n_atoms)
            print(json.dumps(figures))
        elif options.step == "references":
            fit_to_materials(find_materials(options.data), options.out, options.elements)
        else:
            data = find_materials(options.data)
            tabulate(data, options.references, options.labels, options.strained, options.out)
    except ActiveLearningError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What the campaign of `configs/li_conductors.yaml` found, and what its finds are worth.

    activelearning run li_conductors
    python benchmarks/flagship.py --store sqlite:///activelearning.db --best 4 --processes 2

The campaign knows a crystal by ten picoseconds in a small cell at one temperature. Its best ones are judged anew, from
the relaxed atoms that the campaign kept, by what it did not ask: longer dynamics at 500, 600 and 700 K, in cells of at
least 9 Å, with other random numbers, and from there the conductivity at 300 K where three temperatures are resolved;
and the distance from the convex hull, relaxed by CHGNet, with reference energies fitted to the Materials Project
(`ACTIVELEARNING_MP`), whose hull it is. Told is whether the composition is among these or OBELiX's.

Writes `benchmarks/results/li_conductors/`: `README.md`, all evaluations of sampled crystals as `evaluations.csv`, the
best crystals as CIFs, `trace.png`, and the judgements, which are not made again, as `judged.json`.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import platform
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from kept import keep_json
from pymatgen.core import Composition, Structure

from activelearning.candidate import CrystalCandidate, digest
from activelearning.cli.export import write_table
from activelearning.contracts import OracleContext
from activelearning.crystals.relaxation import RelaxationError, relax
from activelearning.report import best, export_rows, rounds, trace
from activelearning.report.crystals import crystals
from activelearning.report.text import candidate_text
from activelearning.store.database import Database, resolve_url
from activelearning.store.models import Evaluation
from oracles.mace_md import MaceMDOracle
from oracles.ml_proxy.hull import Hull
from oracles.ml_proxy.materials import find_materials, read_materials
from oracles.ml_proxy.references import fit_references, read_structures
from oracles.ml_proxy.relaxation import CHGNetPotential
from oracles.potentials import checksum, load_calculator

CAMPAIGN = "li_conductors"
RESULTS = Path(__file__).parent / "results" / CAMPAIGN
PROTOCOL: dict[str, Any] = {
    "potential": "mace:student",
    "temperature": 600,
    "temperatures": [500, 600, 700],
    "time_ps": 20,
    "max_time_ps": 40,
    "equilibration_ps": 4,
    "min_cell_edge": 9,
    "max_atoms": 240,
}
RELAX_STEPS = 300
N_REFERENCES = 300
MEASURED = "measured"  # OBELiX's entries, which are not ours to spread


# -- judgements -------------------------------------------------------------------------------------------------------


def relaxed_crystal(cif: str) -> CrystalCandidate:
    """A crystal with its atoms, of no symmetry that it must keep."""
    structure = Structure.from_str(cif, fmt="cif")
    return CrystalCandidate(
        space_group=1,
        composition={str(element): round(n) for element, n in structure.composition.items()},
        lattice=structure.lattice.parameters,
        structure=structure,
    )


def dynamics(cif: str) -> dict[str, Any]:
    """What longer dynamics at several temperatures say of a crystal."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    prop = f"log10_conductivity_{PROTOCOL['temperature']}K"
    with tempfile.TemporaryDirectory() as folder:
        oracle = MaceMDOracle(**PROTOCOL)
        oracle.bind(OracleContext("benchmark", "md", prop, None, 1.0, "", Path(folder)))
        found = oracle.evaluate_one(relaxed_crystal(cif))
    keys = ("temperature", "reason", "log10_sigma", "log10_sigma_error", "is_bound", "framework_displacement")
    return {
        "reason": found.reason,
        "n_atoms": found.metadata.get("n_atoms"),
        "runs": [{key: run.get(key) for key in keys} for run in found.metadata.get("temperatures", [])],
        "arrhenius": found.metadata.get("arrhenius"),
        "refused": found.metadata.get("arrhenius_refused"),
    }


def distances(cifs: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Energy above the hull of the Materials Project (eV/atom) by CHGNet, relaxed; by key."""
    data = find_materials()
    elements = sorted(
        {str(e) for cif in cifs.values() for e in Structure.from_str(cif, fmt="cif").composition}
    )
    potential, calculator = CHGNetPotential(), load_calculator("chgnet")
    materials = read_structures(data, N_REFERENCES, elements)
    energies, _ = potential.evaluate([m.cell for m in materials], forces=False)
    references = fit_references(
        potential.name,
        [m.composition for m in materials],
        energies,
        np.array([m.formation_energy for m in materials]),
    )
    table = read_materials(data, ["formation_energy_per_atom", "e_above_hull"])
    hull = Hull(
        table.compositions(), table.values["formation_energy_per_atom"] - table.values["e_above_hull"]
    )
    found: dict[str, dict[str, Any]] = {}
    for key, cif in cifs.items():
        structure = Structure.from_str(cif, fmt="cif")
        composition = {str(e): float(n) for e, n in structure.composition.items()}
        try:
            relaxed = relax(structure.to_ase_atoms(), calculator, max_steps=RELAX_STEPS, keep_symmetry=False)
        except RelaxationError as error:
            found[key] = {"reason": str(error)}
            continue
        energy = references.formation_energies([composition], np.array([relaxed.energy]))[0]
        found[key] = {
            "energy_above_hull": float(energy) - hull.energy(composition),
            "is_converged": relaxed.is_converged,
            "volume_ratio": relaxed.volume_ratio,
            "references_mae": references.mae,
        }
    return found


def known_compositions() -> dict[str, set[str]]:
    """Reduced formulas of the tables: of the Materials Project, and of OBELiX's entries that are there."""
    import pandas as pd

    materials = pd.read_csv(
        Path(os.environ["ACTIVELEARNING_MP"]) / "materials.csv.gz", usecols=["composition"]
    )
    measured = pd.read_csv(
        Path(os.environ["ACTIVELEARNING_OBELIX"]) / "all.csv", usecols=["Reduced Composition"]
    )
    return {
        "Materials Project": {
            Composition(json.loads(text)).reduced_formula for text in materials["composition"]
        },
        "OBELiX": {Composition(text).reduced_formula for text in measured["Reduced Composition"]},
    }


def judge(found: Mapping[str, str], path: Path, processes: int) -> dict[str, dict[str, Any]]:
    """Judge crystals by key, once each; kept in a file as they come."""
    identity = {
        "protocol": PROTOCOL,
        "weights": checksum(PROTOCOL["potential"]),
        "version": MaceMDOracle.version,
        "hull": [checksum("chgnet"), RELAX_STEPS, N_REFERENCES],
    }
    kept = json.loads(path.read_text()) if path.exists() else {}
    earlier: dict[str, dict[str, Any]] = kept.get("crystals", {}) if kept.get("identity") == identity else {}
    judged = {key: one for key, one in earlier.items() if one["cif"] == digest({"cif": found.get(key)})}
    missing = {key: cif for key, cif in found.items() if key not in judged}
    if missing:
        stability, compositions = distances(missing), known_compositions()
        with multiprocessing.get_context("spawn").Pool(processes, maxtasksperchild=1) as pool:
            for (key, cif), moved in zip(missing.items(), pool.imap(dynamics, missing.values()), strict=True):
                formula = Structure.from_str(cif, fmt="cif").composition.reduced_formula
                judged[key] = {
                    "formula": formula,
                    "cif": digest({"cif": cif}),
                    "dynamics": moved,
                    "hull": stability[key],
                    "known": [name for name, formulas in compositions.items() if formula in formulas],
                }
                keep_json(path, {"identity": identity, "crystals": judged})
    return {key: judged[key] for key in found}


# -- report -----------------------------------------------------------------------------------------------------------


def main() -> None:
    """Read the store, judge the best, and write the account."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", default="sqlite:///activelearning.db")
    parser.add_argument("--best", type=int, default=4, help="how many are judged anew")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    database = Database(resolve_url(arguments.store))
    RESULTS.mkdir(parents=True, exist_ok=True)
    rows = export_rows(database, CAMPAIGN)
    write_table([row for row in rows if row["fidelity"] != MEASURED], RESULTS / "evaluations.csv", "csv")
    winners = best(database, CAMPAIGN, arguments.best)
    by_key = {crystal.key: crystal for crystal in crystals(database, CAMPAIGN)}
    unknown = [winner["key"] for winner in winners if winner["key"] not in by_key]
    if unknown:
        raise SystemExit(f"the store has no relaxed atoms of {', '.join(unknown)}: run the campaign anew")
    chosen = {winner["key"]: by_key[winner["key"]].cif for winner in winners}
    told = answers(database, chosen)
    for key, cif in chosen.items():
        check_atoms(key, cif, told[key])
    for old in RESULTS.glob("*.cif"):
        old.unlink()
    for rank, (key, cif) in enumerate(chosen.items(), 1):
        (RESULTS / f"{rank}-{by_key[key].candidate.formula.replace(' ', '')}.cif").write_text(cif)
    draw(database)
    judged = judge(chosen, RESULTS / "judged.json", arguments.processes)
    (RESULTS / "README.md").write_text("\n".join(account(database, rows, winners, judged, told)) + "\n")


def answers(database: Database, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What dynamics noted beside their answers, by key."""
    with database.read() as session:
        return {key: dict(session.get_one(Evaluation, key).details) for key in keys}


def check_atoms(key: str, cif: str, told: Mapping[str, Any]) -> None:
    """See that a CIF is of the crystal that an answer is of.

    Raises:
        SystemExit: it has another volume.
    """
    volume = Structure.from_str(cif, fmt="cif").volume * math.prod(told["supercell"])
    if not math.isclose(volume, told["volume"], rel_tol=1e-4):
        raise SystemExit(
            f"the CIF kept for {key} repeats to {volume:.1f} Å³, and {told['volume']:.1f} Å³ were simulated: it is of "
            f"another crystal; run the campaign anew"
        )


def draw(database: Database) -> None:
    """The best conductivity by what was spent, and every answer of dynamics."""
    import matplotlib.pyplot as plt

    points = trace(database, CAMPAIGN)
    answers = [
        row
        for row in export_rows(database, CAMPAIGN)
        if row["fidelity"] == "md" and row["cost_paid"] is not None
    ]
    spent = [point.spent for point in points if point.fidelity == "md"]
    figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    axes.step(
        [p.spent for p in points],
        [math.nan if p.best is None else p.best for p in points],
        where="post",
        label="best so far",
    )
    for kind, marker in (("none", "o"), ("upper", "v")):
        shown = [
            (x, a["value"])
            for x, a in zip(spent, answers, strict=True)
            if a["value"] is not None and a["censoring"] == kind
        ]
        if shown:
            axes.plot(
                *zip(*shown, strict=True),
                marker,
                color="0.35",
                label="value" if kind == "none" else "upper bound",
            )
    low = axes.get_ylim()[0]
    lost = [x for x, a in zip(spent, answers, strict=True) if a["value"] is None]
    axes.plot(lost, [low] * len(lost), "x", color="0.6", clip_on=False, label="none: melted, or no atoms")
    axes.set(xlabel="spent (longest evaluations by dynamics)", ylabel="log10 σ at 600 K (S/cm)")
    axes.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    figure.savefig(RESULTS / "trace.png", dpi=150)
    plt.close(figure)


def account(
    database: Database,
    rows: Sequence[Mapping[str, Any]],
    winners: Sequence[Mapping[str, Any]],
    judged: Mapping[str, Mapping[str, Any]],
    told: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Lines of the account."""
    machine = f"{os.cpu_count()} cores, {platform.machine()}"
    lines = [
        "# Lithium conductors: a campaign of the Crystal-GFN",
        "",
        f"{datetime.now(UTC).date().isoformat()}; {machine}. The campaign of `configs/li_conductors.yaml`; written by "
        "`python benchmarks/flagship.py`, which says how the best are judged.",
        "",
        "| round | spent | asked of proxy, bvse, md | md: values, bounds, none | best log10 σ(600 K) so far |",
        "|---|---|---|---|---|",
    ]
    for round_ in rounds(database, CAMPAIGN):
        mine = [row for row in rows if row["round"] == round_["round"]]
        asked = [sum(row["fidelity"] == name for row in mine) for name in ("proxy", "bvse", "md")]
        moved = [row for row in mine if row["fidelity"] == "md"]
        kinds = [
            sum(row["value"] is not None and row["censoring"] == "none" for row in moved),
            sum(row["value"] is not None and row["censoring"] != "none" for row in moved),
            sum(row["state"] == "failed" for row in moved),
        ]
        top = "" if round_["best"] is None else f"{round_['best']:.2f}"
        numbers = f"{', '.join(map(str, asked))} | {', '.join(map(str, kinds))}"
        lines.append(f"| {round_['round']} | {round_['spent']:.1f} | {numbers} | {top} |")
    lines += ["", "![Best conductivity by what was spent](trace.png)", "", "## The best, judged anew", ""]
    lines += [
        "| crystal | campaign: log10 σ(600 K) | framework moved (Å) | atoms, then and now | longer: 500, 600, 700 K | "
        "activation energy (eV) | log10 σ(300 K) | above the hull, CHGNet (eV/atom) | composition known to |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for winner in winners:
        then, now = told[winner["key"]], judged[winner["key"]]
        line = now["dynamics"]["arrhenius"]
        energy = "" if line is None else f"{line['activation_energy']:.2f} ± {line['activation_error']:.2f}"
        room = "" if line is None else f"{line['log10_sigma']:.1f} ± {line['log10_error']:.1f}"
        hull = now["hull"]
        above = hull.get("reason") or f"{hull['energy_above_hull']:.2f} ± {hull['references_mae']:.2f}"
        runs = "; ".join(
            _run(run) for run in sorted(now["dynamics"]["runs"], key=lambda run: run["temperature"])
        )
        longer = now["dynamics"]["reason"] or runs
        lines.append(
            f"| {candidate_text(winner['candidate'])} | {winner['value']:.2f} ± {winner['std'] or 0.0:.2f} | "
            f"{then['framework_displacement']:.1f} | {then['n_atoms']}, {now['dynamics']['n_atoms']} | "
            f"{longer} | {energy} | {room} | {above} | {', '.join(now['known']) or 'neither'} |"
        )
    lines += [
        "",
        "The error of a distance from the hull is the mean absolute error of CHGNet's formation energies with these "
        "references. The hull is that of the tables, a part of the Materials Project: what they lack can make a "
        "distance too small, or negative.",
    ]
    return lines


def _run(run: Mapping[str, Any]) -> str:
    if run["reason"] is not None:
        return str(run["reason"])
    return f"{'< ' if run['is_bound'] else ''}{run['log10_sigma']:.2f}"


if __name__ == "__main__":
    main()

"""A request's sheet: what a chemist needs to make and measure the material, and why it was chosen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from activelearning.candidate import CrystalCandidate, candidate_from_dict
from activelearning.report.crystals import kept_crystals
from activelearning.report.reading import header
from activelearning.report.results import best_rows
from activelearning.report.text import candidate_text, number_text, value_text
from activelearning.store.database import Database
from activelearning.store.models import Campaign, Evaluation, LabRequest, State
from oracles.lab.requests import OPEN, find, with_results
from oracles.units import is_logarithm

_NORMAL_90 = 1.6448536269514722  # standard deviations to either side of 90 % of a normal distribution


@dataclass(frozen=True)
class Prediction:
    """What was foretold of the answer when it was asked for, in the request's unit.

    Attributes:
        mean: Of the answer.
        std: Standard deviation of an answer: of the model, and of the noise that it expects of the laboratory.
    """

    mean: float
    std: float

    @property
    def interval(self) -> tuple[float, float]:
        """Between these an answer lies with 90 % probability."""
        return self.mean - _NORMAL_90 * self.std, self.mean + _NORMAL_90 * self.std


@dataclass(frozen=True)
class Sheet:
    """A request with all that is to be said of it.

    Attributes:
        request: As `list_requests` gives it.
        crystal: The material; None where the campaign searches no crystals.
        prediction: What was foretold; None for the initial design and for what nobody asked for.
        priority: Place among the campaign's open requests by what its answer is expected to bring, from 1; None where
            the request is not open.
        n_open: How many of the campaign's requests are open.
        why: Why it was chosen, in sentences.
        cif: The material as CIF; None where it has no lattice.
        atoms: Where the atoms of the CIF come from.
    """

    request: Mapping[str, Any]
    crystal: CrystalCandidate | None
    prediction: Prediction | None
    priority: int | None
    n_open: int
    why: tuple[str, ...]
    cif: str | None
    atoms: str

    def rows(self) -> list[tuple[str, str]]:
        """The sheet as labels and texts, in order."""
        request, unit = self.request, self.request["unit"]
        asked = f"{request['property']} [{unit or 'no unit'}]"
        rows = [
            ("key", request["key"]),
            ("campaign", f"{request['campaign']}, fidelity {request['fidelity']}"),
            ("to be measured", asked),
            ("state", request["state"]),
        ]
        if self.priority is not None:
            rows.append(("priority", f"{self.priority} of {self.n_open}"))
        rows += _material(self.crystal) if self.crystal else [("point", candidate_text(request["candidate"]))]
        if self.prediction is not None:
            rows.append(("predicted", _predicted(self.prediction, unit)))
        rows.append(("why", " ".join(self.why)))
        if self.cif is not None:
            rows.append(("atoms", self.atoms))
        return rows

    def text(self) -> str:
        """The sheet as plain text."""
        width = max(len(label) for label, _ in self.rows())
        return "\n".join(f"{label:{width}s}  {text}" for label, text in self.rows()) + "\n"


def read_sheet(database: Database, key: str) -> Sheet:
    """The sheet of the request that a key, or a beginning of it, names.

    Raises:
        InputError: it fits none, or several.
    """
    with database.read() as session:
        row = find(session, key)
        request = with_results(session, [row])[0].to_json()
        evaluation = session.get(Evaluation, row.key)
        order = priorities(session, row.campaign)
        candidate = candidate_from_dict(row.candidate)
        crystal = candidate if isinstance(candidate, CrystalCandidate) else None
        cif, atoms = (None, "") if crystal is None else _cif(session, row, crystal)
        return Sheet(
            request,
            crystal,
            _prediction(evaluation),
            order.get(row.key),
            len(order),
            tuple(_why(session, row, evaluation)),
            cif,
            atoms,
        )


def priorities(session: Session, campaign: str) -> dict[str, int]:
    """Places of a campaign's open requests, from 1: by expected utility, what has none (the initial design) last."""
    query = (
        select(LabRequest.key, Evaluation.acquisition)
        .join(Evaluation, Evaluation.key == LabRequest.key, isouter=True)
        .where(LabRequest.campaign == campaign, LabRequest.state == OPEN)
        .order_by(LabRequest.created_at, LabRequest.key)
    )
    rows = session.execute(query).all()
    ranked = sorted(rows, key=lambda row: math.inf if row[1] is None else -row[1])
    return {key: place for place, (key, _) in enumerate(ranked, start=1)}


def all_priorities(session: Session, campaigns: Iterable[str]) -> dict[str, int]:
    """Places of the open requests of several campaigns, each within its own; see `priorities`."""
    places: dict[str, int] = {}
    for name in sorted(set(campaigns)):
        places |= priorities(session, name)
    return places


def _prediction(evaluation: Evaluation | None) -> Prediction | None:
    if evaluation is None or evaluation.predicted_mean is None or evaluation.predicted_std is None:
        return None
    noise = evaluation.predicted_noise or 0.0
    return Prediction(evaluation.predicted_mean, math.hypot(evaluation.predicted_std, noise))


def _predicted(prediction: Prediction, unit: str | None) -> str:
    low, high = prediction.interval
    text = (
        f"{value_text(prediction.mean, prediction.std)} {unit or ''}".rstrip()
        + f"; with 90 % probability between {number_text(low, 3)} and {number_text(high, 3)}"
    )
    if is_logarithm(unit):
        text += f" (from {10**low:.1e} to {10**high:.1e} S/cm)"
    return text


def _why(session: Session, row: LabRequest, evaluation: Evaluation | None) -> list[str]:
    if evaluation is None:
        return ["It was measured without being asked for."]
    if evaluation.acquisition is None:
        where = (
            "the initial design"
            if evaluation.round == 0
            else f"round {evaluation.round}, as a check by itself"
        )
        return [f"It is part of {where}."]
    campaign = session.get_one(Campaign, row.campaign)
    said = [
        f"Round {evaluation.round} chose it by {campaign.config['acquisition']['type']}, with a utility of "
        f"{number_text(evaluation.acquisition, 3)} before cost."
    ]
    found = header(session, row.campaign)
    best = best_rows(session, found, 1) if found.has_one_goal else []
    if best and found.target == row.fidelity and evaluation.predicted_mean is not None:
        is_better = found.is_better(evaluation.predicted_mean, best[0]["value"])
        said.append(
            f"It is expected to be {'better' if is_better else 'no better'} than the best so far, "
            f"{value_text(best[0]['value'], best[0]['std'])}"
            + ("." if is_better else ", but its uncertainty leaves room, or its answer teaches much.")
        )
    return said


def _material(crystal: CrystalCandidate) -> list[tuple[str, str]]:
    from pymatgen.core import Composition
    from pymatgen.symmetry.groups import SpaceGroup

    composition = Composition(dict(crystal.composition))
    formula, units = composition.get_reduced_formula_and_factor()
    group = SpaceGroup.from_int_number(crystal.space_group)
    masses = ", ".join(f"{e} {100 * composition.get_wt_fraction(e):.2f} %" for e in composition)
    rows = [
        ("formula", f"{formula}, {units:g} formula units in the conventional cell ({crystal.formula})"),
        ("by mass", f"{masses}; {Composition(formula).weight:.3f} g/mol"),
        ("space group", f"{group.symbol} (No. {crystal.space_group}), {group.crystal_system}"),
    ]
    if crystal.lattice is not None:
        a, b, c, alpha, beta, gamma = crystal.lattice
        density = composition.weight / (crystal.volume * 0.602214076)  # g/mol over Å³ to g/cm³
        rows += [
            ("lattice", f"a {a:.4f}, b {b:.4f}, c {c:.4f} Å; α {alpha:.3f}, β {beta:.3f}, γ {gamma:.3f}°"),
            ("volume", f"{crystal.volume:.2f} Å³, X-ray density {density:.3f} g/cm³"),
        ]
    if crystal.wyckoff is not None:
        rows.append(("Wyckoff letters", "; ".join(f"{e} {' '.join(w)}" for e, w in crystal.wyckoff.items())))
    return rows


def _cif(session: Session, row: LabRequest, crystal: CrystalCandidate) -> tuple[str | None, str]:
    """The crystal as CIF, and where its atoms are from."""
    if crystal.structure is not None:
        return str(crystal.structure.to(fmt="cif")), "the campaign's own"
    evaluations = session.scalars(
        select(Evaluation)
        .where(Evaluation.campaign == row.campaign, Evaluation.candidate_key == crystal.key)
        # The dearest answer's: it took the most pains with them.
        .order_by(
            (Evaluation.state == State.SUCCEEDED).desc(),
            Evaluation.cost_reserved.desc(),
            Evaluation.round,
            Evaluation.position,
        )
    ).all()
    files = kept_crystals(session, evaluations)
    for evaluation in evaluations:
        if evaluation.key in files:
            text = files[evaluation.key].read_text(encoding="utf-8")
            return text, f"as relaxed for the fidelity {evaluation.fidelity!r}"
    if crystal.lattice is None:
        return None, ""
    return _cell_cif(crystal), "not known: the CIF holds cell and symmetry only"


def _cell_cif(crystal: CrystalCandidate) -> str:
    """Cell, symmetry and composition as CIF (core dictionary), without atoms."""
    from pymatgen.core import Composition
    from pymatgen.symmetry.groups import SpaceGroup

    a, b, c, alpha, beta, gamma = crystal.cell
    _, units = Composition(dict(crystal.composition)).get_reduced_formula_and_factor()
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    cell = zip(names, (a, b, c, alpha, beta, gamma), strict=True)
    return "\n".join(
        [
            f"data_{''.join(crystal.formula.split())}",
            f"_symmetry_space_group_name_H-M '{SpaceGroup.from_int_number(crystal.space_group).symbol}'",
            f"_symmetry_Int_Tables_number {crystal.space_group}",
            *(f"_cell_{name} {value:.4f}" for name, value in cell),
            f"_cell_volume {crystal.volume:.4f}",
            f"_cell_formula_units_Z {units:g}",
            f"_chemical_formula_sum '{crystal.formula}'",
            "",
        ]
    )

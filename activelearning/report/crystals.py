"""The crystals of a campaign with their atoms, as CIF."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from activelearning.candidate import CrystalCandidate, candidate_from_dict
from activelearning.report.reading import header
from activelearning.store.database import Database
from activelearning.store.models import Artifact, Evaluation, State


@dataclass(frozen=True)
class Crystal:
    """A measured crystal.

    Attributes:
        key: Key of the evaluation that the atoms belong to.
        candidate: The candidate.
        cif: Its atoms as CIF text.
    """

    key: str
    candidate: CrystalCandidate
    cif: str


def crystals(database: Database, name: str) -> list[Crystal]:
    """Every successful evaluation's crystal whose atoms are known, in the order of commitment.

    Atoms are those that the oracle kept as a `.cif` file with its answer (realised and relaxed), else the
    candidate's own; a candidate measured by several oracles appears once for each that has atoms of its own.

    Raises:
        InputError: the store holds no such campaign.
    """
    with database.read() as session:
        campaign = header(session, name)
        evaluations = session.scalars(
            select(Evaluation)
            .where(Evaluation.campaign == name, Evaluation.state == State.SUCCEEDED)
            .order_by(Evaluation.round, Evaluation.position)
        ).all()
        files: dict[str, str] = {}
        kept = (
            select(Artifact.evaluation_key, Artifact.path)
            .join(Evaluation, Evaluation.key == Artifact.evaluation_key)
            .where(Evaluation.campaign == name, Artifact.path.endswith(".cif"))
            .order_by(Artifact.path)
        )
        for key, path in session.execute(kept):
            files.setdefault(key, path)
    found = []
    seen: set[str] = set()
    for evaluation in evaluations:
        if evaluation.candidate.get("kind") != CrystalCandidate.kind:
            continue
        candidate = candidate_from_dict(evaluation.candidate)
        assert isinstance(candidate, CrystalCandidate)
        file = Path(campaign.artifacts) / files[evaluation.key] if evaluation.key in files else None
        if file is not None and file.is_file():
            found.append(Crystal(evaluation.key, candidate, file.read_text(encoding="utf-8")))
        elif candidate.structure is not None and candidate.key not in seen:
            seen.add(candidate.key)
            found.append(Crystal(evaluation.key, candidate, str(candidate.structure.to(fmt="cif"))))
    return found

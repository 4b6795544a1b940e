"""The crystals of a campaign with their atoms, as CIF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from activelearning.candidate import CrystalCandidate, candidate_from_dict
from activelearning.report.reading import header
from activelearning.store.database import Database
from activelearning.store.models import Artifact, Campaign, Evaluation, State
from activelearning.store.rows import chunks


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

    Atoms are those that the oracle kept as a `.cif` file with its answer (realised and relaxed), if need be in the
    campaign that the answer is shared from, else the candidate's own; a candidate measured by several oracles appears
    once for each that has atoms of its own.

    Raises:
        InputError: the store holds no such campaign.
    """
    with database.read() as session:
        header(session, name)
        evaluations = session.scalars(
            select(Evaluation)
            .where(Evaluation.campaign == name, Evaluation.state == State.SUCCEEDED)
            .order_by(Evaluation.round, Evaluation.position)
        ).all()
        files = kept_crystals(session, evaluations)
    found = []
    seen: set[str] = set()
    for evaluation in evaluations:
        if evaluation.candidate.get("kind") != CrystalCandidate.kind:
            continue
        candidate = candidate_from_dict(evaluation.candidate)
        assert isinstance(candidate, CrystalCandidate)
        file = files.get(evaluation.key)
        if file is not None:
            found.append(Crystal(evaluation.key, candidate, file.read_text(encoding="utf-8")))
        elif candidate.structure is not None and candidate.key not in seen:
            seen.add(candidate.key)
            found.append(Crystal(evaluation.key, candidate, str(candidate.structure.to(fmt="cif"))))
    return found


def kept_crystals(session: Session, evaluations: Sequence[Evaluation]) -> dict[str, Path]:
    """CIF files that oracles kept with their answers, by the evaluation's key; of those that are there.

    Those of an answer that is shared are in the campaign that it is shared from.
    """
    answers = {e.key: str(e.details.get("shared_from", e.key)) for e in evaluations}
    files: dict[str, Path] = {}
    for keys in chunks(sorted(set(answers.values()))):
        kept = (
            select(Artifact.evaluation_key, Campaign.artifacts, Artifact.path)
            .join(Evaluation, Evaluation.key == Artifact.evaluation_key)
            .join(Campaign, Campaign.name == Evaluation.campaign)
            .where(Artifact.evaluation_key.in_(keys), Artifact.path.endswith(".cif"))
            .order_by(Artifact.path)
        )
        for key, folder, path in session.execute(kept):
            if (file := Path(folder) / path).is_file():
                files.setdefault(key, file)
    return {key: files[answer] for key, answer in answers.items() if answer in files}

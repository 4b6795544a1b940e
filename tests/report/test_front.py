"""Measured fronts: hypervolumes against BoTorch's, bounds and constraints by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from botorch.utils.multi_objective.hypervolume import Hypervolume
from botorch.utils.multi_objective.pareto import is_non_dominated

from activelearning.report.front import Archive, TargetResult, hypervolume, non_dominated, reference_of
from activelearning.report.reading import Header, Limit, Sought
from activelearning.store.models import Evaluation, MeasurementRow


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_hypervolumes_are_botorch_s(k: int) -> None:
    generator = torch.Generator().manual_seed(k)
    for n in (1, 2, 7, 25):
        points = torch.rand(n, k, generator=generator, dtype=torch.float64)
        reference = torch.full((k,), 0.15, dtype=torch.float64)
        found = hypervolume(points.tolist(), reference.tolist())
        if k == 1:
            expected = float((points.max() - 0.15).clamp_min(0.0))
        else:
            expected = Hypervolume(reference).compute(points[is_non_dominated(points)])
        assert found == pytest.approx(expected, abs=1e-12)
        kept = torch.zeros(n, dtype=torch.bool)
        kept[non_dominated(points.tolist())] = True
        assert torch.equal(kept, is_non_dominated(points))


def test_ties_and_points_at_the_reference_have_no_volume_of_their_own() -> None:
    assert hypervolume([], [0.0, 0.0]) == 0.0
    assert hypervolume([(0.0, 5.0), (5.0, -1.0)], [0.0, 0.0]) == 0.0
    assert hypervolume([(1.0, 2.0), (1.0, 2.0), (1.0, 1.0), (2.0, 1.0)], [0.0, 0.0]) == pytest.approx(3.0)
    assert non_dominated([(1.0, 2.0), (1.0, 2.0), (1.0, 1.0)]) == [0]


def campaign(*, reference: float | None = None, constraints: tuple[Limit, ...] = ()) -> Header:
    sought = (Sought("s", "S/cm", True, reference, "s-lab"), Sought("e", "eV", False, None, "e-dft"))
    return Header("x", "running", None, sought, constraints, ("s-lab", "e-dft", "g-dft"), 10.0, ".")


def result(
    name: str, fidelity: str, value: float, *, censoring: str = "none", round: int = 0
) -> TargetResult:
    facts: dict[str, Any] = {"candidate_key": name, "fidelity": fidelity, "round": round}
    return TargetResult(
        Evaluation(**facts), MeasurementRow(value=value, censoring=censoring, property=fidelity[0])
    )


def archive(campaign: Header, *results: TargetResult) -> Archive:
    made = Archive(campaign, reference_of(campaign, results))
    for one in results:
        made.take(one)
    return made


def test_the_front_holds_candidates_measured_at_every_target() -> None:
    results = [
        *(result("a", "s-lab", 1.0), result("a", "e-dft", 0.5)),
        *(result("b", "s-lab", 3.0), result("b", "e-dft", 0.9)),
        *(result("c", "s-lab", 0.5), result("c", "e-dft", 0.6)),  # worse than a in both
        result("d", "s-lab", 9.0),  # not measured in the other
    ]
    found = archive(campaign(), *results)
    assert [c.values for c in found.ranked()] == [(3.0, 0.9), (1.0, 0.5)]
    # The worst first answers are 0.5 and 0.9; their ranges 8.5 and 0.4.
    assert found.reference == (pytest.approx(-0.35), pytest.approx(0.94))
    summary = found.summary()
    assert summary is not None
    assert summary["size"] == 2
    assert summary["hypervolume"] == pytest.approx((3.35 - 1.35) * 0.04 + 1.35 * 0.44)
    assert archive(campaign(), *results[:1]).summary() is None


def test_a_stated_reference_goes_before_the_answers_and_later_rounds_move_none() -> None:
    first = [result("a", "s-lab", 1.0), result("a", "e-dft", 0.5)]
    later = [result("b", "s-lab", -9.0, round=3), result("b", "e-dft", 8.0, round=3)]
    assert reference_of(campaign(reference=-2.0), [*first, *later]) == (-2.0, 0.5)
    assert reference_of(campaign(), [*first, *later]) == (1.0, 0.5)
    assert reference_of(campaign(), later[:1]) == (-9.0, None)
    assert archive(campaign(), *later[:1]).hypervolume() == 0.0


def test_a_bound_counts_where_the_truth_is_at_least_as_good() -> None:
    for censoring, counts in (("none", True), ("lower", True), ("upper", False)):
        found = archive(campaign(), result("a", "s-lab", 1.0, censoring=censoring), result("a", "e-dft", 0.5))
        assert bool(found.candidates()) is counts
    found = archive(campaign(), result("a", "s-lab", 1.0), result("a", "e-dft", 0.5, censoring="lower"))
    assert not found.candidates()  # minimised: at least 0.5 is no achievement


@pytest.mark.parametrize(
    ("value", "censoring", "keeps"),
    [
        (1.5, "none", True),
        (1.0, "none", True),
        (0.9, "none", False),
        (3.1, "none", False),
        (1.2, "lower", False),  # it may be above 3
        (2.0, "upper", False),  # it may be below 1
    ],
)
def test_a_constraint_is_kept_by_what_proves_it(value: float, censoring: str, keeps: bool) -> None:
    limited = campaign(constraints=(Limit("g", "eV", 1.0, 3.0, "g-dft"),))
    measured = [result("a", "s-lab", 1.0), result("a", "e-dft", 0.5)]
    assert not archive(limited, *measured).candidates()  # not measured at all
    found = archive(limited, *measured, result("a", "g-dft", value, censoring=censoring))
    assert bool(found.candidates()) is keeps


def test_a_lower_bound_proves_at_least_and_an_upper_one_at_most() -> None:
    for limit, proof in (
        (Limit("g", None, 1.0, None, "g-dft"), "lower"),
        (Limit("g", None, None, 2.0, "g-dft"), "upper"),
    ):
        for censoring in ("lower", "upper"):
            found = archive(
                campaign(constraints=(limit,)),
                *(result("a", "s-lab", 1.0), result("a", "e-dft", 0.5)),
                result("a", "g-dft", 1.5, censoring=censoring),
            )
            assert bool(found.candidates()) is (censoring == proof)


def test_of_several_answers_the_last_counts() -> None:
    found = archive(
        campaign(), result("a", "s-lab", 1.0), result("a", "e-dft", 0.5), result("a", "s-lab", 0.2)
    )
    assert [c.values for c in found.ranked()] == [(0.2, 0.5)]

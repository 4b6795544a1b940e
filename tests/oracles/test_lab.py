"""The laboratory: requests wait in the store, results are recorded once and converted."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab_cases import CRYSTAL, KEYS, empty_store, laboratory

from activelearning.contracts.oracle import JobState, QueuedOracleLike
from activelearning.errors import ConfigError, InputError
from activelearning.measurement import Censoring, MeasuredValue, Measurement
from activelearning.store.database import Database
from activelearning.store.repository import Repository
from oracles.lab import (
    LabOracle,
    NewResult,
    RefusedError,
    Upload,
    combine,
    list_requests,
    parse_value,
    record,
    record_all,
    reject,
)
from oracles.lab.files import safe_name
from oracles.units import CONDUCTIVITIES, KNOWN, convert, unit_of


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with empty_store(tmp_path) as opened:
        yield opened


@pytest.fixture
def oracle(database: Database, tmp_path: Path) -> LabOracle:
    return laboratory(database, tmp_path / "lab")


def result_of(oracle: LabOracle, key: str) -> MeasuredValue:
    answer = oracle.poll([key])[key]
    assert isinstance(answer, Measurement)
    return answer.values["log10_conductivity"]


def test_lab_is_a_queued_oracle(oracle: LabOracle) -> None:
    assert isinstance(oracle, QueuedOracleLike)
    assert oracle.is_queued
    assert oracle.content() == {}


def test_submitting_twice_makes_one_request(oracle: LabOracle, database: Database) -> None:
    assert oracle.find(KEYS[0]) is None
    assert oracle.submit(CRYSTAL, KEYS[0]) == KEYS[0]
    assert oracle.submit(CRYSTAL, KEYS[0]) == KEYS[0]
    assert oracle.find(KEYS[0]) == KEYS[0]
    (request,) = list_requests(database)
    assert request == {
        "key": KEYS[0],
        "campaign": "search",
        "fidelity": "lab",
        "property": "log10_conductivity",
        "unit": "log10(S/cm)",
        "candidate": CRYSTAL.to_dict(),
        "state": "open",
        "origin": "campaign",
        "created_at": request["created_at"],
        "closed_at": None,
        "result": None,
        "taken": None,
        "results": [],
        "rejection": None,
    }


def test_poll_tells_waiting_answered_cancelled_and_unknown_apart(
    oracle: LabOracle, database: Database
) -> None:
    for key in KEYS:
        oracle.submit(CRYSTAL, key)
    record(database, KEYS[0], -3.5)
    oracle.cancel([KEYS[1], "not there"])
    answers = oracle.poll([*KEYS, "not there"])
    assert isinstance(answers[KEYS[0]], Measurement)
    assert answers[KEYS[1]] is JobState.CANCELLED
    assert answers[KEYS[2]] is JobState.SUBMITTED
    assert answers["not there"] is JobState.LOST


def test_poll_takes_more_ids_than_a_query_has_parameters(oracle: LabOracle) -> None:
    oracle.submit(CRYSTAL, KEYS[0])
    ids = [KEYS[0], *(f"{i:064d}" for i in range(1200))]
    answers = oracle.poll(ids)
    assert list(answers) == ids
    assert answers[KEYS[0]] is JobState.SUBMITTED
    assert all(answers[i] is JobState.LOST for i in ids[1:])


def test_a_result_keeps_what_was_written_and_is_converted_when_polled(
    oracle: LabOracle, database: Database
) -> None:
    oracle.submit(CRYSTAL, KEYS[0])
    kept = record(
        database, KEYS[0], 1.2, std=0.12, unit="mS/cm", method="impedance", by="a chemist", cost=900.0
    )
    assert kept["state"] == "answered"
    assert kept["result"] == {
        "value": 1.2,
        "std": 0.12,
        "unit": "mS/cm",
        "censoring": "none",
        "method": "impedance",
        "recorded_by": "a chemist",
        "cost": 900.0,
        "recorded_at": kept["result"]["recorded_at"],
    }
    answer = oracle.poll([KEYS[0]])[KEYS[0]]
    assert isinstance(answer, Measurement)
    value = answer.values["log10_conductivity"]
    assert value.value == pytest.approx(math.log10(1.2e-3))
    # 10 % of a value is 0.0434 of its decimal logarithm.
    assert value.std == pytest.approx(0.1 / math.log(10))
    assert value.unit == "log10(S/cm)"
    assert answer.cost == 900.0
    assert answer.metadata["recorded_unit"] == "mS/cm"
    assert answer.metadata["method"] == "impedance"


def test_a_bound_stays_a_bound(oracle: LabOracle, database: Database) -> None:
    oracle.submit(CRYSTAL, KEYS[0])
    value, censoring = parse_value("<1e-10")
    record(database, KEYS[0], value, unit="S/cm", censoring=censoring)
    assert result_of(oracle, KEYS[0]) == MeasuredValue(-10.0, "log10(S/cm)", None, Censoring.UPPER)


def test_a_result_without_unit_is_in_the_requests(oracle: LabOracle, database: Database) -> None:
    oracle.submit(CRYSTAL, KEYS[0])
    assert record(database, KEYS[0][:10], -4.25, std=0.2)["result"]["unit"] == "log10(S/cm)"
    assert result_of(oracle, KEYS[0]) == MeasuredValue(-4.25, "log10(S/cm)", 0.2)


def test_any_unit_is_kept_where_the_campaign_states_none(oracle: LabOracle, database: Database) -> None:
    oracle.bind(replace(oracle.context, unit=None))
    oracle.submit(CRYSTAL, KEYS[0])
    record(database, KEYS[0], 5.0, unit="GPa")
    assert result_of(oracle, KEYS[0]) == MeasuredValue(5.0, "GPa")


def test_without_a_campaign_s_unit_all_results_are_in_one(oracle: LabOracle, database: Database) -> None:
    oracle.bind(replace(oracle.context, unit=None))
    for key in KEYS:
        oracle.submit(CRYSTAL, key)
    record(database, KEYS[0], 0.5, unit="mS/cm")
    refused = (
        r"A result {} can't stand beside those in 'mS/cm': the campaign 'search' states no unit for 'lab'"
    )
    with pytest.raises(RefusedError, match=refused.format("in 'S/cm'")):
        record(database, KEYS[0], 5e-4, unit="S/cm", is_replicate=True)
    with pytest.raises(RefusedError, match=refused.format("in 'S/cm'")):
        record(database, KEYS[1], 5e-4, unit="S/cm")
    with pytest.raises(RefusedError, match=refused.format("without a unit")):
        record(database, KEYS[1], 0.7)
    with pytest.raises(RefusedError) as both:
        record_all(database, [NewResult(KEYS[1], 0.7, unit="mS/cm"), NewResult(KEYS[2], 7e-4, unit="S/cm")])
    # The first would be in order, were it alone.
    assert sorted(both.value.problems) == [0, 1]
    assert [r["state"] for r in list_requests(database, state=None)] == ["answered", "open", "open"]
    record(database, KEYS[0], 0.7, unit="mS cm⁻¹", is_replicate=True)
    assert result_of(oracle, KEYS[0]).value == pytest.approx(0.6)
    # A bound in another unit is refused for its unit, not for what its number would mean.
    with pytest.raises(RefusedError, match=refused.format("in 'S/cm'")):
        record(database, KEYS[0], 6e-4, unit="S/cm", censoring=Censoring.UPPER, is_replicate=True)


def test_a_unit_is_corrected_in_all_results_together(oracle: LabOracle, database: Database) -> None:
    oracle.bind(replace(oracle.context, unit=None))
    for key in KEYS[:2]:
        oracle.submit(CRYSTAL, key)
    record(database, KEYS[0], 0.5)
    record(database, KEYS[0], 0.7, is_replicate=True)
    record(database, KEYS[1], 0.6)
    corrections = [
        NewResult(KEYS[0], 0.5, unit="mS/cm", corrects=1),
        NewResult(KEYS[1], 0.6, unit="mS/cm", corrects=1),
        NewResult(KEYS[0], 0.7, unit="mS/cm", corrects=2),
    ]
    with pytest.raises(RefusedError, match="can't stand beside those without a unit"):
        record_all(database, corrections[:2])
    record_all(database, corrections)
    assert result_of(oracle, KEYS[0]).unit == result_of(oracle, KEYS[1]).unit == "mS/cm"
    assert result_of(oracle, KEYS[0]).value == pytest.approx(0.6)
    # One result alone may change its unit.
    oracle.bind(replace(oracle.context, fidelity="other"))
    oracle.submit(CRYSTAL, KEYS[2])
    record(database, KEYS[2], 5.0, unit="GPa")
    record(database, KEYS[2], 5.0, unit="MPa", corrects=1)


def test_a_result_is_never_overwritten(oracle: LabOracle, database: Database) -> None:
    oracle.submit(CRYSTAL, KEYS[0])
    record(database, KEYS[0], -3.0)
    with pytest.raises(InputError, match=r"has a result already.*`--corrects 1`.*`--replicate`"):
        record(database, KEYS[0], -2.0)
    assert result_of(oracle, KEYS[0]).value == -3.0


def test_a_correction_takes_the_place_of_a_result_that_stays(oracle: LabOracle, database: Database) -> None:
    oracle.submit(CRYSTAL, KEYS[0])
    record(database, KEYS[0], -3.0, std=0.1, method="impedance", cost=800.0)
    kept = record(database, KEYS[0], 2.0, unit="mS/cm", corrects=1, by="a chemist")
    assert [(r["number"], r["value"], r["corrects"], r["corrected_by"]) for r in kept["results"]] == [
        (1, -3.0, None, 2),
        (2, 2.0, 1, None),
    ]
    # What the correction does not say again is as it was; the error belongs to the value and is not.
    assert (kept["results"][1]["method"], kept["results"][1]["cost"]) == ("impedance", 800.0)
    assert kept["taken"] == {
        "value": pytest.approx(math.log10(2e-3)),
        "std": None,
        "unit": "log10(S/cm)",
        "censoring": "none",
    }
    assert result_of(oracle, KEYS[0]).value == pytest.approx(math.log10(2e-3))
    with pytest.raises(InputError, match="was corrected by result 2; correct that one"):
        record(database, KEYS[0], -1.0, corrects=1)
    with pytest.raises(InputError, match=r"has no result number 7 to correct: they have the numbers 1, 2"):
        record(database, KEYS[0], -1.0, corrects=7)
    assert record(database, KEYS[0], -2.5, corrects=2)["taken"]["value"] == -2.5


def test_replicates_become_one_value(oracle: LabOracle, database: Database) -> None:
    oracle.submit(CRYSTAL, KEYS[0])
    with pytest.raises(InputError, match="has no result yet that another one could replicate"):
        record(database, KEYS[0], -3.0, is_replicate=True)
    record(database, KEYS[0], -3.0, std=0.1, cost=500.0)
    record(database, KEYS[0], -3.2, std=0.1, is_replicate=True, cost=300.0)
    # Each is 0.1 off their mean, as its error says; with one degree of freedom that is a Birge ratio of sqrt(2).
    mean = result_of(oracle, KEYS[0])
    assert (mean.value, mean.std) == (pytest.approx(-3.1), pytest.approx(0.1))
    answer = oracle.poll([KEYS[0]])[KEYS[0]]
    assert isinstance(answer, Measurement)
    assert answer.cost == 800.0
    assert [facts["recorded_value"] for facts in answer.metadata["replicates"]] == [-3.0, -3.2]
    with pytest.raises(InputError, match="contradicts the measured"):
        record(database, KEYS[0], -9.0, censoring=Censoring.UPPER, is_replicate=True)
    with pytest.raises(InputError, match="either corrects another one or is a replicate"):
        record(database, KEYS[0], -3.0, corrects=1, is_replicate=True)
    assert len(list_requests(database, state=None)[0]["results"]) == 2


def test_a_result_decided_on_an_old_view_is_refused(oracle: LabOracle, database: Database) -> None:
    oracle.submit(CRYSTAL, KEYS[0])
    record(database, KEYS[0], -3.0, n_seen=0)
    with pytest.raises(InputError, match=r"Meanwhile the lab request .* has 1 results, where 0 were seen"):
        record(database, KEYS[0], -3.0, is_replicate=True, n_seen=0)


def test_a_rejected_request_fails_its_evaluation(oracle: LabOracle, database: Database) -> None:
    for key in KEYS:
        oracle.submit(CRYSTAL, key)
    with pytest.raises(InputError, match="needs its reason"):
        reject(database, KEYS[0], reason=" ")
    with pytest.raises(InputError, match="is 0 or more"):
        reject(database, KEYS[0], reason="explosive", cost=-1.0)
    rejected = reject(database, KEYS[0], reason="explosive", by="a chemist", cost=12.0)
    assert rejected["rejection"] == {"reason": "explosive", "by": "a chemist", "cost": 12.0}
    answer = oracle.poll([KEYS[0]])[KEYS[0]]
    assert isinstance(answer, Measurement)
    assert (answer.reason, answer.cost) == ("rejected by the laboratory: explosive", 12.0)
    with pytest.raises(InputError, match=r"was rejected \(explosive\)"):
        record(database, KEYS[0], -3.0)
    with pytest.raises(InputError, match="was rejected before; only an open one"):
        reject(database, KEYS[0], reason="again")
    record(database, KEYS[1], -3.0)
    with pytest.raises(InputError, match="has a result; only an open one"):
        reject(database, KEYS[1], reason="too late")


def test_what_is_recorded_together_is_kept_together_or_not_at_all(
    oracle: LabOracle, database: Database
) -> None:
    for key in KEYS:
        oracle.submit(CRYSTAL, key)
    results = [NewResult(KEYS[0], -3.0), NewResult(KEYS[1], 5.0, unit="eV"), NewResult("zz", -3.0)]
    with pytest.raises(RefusedError) as refused:
        record_all(database, results)
    assert list(refused.value.problems) == [1, 2]
    assert "can't be converted" in refused.value.problems[1]
    assert {r["state"] for r in list_requests(database, state=None)} == {"open"}
    with pytest.raises(RefusedError, match="has a result already"):
        record_all(database, [NewResult(KEYS[0], -3.0), NewResult(KEYS[0], -3.1)])
    assert record_all(database, [NewResult(KEYS[0], -3.0), NewResult(KEYS[0], -3.1, is_replicate=True)]) == [
        KEYS[0],
        KEYS[0],
    ]


def test_a_positive_logarithm_is_meant_only_where_it_is_said(oracle: LabOracle, database: Database) -> None:
    oracle.submit(CRYSTAL, KEYS[0])
    with pytest.raises(InputError, match=r"without a unit would be 10\^0.00032 S/cm"):
        record(database, KEYS[0], 3.2e-4)
    assert record(database, KEYS[0], 3.2e-4, unit="S cm⁻¹")["result"]["unit"] == "S/cm"
    assert result_of(oracle, KEYS[0]).value == pytest.approx(math.log10(3.2e-4))


def test_files_are_kept_with_their_checksums(oracle: LabOracle, database: Database, tmp_path: Path) -> None:
    oracle.submit(CRYSTAL, KEYS[0])
    upload = Upload("../../naïve $(rm) plot.mpt", b"1 2 3")
    with pytest.raises(InputError, match="no campaign 'search', in whose folder"):
        record(database, KEYS[0], -3.0, files=(upload,))
    Repository(database, "search").save({}, str(tmp_path), str(tmp_path / "artifacts"))
    with pytest.raises(InputError, match="has 0 bytes"):
        record(database, KEYS[0], -3.0, files=(upload, Upload("empty", b"")))
    # What a refused result brought is gone again.
    assert [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()] == []
    ((file,),) = [r["files"] for r in record(database, KEYS[0], -3.0, files=(upload,))["results"]]
    assert file["sha256"] == hashlib.sha256(b"1 2 3").hexdigest()
    assert file["path"] == f"lab/lab/{KEYS[0][:16]}/{file['sha256'][:12]}-naive_rm_plot.mpt"
    assert (tmp_path / "artifacts" / file["path"]).read_bytes() == b"1 2 3"
    answer = oracle.poll([KEYS[0]])[KEYS[0]]
    assert isinstance(answer, Measurement)
    assert answer.artifacts == (str(tmp_path / "artifacts" / file["path"]),)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\data\\run 1.mpt", "run_1.mpt"),
        ("...", "file"),
        (".bashrc", "bashrc"),
        ("a\x00b\n.txt", "a_b_.txt"),
        ("x" * 300 + ".csv", "x" * 76 + ".csv"),
    ],
)
def test_names_of_files_are_made_safe(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_a_key_is_found_by_a_beginning_that_is_its_own(oracle: LabOracle, database: Database) -> None:
    for key in KEYS:
        oracle.submit(CRYSTAL, key)
    with pytest.raises(InputError, match=r"'a' fits 2 lab requests \(aa0000.*ab1111"):
        record(database, "a", -3.0)
    with pytest.raises(InputError, match="There is no lab request ''"):
        record(database, "", -3.0)
    # A wildcard of SQL's LIKE is no beginning of any key.
    with pytest.raises(InputError, match="There is no lab request 'a%'"):
        record(database, "a%", -3.0)
    assert record(database, "ab", -3.0)["key"] == KEYS[1]


def test_an_unknown_key_names_the_nearest(oracle: LabOracle, database: Database) -> None:
    with pytest.raises(InputError, match="the store holds none"):
        record(database, "cccc", -3.0)
    oracle.submit(CRYSTAL, KEYS[2])
    with pytest.raises(InputError, match="Did you mean cccccccccccccccc"):
        record(database, "ccccccdc", -3.0)
    with pytest.raises(InputError, match="`activelearning lab list` shows them"):
        record(database, "0123456789", -3.0)


def test_a_cancelled_request_takes_no_result(oracle: LabOracle, database: Database) -> None:
    oracle.submit(CRYSTAL, KEYS[0])
    oracle.cancel([KEYS[0]])
    with pytest.raises(InputError, match="was cancelled"):
        record(database, KEYS[0], -3.0)
    assert list_requests(database) == []
    assert [r["state"] for r in list_requests(database, state=None)] == ["cancelled"]
    assert list_requests(database, campaign="another", state=None) == []


def test_a_cancelled_answer_stays_answered(oracle: LabOracle, database: Database) -> None:
    oracle.submit(CRYSTAL, KEYS[0])
    record(database, KEYS[0], -3.0)
    oracle.cancel([KEYS[0]])
    assert result_of(oracle, KEYS[0]).value == -3.0


@pytest.mark.parametrize(
    ("value", "unit", "std", "message"),
    [
        (0.1, "log10", -0.1, "not negative"),
        (3.0, "eV", None, "'eV' can't be converted to 'log10\\(S/cm\\)'"),
        (0.0, "S/cm", None, "has no logarithm"),
        (-1.0, "mS/cm", None, "has no logarithm"),
        (1.0, "S/cm", -0.1, "not negative"),
        (math.nan, "S/cm", None, "is finite"),
        (math.inf, None, None, "is finite"),
    ],
)
def test_a_wrong_result_is_refused_and_the_request_stays_open(
    oracle: LabOracle, database: Database, value: float, unit: str | None, std: float | None, message: str
) -> None:
    oracle.submit(CRYSTAL, KEYS[0])
    with pytest.raises(InputError, match=message):
        record(database, KEYS[0], value, unit=unit, std=std)
    assert [r["state"] for r in list_requests(database, state=None)] == ["open"]
    assert oracle.poll([KEYS[0]])[KEYS[0]] is JobState.SUBMITTED


@pytest.mark.parametrize(
    ("text", "value", "censoring"),
    [
        ("3.2e-4", 3.2e-4, Censoring.NONE),
        (" -4.5 ", -4.5, Censoring.NONE),
        ("<1E-10", 1e-10, Censoring.UPPER),
        ("<= 2", 2.0, Censoring.UPPER),
        ("> 1e-3", 1e-3, Censoring.LOWER),
    ],
)
def test_values_are_read_as_laboratories_write_them(text: str, value: float, censoring: Censoring) -> None:
    assert parse_value(text) == (value, censoring)


@pytest.mark.parametrize("text", ["", "<", "about 3", "nan", "<inf", "1,5"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no measured value"):
        parse_value(text)


@given(
    st.floats(-12.0, 2.0),
    st.floats(1e-3, 2.0),
    st.sampled_from(CONDUCTIVITIES),
    st.sampled_from(list(Censoring)),
)
def test_conversion_there_and_back_changes_nothing(
    log_value: float, std: float, unit: str, censoring: Censoring
) -> None:
    given_value = MeasuredValue(log_value, "log10(S/cm)", std, censoring)
    there = convert(given_value, unit)
    assert there.unit == unit
    back = convert(there, "log10(S/cm)")
    assert back.value == pytest.approx(log_value, abs=1e-9)
    assert back.std == pytest.approx(std, rel=1e-9)
    assert back.censoring is censoring


@given(st.floats(-8.0, 0.0), st.floats(-8.0, 0.0))
def test_conversion_keeps_the_order_so_that_bounds_stay_bounds(a: float, b: float) -> None:
    for unit in CONDUCTIVITIES:
        lower, upper = (convert(MeasuredValue(x, "log10(S/cm)"), unit).value for x in sorted((a, b)))
        assert lower <= upper


def test_known_conversions() -> None:
    # Li10GeP2S12 conducts 12 mS/cm at room temperature (Kamaya et al., Nature Materials 10, 682, 2011).
    assert convert(MeasuredValue(12.0, "mS/cm"), "S/cm").value == pytest.approx(0.012)
    assert convert(MeasuredValue(12.0, "mS/cm"), "log10(S/cm)").value == pytest.approx(-1.9208, abs=1e-4)
    assert convert(MeasuredValue(1.2, "S/m"), "mS/cm").value == pytest.approx(12.0)


@pytest.mark.parametrize("value", [400.0, -400.0])
def test_an_exponent_beyond_all_numbers_is_refused(value: float) -> None:
    with pytest.raises(InputError, match="check the value and its unit"):
        convert(MeasuredValue(value, "log10(S/cm)"), "S/cm")


@pytest.mark.parametrize(
    ("written", "known"),
    [("log10(S cm^-1)", "log10(S/cm)"), ("log10", "log10(S/cm)"), ("mS cm⁻¹", "mS/cm"), (" GPa", "GPa")],
)
def test_a_campaign_s_unit_in_another_spelling_is_refused(
    oracle: LabOracle, written: str, known: str
) -> None:
    oracle.bind(replace(oracle.context, unit=written))
    with pytest.raises(ConfigError, match=f"knows the unit .* as '{re.escape(known)}': write that"):
        oracle.check()
    oracle.bind(replace(oracle.context, unit=known))
    oracle.check()


def test_a_laboratory_without_a_unit_is_no_trouble_by_itself(oracle: LabOracle) -> None:
    oracle.bind(replace(oracle.context, unit=None))
    oracle.check()


@pytest.mark.parametrize(
    ("written", "unit"),
    [
        ("S cm⁻¹", "S/cm"),
        ("mS·cm^-1", "mS/cm"),
        ("µS cm-1", "uS/cm"),
        ("log10", "log10(S/cm)"),
        (" log10( S cm-1 )", "log10(S/cm)"),
        ("log10 S·cm⁻¹", "log10(S/cm)"),
        ("Log10[S/cm]", "log10(S/cm)"),
        ("log10 mS/cm", "log10 mS/cm"),
        # Natural logarithms and those of other units are not guessed at.
        ("log(S/cm)", "log(S/cm)"),
        ("log10(mS/cm)", "log10(mS/cm)"),
        ("kJ mol-1", "kJ/mol"),
    ],
)
def test_units_are_known_by_their_spellings(written: str, unit: str) -> None:
    assert unit_of(written) == unit


def test_energies_convert_and_are_no_conductivities() -> None:
    # 1 eV a particle is 96.485 kJ/mol, the Faraday constant.
    assert convert(MeasuredValue(96.48533, "kJ/mol", 9.648533), "eV").value == pytest.approx(1.0, abs=1e-6)
    assert convert(MeasuredValue(350.0, "meV", 10.0), "eV").value == pytest.approx(0.35)
    assert convert(MeasuredValue(350.0, "meV", 10.0), "eV").std == pytest.approx(0.01)
    assert set(KNOWN) > set(CONDUCTIVITIES)
    with pytest.raises(InputError, match="known among eV, meV, kJ/mol"):
        convert(MeasuredValue(1.0, "S/cm"), "eV")


def test_replicates_with_errors_are_weighted_as_least_squares_does() -> None:
    values = [(-3.0, 0.1), (-3.3, 0.2), (-2.9, 0.05)]
    found = combine([MeasuredValue(v, "log10(S/cm)", s) for v, s in values])
    y, sigma = np.array(values).T
    design = np.ones((3, 1)) / sigma[:, None]
    estimate, residual, *_ = np.linalg.lstsq(design, y / sigma, rcond=None)
    covariance = np.linalg.inv(design.T @ design)[0, 0]
    assert found.value == pytest.approx(estimate[0])
    assert found.std == pytest.approx(math.sqrt(covariance * max(residual[0] / 2, 1.0)))
    # Values that agree better than their errors say are not taken for more than their errors.
    same = combine([MeasuredValue(-3.0, None, 0.1)] * 4)
    assert (same.value, same.std) == (-3.0, pytest.approx(0.05))


def test_intervals_of_replicates_without_errors_hold_what_they_say() -> None:
    """The error is such that a normal interval of one standard error covers 68.3 %, also for two values."""
    generator = np.random.default_rng(0)
    for n in (2, 3, 6):
        hits = 0
        for draw in generator.normal(-4.0, 0.3, size=(4000, n)):
            found = combine([MeasuredValue(v) for v in draw])
            assert found.std is not None
            hits += abs(found.value + 4.0) <= found.std
        assert hits / 4000 == pytest.approx(0.6827, abs=0.03)  # four standard errors of the count


def test_bounds_among_replicates() -> None:
    def bound(value: float, side: Censoring) -> MeasuredValue:
        return MeasuredValue(value, None, None, side)

    upper, lower = Censoring.UPPER, Censoring.LOWER
    assert combine([bound(-9.0, upper), bound(-10.0, upper)]) == bound(-10.0, upper)
    assert combine([bound(-3.0, lower), bound(-4.0, lower)]) == bound(-3.0, lower)
    assert combine([bound(-3.0, upper), MeasuredValue(-4.0)]) == MeasuredValue(-4.0)
    assert combine([bound(-4.1, upper), MeasuredValue(-4.0, None, 0.1)]).value == -4.0
    with pytest.raises(InputError, match="The bound <-5 contradicts the measured -4"):
        combine([bound(-5.0, upper), MeasuredValue(-4.0, None, 0.1)])
    with pytest.raises(InputError, match="Bounds on both sides"):
        combine([bound(-5.0, upper), bound(-8.0, lower)])

"""The laboratory: requests wait in the store, results are recorded once and converted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activelearning.candidate import CrystalCandidate
from activelearning.contracts.oracle import JobState, OracleContext, QueuedOracleLike
from activelearning.errors import InputError
from activelearning.measurement import Censoring, MeasuredValue, Measurement
from activelearning.store.database import Database, open_database
from oracles.lab import LabOracle, list_requests, parse_value, record
from oracles.units import KNOWN, convert

CRYSTAL = CrystalCandidate(225, {"Li": 4, "Cl": 4}, (5.14, 5.14, 5.14, 90, 90, 90))
KEYS = ["aa" + "0" * 62, "ab" + "1" * 62, "c" * 64]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path}/lab.db", create=True)
    yield opened
    opened.close()


@pytest.fixture
def oracle(database: Database, tmp_path: Path) -> LabOracle:
    lab = LabOracle()
    lab.bind(
        OracleContext(
            campaign="search",
            fidelity="lab",
            property="log10_conductivity",
            unit="log10(S/cm)",
            cost=1000.0,
            store=database.text,
            workdir=tmp_path / "lab",
        )
    )
    return lab


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
        "created_at": request["created_at"],
        "result": None,
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


def test_a_result_is_recorded_once(oracle: LabOracle, database: Database) -> None:
    oracle.submit(CRYSTAL, KEYS[0])
    record(database, KEYS[0], -3.0)
    with pytest.raises(InputError, match="has a result already"):
        record(database, KEYS[0], -2.0)
    assert result_of(oracle, KEYS[0]).value == -3.0


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
    st.sampled_from(KNOWN),
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
    for unit in KNOWN:
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

"""A campaign that waits for a laboratory: `run` exits with 3, `lab record` answers, `tick` takes it in."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def with_a_lab(config: dict[str, Any]) -> None:
    config["name"] = "lab-search"
    config["objective"]["unit"] = "S/cm"
    config["fidelities"][1] = {"name": "lab", "oracle": "lab", "cost": 1, "target": True}
    config["initial_design"] = {"per_fidelity": {"low": 3, "lab": 2}}
    config["stopping"] = {"max_rounds": 1}


def test_a_campaign_waits_for_the_laboratory_and_goes_on(
    run: Run,
    write_config: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prefect_harness: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_config(with_a_lab)
    ran = run("run", path)
    assert ran.code == 3, ran.err
    assert "lab-search is waiting" in ran.out
    assert re.search(r"^out: \d+ at lab$", ran.out, flags=re.MULTILINE)
    standing = run("status", "lab-search", "--json").json
    assert standing["state"] == "waiting"
    waiting = standing["evaluations"]["lab"]["submitted"]
    assert standing["budget"]["reserved"] == waiting >= 2
    assert standing["best"] is None
    assert run("best", "lab-search").err == "No value at the target fidelity yet.\n"

    requests = run("lab", "list", "--json").json
    assert len(requests) == waiting
    assert list(requests[0]) == [
        "key",
        "campaign",
        "fidelity",
        "property",
        "unit",
        "candidate",
        "origin",
        "state",
        "created_at",
        "closed_at",
        "result",
        "taken",
        "results",
        "rejection",
    ]
    assert run("lab", "list", "--campaign", "another", "--json").json == []
    assert requests[0]["key"][:16] in run("lab", "list").out

    first, second, *rest = [request["key"] for request in requests]
    ran = run("lab", "record", first[:12], "--value", "2.5", "--std", "0.1", "--unit", "mS/cm", "--by", "me")
    assert ran.code == 0, ran.err
    assert "Recorded 2.5 ± 0.1 mS/cm" in ran.out
    ran = run("lab", "record", second, "--value", "<1e-10", "--json")
    assert ran.json["result"]["censoring"] == "upper"
    for key in rest:
        assert run("lab", "record", key, "--value", "1e-2").code == 0
    ran = run("lab", "record", first, "--value", "9")
    assert ran.code == 2
    assert "has a result already" in ran.err
    ran = run("lab", "record", "zzz", "--value", "9")
    assert ran.code == 2
    assert "no lab request 'zzz'" in ran.err
    assert run("lab", "record", second, "--value", "about 3").code == 2
    assert run("lab", "list", "--json").json == []
    assert len(run("lab", "list", "--all", "--json").json) == waiting

    # By its name in the store: the config is no longer needed.
    path.unlink()
    ran = run("tick", "lab-search", "--json")
    assert ran.code in (0, 3), ran.err
    assert ran.json["evaluations"]["lab"]["succeeded"] == waiting
    exported = tmp_path / "all.json"
    run("export", "lab-search", "--format", "json", "--out", exported)
    import json

    rows = {row["key"]: row for row in json.loads(exported.read_text())}
    assert rows[first]["value"] == pytest.approx(2.5e-3)
    assert rows[first]["std"] == pytest.approx(1e-4)
    assert (rows[second]["value"], rows[second]["censoring"]) == (1e-10, "upper")


def test_cancelling_withdraws_requests_and_releases_money(
    run: Run,
    write_config: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prefect_harness: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_config(with_a_lab)
    assert run("run", path).code == 3
    ran = run("cancel", "lab-search", "--reason", "no chemist")
    assert (ran.code, ran.out) == (0, "lab-search is cancelled: no chemist\n")
    standing = run("status", "lab-search", "--json").json
    assert (standing["state"], standing["reason"]) == ("cancelled", "no chemist")
    assert standing["budget"]["reserved"] == 0
    assert set(standing["evaluations"]["lab"]) == {"cancelled"}
    assert run("lab", "list", "--json").json == []
    # It stays cancelled, and says so.
    ran = run("run", path)
    assert ran.code == 0
    assert "lab-search is cancelled: no chemist" in ran.out
    ran = run("cancel", "lab-search")
    assert ran.code == 2
    assert "is cancelled already" in ran.err


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the requests of a crystal campaign that waits for its laboratory, in the default store."""
    from activelearning.campaign.config import parse_config
    from activelearning.campaign.engine import Engine
    from activelearning.campaign.tick import tick as one_tick
    from oracles.lab import list_requests

    monkeypatch.chdir(tmp_path)
    config = parse_config(
        {
            "name": "salts",
            "space": {"type": "crystal", "elements": ["Li", "Na", "Cl"], "max_atoms": 16},
            "objective": {"property": "log10_conductivity", "unit": "log10(S/cm)"},
            "fidelities": [{"name": "lab", "oracle": "lab", "cost": 1, "target": True}],
            "sampler": {"type": "random"},
            "acquisition": {"type": "random", "batch_size": 2, "pool_size": 16},
            "initial_design": {"per_fidelity": {"lab": 3}},
            "budget": {"total": 3.5},
        }
    )
    with Engine.open(config, folder=tmp_path, store="sqlite:///activelearning.db") as engine:
        one_tick(engine)
        return [request["key"] for request in list_requests(engine.database)]


def take_in(tmp_path: Path) -> dict[str, Any]:
    """Values of the campaign's evaluations by external id, after it has taken in what was recorded."""
    from activelearning.campaign.config import parse_config
    from activelearning.campaign.engine import Engine
    from activelearning.report import export_rows
    from activelearning.store.database import open_database
    from activelearning.store.repository import Repository

    database = open_database("sqlite:///activelearning.db")
    stored = Repository(database, "salts").stored_config()
    database.close()
    with Engine.open(parse_config(stored), folder=tmp_path, store="sqlite:///activelearning.db") as engine:
        with engine.lease():
            engine.ingest()
        ids = {row.key: row.external_id for row in engine.repository.evaluations()}
        return {ids[row["key"]]: row for row in export_rows(engine.database, "salts")}


def test_a_table_goes_out_and_comes_back(run: Run, asked: list[str], tmp_path: Path) -> None:
    import csv

    assert run("lab", "export", "--out", "lab.csv").code == 0
    with open("lab.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == asked
    assert [row["priority"] for row in rows] == ["1", "2", "3"]
    rows[0] |= {"value": "3.2e-4", "std": "1e-5", "unit": "S cm-1", "by": "=me", "file": "arc.mpt"}
    rows[1] |= {"value": "<1e-10", "unit": "S/cm"}

    def write() -> None:
        with open("lab.csv", "w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)

    write()
    ran = run("lab", "import", "lab.csv")
    assert ran.code == 2
    assert "1 of 3 rows" in ran.err
    assert "line 2: The file arc.mpt can't be read" in ran.err
    (tmp_path / "arc.mpt").write_bytes(b"1 2 3")
    ran = run("lab", "import", "lab.csv")
    assert (ran.code, ran.out) == (0, "Recorded 2 results of 2 materials.\n")
    # Once more, nothing is recorded twice; the row without a value is still nothing.
    ran = run("lab", "import", "lab.csv")
    assert ran.code == 2
    assert "2 of 3 rows" in ran.err
    assert "has a result already" in ran.err
    found = take_in(tmp_path)
    assert found[asked[0]]["value"] == pytest.approx(-3.49485)
    assert (found[asked[1]]["value"], found[asked[1]]["censoring"]) == (-10.0, "upper")
    assert found[asked[2]]["state"] == "submitted"
    ran = run("lab", "export", "--all", "--out", "-")
    told = {row["key"]: row for row in csv.DictReader(ran.out.splitlines())}
    assert told[asked[1]]["value"] == "<1e-10"
    assert told[asked[0]]["by"] == "'=me"  # no formula of a spreadsheet
    assert told[asked[2]]["state"] == "open"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("", "needs the columns 'key' and 'value'"),
        ("key,valu\na,1\n", "a column 'valu'; did you mean 'value'?"),
        ("key,value\na,\n", "holds no result"),
        ("key,value\na,1,2\n", "Line 2 of the table has not 2 cells"),
        ("key,key,value\na,a,1\n", "two columns of one name"),
        ("value,candidate\n1,x.cif\n", "neither a key, nor a candidate and a campaign"),
        ("key,value,replicate\na,1,perhaps\n", "replicate is yes or no"),
        ("key,value,corrects\na,1,first\n", "corrects is the number of a result"),
        ("key,value,std\na,1,inf\n", "std is a finite number"),
        ('key,value\n"a,1\n', "is no CSV"),
    ],
)
def test_tables_that_are_wrong(run: Run, asked: list[str], tmp_path: Path, table: str, said: str) -> None:
    (tmp_path / "lab.csv").write_text(table)
    ran = run("lab", "import", "lab.csv")
    assert ran.code == 2
    assert said in ran.err
    assert {r["state"] for r in run("lab", "list", "--all", "--json").json} == {"open"}


def test_a_sheet_says_what_to_make(run: Run, asked: list[str], tmp_path: Path) -> None:
    ran = run("lab", "sheet", asked[0][:12], "--cif", "one.cif")
    assert ran.code == 0, ran.err
    for label in ("formula", "by mass", "space group", "lattice", "priority", "why"):
        assert f"\n{label} " in ran.out
    assert "part of the initial design" in ran.out
    assert "_cell_length_a" in (tmp_path / "one.cif").read_text()
    found = run("lab", "sheet", asked[0], "--json").json
    assert (found["priority"], found["predicted"]) == (1, None)


def test_a_sheet_has_the_atoms_of_the_dearest_answer(run: Run, asked: list[str], tmp_path: Path) -> None:
    from activelearning.store.database import open_database
    from activelearning.store.models import Artifact, Campaign, Evaluation, Round

    folder = tmp_path / "atoms"
    folder.mkdir()
    with closing(open_database("sqlite:///activelearning.db")) as database, database.write() as session:
        row = session.get(Evaluation, asked[0])
        session.get(Campaign, row.campaign).artifacts = str(folder)
        columns = {c.name: getattr(row, c.name) for c in Evaluation.__table__.columns}
        for position, (name, cost, state) in enumerate(
            [("bvse", 0.1, "succeeded"), ("md", 5.0, "succeeded"), ("dft", 9.0, "failed")], start=100
        ):
            session.add(
                Evaluation(
                    **columns
                    | {"key": name, "content_key": name, "position": position, "fidelity": name}
                    | {"cost_reserved": cost, "state": state}
                )
            )
            session.flush()
            (folder / f"{name}.cif").write_text(f"data_{name}\n")
            session.add(Artifact(evaluation_key=name, path=f"{name}.cif", sha256="0" * 64, size=1))
    ran = run("lab", "sheet", asked[0], "--cif", "one.cif")
    assert ran.code == 0, ran.err
    assert (tmp_path / "one.cif").read_text() == "data_md\n"
    assert "as relaxed for the fidelity 'md'" in ran.out
    # A dearer one was given to another campaign, and is shared: its atoms lie there.
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "relaxed.cif").write_text("data_theirs\n")
    with closing(open_database("sqlite:///activelearning.db")) as database, database.write() as session:
        campaign = session.get(Campaign, columns["campaign"])
        other = {c.name: getattr(campaign, c.name) for c in Campaign.__table__.columns}
        session.add(Campaign(**other | {"name": "other", "artifacts": str(theirs)}))
        session.flush()
        session.add(Round(campaign="other", index=0, summary={}, timings={}, committed_at="2026-01-01"))
        session.flush()
        known = columns | {
            "content_key": "dear",
            "fidelity": "dear",
            "cost_reserved": 7.0,
            "state": "succeeded",
        }
        session.add(Evaluation(**known | {"key": "theirs", "campaign": "other"}))
        session.add(
            Evaluation(**known | {"key": "ours", "position": 103, "details": {"shared_from": "theirs"}})
        )
        session.flush()
        session.add(Artifact(evaluation_key="theirs", path="relaxed.cif", sha256="0" * 64, size=1))
    ran = run("lab", "sheet", asked[0], "--cif", "one.cif")
    assert ran.code == 0, ran.err
    assert (tmp_path / "one.cif").read_text() == "data_theirs\n"
    assert "as relaxed for the fidelity 'dear'" in ran.out


def test_rejections_and_materials_that_nobody_asked_for(run: Run, asked: list[str], tmp_path: Path) -> None:
    from pymatgen.core import Lattice, Structure

    assert run("lab", "reject", asked[0]).code == 2
    ran = run("lab", "reject", asked[0], "--reason", "explosive", "--cost", "0.5")
    assert (ran.code, "Rejected" in ran.out) == (0, True)
    salt = Structure.from_spacegroup(225, Lattice.cubic(5.14), ["Li", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    salt.get_primitive_structure().to(filename=str(tmp_path / "salt.cif"))
    record = ("lab", "record", "--value", "2e-9", "--unit", "S/cm", "--candidate", "salt.cif")
    ran = run(*record)
    assert (ran.code, "--candidate needs --campaign" in ran.err) == (2, True)
    assert run("lab", "record", "--value", "1").code == 2
    assert run("lab", "record", asked[1], "--value", "-3", "--campaign", "salts").code == 2
    ran = run(*record, "--campaign", "salts", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["origin"] == "person"
    found = take_in(tmp_path)
    assert (found[asked[0]]["state"], found[asked[0]]["cost_paid"]) == ("failed", 0.5)
    free = found[ran.json["key"]]
    assert free["value"] == pytest.approx(-8.69897)
    assert free["cost_paid"] == 0.0
    assert '"space_group": 225' in str(free["candidate"]).replace("'", '"')
    # A crystal of an element that the campaign does not know has no features there.
    other = Structure.from_spacegroup(225, Lattice.cubic(6.3), ["K", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    other.to(filename=str(tmp_path / "salt.cif"))
    ran = run(*record, "--campaign", "salts")
    assert (ran.code, "can't learn from this material" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--host", "0.0.0.0"), "say by --url where people reach it"),
        (("--url", "https://lab.example.org/path"), "scheme, host and port alone"),
        (("--host", "203.0.113.7"), "--host 203.0.113.7 --port 8765"),
    ],
)
def test_the_form_is_not_served_where_it_can_not_be(
    run: Run, asked: list[str], options: tuple[str, ...], said: str
) -> None:
    ran = run("lab", "serve", *options)
    assert ran.code == 2
    assert said in ran.err

"""A campaign that waits for a laboratory: `run` exits with 3, `lab record` answers, `tick` takes it in."""

from __future__ import annotations

from collections.abc import Callable
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
    standing = run("status", "lab-search", "--json").json
    assert standing["state"] == "waiting"
    waiting = standing["evaluations"]["lab"]["submitted"]
    assert standing["budget"]["reserved"] == waiting >= 2
    assert standing["best"] is None

    requests = run("lab", "list", "--json").json
    assert len(requests) == waiting
    assert list(requests[0]) == [
        "key",
        "campaign",
        "fidelity",
        "property",
        "unit",
        "candidate",
        "state",
        "created_at",
        "result",
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

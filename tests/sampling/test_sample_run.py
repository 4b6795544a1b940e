"""Sampling end to end: files, resumed trainings, restrictions, and what is refused."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from kill_harness import in_child
from pymatgen.core import Composition, Lattice, Structure

from activelearning.candidate import CrystalCandidate
from activelearning.contracts.sampler import Proposal
from activelearning.crystals.symmetry import space_group
from activelearning.errors import ActiveLearningError, ConfigError, InputError
from activelearning.sampling.config import load_sample_config
from activelearning.sampling.events import InterruptedTrainingError, Progress, Stage
from activelearning.sampling.run import Request, sample
from activelearning.sampling.tables import COLUMNS, read_crystals
from samplers.gflownet import GFlowNetSampler

Write = Callable[..., Path]
RESULTS = ("samples.csv", "summary.json", "structures.json")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every piece, and no page, which takes longer to draw than all the rest."""
    monkeypatch.setattr("activelearning.sampling.training.WRITE_SECONDS", 0.0)
    monkeypatch.setattr("activelearning.sampling.run.RunPage.write", lambda _page, _path: None)


def run(config: Path, out: Path, n: int = 40, **rest: Any) -> dict[str, Any]:
    options = {key: rest.pop(key) for key in ("steps", "trained", "structures") if key in rest}
    request = Request(n=n, out=out, **{"structures": 0, **options})
    return sample(load_sample_config(config), request, folder=config.parent, **rest)


def files(out: Path) -> dict[str, str]:
    return {name: (out / name).read_text() for name in RESULTS}


def test_a_run_writes_crystals_and_structures(write_config: Write, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = run(write_config(), out, structures=3)
    with (out / "samples.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert tuple(reader.fieldnames or ()) == COLUMNS
    assert (
        *("space_group", "composition", "a", "b", "c", "alpha", "beta", "gamma"),
        *("wyckoff", "property", "log_reward"),
    ) == COLUMNS
    assert len(rows) == summary["n"] == 40
    dalton = 1.66053906660
    for row in rows:
        lattice = Lattice.from_parameters(*(float(row[name]) for name in COLUMNS[2:8]))
        composition = Composition(json.loads(row["composition"]))
        assert float(row["property"]) == pytest.approx(dalton * composition.weight / lattice.volume, rel=1e-6)
        assert float(row["log_reward"]) == pytest.approx(2.0 * float(row["property"]))
        assert row["wyckoff"] == ""
    assert json.loads((out / "summary.json").read_text()) == summary
    entries = json.loads((out / "structures.json").read_text())
    cifs = sorted((out / "structures").glob("*.cif"))
    assert len(entries) == len(cifs) == summary["structures"] > 0
    best = max(float(row["log_reward"]) for row in rows)
    assert entries[0]["log_reward"] <= best
    for entry, cif in zip(entries, cifs, strict=True):
        structure = Structure.from_dict(entry["structure"])
        row = rows[entry["row"]]
        assert (
            structure.composition.reduced_formula
            == Composition(json.loads(row["composition"])).reduced_formula
        )
        assert Structure.from_file(cif).volume == pytest.approx(structure.volume, rel=1e-3)


def test_the_summary_has_stable_keys(write_config: Write, tmp_path: Path) -> None:
    summary = run(write_config(), tmp_path / "out")
    assert set(summary) == {
        *(
            "name",
            "steps",
            "n",
            "unique",
            "failed",
            "floored",
            "properties",
            "log_reward",
            "log_z",
            "correlation",
        ),
        *("effective_sample_size", "distinct", "distinct_top", "structures"),
    }
    assert (summary["name"], summary["steps"], summary["failed"]) == ("small", 23, 0)
    density = summary["properties"]["density"]
    assert set(density) == {
        *("unit", "beta", "samples", "untrained", "unrestricted", "validation", "reward"),
    }
    assert (density["unit"], density["beta"]) == ("g/cm3", 2.0)
    assert list(density["samples"]) == ["min", "q25", "median", "q75", "max", "n"]
    assert (density["samples"]["n"], density["reward"]["n"], density["untrained"]["n"]) == (40, 40, 512)
    assert set(summary["correlation"]) == {"pearson", "spearman", "n", "left_out"}
    assert 1.0 <= summary["effective_sample_size"] <= 40.0


@pytest.mark.parametrize("stop_at", [5, 10, 20])
def test_a_stopped_training_goes_on_to_the_same_bits(
    write_config: Write, tmp_path: Path, stop_at: int
) -> None:
    config = write_config()
    whole = run(config, tmp_path / "whole")
    steps: list[int] = []

    def observe(event: Progress | Stage) -> None:
        if isinstance(event, Progress):
            steps.append(event.step)

    with pytest.raises(InterruptedTrainingError, match=f"after {stop_at} of 23 steps"):
        run(config, tmp_path / "cut", observe=observe, must_stop=lambda: bool(steps) and steps[-1] == stop_at)
    assert not (tmp_path / "cut" / "samples.csv").exists()
    assert run(config, tmp_path / "cut", observe=observe) == whole
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    assert steps == [5, 10, 15, 20, 23]


def test_a_killed_training_goes_on_to_the_same_bits(write_config: Write, tmp_path: Path) -> None:
    config = write_config()
    run(config, tmp_path / "whole")

    def killed() -> None:
        def observe(event: Progress | Stage) -> None:
            # Told before the checkpoint of the piece is written: this piece is lost.
            if isinstance(event, Progress) and event.step == 15:
                os.kill(os.getpid(), signal.SIGKILL)

        run(config, tmp_path / "cut", observe=observe)

    assert os.WIFSIGNALED(in_child(killed))
    assert torch.load(tmp_path / "cut" / "checkpoint.pt", weights_only=True)["step"] == 10
    run(config, tmp_path / "cut")
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_a_finished_training_is_not_trained_again_unless_asked_for_more(
    write_config: Write, tmp_path: Path
) -> None:
    config, out = write_config(), tmp_path / "out"
    run(config, out)
    before = (out / "checkpoint.pt").read_bytes()
    events: list[Progress | Stage] = []
    summary = run(config, out, n=7, observe=events.append)
    assert summary["n"] == 7
    assert not [event for event in events if isinstance(event, Progress)]
    assert run(config, out, steps=10)["steps"] == 23
    assert (out / "checkpoint.pt").read_bytes() == before
    assert run(config, out, steps=30, observe=events.append)["steps"] == 30
    assert [event.step for event in events if isinstance(event, Progress)] == [28, 30]
    # More steps are a fit of their own, so that the way there does not matter either.
    run(config, tmp_path / "again")
    run(config, tmp_path / "again", steps=30)
    assert files(out) == files(tmp_path / "again")


def test_a_training_under_way_is_not_cut_short(write_config: Write, tmp_path: Path) -> None:
    config, out = write_config(), tmp_path / "out"
    with pytest.raises(InterruptedTrainingError):
        run(config, out, must_stop=lambda: True)
    with pytest.raises(ConfigError, match=r"begun for 23 steps and has 5\b.*at least 23"):
        run(config, out, steps=12)
    assert run(config, out, steps=5)["steps"] == 5  # taken as it is
    assert run(config, out)["steps"] == 23


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["space"].update(max_atoms=16), r"'space\.max_atoms' was 12 and is now 16"),
        (lambda c: c.update(seed=4), "'seed' was 3 and is now 4"),
        (
            lambda c: c["reward"].update(beta=3.0),
            r"'reward\.beta' was 2\.0 and is now 3\.0",
        ),
        (lambda c: c["space"].pop("max_atoms"), r"'space\.max_atoms' was 12 and is now 80"),
        (lambda c: c["objective"].update(direction="minimize"), r"'objective\.direction' was 'maximize'"),
        (lambda c: c["objective"].update(property="band_gap", unit="eV"), "density and are now band_gap"),
        (lambda c: c["sampler"].update(batch_size=8), r"'sampler\.batch_size' was 16 and is now 8"),
        (
            lambda c: c.update(fidelities=[{"name": "d", "oracle": "density", "params": {"scale": 2.0}}]),
            "the oracle 'density' has other parameters, weights or another version",
        ),
    ],
)
def test_another_training_is_refused_with_the_key(
    write_config: Write, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    out = tmp_path / "out"
    run(write_config(), out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=message):
        run(write_config(change, "changed.yaml"), out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_default_that_is_written_out_makes_no_other_training(write_config: Write, tmp_path: Path) -> None:
    def state(config: dict[str, Any]) -> None:
        config["sampler"].update(learning_rate=0.002, hidden=[32, 32], loss="trajectory_balance")
        config["space"].update(max_atoms_per_element=None, n_elements=[2, 3.0])
        config["reward"].update(type="exponential", floor="1e-8")

    first = run(write_config(), tmp_path / "out")
    assert run(write_config(state, "stated.yaml"), tmp_path / "out") == first
    # Nor in a checkpoint that does not hold the defaults.
    saved = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)
    assert saved["identity"]["sampler"].pop("learning_rate") == 0.002
    torch.save(saved, tmp_path / "out" / "checkpoint.pt")
    assert run(write_config(state, "stated.yaml"), tmp_path / "out") == first


def test_a_trained_sampler_is_drawn_from_with_another_seed(write_config: Write, tmp_path: Path) -> None:
    first = run(write_config(), tmp_path / "first")
    other = write_config(lambda c: c.update(seed=4), "other.yaml")
    second = run(other, tmp_path / "second", trained=tmp_path / "first")
    assert second["steps"] == first["steps"] == 23
    assert second["properties"]["density"]["samples"] != first["properties"]["density"]["samples"]
    assert run(other, tmp_path / "third", trained=tmp_path / "first") == second


def test_an_oracle_that_would_take_hours_is_refused(
    write_config: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activelearning.sampling.speed.SLOW", 0.01)
    (tmp_path / "mine.py").write_text(
        "import time\nfrom oracles import Oracle\n\n\nclass Slow(Oracle):\n"
        "    def evaluate_one(self, candidate):\n        time.sleep(0.02)\n        return float(candidate.n_atoms)\n"
    )

    def slow(config: dict[str, Any]) -> None:
        config["fidelities"] = [{"oracle": "mine.py:Slow"}]
        config["sampler"]["steps"] = 100_000

    with pytest.raises(
        ConfigError, match=r"'mine\.py:Slow' of 'density' takes .* about 1601064 times.* hours"
    ):
        run(write_config(slow), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_results_are_drawn_from_a_trained_sampler(write_config: Write, tmp_path: Path) -> None:
    config = write_config()
    first = run(config, tmp_path / "first")
    second = run(config, tmp_path / "second", trained=tmp_path / "first")
    assert second == first
    assert not (tmp_path / "second" / "checkpoint.pt").exists()
    with pytest.raises(InputError, match="holds no trained sampler"):
        run(config, tmp_path / "third", trained=tmp_path / "nowhere")


def test_a_sampler_that_is_not_trained_in_steps_works_as_well(write_config: Write, tmp_path: Path) -> None:
    summary = run(write_config(lambda c: c.update(sampler={"type": "random"})), tmp_path / "out")
    assert (summary["steps"], summary["correlation"]) == (0, None)
    assert run(write_config(lambda c: c.update(sampler={"type": "random"})), tmp_path / "out") == summary


def test_several_properties_are_rewarded_together(write_config: Write, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from oracles import Oracle\n\n\nclass Atoms(Oracle):\n"
        "    def evaluate_one(self, candidate):\n        return float(candidate.n_atoms)\n"
    )

    def both(config: dict[str, Any]) -> None:
        del config["objective"], config["reward"]
        config["objectives"] = [
            {"property": "density", "reward": {"beta": 1.0}},
            {"property": "n_atoms", "reward": {"type": "target", "target": 6, "beta": 0.5, "floor": 1e-6}},
        ]
        config["fidelities"] = [{"oracle": "mine.py:Atoms", "property": "n_atoms"}]

    out = tmp_path / "out"
    summary = run(write_config(both), out)
    assert set(summary["properties"]) == {"density", "n_atoms"}
    with (out / "samples.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            values = json.loads(row["property"])
            of_atoms = max(-0.5 * (values["n_atoms"] - 6) ** 2, -13.815510557964274)
            assert float(row["log_reward"]) == pytest.approx(values["density"] + of_atoms)


def shown_code() -> list[str]:
    """The Python blocks of the page on sampling."""
    page = (Path(__file__).parents[2] / "docs" / "sampling.md").read_text()
    return re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)


def test_the_reward_in_python_that_the_page_shows_works() -> None:
    shown: dict[str, Any] = {}
    exec(shown_code()[1], shown)  # the page's own code
    sizes = [crystal.n_atoms for crystal in shown["crystals"]]
    untrained = [p.candidate.n_atoms for p in shown["sampler"].sample_untrained(200, seed=1)]
    assert sum(sizes) < 0.9 * sum(untrained)


def test_the_shaping_of_ones_own_that_the_page_shows_works(write_config: Write, tmp_path: Path) -> None:
    code = shown_code()[0]
    (tmp_path / "mine.py").write_text(code)

    def own(config: dict[str, Any]) -> None:
        config["reward"] = {"type": "mine.py:Window", "low": 3.0, "high": 4.0}

    summary = run(write_config(own), tmp_path / "out", steps=60)
    with (tmp_path / "out" / "samples.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            is_inside = 3.0 <= float(row["property"]) <= 4.0
            assert float(row["log_reward"]) == pytest.approx(0.0 if is_inside else -13.8)
    density = summary["properties"]["density"]
    assert density["beta"] is None
    assert run(write_config(own), tmp_path / "out", steps=60) == summary
    (tmp_path / "mine.py").write_text(code.replace("-13.8", "-6.9"))
    with pytest.raises(ConfigError, match=r"the content of 'reward\.type' was another"):
        run(write_config(own), tmp_path / "out", steps=60)


RESTRICTIONS: list[tuple[dict[str, Any], Callable[[CrystalCandidate], bool]]] = [
    ({"elements": ["Fe", "O"], "max_atoms_per_element": 6}, lambda c: {*c.composition} <= {"Fe", "O"}),
    ({"elements": ["Fe", "O"], "max_atoms_per_element": 6}, lambda c: max(c.composition.values()) <= 6),
    ({"crystal_systems": ["cubic"]}, lambda c: c.space_group >= 195),
    ({"lengths": [4.0, 8.0], "angles": [75, 125]}, lambda c: all(4.0 <= x <= 8.0 for x in c.lattice[:3])),
    ({"lengths": [4.0, 8.0], "angles": [75, 125]}, lambda c: all(75 <= x <= 125 for x in c.lattice[3:])),
    ({"composition": {"Li": 2, "O": 1}}, lambda c: dict(c.composition) == {"Li": 2, "O": 1}),
    ({"space_group": 225, "max_atoms": 8}, lambda c: (c.space_group, c.n_atoms <= 8) == (225, True)),
]


@pytest.mark.parametrize(("restrict", "holds"), RESTRICTIONS)
def test_a_trained_sampler_is_held_to_a_part_of_its_space(
    write_config: Write,
    tmp_path: Path,
    restrict: dict[str, Any],
    holds: Callable[[CrystalCandidate], bool],
) -> None:
    whole = run(write_config(), tmp_path / "whole")
    config = write_config(lambda c: c.update(restrict=restrict), "part.yaml")
    summary = run(config, tmp_path / "part", trained=tmp_path / "whole")
    crystals = read_crystals(tmp_path / "part" / "samples.csv")
    assert len(crystals) == 40
    assert all(holds(crystal) for crystal in crystals)
    density = summary["properties"]["density"]
    assert density["unrestricted"] == whole["properties"]["density"]["samples"]
    assert density["untrained"] == whole["properties"]["density"]["untrained"]
    # What was learned is of the whole space.
    assert (whole["log_z"]["learned"], summary["log_z"]["learned"]) != (None, None)
    assert summary["log_z"]["learned"] is None
    assert summary["steps"] == whole["steps"]


def test_a_space_without_lattice_or_with_letters(write_config: Write, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from oracles import Oracle\n\n\nclass Atoms(Oracle):\n"
        "    def evaluate_one(self, candidate):\n        return float(candidate.n_atoms)\n"
    )

    def change(config: dict[str, Any]) -> None:
        config["objective"] = {"property": "n_atoms"}
        config["fidelities"] = [{"oracle": "mine.py:Atoms"}]
        config["space"].update(order=["composition", "space_group"], wyckoff=True)

    summary = run(write_config(change), tmp_path / "out", structures=2)
    assert summary["structures"] == 0  # no cell, no atoms
    with (tmp_path / "out" / "samples.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            assert [row[name] for name in COLUMNS[2:8]] == [""] * 6
            group = space_group(int(row["space_group"]))
            size = {position.letter: position.multiplicity for position in group.wyckoff}
            letters = json.loads(row["wyckoff"])
            atoms = {element: sum(size[letter] for letter in sites) for element, sites in letters.items()}
            assert atoms == json.loads(row["composition"])


def test_atoms_are_the_samplers_own_where_it_gives_them(write_config: Write, tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["space"].update(wyckoff=True, coordinates=True, max_atoms=8)
        config["sampler"]["steps"] = 3

    out = tmp_path / "out"
    summary = run(write_config(change), out, n=10, structures=3)
    assert summary["structures"] == 3
    entries = json.loads((out / "structures.json").read_text())
    assert "sampled" in {entry["coordinates"] for entry in entries}
    for entry in entries:
        structure = Structure.from_dict(entry["structure"])
        counts = {str(element): n for element, n in structure.composition.element_composition.items()}
        assert counts == entry["candidate"]["composition"]
        if entry["coordinates"] == "sampled":
            assert structure.frac_coords.tolist() == entry["candidate"]["structure"]["coordinates"]


def test_validation_crystals_are_compared_with(write_config: Write, tmp_path: Path) -> None:
    run(write_config(), tmp_path / "known", n=30)
    config = write_config(lambda c: c.update(validation="known/samples.csv"), "second.yaml")
    with (tmp_path / "known" / "samples.csv").open("a") as file:
        file.write('225,"{""U"": 4}",5,5,5,90,90,90,,,\n')  # an element that the space has not
    events: list[Progress | Stage] = []
    summary = run(config, tmp_path / "out", observe=events.append)
    assert Stage("30 of 31 crystals are in the space") in events
    known = json.loads((tmp_path / "known" / "summary.json").read_text())
    assert summary["properties"]["density"]["validation"] == known["properties"]["density"]["samples"]


def test_known_crystals_can_be_trained_from(write_config: Write, tmp_path: Path) -> None:
    plain = run(write_config(), tmp_path / "known", n=30)
    config = write_config(lambda c: c.update(dataset="known/samples.csv"), "second.yaml")
    given = run(config, tmp_path / "out")
    assert given["properties"]["density"]["samples"] != plain["properties"]["density"]["samples"]
    lines = (tmp_path / "known" / "samples.csv").read_text().splitlines(keepends=True)
    (tmp_path / "known" / "samples.csv").write_text("".join(lines[:-1]))
    with pytest.raises(ConfigError, match="the content of 'dataset' was another"):
        run(config, tmp_path / "out")


@pytest.mark.parametrize("n_bad", [2, 40])
def test_log_probabilities_that_are_not_finite_are_left_out_and_told(
    write_config: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_bad: int
) -> None:
    tell = GFlowNetSampler.log_probability

    def broken(self: GFlowNetSampler, proposals: list[Proposal]) -> torch.Tensor:
        return torch.where(torch.arange(len(proposals)) < n_bad, -torch.inf, tell(self, proposals))

    monkeypatch.setattr(GFlowNetSampler, "log_probability", broken)
    summary = run(write_config(), tmp_path / "out")
    assert (summary["correlation"]["n"], summary["correlation"]["left_out"]) == (40 - n_bad, n_bad)
    reward = summary["properties"]["density"]["reward"]
    if n_bad == 40:
        assert (summary["effective_sample_size"], summary["log_z"]["estimated"], reward) == (None, None, None)
    else:
        assert reward["n"] == 38
        assert 1.0 <= summary["effective_sample_size"] <= 38.0
    json.loads((tmp_path / "out" / "summary.json").read_text(), parse_constant=pytest.fail)


def test_a_list_of_known_crystals_is_sampled_in_proportion(write_config: Write, tmp_path: Path) -> None:
    run(write_config(), tmp_path / "known", n=30)
    crystals = read_crystals(tmp_path / "known" / "samples.csv")

    def pool(config: dict[str, Any]) -> None:
        config["space"] = {"type": "pool", "file": "known/samples.csv"}
        del config["sampler"]

    summary = run(write_config(pool, "pool.yaml"), tmp_path / "out", n=20)
    assert (summary["n"], summary["unique"]) == (20, 20)
    samples = read_crystals(tmp_path / "out" / "samples.csv")
    assert {crystal.key for crystal in samples} < {crystal.key for crystal in crystals}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda c: c.update(space={"type": "box", "bounds": [[0, 1]]}),
            ConfigError,
            "crystals",
        ),
        (
            lambda c: c["reward"].update(betta=1.0),
            ConfigError,
            r"unknown key 'reward\.betta'; did you mean 'beta'",
        ),
        (
            lambda c: c["reward"].update(type="exponental"),
            ActiveLearningError,
            "no reward named 'exponental'.*'exponential'",
        ),
        (lambda c: c["reward"].update(beta=-1.0), ConfigError, "reward .*beta is -1"),
        (lambda c: c["objective"].update(property="hardness"), ConfigError, "hardness.*`fidelities`"),
        (lambda c: c["objective"].update(unit="kg"), ConfigError, "kg"),
        (lambda c: c.update(fidelities=[{"oracle": "lab"}]), ConfigError, "'lab' answers later"),
        (lambda c: c["sampler"].update(stepps=3), ConfigError, r"sampler\.stepps.*'steps'"),
        (lambda c: c.update(restrict={"elemnts": ["Li"]}), ConfigError, "restrict.*'elements'"),
        (lambda c: c.update(restrict={"elements": ["Xe"]}), ConfigError, "restrict.*Xe"),
        (lambda c: c.update(validation="nowhere.csv"), InputError, "nowhere.csv can't be read"),
        (lambda c: c["reward"].update(caution=1.0), ConfigError, "no standard deviation"),
        (lambda c: c["reward"].update(floor=1e30), ConfigError, "have the same log reward, 69.08"),
    ],
)
def test_bad_input_is_said_before_anything_is_written(
    write_config: Write,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], object],
    error: type[ActiveLearningError],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        run(write_config(change), tmp_path / "out")
    assert not (tmp_path / "out").exists()

"""The DFT oracle: its parameters, jobs of crystals and elements, and whole campaigns, killed and resumed."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kill_harness import in_child

from activelearning.campaign.config import parse_config
from activelearning.campaign.engine import Engine as Campaign
from activelearning.campaign.tick import run
from activelearning.candidate import BoxCandidate, CrystalCandidate
from activelearning.contracts.oracle import JobState, OracleContext, QueuedOracleLike
from activelearning.errors import ConfigError, OracleError, PluginError
from activelearning.measurement import Measurement
from activelearning.store.database import open_database
from activelearning.store.repository import Repository
from oracles.dft import DFTQueueOracle
from oracles.dft.schedulers import SchedulerError

HERE = Path(__file__).parent
POOL = """space_group,composition,a,b,c,alpha,beta,gamma,wyckoff
225,"{""Li"": 4, ""F"": 4}",4.03,4.03,4.03,90,90,90,"{""Li"": [""a""], ""F"": [""b""]}"
225,"{""Li"": 8, ""O"": 4}",4.62,4.62,4.62,90,90,90,"{""Li"": [""c""], ""O"": [""a""]}"
225,"{""Li"": 4, ""Cl"": 4}",5.13,5.13,5.13,90,90,90,"{""Li"": [""a""], ""Cl"": [""b""]}"
"""
LIF = CrystalCandidate(
    225, {"Li": 4, "F": 4}, (4.03, 4.03, 4.03, 90, 90, 90), wyckoff={"Li": ("a",), "F": ("b",)}
)
KEY = "12" * 32
REFERENCES = {"Li": -0.5, "F": -0.25, "O": 0.0, "Cl": 0.0}


def engine_section(fate: str = "converges", seconds: float = 0.0) -> dict[str, Any]:
    return {
        "type": "ase",
        "calculator": "fake_calculators:Spring",
        "parameters": {"fate": fate, "seconds": seconds},
        "environment": {"PYTHONPATH": f"{HERE}:{HERE.parents[1]}"},
    }


def make(workdir: Path, **params: Any) -> DFTQueueOracle:
    given = {"engine": engine_section(), "scheduler": {"type": "local", "total_cores": 2}, "backoff": 0.0}
    oracle = DFTQueueOracle(**{**given, **params})
    context = OracleContext("search", "dft", "formation_energy", "eV/atom", 2.0, "sqlite://", workdir)
    oracle.bind(context)
    oracle.check()
    return oracle


def answers(oracle: DFTQueueOracle, *keys: str) -> list[Measurement]:
    end = time.monotonic() + 120
    while True:
        found = oracle.poll(keys)
        if not any(isinstance(answer, JobState) for answer in found.values()):
            return [found[key] for key in keys]  # type: ignore[misc]
        assert time.monotonic() < end, found
        time.sleep(0.2)


def expected_spring(volume_per_atom: float) -> float:
    """The fake calculator's energy per atom."""
    return -1.0 + 0.5 * math.log(volume_per_atom / 4.0) ** 2


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"engine": {"type": "gpw"}}, r"engine.type is 'gpw'. Did you mean 'gpaw'\?"),
        (
            {"engine": {"type": "gpaw", "protocl": "fast"}},
            "unknown key 'engine.protocl'; did you mean 'protocol'",
        ),
        ({"engine": {"type": "gpaw", "protocol": "best"}}, "'engine.protocol' is 'best'"),
        ({"engine": {"type": "gpaw", "ecut": -1.0}}, "engine.ecut must be above 0"),
        ({"engine": {"type": "gpaw", "spin": {"Xx": 1.0}}}, "engine.spin names 'Xx', which is no element"),
        ({"engine": {"protocol": "fast"}}, "engine.type is missing; take one of gpaw, espresso, ase"),
        ({"engine": {"type": "ase", "calculator": "EMT"}}, "name a class as in 'ase.calculators.emt:EMT'"),
        ({"engine": {"type": "gpaw", "environment": {"A B": "1"}}}, "'A B', which is no name of a variable"),
        ({"scheduler": {"type": "slrm"}}, r"scheduler.type is 'slrm'. Did you mean 'slurm'\?"),
        ({"scheduler": {"type": "local", "cores": 4, "total_cores": 2}}, "the pool has 2"),
        ({"scheduler": {"type": "local", "time_limit": 0}}, "scheduler.time_limit is in seconds"),
        ({"scheduler": {"type": "slurm", "cores": 3, "tasks": 2}}, "scheduler.tasks must divide"),
        ({"scheduler": {"type": "slurm", "options": ["qos"]}}, "'qos', which is no option of sbatch"),
        (
            {"scheduler": {"type": "collections:OrderedDict"}},
            "must be a subclass of oracles.dft.schedulers.base:Sched",
        ),
        ({"max_attempts": 0}, "max_attempts must be at least 1"),
        ({"fmax": 0.0}, "fmax is a force"),
        ({"backoff": -1.0}, "backoff must be 0 or more"),
    ],
)
def test_wrong_parameters_are_named(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DFTQueueOracle(**params)


def test_paths_of_an_engine_take_variables_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = {"type": "espresso", "pseudo_dir": "${PSEUDOS}/sssp", "pseudopotentials": {"Li": "Li.upf"}}
    with pytest.raises(
        ConfigError, match=r"engine\.pseudo_dir: \$.PSEUDOS./sssp names the environment variable"
    ):
        DFTQueueOracle(engine=section)
    monkeypatch.setenv("PSEUDOS", str(tmp_path))
    with pytest.raises(ConfigError, match=rf"engine\.pseudo_dir {tmp_path}/sssp lacks Li\.upf"):
        make(tmp_path, engine=section)


def test_a_class_that_is_not_there_is_told() -> None:
    with pytest.raises(PluginError, match="nowhere"):
        DFTQueueOracle(engine={"type": "nowhere:Engine"})


def test_without_slurm_a_campaign_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="this machine has no sbatch, squeue, scancel, sacct"):
        make(tmp_path, scheduler={"type": "slurm"})


def test_another_unit_is_refused(tmp_path: Path) -> None:
    oracle = make(tmp_path)
    oracle.bind(replace(oracle.context, unit="eV"))
    with pytest.raises(ConfigError, match=r"answers in eV/atom, but the unit of .* is given as 'eV'"):
        oracle.check()


def test_content_is_what_changes_results_and_nothing_else(tmp_path: Path) -> None:
    base = make(tmp_path).content()
    assert make(tmp_path, scheduler={"type": "local", "total_cores": 1, "time_limit": 5.0}).content() == base
    assert make(tmp_path, max_attempts=7, cost_per_core_hour=3.0).content() == base
    for changed in (
        {"engine": engine_section(seconds=1.0)},
        {"relax": "cell"},
        {"task": "energy"},
        {"references": {"Li": -1.0}},
    ):
        assert make(tmp_path, **changed).content() != base
    json.dumps(base)
    gpaw = [DFTQueueOracle(engine={"type": "gpaw", **more}).content() for more in ({}, {"ecut": 500.0})]
    assert gpaw[0] == gpaw[1]  # the protocol's own figure, stated
    assert DFTQueueOracle(engine={"type": "gpaw", "protocol": "fast"}).content() != gpaw[0]


def test_a_formation_energy_is_measured_against_elements_computed_once(tmp_path: Path) -> None:
    oracle = make(tmp_path)
    assert isinstance(oracle, QueuedOracleLike)
    other = "34" * 32
    assert oracle.find(KEY) is None
    assert oracle.submit(LIF, KEY) == KEY
    assert oracle.find(KEY) == KEY
    again = make(tmp_path, cost_per_core_hour=10.0)
    again.submit(LIF, other)
    first, second = answers(again, KEY, other)
    volume = {"LiF": 4.03**3 / 8, "Li": 3.49**3 / 2, "F": 8.0 * 8.25 * (8.5 + 1.4119) / 2}
    expected = expected_spring(volume["LiF"]) - 0.5 * sum(expected_spring(volume[s]) for s in ("Li", "F"))
    value = first.values["formation_energy"]
    assert value.value == pytest.approx(expected, abs=1e-6)
    assert value.unit == "eV/atom"
    assert second.values == first.values
    # In the primitive cell, with every file kept.
    assert first.metadata["n_atoms"] == 2
    assert {Path(path).name for path in first.artifacts} == {
        "job.json",
        "result.json",
        "job.sh",
        "attempt-1.log",
    }
    assert first.cost == pytest.approx(10.0 * first.metadata["core_hours"])
    assert first.seconds == pytest.approx(3600 * first.metadata["core_hours"])
    elements = sorted((tmp_path / "jobs").glob("reference-*"))
    assert [path.name.split("-")[1] for path in elements] == ["F", "Li"]
    assert [(path / "ran").read_text() for path in elements] == ["1\n", "1\n"]


def test_stated_references_need_no_jobs(tmp_path: Path) -> None:
    oracle = make(tmp_path, references=REFERENCES)
    oracle.submit(LIF, KEY)
    (answer,) = answers(oracle, KEY)
    assert answer.values["formation_energy"].value == pytest.approx(expected_spring(4.03**3 / 8) + 0.375)
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == [KEY]


def test_a_calculator_without_moments_computes_elements_that_have_some(tmp_path: Path) -> None:
    """O2 comes as a triplet; a potential knows of no spin, and has an energy all the same."""
    oracle = make(tmp_path)
    oxide = CrystalCandidate(
        225, {"Li": 8, "O": 4}, (4.62, 4.62, 4.62, 90, 90, 90), wyckoff={"Li": ("c",), "O": ("a",)}
    )
    oracle.submit(oxide, KEY)
    (answer,) = answers(oracle, KEY)
    assert answer.is_success, answer.reason


def test_a_failed_element_fails_what_needs_it_and_costs_later_ones_nothing(tmp_path: Path) -> None:
    oracle = make(tmp_path, engine=engine_section("diverges"))
    oracle.submit(LIF, KEY)
    (answer,) = answers(oracle, KEY)
    assert answer.reason is not None
    assert answer.reason.startswith("did not converge")
    end = time.monotonic() + 60
    (element,) = (path.name for path in (tmp_path / "jobs").glob("reference-F-*"))
    while oracle.queue.over(element) is None:
        oracle.queue.look([element])
        assert time.monotonic() < end
        time.sleep(0.2)
    with pytest.raises(
        OracleError, match=r"energy of elemental F could not be computed \(did not conv.*references"
    ):
        oracle.submit(LIF, "56" * 32)


def test_campaigns_with_pools_of_their_own_share_elements(tmp_path: Path) -> None:
    """Each asks for the elements of both, which wait, run and end in the pool of the other."""
    params = {
        "folder": tmp_path / "shared",
        "engine": engine_section(seconds=1.5),
        "scheduler": {"type": "local", "total_cores": 1},  # so that some are waiting while others run
    }
    chloride = CrystalCandidate(
        225, {"Li": 4, "Cl": 4}, (5.13, 5.13, 5.13, 90, 90, 90), wyckoff={"Li": ("a",), "Cl": ("b",)}
    )
    keys, crystals = ["12" * 32, "34" * 32], [LIF, chloride]
    oracles = [make(tmp_path / name, **params) for name in ("one", "two")]
    for oracle, crystal, key in zip(oracles, crystals, keys, strict=True):
        oracle.submit(crystal, key)
    found: dict[str, Any] = {}
    end = time.monotonic() + 120
    while len(found) < 2:
        for oracle, key in zip(oracles, keys, strict=True):
            answer = oracle.poll([key])[key]
            if isinstance(answer, Measurement):
                found[key] = answer
        assert time.monotonic() < end
        time.sleep(0.1)
    assert [found[key].reason for key in keys] == [None, None]
    assert [found[key].metadata["attempts"] for key in keys] == [1, 1]
    elements = sorted((tmp_path / "shared").glob("reference-*"))
    assert [path.name.split("-")[1] for path in elements] == ["Cl", "F", "Li"]
    assert [(path / "ran").read_text() for path in elements] == ["1\n"] * 3
    records = [json.loads((path / "record.json").read_text())["attempts"] for path in elements]
    assert [(a["number"], a["fault"]) for (a,) in records] == [(1, None)] * 3
    # Lithium came with the first crystal, and is in its pool.
    pools = [f"local:{tmp_path.resolve() / name / 'pool'}" for name in ("two", "one", "one")]
    assert [a["holder"] for (a,) in records] == pools


def test_only_elements_that_are_waited_for_are_looked_at(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    first = make(tmp_path / "one", folder=shared, engine=engine_section("hangs"))
    second = make(tmp_path / "two", folder=shared, references={"Li": -0.5})
    first.submit(LIF, KEY)
    second.submit(LIF, "34" * 32)
    asked: list[str] = []
    look = second.queue.look
    second.queue.look = lambda keys: (asked.extend(keys), look(keys))[1]  # type: ignore[method-assign]
    second.poll(["34" * 32])
    first.queue.cancel([KEY, *(path.name for path in shared.glob("reference-*"))])
    key, element = asked
    assert key == "34" * 32
    assert element.startswith("reference-F-")
    answers(second, key)


def test_a_cancelled_element_is_computed_again(tmp_path: Path) -> None:
    oracle = make(tmp_path, engine=engine_section(seconds=1.0))
    oracle.submit(LIF, KEY)
    (element,) = (tmp_path / "jobs").glob("reference-Li-*")
    oracle.queue.cancel([element.name])
    (answer,) = answers(oracle, KEY)
    assert answer.is_success
    assert (element / "ran").read_text().split()[-1] == "2"


def test_an_element_whose_folder_was_removed_is_computed_again(tmp_path: Path) -> None:
    import shutil

    oracle = make(tmp_path, engine=engine_section())
    oracle.submit(LIF, KEY)
    answers(oracle, KEY)
    (element,) = (tmp_path / "jobs").glob("reference-Li-*")
    shutil.rmtree(element)
    (answer,) = answers(oracle, KEY)
    assert answer.is_success
    assert (element / "ran").read_text() == "1\n"


@pytest.mark.parametrize(
    ("candidate", "params", "message"),
    [
        (BoxCandidate((1.0,)), {}, "computes crystals, not a BoxCandidate"),
        (CrystalCandidate(225, {"Li": 4, "F": 4}), {}, "has no lattice"),
        (LIF, {"max_atoms": 1}, "primitive cell has 2 atoms, more than max_atoms = 1"),
        (LIF, {"potential": "mace:student-lipscl"}, "the potential mace:student-lipscl does not cover F$"),
        (
            LIF,
            {"potential": "ase.calculators.emt:EMT"},
            r"trials on its cell of 65 Å³: the potential fails: NotImplementedError: No EMT-potential for \w+$",
        ),
        (CrystalCandidate(225, {"Mn": 4}, (4, 4, 4, 90, 90, 90)), {}, "no elemental reference for Mn"),
    ],
)
def test_what_can_not_be_computed_is_refused(
    tmp_path: Path, candidate: Any, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(OracleError, match=message):
        make(tmp_path, **params).submit(candidate, KEY)
    assert make(tmp_path).find(KEY) is None


def test_a_potential_is_a_name_or_a_mapping_and_is_loaded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from oracles.dft import structure as module

    loaded, load = [], module.load_calculator
    monkeypatch.setattr(module, "load_calculator", lambda spec: (loaded.append(spec), load(spec))[1])
    spec = {"name": "ase.calculators.lj:LennardJones", "parameters": {"sigma": 2.5, "rc": 6.0}}
    oracle = make(tmp_path, references=REFERENCES, potential=spec)
    for key in (KEY, "34" * 32):
        oracle.submit(LIF, key)
    assert len(loaded) == 1
    assert oracle.content() == make(tmp_path, references=REFERENCES, potential=spec).content()
    other = {**spec, "parameters": {"sigma": 2.0, "rc": 6.0}}
    assert make(tmp_path, references=REFERENCES, potential=other).content() != oracle.content()
    with pytest.raises(ConfigError, match=r"unknown key 'parametrs'\. Did you mean 'parameters'"):
        DFTQueueOracle(potential={"name": "chgnet", "parametrs": {}})


def test_the_energetically_best_realisation_is_computed(tmp_path: Path) -> None:
    """Six free coordinates, of which the potential's lowest draw is taken and not the first."""
    from ase import Atoms

    from activelearning.crystals.realise import realise
    from oracles.dft.structure import primitive
    from oracles.potentials import load_calculator

    crystal = CrystalCandidate(1, {"Li": 3, "S": 2}, (4.9, 5.3, 5.8, 80, 95, 102))
    draws = realise(crystal, n_trials=4, seed=int(KEY[:16], 16) >> 1)
    energies = []
    for draw in draws:
        atoms = draw.atoms.copy()
        atoms.calc = load_calculator("mace:student-lipscl")
        energies.append(atoms.get_potential_energy())
    best = int(np.argmin(energies))
    assert best != 0
    oracle = make(tmp_path, task="energy", potential="mace:student-lipscl", n_realisations=4)
    oracle.submit(crystal, KEY)
    job = json.loads((tmp_path / "jobs" / KEY / "job.json").read_text())["atoms"]
    found = Atoms(job["numbers"], job["positions"], cell=job["cell"], pbc=True)
    np.testing.assert_allclose(found.positions, primitive(draws[best].atoms).positions, atol=1e-9)


class Search:
    """A campaign over three crystals."""

    def __init__(self, folder: Path, scheduler: dict[str, Any]) -> None:
        self.folder = folder
        self.store = f"sqlite:///{folder / 'store.db'}"
        self.scheduler = scheduler
        (folder / "pool.csv").write_text(POOL)

    def config(
        self, fate: str = "converges", more_params: Mapping[str, Any] | None = None, **fidelity: Any
    ) -> Any:
        params = {
            "engine": engine_section(fate),
            "scheduler": self.scheduler,
            "references": REFERENCES,
            "backoff": 0.0,
            "max_attempts": 2,
            **(more_params or {}),
        }
        dft = {"name": "dft", "oracle": "dft_queue", "cost": 1.0, "params": params, **fidelity}
        return parse_config(
            {
                "name": "search",
                "space": {"type": "pool", "file": "pool.csv"},
                "objective": {"property": "formation_energy", "unit": "eV/atom", "direction": "minimize"},
                "fidelities": [dft],
                "acquisition": {"type": "random"},
                "initial_design": {"per_fidelity": {"dft": 3}},
                "budget": {"total": 3.0},
            }
        )

    def open(self, config: Any, **more: Any) -> Campaign:
        return Campaign.open(config, folder=self.folder, store=self.store, **more)

    def until_finished(self, config: Any) -> None:
        end = time.monotonic() + 180
        while True:
            with self.open(config) as engine:
                decision = run(engine)
            if decision.action == "finished":
                return
            assert time.monotonic() < end, decision
            time.sleep(0.5)

    def rows(self) -> list[Any]:
        database = open_database(self.store)
        try:
            return Repository(database, "search").evaluations()
        finally:
            database.close()

    def jobs(self) -> list[Path]:
        return sorted(
            path for path in self.folder.glob("**/jobs/*") if path.is_dir() and len(path.name) == 64
        )


@pytest.fixture
def search(tmp_path: Path, scheduler_section: dict[str, Any]) -> Search:
    return Search(tmp_path, scheduler_section)


def test_a_campaign_waits_for_its_jobs_and_pays_what_they_took(search: Search) -> None:
    # Long enough that none is over while the last is handed over.
    config = search.config(more_params={"engine": engine_section(seconds=3.0)}, charge="measured")
    with search.open(config) as engine:
        decision = run(engine)
        assert decision.action == "waiting"
        n_open = sum(row.state not in ("succeeded", "failed") for row in search.rows())
        assert engine.balance().reserved == n_open > 0
    search.until_finished(config)
    rows = search.rows()
    assert {row.state for row in rows} == {"succeeded"}
    assert len({row.candidate_key for row in rows}) == len(rows) == 3
    for row in rows:
        assert row.cost_paid == pytest.approx(row.details["core_hours"])
        assert 0.0 < row.cost_paid < 1.0
    with search.open(config) as engine:
        balance = engine.balance()
    assert balance.reserved == 0.0
    assert balance.spent == pytest.approx(sum(row.cost_paid for row in rows))
    assert [(path / "ran").read_text() for path in search.jobs()] == ["1\n"] * 3


@pytest.mark.parametrize("event", ["evaluation.handed_over", "step.submit"])
def test_a_campaign_killed_between_submit_and_record_submits_nothing_twice(
    search: Search, event: str
) -> None:
    config = search.config()
    n_kills = 0
    for nth in range(3):

        def die(name: str, _facts: Mapping[str, Any], left: list[int]) -> None:
            if name == event:
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)
                left.pop()

        def work(die: Callable[..., None] = die, nth: int = nth) -> None:
            left = [0] * min(nth, 1)
            with search.open(config, observer=lambda name, facts: die(name, facts, left)) as engine:
                run(engine)

        status = in_child(work)
        n_kills += os.WIFSIGNALED(status)
    assert n_kills >= 1
    search.until_finished(config)
    rows = search.rows()
    assert [row.state for row in rows] == ["succeeded"] * 3
    assert sum(row.cost_paid for row in rows) == 3.0
    assert sorted(path.name for path in search.jobs()) == sorted(row.key for row in rows)
    assert [(path / "ran").read_text() for path in search.jobs()] == ["1\n"] * 3
    assert [len(json.loads((p / "record.json").read_text())["attempts"]) for p in search.jobs()] == [1] * 3


def test_failures_are_recorded_with_their_reason(search: Search) -> None:
    config = search.config("diverges")
    search.until_finished(config)
    rows = search.rows()
    assert {row.state for row in rows} == {"failed"}
    for row in rows:
        assert row.reason.startswith("did not converge: fake_calculators.ConvergenceError")
        assert 0 < row.cost_paid < 1.0  # a failure pays what it took


def test_a_crystal_that_the_potential_lacks_elements_of_fails_at_once_and_free_of_charge(
    tmp_path: Path,
) -> None:
    search = Search(tmp_path, {"type": "local", "total_cores": 2})
    search.until_finished(search.config(more_params={"potential": "mace:student-lipscl"}))
    found = {json.dumps(row.candidate["composition"]): row for row in search.rows()}
    chloride = found.pop('{"Cl": 4, "Li": 4}')
    assert chloride.state == "succeeded"
    assert {composition: (row.state, row.cost_paid) for composition, row in found.items()} == {
        '{"F": 4, "Li": 4}': ("failed", 0.0),
        '{"Li": 8, "O": 4}': ("failed", 0.0),
    }
    reasons = sorted(row.reason for row in found.values())
    assert [reason[-1] for reason in reasons] == ["F", "O"]
    assert all("'dft_queue' refuses it: the potential mace:student-lipscl does not" in r for r in reasons)


def test_a_cancelled_campaign_cancels_its_jobs(search: Search) -> None:
    from activelearning.store.models import CampaignState

    config = search.config("hangs")
    with search.open(config) as engine:
        run(engine)
        engine.repository.set_state(CampaignState.CANCELLED, "enough")
        assert run(engine).action == "cancelled"
        assert engine.balance().reserved == 0.0
    assert {row.state for row in search.rows()} == {"cancelled"}
    assert {json.loads((path / "record.json").read_text())["cancelled"] for path in search.jobs()} == {True}


def test_a_scheduler_that_can_not_be_reached_is_waited_for(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    from oracles.dft.schedulers import LocalScheduler, SlurmScheduler

    def refuse(*_: Any) -> Any:
        raise SchedulerError("Unable to contact slurm controller")

    config = search.config()
    with monkeypatch.context() as patch:
        for cls in (LocalScheduler, SlurmScheduler):
            patch.setattr(cls, "submit", refuse)
        with search.open(config) as engine:
            decision = run(engine)
        assert decision.action == "waiting"
        assert "Unable to contact slurm controller" in decision.reason
        assert {row.state for row in search.rows()} == {"intent"}
    search.until_finished(config)
    assert [(path / "ran").read_text() for path in search.jobs()] == ["1\n"] * 3


def test_elements_have_sensible_bonds() -> None:
    from ase.neighborlist import neighbor_list

    from oracles.dft.references import is_molecule, reference_atoms

    # Nearest neighbours, Å (CRC Handbook of Chemistry and Physics).
    known = {"Li": 3.02, "F": 1.412, "O": 1.208, "S": 2.055, "P": 2.22, "Si": 2.352, "Se": 2.37, "Mg": 3.20}
    for symbol, distance in known.items():
        atoms = reference_atoms(symbol)
        assert neighbor_list("d", atoms, 3.5).min() == pytest.approx(distance, abs=0.03), symbol
        assert is_molecule(atoms) == (symbol in ("F", "O", "S"))
    sulphur = reference_atoms("S")
    angles = [sulphur.get_angle(i, (i + 1) % 8, (i + 2) % 8) for i in range(8)]
    np.testing.assert_allclose(angles, 108.2, atol=0.1)
    torsions = [
        abs((sulphur.get_dihedral(*[(i + j) % 8 for j in range(4)]) + 180) % 360 - 180) for i in range(8)
    ]
    np.testing.assert_allclose(torsions, 98.5, atol=1.0)  # measured: 98.5° (Rettig and Trotter 1987)
    assert reference_atoms("O").get_initial_magnetic_moments().sum() == 2.0


def test_the_interpreter_may_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def engine(python: str) -> dict[str, Any]:
        return {**engine_section(), "python": python}

    monkeypatch.setenv("ENGINES", str(Path(sys.executable).parent))
    oracle = make(tmp_path, engine=engine("${ENGINES}/" + Path(sys.executable).name))
    assert oracle.engine.command == f"{sys.executable} -u runner.py"
    assert oracle.content() == make(tmp_path).content()
    with pytest.raises(ConfigError, match=r"engine.python: .* names the environment variable NO_ENGINES"):
        make(tmp_path, engine=engine("${NO_ENGINES}/python"))
    with pytest.raises(ConfigError, match=r"engine.python is 'bin/python'.*write the path in full"):
        make(tmp_path, engine=engine("bin/python"))
    with pytest.raises(ConfigError, match=r"engine.python is /nowhere/python, which is no program of this"):
        make(tmp_path, engine=engine("/nowhere/python"))
    make(tmp_path, engine=engine("python-of-a-module"))  # which `setup` puts on the path


LENNARD_JONES = {"sigma": 2.5, "epsilon": 0.2, "rc": 6.0, "smooth": True}
ARGON_LIKE = {"name": "ase.calculators.lj:LennardJones", "parameters": LENNARD_JONES}


def test_a_job_starts_where_a_potential_has_relaxed_the_crystal(tmp_path: Path) -> None:
    """The lattice of the job is the one of least energy of that potential, found by a scan."""
    from ase import Atoms
    from ase.calculators.lj import LennardJones
    from scipy.optimize import minimize_scalar

    oracle = make(
        tmp_path,
        task="energy",
        potential=ARGON_LIKE,
        prerelax_steps=300,
        engine={
            "type": "ase",
            "calculator": "ase.calculators.lj:LennardJones",
            "parameters": LENNARD_JONES,
        },
    )
    oracle.submit(LIF, KEY)
    (answer,) = answers(oracle, KEY)

    def energy(a: float) -> float:
        """Of rock salt with the lattice parameter `a`, eV/atom."""
        half = a / 2.0
        atoms = Atoms(
            "LiF",
            [(0, 0, 0), (half, half, half)],
            cell=[(0, half, half), (half, 0, half), (half, half, 0)],
            pbc=True,
            calculator=LennardJones(**LENNARD_JONES),
        )
        return float(atoms.get_potential_energy()) / 2.0

    best = minimize_scalar(energy, bounds=(3.0, 6.0), method="bounded", options={"xatol": 1e-4})
    assert answer.values["formation_energy"].value == pytest.approx(best.fun, abs=1e-3)
    volume = abs(np.linalg.det(answer.metadata["cell"]))
    assert (4.0 * volume) ** (1.0 / 3.0) == pytest.approx(best.x, abs=0.02)
    assert abs(best.x - 4.03) > 0.1  # it was elsewhere before
    assert answer.metadata["prerelaxation"]["relaxation_converged"]
    assert answer.metadata["n_atoms"] == 2


def test_relaxing_first_is_part_of_what_an_answer_is(tmp_path: Path) -> None:
    plain = make(tmp_path, potential=ARGON_LIKE).content()
    relaxed = make(tmp_path, potential=ARGON_LIKE, prerelax_steps=100).content()
    assert plain != relaxed
    assert not {"prerelax_steps", "prerelax_keeps_symmetry"} & set(plain)  # as before there was such a thing
    with pytest.raises(
        ConfigError, match="no potential to take them; add one, as in 'potential: mace:student'"
    ):
        make(tmp_path, prerelax_steps=100)


def test_what_the_potential_does_not_cover_is_refused(tmp_path: Path) -> None:
    oracle = make(tmp_path, potential="mace:student-lipscl", prerelax_steps=5, references=REFERENCES)
    with pytest.raises(OracleError, match="mace:student-lipscl does not cover F"):
        oracle.submit(LIF, KEY)
    assert oracle.find(KEY) is None

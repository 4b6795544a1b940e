"""Several crystals at a time: the same energies, forces and answers as one by one."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from md_cases import SHORT, crystal, oracle, rocksalt

from activelearning.candidate import BoxCandidate, CrystalCandidate
from activelearning.errors import ConfigError
from oracles.dynamics.motion import SimulationError
from oracles.mace_md import MaceMDOracle
from oracles.mace_md.batch import BatchedMace, drive_together
from oracles.potentials import load_calculator
from oracles.potentials.student.structures import argyrodite

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
        ],
    ),
]


def structures():
    """Cells of different sizes and shapes, off their minima."""
    made = [
        argyrodite(primitive=True),
        bulk("LiCl", "rocksalt", a=5.13),
        bulk("LiCl", "rocksalt", a=5.2, cubic=True),
    ]
    for k, atoms in enumerate(made):
        atoms.rattle(0.1, seed=k)
    return made


@pytest.mark.parametrize("device", DEVICES)
def test_a_batch_has_the_energies_and_forces_of_each_alone(device):
    calculator = load_calculator("mace:student", dtype="float64")
    batched = BatchedMace(load_calculator("mace:student", dtype="float64", device=device))
    for atoms, (energy, forces) in zip(structures(), batched(structures()), strict=True):
        atoms.calc = calculator
        assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-9)


def test_what_the_potential_does_not_know_fails_alone():
    batched = BatchedMace(load_calculator("mace:student"))
    good, unknown = structures()[0], bulk("FeO", "rocksalt", a=4.3)
    answers = batched([good, unknown, good])
    assert isinstance(answers[1], SimulationError)
    assert "unknown elements: Fe" in str(answers[1])
    np.testing.assert_array_equal(answers[0][1], answers[2][1])
    np.testing.assert_array_equal(answers[0][1], batched([good])[0][1])


@pytest.mark.parametrize("size", [1, 2, 5])
def test_dynamics_of_different_lengths_share_the_places(size):
    seen = []

    def counting(name, n):
        total = 0.0
        for _ in range(n):
            energy, _forces = yield name
            total += energy
        return name, total

    def failing(name):
        try:
            yield name
        except SimulationError as error:
            return name, str(error)

    def evaluate(batch):
        seen.append(list(batch))
        return [SimulationError("no") if name == "bad" else (1.0, None) for name in batch]

    works = [counting("a", 3), counting("none", 0), failing("bad"), counting("b", 1), counting("c", 5)]
    assert drive_together(works, evaluate, size) == [
        ("a", 3.0),
        ("none", 0.0),
        ("bad", "no"),
        ("b", 1.0),
        ("c", 5.0),
    ]
    assert sum(len(batch) for batch in seen) == 10
    assert max(len(batch) for batch in seen) == min(size, 4)  # one is done before it begins


@pytest.mark.parametrize("device", DEVICES)
def test_answers_are_those_of_each_alone(tmp_path, device):
    """Double precision, short runs: the same crystals, steps and samples to within rounding."""
    params = {"dtype": "float64", "time_ps": 0.1, "keep_trajectory": True}
    candidates = [
        rocksalt(),
        crystal(argyrodite(primitive=True)),
        CrystalCandidate(221, {"P": 1, "Cl": 1}, (5.0, 5.0, 5.0, 90, 90, 90)),
        crystal(bulk("LiCl", "rocksalt", a=5.2)),
        BoxCandidate((0.0,)),
    ]
    alone = [oracle(tmp_path / "alone", **params).evaluate_one(candidate) for candidate in candidates]
    tested = oracle(tmp_path / "together", batch_size=2, device=device, **params)
    assert tested.is_batched
    together = tested.evaluate(candidates)
    assert [m.is_success for m in together] == [True, True, False, True, False]
    for one, other in zip(alone, together, strict=True):
        assert one.reason == other.reason
        if not one.is_success:
            continue
        assert (
            one.values["log10_conductivity_700K"].censoring
            is other.values["log10_conductivity_700K"].censoring
        )
        assert one.metadata["mean_temperature"] == pytest.approx(other.metadata["mean_temperature"], rel=1e-6)
        with np.load(one.artifacts[3]) as first, np.load(other.artifacts[3]) as second:
            np.testing.assert_allclose(first["positions"], second["positions"], atol=1e-4)
            np.testing.assert_allclose(first["observables"], second["observables"], rtol=1e-5)


def limited(monkeypatch, most, error):
    """A batched potential that takes no more than so many structures; and the sizes that it was asked for."""
    batched, sizes = BatchedMace(load_calculator("mace:student")), []

    def bounded(batch):
        sizes.append(len(batch))
        if len(batch) > most:
            raise error
        return [(atoms.get_volume(), atoms.positions) for atoms in batch]

    monkeypatch.setattr(batched, "_together", bounded)
    return batched, sizes


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory."), MemoryError(), RuntimeError("can't allocate memory")],
)
def test_a_batch_that_does_not_fit_into_memory_is_halved_from_then_on(monkeypatch, caplog, error):
    batched, sizes = limited(monkeypatch, 1, error)
    batch = [*structures(), structures()[0]]
    for _ in range(2):
        for atoms, (energy, forces) in zip(batch, batched(batch), strict=True):
            assert energy == atoms.get_volume()
            np.testing.assert_array_equal(forces, atoms.positions)
    assert sizes == [4, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1]
    assert "memory does not suffice for 4 crystals together" in caplog.text


def test_trouble_of_the_machine_is_no_failure_of_the_crystals(monkeypatch):
    batched, sizes = limited(monkeypatch, 0, torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(torch.OutOfMemoryError):
        batched(structures())
    batched, sizes = limited(monkeypatch, 0, RuntimeError("CUDA error: an illegal memory access"))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        batched(structures())
    assert sizes == [3]


class StoppedError(Exception):
    pass


def test_a_stopped_batch_does_not_simulate_again_what_was_done(tmp_path, monkeypatch):
    """Three crystals, two at a time, stopped in the third: asked again, the third alone goes on from its checkpoint."""
    edges = (5.13, 5.2, 5.27)
    candidates = [crystal(bulk("LiCl", "rocksalt", a=a)) for a in edges]
    asked, homes = [], {}

    def springs(self, batch):
        """Instead of the model: each atom on a spring where it was first seen."""
        edges_asked = [round((4.0 * atoms.get_volume()) ** (1.0 / 3.0), 2) for atoms in batch]
        asked.append(edges_asked)
        if len(asked) > stop:
            raise StoppedError
        apart = [
            atoms.positions - homes.setdefault(a, atoms.positions.copy())
            for atoms, a in zip(batch, edges_asked, strict=True)
        ]
        return [(float((r**2).sum()), -2.0 * r) for r in apart]

    def answers(name):
        found = oracle(tmp_path / name, batch_size=2, relax_steps=0, min_cell_edge=1.0).evaluate(candidates)
        left = sorted(path.name for path in (tmp_path / name).rglob("*.npz"))
        assert left == ["msd.npz"] * 3  # and no checkpoint
        return [(m.values, m.metadata) for m in found]

    monkeypatch.setattr(BatchedMace, "__call__", springs)
    stop = 10**6
    whole = answers("whole")
    assert asked == [[5.13, 5.2]] * 71 + [[5.27]] * 71
    asked.clear()
    stop = 71 + 35
    with pytest.raises(StoppedError):
        answers("stopped")
    asked.clear()
    stop = 10**6
    assert answers("stopped") == whole
    assert asked == [[5.27]] * (71 - 30)


def test_batches_are_refused_where_they_cannot_be():
    assert not MaceMDOracle(**SHORT).is_batched
    assert MaceMDOracle(batch_size=4).content() == MaceMDOracle().content()
    with pytest.raises(ConfigError, match="batch_size 4 needs a MACE, and the potential is 'chgnet'"):
        MaceMDOracle(potential="chgnet", batch_size=4)
    with pytest.raises(ConfigError, match="batch_size must be at least 1"):
        MaceMDOracle(batch_size=0)

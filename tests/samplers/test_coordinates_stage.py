"""Full structures from the untrained sampler, checked by pymatgen, spglib and PyXtal."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import spglib
import torch
from ase.data import covalent_radii
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure
from pyxtal.symmetry import Group, Wyckoff_position

from activelearning.candidate import CrystalCandidate, candidate_from_dict
from activelearning.contracts import Proposal
from activelearning.crystals.distances import MIN_DISTANCE_RATIO
from activelearning.errors import SamplerError
from activelearning.spaces.crystal import CrystalSpace
from samplers.gflownet import GFlowNetSampler
from samplers.gflownet.environments.crystal import CrystalEnvironment, _Batch
from samplers.gflownet.trajectories import is_reached

ELECTROLYTES = {
    "elements": ["Li", "P", "S", "Cl"],
    "required_elements": ["Li"],
    "oxidation_states": {"Li": [1], "P": [5], "S": [-2], "Cl": [-1]},
    "n_elements": (2, 4),
    "lengths": (4.0, 12.0),
    "angles": (60.0, 120.0),
    "volume_per_atom": (14.0, 28.0),
}


def make_environment(max_atoms: int = 24, **options) -> CrystalEnvironment:
    options = {**ELECTROLYTES, **options}
    return CrystalEnvironment(CrystalSpace(max_atoms=max_atoms, wyckoff=True, coordinates=True, **options))


def rollout(environment: CrystalEnvironment, n: int, seed: int, *, visit=None) -> torch.Tensor:
    """Terminal states by uniform choices; `visit(states, actions, u, children)` sees each step."""
    generator = torch.Generator().manual_seed(seed)
    states = environment.initial(n)
    for _ in range(environment.max_steps):
        rows = (~environment.is_terminal(states)).nonzero().squeeze(1)
        if not len(rows):
            break
        at = states[rows]
        mask = environment.forward_mask(at)
        assert mask.any(dim=1).all(), "stuck"
        actions = (torch.rand(mask.shape, generator=generator) * mask).argmax(dim=1)
        u = torch.rand(len(rows), environment.n_continuous, generator=generator, dtype=torch.float64)
        children = environment.step(at, actions, u)
        if visit is not None:
            visit(at, actions, u, children)
        states[rows] = children
    assert environment.is_terminal(states).all()
    return states


def closest_ratio(structure: Structure) -> float:
    radii = np.array([covalent_radii[site.specie.Z] for site in structure])
    first, second, _, distances = structure.get_neighbor_list(2 * MIN_DISTANCE_RATIO * radii.max() + 0.1)
    return float((distances / (radii[first] + radii[second])).min(initial=np.inf))


def symmetry_violation(candidate: CrystalCandidate) -> str | None:
    """What an independent look finds wrong with a crystal's atoms."""
    structure = candidate.structure
    counts = {symbol: int(n) for symbol, n in structure.composition.as_dict().items()}
    if counts != dict(candidate.composition):
        return f"composition {counts}"
    ratio = closest_ratio(structure)
    if ratio < MIN_DISTANCE_RATIO:
        return f"atoms at {ratio:.3f} of their covalent radii"
    # Operations of the conventional cell that spglib finds: at least those of the group, centring included.
    cell = (structure.lattice.matrix, structure.frac_coords, structure.atomic_numbers)
    found = spglib.get_symmetry(cell, symprec=1e-3)
    expected = max(position.multiplicity for position in positions_of(candidate.space_group).values())
    if found is None or len(found["rotations"]) < expected:
        return f"{0 if found is None else len(found['rotations'])} operations, not {expected}"
    return off_letters(candidate)


@cache
def positions_of(number: int) -> dict[str, Wyckoff_position]:
    return {position.letter: position for position in Group(number)}


def off_letters(candidate: CrystalCandidate) -> str | None:
    """Whether PyXtal's positions of the candidate's letters, at the coordinates of single atoms, are all its atoms."""
    structure, positions = candidate.structure, positions_of(candidate.space_group)
    left = list(range(len(structure)))
    symbols, xyz = [site.specie.symbol for site in structure], structure.frac_coords
    for symbol, letters in candidate.wyckoff.items():
        for letter in letters:
            for first in [i for i in left if symbols[i] == symbol]:
                generator = positions[letter].search_generator(xyz[first], tol=1e-4)
                if generator is None:
                    continue
                orbit = np.array([operation.operate(generator) for operation in positions[letter].ops])
                gaps = xyz[left][:, None] - orbit
                near = (np.abs(gaps - np.round(gaps)) < 1e-4).all(axis=2).any(axis=1)
                members = [
                    i for i, is_near in zip(left, near, strict=True) if is_near and symbols[i] == symbol
                ]
                if len(members) == positions[letter].multiplicity:
                    left = [i for i in left if i not in members]
                    break
            else:
                return f"no {symbol} on {letter}"
    return f"{len(left)} atoms on no letter" if left else None


@pytest.fixture(scope="module")
def environment() -> CrystalEnvironment:
    return make_environment()


def test_structures_keep_symmetry_composition_and_distances(environment):
    crystals = [p.candidate for p in environment.proposals(rollout(environment, 100, seed=0))]
    with_atoms = [crystal for crystal in crystals if crystal.structure is not None]
    assert len(with_atoms) > 0.8 * len(crystals)
    for crystal in with_atoms:
        assert symmetry_violation(crystal) is None, crystal
        again = candidate_from_dict(crystal.to_dict())
        assert again == crystal
        lattice = Lattice.from_parameters(*crystal.lattice)
        np.testing.assert_allclose(crystal.structure.lattice.matrix, lattice.matrix, atol=1e-6)


def test_steps_back_undo_steps_and_the_last_actions_are_known(environment):
    def visit(states, actions, u, children):
        assert torch.equal(environment.last_actions(children), actions)
        parents, back = environment.step_back(children, actions)
        # Free coordinates are rounded to 1e-6, so that u comes back within that of a grid's cell.
        torch.testing.assert_close(parents, states, atol=1e-9, rtol=0.0)
        drawn = environment.continuous_mask(states, actions)
        torch.testing.assert_close(back[drawn], u[drawn], atol=2e-4, rtol=0.0)

    rollout(environment, 40, seed=1, visit=visit)


def test_crystals_are_read_back(environment):
    states = rollout(environment, 40, seed=2)
    proposals = environment.proposals(states)
    rows = [row for row, p in enumerate(proposals) if p.candidate.structure is not None]
    again = environment.states([proposals[row] for row in rows])
    block = environment.columns["coordinates"]
    assert torch.equal(again[:, block], states[rows][:, block])
    assert torch.equal(
        again[:, environment.columns["wyckoff"]], states[rows][:, environment.columns["wyckoff"]]
    )


def test_a_batch_is_its_rows(environment):
    """What a row does depends on nothing else in the batch, nor on what was asked before."""
    fresh = make_environment()
    together = rollout(environment, 15, seed=3)
    block = environment.columns["coordinates"]
    inputs, masks = environment.encode(together), environment.forward_mask(together)
    for row in range(15):
        alone = together[row : row + 1]
        torch.testing.assert_close(fresh.encode(alone)[0], inputs[row], atol=1e-6, rtol=0.0)
        assert torch.equal(fresh.forward_mask(alone)[0], masks[row])
        parent, u = fresh.step_back(alone, fresh.last_actions(alone))
        expected, expected_u = environment.step_back(alone, environment.last_actions(alone))
        assert torch.equal(parent[:, block], expected[:, block])
        assert torch.equal(u, expected_u)
    assert torch.equal(rollout(fresh, 15, seed=3), together)


def test_jacobians_are_slopes_of_the_coordinates(environment):
    """Central differences of the free coordinates in u, where they stay within a cell of the grid."""
    block, steps = environment.columns["coordinates"], []

    def visit(states, actions, u, children):
        before, after = states[:, block][:, -1], children[:, block][:, -1]
        rows = (after > before).nonzero().squeeze(1)
        if not len(rows):
            return
        at, taken, u = states[rows], actions[rows], u[rows]
        drawn = environment.continuous_mask(at, taken)
        log_jacobian = environment.log_jacobian(at, taken, u)
        first = (3 * at[:, block][:, -1]).long()
        step = 1e-3
        log_det = torch.zeros(len(rows), dtype=torch.float64)
        is_smooth = torch.ones(len(rows), dtype=torch.bool)
        for j in range(3):
            ends = []
            for sign in (-1.0, 1.0):
                moved = u.clone()
                moved[:, j] += sign * step
                moved = moved.clamp(1e-6, 1 - 1e-6)
                is_smooth &= torch.isclose(
                    environment.log_jacobian(at, taken, moved), log_jacobian, atol=1e-9
                )
                reached = environment.step(at, taken, moved)[:, block]
                ends.append(reached.gather(1, (first + j)[:, None]).squeeze(1))
            slope = (ends[1] - ends[0]) / (2 * step)
            is_smooth &= ~drawn[:, j] | (slope > 0)
            log_det += torch.where(drawn[:, j] & (slope > 0), slope.clamp(min=1e-12).log(), 0.0)
        steps.append(torch.stack([log_det, -log_jacobian, is_smooth.double()], dim=1))

    rollout(environment, 50, seed=4, visit=visit)
    found = torch.cat(steps)
    smooth = found[found[:, 2] > 0]
    # A jump from cell to cell within the step makes a slope too steep; most steps don't cross one.
    agreeing = torch.isclose(smooth[:, 0], smooth[:, 1], atol=0.02).double().mean()
    assert len(smooth) > 50
    assert agreeing > 0.7


def test_density_of_uniform_draws_integrates_to_one(environment):
    """∫ p(x) dx over one free coordinate, with p from uniform u and the stage's Jacobian, on a fine grid of x."""
    stage, block = environment.stages[-1], environment.columns["coordinates"]
    states = rollout(environment, 60, seed=5)
    states = states[states[:, block][:, -1] > 0]
    parents, _ = environment.step_back(states, environment.last_actions(states))
    (_, _, batch) = environment._by_stage(parents.numpy())[0]
    line = next(row for row, placed in enumerate(stage.placed(batch)) if placed.domain.n_free == 1)
    domain = stage.placed(batch)[line].domain
    parent, action = parents[line : line + 1], environment.last_actions(states[line : line + 1])
    n, total = 1000, 0.0
    for x in (np.arange(n) + 0.5) / n:
        try:
            u = domain.u(np.array([x]), tolerance=0.0)
        except ValueError:
            continue
        full = torch.full((1, environment.n_continuous), 0.5, dtype=torch.float64)
        full[0, 0] = float(u[0])
        total += float(environment.log_jacobian(parent, action, full).exp()) / n
    assert 0.0 < domain.share < 1.0
    assert total == pytest.approx(1.0, abs=0.03)


def test_a_crystal_without_room_stays_without_atoms():
    """Letters of R3c that lie on one line of a short cell: the trajectory ends with letters, without atoms."""
    space = CrystalSpace(
        ["Li", "Cl"], space_groups=[161], max_atoms=24, lengths=(4.0, 9.0), wyckoff=True, coordinates=True
    )
    environment = CrystalEnvironment(space)
    crystals = [p.candidate for p in environment.proposals(rollout(environment, 100, seed=6))]
    bare = [crystal for crystal in crystals if crystal.structure is None]
    assert bare
    assert all(crystal.wyckoff for crystal in bare)


def test_atoms_are_read_in_any_order(environment):
    rng = np.random.default_rng(3)
    found = [
        p.candidate
        for p in environment.proposals(rollout(environment, 60, seed=11))
        if p.candidate.structure is not None
    ]
    assert len(found) > 30
    for crystal in found:
        order = rng.permutation(len(crystal.structure)).tolist()
        shuffled = replace(crystal, structure=Structure.from_sites([crystal.structure[i] for i in order]))
        again = environment.proposals(environment.states([Proposal(shuffled, None)]))[0].candidate
        assert StructureMatcher().fit(again.structure, crystal.structure)


def test_a_cell_that_is_not_the_crystals_is_refused(environment):
    crystal = next(
        p.candidate for p in environment.proposals(rollout(environment, 20, seed=7)) if p.candidate.structure
    )
    stretched = crystal.structure.copy()
    stretched.scale_lattice(2.0 * stretched.volume)
    with pytest.raises(ValueError, match="another cell"):
        environment.states([Proposal(replace(crystal, structure=stretched), None)])


def test_given_crystals_that_no_trajectory_leads_to_are_named():
    """Letters are drawn without a look at the cell; some of them the sampler of coordinates leaves out."""
    options = {"elements": ["Li", "P", "S", "Cl"], "max_atoms": 16, "wyckoff": True}
    letters, atoms = CrystalSpace(**options), CrystalSpace(**options, coordinates=True)
    drawn = GFlowNetSampler(letters, None, hidden=(8,), n_components=2).sample_untrained(150, seed=0)
    sampler = GFlowNetSampler(atoms, None, hidden=(8,), n_components=2, steps=2, batch_size=8)
    environment, unreached, reached = sampler.environment, [], []
    for proposal in drawn:
        rows = np.zeros((1, environment.n_state))
        rows[0, 0] = len(environment.stages) - 1
        for stage in environment.stages[:-1]:
            rows[:, environment.columns[stage.name]] = stage.read(
                [proposal.candidate], _Batch(environment, rows)
            )
        of = environment.stages[-1].arrangements(_Batch(environment, rows))[0]
        if not of.is_possible or not len(of.free):
            continue
        states, generator = torch.from_numpy(rows), torch.Generator().manual_seed(0)
        while not environment.is_terminal(states).all():
            u = torch.rand(1, environment.n_continuous, generator=generator, dtype=torch.float64)
            states = environment.step(states, environment.forward_mask(states).long().argmax(dim=1), u)
        (reached if bool(is_reached(environment, states)) else unreached).append(
            environment.proposals(states)[0]
        )
    assert unreached
    assert len(reached) > 5 * len(unreached)
    assert (sampler.log_probability(unreached) == -torch.inf).all()
    with pytest.raises(SamplerError, match=r"number 3 of 3 .* no trajectory"):
        sampler.fit(lambda c, f: torch.zeros(len(c)), seed=0, given=[*reached[:2], unreached[0]])
    sampler.fit(lambda c, f: torch.zeros(len(c)), seed=0, given=reached[:3])


def test_a_structure_of_another_crystal_is_refused(environment):
    states = rollout(environment, 20, seed=7)
    crystal = next(
        p.candidate
        for p in environment.proposals(states)
        if p.candidate.structure and p.candidate.n_atoms > 1
    )
    moved = crystal.structure.copy()
    moved.translate_sites([0], [0.11, 0.07, 0.05])
    wrong = CrystalCandidate(
        crystal.space_group, crystal.composition, crystal.lattice, crystal.wyckoff, moved
    )
    with pytest.raises(ValueError, match=r"left on Wyckoff position|too close|on none of the orbits"):
        environment.states([Proposal(wrong, None)])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("space", ["electrolytes", "22 elements"])
def test_ten_thousand_structures(space):
    """Of the untrained sampler, by code that none of the sampler uses; few stay without atoms."""
    if space == "electrolytes":
        environment = make_environment()
    else:
        elements = "H Li B C N O F Na Mg Al Si P S Cl K V Mn Fe Co Ni Cu Se".split()
        environment = CrystalEnvironment(
            CrystalSpace(elements, max_atoms=20, max_atoms_per_element=16, wyckoff=True, coordinates=True)
        )
    n_bare, n_checked, seed = 0, 0, 100
    while n_checked < 5_000:
        for proposal in environment.proposals(rollout(environment, 500, seed=seed)):
            if proposal.candidate.structure is None:
                n_bare += 1
                continue
            assert symmetry_violation(proposal.candidate) is None, proposal.candidate
            n_checked += 1
        seed += 1
    assert n_bare / (n_bare + n_checked) < 0.2

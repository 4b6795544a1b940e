"""The evolutionary search: what it proposes is always of its space, and what it finds is the best."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from crystal_checks import check_crystal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from activelearning.campaign.states import pack, unpack
from activelearning.candidate import CrystalCandidate
from activelearning.contracts import Proposal, Sampler
from activelearning.contracts.registry import load_plugin
from activelearning.errors import ConfigError, SamplerError
from activelearning.spaces.box import BoxSpace
from activelearning.spaces.crystal import CrystalSpace
from activelearning.spaces.pool import PoolSpace
from samplers.evolutionary import EvolutionarySampler
from samplers.evolutionary.development import Development
from samplers.random import RandomSampler


@pytest.fixture
def pool(tmp_path):
    file = tmp_path / "pool.csv"
    rows = [f"{i / 20},{j / 20},{abs(i - 3) % 7}" for i, j in itertools.product(range(40), repeat=2)]
    file.write_text("x,y,z\n" + "\n".join(rows))
    return PoolSpace(file)


def hilly(space):
    """A reward with a peak at 0.7 in every feature, a hundred times lower at each further fidelity."""

    def log_reward(candidates, fidelities):
        x = space.features(candidates)
        level = 0.0 if fidelities is None else torch.tensor(fidelities, dtype=torch.float64)
        return -10.0 * (x - 0.7).square().sum(dim=1) - math.log(100.0) * level

    return log_reward


def small_crystals(**more):
    return CrystalSpace(
        **{
            "elements": ["Li", "O", "Mg", "Cl", "Fe"],
            "space_groups": [1, 2, 14, 62, 123, 148, 166, 194, 225],
            "n_elements": (1, 4),
            "max_atoms": 24,
            "max_atoms_per_element": 12,
            **more,
        }
    )


def test_is_found_by_name_and_keeps_the_contract():
    assert load_plugin("samplers", "evolutionary") is EvolutionarySampler
    assert isinstance(EvolutionarySampler(BoxSpace([(0.0, 1.0)]), None), Sampler)


# ---------------------------------------------------------------- only candidates of the space

CRYSTAL_SPACES = {
    "group first": {},
    "composition first": {"order": ["composition", "space_group", "lattice"]},
    "no lattice": {"order": ["composition", "space_group"]},
    "sites": {"wyckoff": True},
    "atoms": {"wyckoff": True, "coordinates": True, "max_atoms": 12},
    "required": {"required_elements": ["Li"], "counts": {"O": (2, 6)}, "volume_per_atom": (10.0, 20.0)},
    "alloys": {"oxidation_states": "off"},
    "mixed valence": {"mixed_valence": ["Fe"], "lengths": (3.0, 12.0), "angles": (70.0, 120.0)},
}
SPACES = {name: small_crystals(**options) for name, options in CRYSTAL_SPACES.items()}


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=2, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(seed=st.integers(0, 2**32), n_fidelities=st.sampled_from([None, 3]))
def test_every_crystal_is_of_its_space(name, seed, n_fidelities):
    space = SPACES[name]
    sampler = EvolutionarySampler(space, n_fidelities, steps=4, warm_steps=2, population=12)
    asked = []

    def log_reward(candidates, fidelities):
        asked.extend(candidates)
        assert (fidelities is None) == (n_fidelities is None)
        assert all(m in range(n_fidelities) for m in fidelities or [])
        # Rewards that drive the population to the edges of the space.
        return torch.tensor([c.n_atoms + c.space_group / 10 for c in candidates], dtype=torch.float64)

    sampler.fit(log_reward, seed=seed)
    sampler.fit(log_reward, seed=seed + 1)
    proposals = sampler.sample(30, seed=seed)
    assert len(set(proposals)) == len(proposals) == 30
    for candidate in [*asked, *(p.candidate for p in proposals)]:
        space.validate(candidate)
        if name in ("group first", "composition first", "no lattice"):
            check_crystal(candidate, max_atoms=24)


def test_a_part_of_a_space_is_not_left():
    space = small_crystals().restricted(
        lengths=(4.0, 8.0), crystal_systems=["trigonal", "cubic", "triclinic"], elements=["Li", "O", "Cl"]
    )
    sampler = EvolutionarySampler(space, None, steps=6, population=32)
    sampler.fit(lambda c, f: torch.tensor([x.volume for x in c], dtype=torch.float64), seed=0)
    for proposal in sampler.sample(100, seed=0):
        space.validate(proposal.candidate)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32), high=st.floats(1e-3, 1e6))
def test_every_point_is_in_its_box(seed, high):
    space = BoxSpace([(-1.0, 1.0), (0.0, high), (high, 2.0 * high)])
    sampler = EvolutionarySampler(space, 2, steps=5, population=8)
    # A reward that grows out of the box.
    sampler.fit(lambda c, f: 10.0 * space.features(c).sum(dim=1), seed=seed)
    for proposal in sampler.sample(40, seed=seed):
        space.validate(proposal.candidate)
        assert proposal.fidelity in (0, 1)


# ---------------------------------------------------------------- what is inherited


@pytest.mark.parametrize("name", SPACES)
def test_a_genome_develops_into_the_crystal_that_it_is_of(name):
    import numpy as np

    space = SPACES[name]
    crystals = [p.candidate for p in RandomSampler(space, None).sample(40, seed=1)]
    development = Development(space)
    again = development.crystals(development.genomes(crystals), np.random.default_rng(0))
    for one, other in zip(crystals, again, strict=True):
        assert (one.composition, one.space_group, one.wyckoff) == (
            other.composition,
            other.space_group,
            other.wyckoff,
        )
        if one.lattice is not None:
            # Lattices are rounded in a candidate, so that their coordinates come back to the last digit only.
            assert other.lattice == pytest.approx(one.lattice, abs=2e-3)


def test_what_is_not_allowed_becomes_something_near():
    """Li2O with a sixth more lithium can't be neutral; its oxygen, or another count, makes up for it."""
    import numpy as np

    space = small_crystals(elements=["Li", "O"], space_groups=[1], order=["space_group", "composition"])
    development = Development(space)
    genome = development.genomes([CrystalCandidate(1, {"Li": 4, "O": 2})])[0]
    genome["composition"] = development.composition([(0, 6), (1, 2)])
    found = development.crystals([genome] * 50, np.random.default_rng(0))
    assert {c.composition["Li"] for c in found} == {6}
    # Oxides Li2O, peroxides Li2O2 and superoxides LiO2 (pymatgen gives oxygen -1 and -2).
    assert {c.composition["O"] for c in found} == {3, 6}


# ---------------------------------------------------------------- finding the best


@pytest.mark.parametrize("d", [2, 6])
def test_a_peak_of_a_box_is_found_far_better_than_by_chance(d):
    """Over ten seeds, at equal numbers of rewards, the distance from the peak is at least ten times smaller."""
    space = BoxSpace([(-2.0, 3.0)] * d)
    log_reward = hilly(space)
    ratios = []
    for seed in range(10):
        sampler = EvolutionarySampler(space, None, steps=30, population=64)
        figures = sampler.fit(log_reward, seed=seed)
        n = figures["rewards_evaluated"]
        chance = log_reward([p.candidate for p in RandomSampler(space, None).sample(n, seed=seed)], None)
        best = sampler.sample(1, seed=0)[0].candidate
        assert log_reward([best], None).item() == figures["max_log_reward"]
        ratios.append(math.sqrt(figures["max_log_reward"] / chance.max().item()))
    assert max(ratios) < 0.5
    assert math.exp(sum(map(math.log, ratios)) / len(ratios)) < 0.1


def test_the_best_of_all_small_crystals_is_found():
    """All 10,248 compositions and groups are enumerated; a twentieth or so of them is asked for."""
    from enumeration import enumerate_states

    from samplers.gflownet.environments import make_environment

    space = small_crystals(order=["composition", "space_group"], max_atoms=12, n_elements=(2, 4))
    environment = make_environment(space, None)
    crystals = [p.candidate for p in environment.proposals(enumerate_states(environment).terminal)]

    def log_reward(candidates, fidelities):
        # One optimum, of which every part has to be right: Li3Fe3O6 in R-3m.
        wanted = {"Li": 0.25, "Fe": 0.25, "O": 0.5}
        values = [
            -sum(abs(c.composition.get(e, 0) / c.n_atoms - wanted.get(e, 0.0)) for e in space.elements) * 10
            - abs(c.space_group - 166) / 20
            - abs(c.n_atoms - 12) / 4
            for c in candidates
        ]
        return torch.tensor(values, dtype=torch.float64)

    rewards = log_reward(crystals, None)
    best = rewards.max().item()
    found, n_asked, by_chance = 0, 0, 0
    for seed in range(10):
        sampler = EvolutionarySampler(space, None, steps=40, population=16)
        figures = sampler.fit(log_reward, seed=seed)
        n_asked = max(n_asked, figures["rewards_evaluated"])
        found += figures["max_log_reward"] == best
        chance = RandomSampler(space, None).sample(figures["rewards_evaluated"], seed=seed)
        by_chance += log_reward([p.candidate for p in chance], None).max().item() == best
    assert n_asked < len(crystals) / 15
    assert (rewards == best).sum() == 1
    assert found >= 8
    assert by_chance <= 2


def test_the_best_of_a_pool_is_found_by_its_neighbours(pool):
    log_reward = hilly(pool)
    best = log_reward(pool.candidates, None).max().item()
    found = 0
    for seed in range(10):
        sampler = EvolutionarySampler(pool, None, steps=12, population=24)
        figures = sampler.fit(log_reward, seed=seed)
        assert figures["rewards_evaluated"] <= 24 * 13 < len(pool.candidates) / 5
        found += figures["max_log_reward"] == best
    assert found >= 9


def test_a_short_list_is_known_whole_and_the_search_ends(tmp_path):
    file = tmp_path / "pool.csv"
    file.write_text("x\n" + "\n".join(str(i) for i in range(6)))
    space = PoolSpace(file)
    sampler = EvolutionarySampler(space, 2)
    figures = sampler.fit(lambda c, f: torch.tensor([x.values[0] for x in c], dtype=torch.float64), seed=0)
    assert figures["rewards_evaluated"] == 12
    assert figures["steps"] < 80
    proposals = sampler.sample(100, seed=0)
    assert len(set(proposals)) == len(proposals) == 12
    assert proposals[0].candidate.values[0] == 5.0


def test_what_was_asked_is_drawn_in_proportion_after_the_best(tmp_path):
    file = tmp_path / "pool.csv"
    file.write_text("x\n" + "\n".join(str(i) for i in range(5)))
    sampler = EvolutionarySampler(PoolSpace(file), None)
    sampler.fit(lambda c, f: torch.tensor([x.values[0] + 1.0 for x in c], dtype=torch.float64).log(), seed=0)
    draws = [sampler.sample(2, seed=seed) for seed in range(1000)]
    assert {first.candidate.values[0] for first, _ in draws} == {4.0}
    for value in range(4):
        expected = 100.0 * (value + 1)
        found = sum(second.candidate.values[0] == value for _, second in draws)
        assert found == pytest.approx(expected, abs=5 * expected**0.5)


def test_the_better_fidelity_is_taken():
    space = BoxSpace([(0.0, 1.0)] * 2)
    sampler = EvolutionarySampler(space, 3, steps=40, population=30)
    sampler.fit(hilly(space), seed=0)
    proposals = sampler.sample(30, seed=0)
    assert proposals[0].fidelity == 0
    assert sum(p.fidelity == 0 for p in proposals) >= 25
    assert {p.fidelity for p in sampler.sample_untrained(30, seed=0)} == {0, 1, 2}


# ---------------------------------------------------------------- warm, and the same again


def test_the_population_goes_on_and_follows_a_reward_that_moves():
    space = BoxSpace([(0.0, 1.0)] * 4)
    sampler = EvolutionarySampler(space, None, steps=30, warm_steps=5, population=64)

    def at(peak):
        return lambda c, f: -(space.features(c) - peak).square().sum(dim=1)

    sampler.fit(at(0.7), seed=0)
    warm = sampler.fit(at(0.68), seed=1)["max_log_reward"]
    cold = EvolutionarySampler(space, None, steps=5, population=64).fit(at(0.68), seed=1)["max_log_reward"]
    assert warm > cold / 5
    # Immigrants find a peak that has gone elsewhere.
    for seed in range(2, 8):
        figures = sampler.fit(at(0.1), seed=seed)
    assert figures["max_log_reward"] > -1e-3


@pytest.mark.parametrize("kind", ["box", "pool", "crystal"])
def test_a_state_is_taken_up_again_bit_for_bit(kind, pool):
    space = {"box": BoxSpace([(-1.0, 2.0)] * 3), "pool": pool, "crystal": SPACES["atoms"]}[kind]
    one = EvolutionarySampler(space, 2, steps=3, warm_steps=3, population=10)
    one.fit(hilly(space), seed=0)
    other = EvolutionarySampler(space, 2, steps=3, warm_steps=3, population=10)
    other.load_state_dict(unpack(pack(one.state_dict())))
    assert other.sample(15, seed=1) == one.sample(15, seed=1)
    assert other.fit(hilly(space), seed=2) == one.fit(hilly(space), seed=2)
    for key, value in one.state_dict().items():
        again = other.state_dict()[key]
        assert torch.equal(again, value) if isinstance(value, torch.Tensor) else again == value, key
    assert other.sample(15, seed=3) == one.sample(15, seed=3) != one.sample(15, seed=4)


def test_before_any_fit_it_draws_by_chance():
    space = BoxSpace([(0.0, 1.0)])
    sampler = EvolutionarySampler(space, 2)
    untrained = sampler.sample_untrained(20, seed=5)
    assert sampler.sample(20, seed=5) == untrained == RandomSampler(space, 2).sample(20, seed=5)
    sampler.fit(hilly(space), seed=0)
    assert sampler.sample_untrained(20, seed=5) == untrained
    assert all(isinstance(p, Proposal) for p in untrained)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"steps": 0}, "sampler.steps is 0"),
        ({"warm_steps": 0}, "sampler.warm_steps is 0"),
        ({"population": 3}, "sampler.population is 3; it must be at least 4"),
        ({"elite_share": 0.0}, "sampler.elite_share"),
        ({"immigrants": 1.0}, "sampler.immigrants"),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(params, message):
    with pytest.raises(ConfigError, match=message):
        EvolutionarySampler(BoxSpace([(0.0, 1.0)]), None, **params)


def test_other_spaces_and_rewards_are_refused():
    space = BoxSpace([(0.0, 1.0)])

    class Other(BoxSpace):
        kind = "molecule"

    with pytest.raises(ConfigError, match="box, pool or crystal, not 'molecule'"):
        EvolutionarySampler(Other([(0.0, 1.0)]), None)
    with pytest.raises(SamplerError, match="finite numbers"):
        EvolutionarySampler(space, None).fit(lambda c, f: torch.full((len(c),), torch.nan), seed=0)


def test_a_state_of_another_space_is_refused():
    one = EvolutionarySampler(BoxSpace([(0.0, 2.0)]), 2, steps=1)
    one.fit(lambda c, f: torch.tensor([x.values[0] for x in c], dtype=torch.float64), seed=0)
    state = one.state_dict()
    with pytest.raises(SamplerError, match="not of this space"):
        EvolutionarySampler(BoxSpace([(0.0, 0.1)]), 2).load_state_dict(state)
    with pytest.raises(SamplerError, match="fidelity"):
        EvolutionarySampler(BoxSpace([(0.0, 2.0)]), None).load_state_dict(state)

"""Random valid candidates."""

import pytest
import torch

from activelearning.contracts import Sampler
from activelearning.contracts.registry import load_plugin
from activelearning.spaces.box import BoxSpace
from activelearning.spaces.crystal import CrystalSpace
from activelearning.spaces.pool import PoolSpace
from samplers.random import RandomSampler


@pytest.fixture
def pool(tmp_path):
    file = tmp_path / "pool.csv"
    file.write_text("x,y\n" + "\n".join(f"{i},{i * i}" for i in range(10)))
    return PoolSpace(str(file))


def test_is_found_by_name():
    assert load_plugin("samplers", "random") is RandomSampler


def test_a_box_is_covered_evenly():
    space = BoxSpace([(-1.0, 1.0), (10.0, 20.0)])
    proposals = RandomSampler(space, 2).sample(4000, seed=0)
    x = space.features([p.candidate for p in proposals])
    assert x.mean(dim=0).numpy() == pytest.approx([0.5, 0.5], abs=0.02)
    assert x.var(dim=0).numpy() == pytest.approx([1 / 12, 1 / 12], abs=0.005)
    assert sum(p.fidelity for p in proposals) == pytest.approx(2000, abs=130)


def test_crystals_are_valid_and_diverse():
    space = CrystalSpace(elements=["Li", "O"], max_atoms=12)
    proposals = RandomSampler(space, None).sample(100, seed=0)
    for proposal in proposals:
        space.validate(proposal.candidate)
        assert proposal.fidelity is None
    assert len({p.candidate.key for p in proposals}) == 100
    assert len({p.candidate.space_group for p in proposals}) > 30


def test_a_pool_is_chosen_from_without_repetition(pool):
    proposals = RandomSampler(pool, 3).sample(12, seed=0)
    assert len({(p.candidate.key, p.fidelity) for p in proposals}) == 12
    assert {p.candidate for p in proposals} <= set(pool.candidates)


def test_nothing_is_learned_and_seeds_decide(pool):
    for space in (pool, BoxSpace([(0.0, 1.0)])):
        sampler = RandomSampler(space, 2)
        assert isinstance(sampler, Sampler)
        before = sampler.sample(5, seed=1)
        assert sampler.fit(lambda c, f: torch.zeros(len(c)), seed=0) == {"steps": 0}
        sampler.load_state_dict(sampler.state_dict())
        assert sampler.sample(5, seed=1) == before == sampler.sample_untrained(5, seed=1)
        assert sampler.sample(5, seed=2) != before

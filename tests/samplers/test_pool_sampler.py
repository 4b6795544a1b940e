"""A list as its own sampler."""

from collections import Counter

import pytest
import torch

from activelearning.contracts import Sampler
from activelearning.contracts.registry import load_plugin
from activelearning.errors import ConfigError, SamplerError
from activelearning.spaces.box import BoxSpace
from activelearning.spaces.pool import PoolSpace
from samplers.pool import PoolSampler


@pytest.fixture
def pool(tmp_path):
    file = tmp_path / "pool.csv"
    file.write_text("x\n" + "\n".join(str(i) for i in range(6)))
    return PoolSpace(str(file))


def by_value(candidates, fidelities):
    """Higher for larger values, a hundred decades lower at fidelity 1."""
    value = torch.tensor([candidate.values[0] for candidate in candidates], dtype=torch.float64)
    return value if fidelities is None else value - 230.0 * torch.tensor(fidelities)


def test_is_found_by_name_and_keeps_the_contract(pool):
    assert load_plugin("samplers", "pool") is PoolSampler
    assert isinstance(PoolSampler(pool, None), Sampler)


def test_a_short_list_is_proposed_whole_by_falling_reward(pool):
    sampler = PoolSampler(pool, 2)
    figures = sampler.fit(by_value, seed=0)
    proposals = sampler.sample(100, seed=0)
    assert [(p.candidate.values[0], p.fidelity) for p in proposals] == [
        (float(x), m) for m in (0, 1) for x in (5, 4, 3, 2, 1, 0)
    ]
    assert figures["max_log_reward"] == 5.0
    assert figures["rewards_evaluated"] == 12


def test_a_long_list_is_drawn_from_in_proportion(pool):
    sampler = PoolSampler(pool, None)
    sampler.fit(lambda c, f: torch.tensor([x.values[0] + 1.0 for x in c], dtype=torch.float64).log(), seed=0)
    counts = Counter(sampler.sample(1, seed=seed)[0].candidate.values[0] for seed in range(2100))
    for value in range(6):
        assert counts[float(value)] == pytest.approx(100 * (value + 1), abs=5 * (100 * (value + 1)) ** 0.5)


def test_draws_are_distinct_even_where_rewards_span_decades(pool):
    sampler = PoolSampler(pool, 2)
    sampler.fit(by_value, seed=0)
    proposals = sampler.sample(8, seed=0)
    assert len({(p.candidate.key, p.fidelity) for p in proposals}) == 8
    assert sum(p.fidelity == 0 for p in proposals) == 6


def test_the_untrained_draw_knows_no_reward(pool):
    sampler = PoolSampler(pool, None)
    before = sampler.sample_untrained(3, seed=4)
    sampler.fit(by_value, seed=0)
    assert sampler.sample_untrained(3, seed=4) == before
    counts = Counter(sampler.sample_untrained(1, seed=seed)[0].candidate.values[0] for seed in range(600))
    assert max(counts.values()) < 150


def test_a_state_is_taken_up_again(pool):
    sampler = PoolSampler(pool, 2)
    sampler.fit(by_value, seed=0)
    other = PoolSampler(pool, 2)
    other.load_state_dict(sampler.state_dict())
    assert other.sample(5, seed=1) == sampler.sample(5, seed=1)
    with pytest.raises(SamplerError, match="12 pairs"):
        PoolSampler(pool, None).load_state_dict(sampler.state_dict())


def test_bad_input_is_refused(pool):
    with pytest.raises(ConfigError, match="space 'box' is none"):
        PoolSampler(BoxSpace([(0.0, 1.0)]), None)
    with pytest.raises(ConfigError, match="at least one"):
        PoolSampler(pool, 0)
    with pytest.raises(SamplerError, match="finite numbers"):
        PoolSampler(pool, None).fit(lambda c, f: torch.full((len(c),), torch.nan), seed=0)

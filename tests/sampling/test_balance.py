"""Space groups that count alike: measures against enumeration, and what is sampled."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from enumeration import enumerate_states

from activelearning.errors import ConfigError, InputError
from activelearning.rewards import ProductReward
from activelearning.sampling.balance import SpaceGroupBalance
from activelearning.sampling.config import load_sample_config
from activelearning.sampling.parts import make_sampling_parts
from activelearning.spaces.crystal import CrystalSpace
from samplers.gflownet import GFlowNetSampler
from samplers.random import RandomSampler

GROUPS = [1, 14, 62, 167, 225]
SPACE = CrystalSpace(
    elements=["Li", "O", "F"], space_groups=GROUPS, max_atoms=24, order=["space_group", "composition"]
)


def numbers_of_compositions() -> Counter[int]:
    environment = GFlowNetSampler(SPACE, None, hidden=(4,), n_components=2).environment
    terminal = enumerate_states(environment).terminal
    return Counter(p.candidate.space_group for p in environment.proposals(terminal))


def test_measures_are_numbers_of_compositions_where_there_are_no_cells() -> None:
    expected = numbers_of_compositions()
    assert max(expected.values()) > 20 * min(expected.values())
    found = SpaceGroupBalance(GFlowNetSampler(SPACE, None, hidden=(4,), n_components=2)).log_measures
    assert set(found) == set(GROUPS)
    for group, n in expected.items():
        assert found[group] == pytest.approx(math.log(n), abs=0.1)


def test_groups_are_drawn_alike_where_all_crystals_are_equally_good() -> None:
    sampler = GFlowNetSampler(SPACE, None, hidden=(64, 64), steps=500, batch_size=64)
    balance = SpaceGroupBalance(sampler)
    sampler.fit(lambda crystals, fidelities: balance(crystals), seed=0)
    drawn = Counter(p.candidate.space_group for p in sampler.sample(4000, seed=1))
    assert all(abs(drawn[group] / 4000 - 0.2) < 0.05 for group in GROUPS)


def test_weights_are_added_to_rewards_and_kept_by_the_fit_of_beta(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "name: c\nspace: {type: crystal, elements: [Li, O], max_atoms: 12, space_groups: [1, 225]}\n"
        "objective: {property: density, unit: g/cm3}\nbalance: space_groups\n"
    )
    parts = make_sampling_parts(load_sample_config(tmp_path / "c.yaml"), folder=tmp_path, workdir=tmp_path)
    assert parts.training["balance"] == "space_groups"
    crystals = [p.candidate for p in parts.sampler.sample_untrained(60, seed=0)]
    reward = parts.reward.fitted(crystals)
    weights = SpaceGroupBalance(parts.sampler)(crystals)
    assert len(set(weights.tolist())) == 2
    torch.testing.assert_close(reward(crystals) - weights, ProductReward(reward.terms)(crystals))


def test_what_can_not_be_balanced_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"balance: the sampler RandomSampler"):
        SpaceGroupBalance(RandomSampler(SPACE, None))
    narrow = CrystalSpace(elements=["Li", "O", "F"], space_groups=[225], max_atoms=24)
    balance = SpaceGroupBalance(GFlowNetSampler(narrow, None, hidden=(4,), n_components=2))
    wide = GFlowNetSampler(SPACE, None, hidden=(4,), n_components=2).sample_untrained(50, seed=0)
    with pytest.raises(InputError, match=r"space group 1 did not come up"):
        balance([p.candidate for p in wide])

"""The shipped configs of sampling work: parts, restrictions, rewards of real crystals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from activelearning.campaign.shipped import shipped_configs
from activelearning.crystals.symmetry import space_group
from activelearning.sampling.config import load_sample_config
from activelearning.sampling.crystals import as_crystals
from activelearning.sampling.parts import make_sampling_parts
from activelearning.sampling.restricting import restricted_sampler, restricted_space
from oracles.ml_proxy.properties import PROPERTIES

OF_SAMPLING = sorted(
    name for name, path in shipped_configs().items() if "budget" not in yaml.safe_load(path.read_text())
)


def test_the_published_properties_are_there() -> None:
    assert {
        *("crystal-density", "formation-energy", "band-gap", "formation-energy-band-gap", "conductivity"),
        *(f"formation-energy-{part}" for part in "abcd"),
    } <= set(OF_SAMPLING)


@pytest.mark.parametrize("name", OF_SAMPLING)
def test_parts_are_made_and_crystals_rewarded(name: str, tmp_path: Path) -> None:
    config = load_sample_config(shipped_configs()[name])
    for objective in config.rewarded:
        known = PROPERTIES.get(objective.property)
        if objective.property != "density" and (known is None or not known.weights.is_file()):
            pytest.skip(f"no weights of {objective.property} are shipped yet")
    parts = make_sampling_parts(config, folder=tmp_path, workdir=tmp_path)
    crystals = as_crystals([p.candidate for p in parts.sampler.sample_untrained(50, seed=0)])
    found = parts.reward.fitted(crystals).evaluate(crystals)
    assert torch.isfinite(found.log_rewards).all()
    assert len(set(found.log_rewards.tolist())) > 25  # not most of them at the floor
    assert all(values.n_failed == 0 for values in found.properties)


def test_the_published_set_up() -> None:
    config = load_sample_config(shipped_configs()["formation-energy"])
    assert len(config.space.params["elements"]) == 22
    assert len(config.space.params["space_groups"]) == 113
    assert 194 in config.space.params["space_groups"]
    assert space_group(194).crystal_system == "hexagonal"
    energy = config.reward_of(config.rewarded[0])
    assert (energy.type, energy.params) == ("exponential", {"beta": 8.0, "floor": 1e-8})
    gap = load_sample_config(shipped_configs()["band-gap"])
    assert gap.space == config.space
    assert gap.reward_of(gap.rewarded[0]).params == {"target": 1.34, "beta": 8.0, "floor": 1e-8}


@pytest.mark.parametrize("part", "abcd")
def test_restrictions_hold(part: str, tmp_path: Path) -> None:
    config = load_sample_config(shipped_configs()[f"formation-energy-{part}"])
    parts = make_sampling_parts(config, folder=tmp_path, workdir=tmp_path)
    sampler = restricted_sampler(parts.sampler, restricted_space(parts.space, config.restrict))
    crystals = as_crystals([p.candidate for p in sampler.sample(200, seed=0)])
    for crystal in crystals:
        symbols, counts = set(crystal.composition), list(crystal.composition.values())
        if part == "a":
            assert symbols <= {"Fe", "O"}
            assert max(counts) <= 10
        elif part == "b":
            assert symbols <= {"Li", "Mn", "O"}
            assert sum(counts) <= 16
        elif part == "c":
            assert crystal.space_group >= 195
            assert len(set(crystal.lattice[:3])) == 1
            assert set(crystal.lattice[3:]) == {90.0}
        else:
            assert all(10.0 <= x <= 20.0 for x in crystal.lattice[:3])
            assert all(75.0 <= x <= 135.0 for x in crystal.lattice[3:])

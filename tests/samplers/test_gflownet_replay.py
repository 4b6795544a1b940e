"""The replay buffer."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from samplers.gflownet.replay import ReplayBuffer


def rows(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def rewards(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_the_best_are_kept_in_order():
    buffer = ReplayBuffer(3, 1)
    buffer.add(rows(1, 2), rewards(0.1, 0.2))
    buffer.add(rows(3, 4), rewards(-5.0, 0.3))
    assert buffer.states.squeeze(1).tolist() == [4, 2, 1]
    assert buffer.log_rewards.tolist() == [0.3, 0.2, 0.1]


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(0, 6))
def test_no_state_is_held_twice(values, capacity):
    buffer = ReplayBuffer(capacity, 1)
    for value in values:
        buffer.add(rows(value, value), rewards(value, value))
    expected = sorted(set(values), reverse=True)[:capacity]
    assert buffer.states.squeeze(1).tolist() == expected


def test_minus_zero_is_zero():
    buffer = ReplayBuffer(3, 1)
    buffer.add(rows(0.0, -0.0), rewards(1.0, 1.0))
    assert len(buffer) == 1


def test_a_new_reward_reorders():
    buffer = ReplayBuffer(3, 1)
    buffer.add(rows(1, 2, 3), rewards(3.0, 2.0, 1.0))
    buffer.replace_rewards(rewards(1.0, 5.0, 3.0))
    assert buffer.states.squeeze(1).tolist() == [2, 3, 1]
    with pytest.raises(ValueError, match="3 log rewards"):
        buffer.replace_rewards(rewards(1.0))


def test_high_ranks_are_drawn_more_often_and_none_twice_in_a_draw():
    buffer = ReplayBuffer(100, 1)
    buffer.add(rows(*range(100)), rewards(*range(100)))
    generator = torch.Generator().manual_seed(0)
    draws = [buffer.sample(10, generator) for _ in range(300)]
    for states, log_rewards in draws:
        assert len(states.unique()) == 10
        assert torch.equal(states.squeeze(1), log_rewards)
    drawn = torch.cat([states for states, _ in draws]).squeeze(1)
    assert (drawn >= 90).double().mean() > 2 * (drawn < 10).double().mean() > 0
    assert len(buffer.sample(1000, generator)[0]) == 100


def test_state_is_taken_up_again():
    buffer = ReplayBuffer(5, 1)
    buffer.add(rows(1, 2, 3), rewards(3.0, 2.0, 1.0))
    other = ReplayBuffer(5, 1)
    other.load_state_dict(buffer.state_dict())
    other.add(rows(1, 9), rewards(3.0, 9.0))
    assert other.states.squeeze(1).tolist() == [9, 1, 2, 3]
    assert buffer.states.squeeze(1).tolist() == [1, 2, 3]

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from activelearning.candidate import BoxCandidate, CrystalCandidate
from activelearning.contracts import Space
from activelearning.errors import ConfigError
from activelearning.spaces.box import BoxSpace


def test_features_are_scaled_and_inverted() -> None:
    space = BoxSpace(bounds=[(-5.0, 10.0), (0.0, 15.0)])
    assert isinstance(space, Space)
    assert space.n_features == 2
    features = space.features([BoxCandidate((-5.0, 15.0)), BoxCandidate((2.5, 3.0))])
    assert features.dtype == torch.float64
    torch.testing.assert_close(features, torch.tensor([[0.0, 1.0], [0.5, 0.2]], dtype=torch.float64))
    assert space.from_features(features) == [BoxCandidate((-5.0, 15.0)), BoxCandidate((2.5, 3.0))]
    assert space.features([]).shape == (0, 2)


@given(st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3))
def test_every_feature_row_gives_a_member_with_the_same_features(row: list[float]) -> None:
    space = BoxSpace(bounds=[(-1e3, 1e-3), (1 / 3, 2 / 3), (0.1, 0.7)])
    x = torch.tensor([row], dtype=torch.float64)
    (candidate,) = space.from_features(x)
    space.validate(candidate)
    assert space.from_json(space.to_json(candidate)) == candidate
    torch.testing.assert_close(space.features([candidate]), x, atol=1e-11, rtol=0.0)


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ([], r"space\.bounds is empty"),
        ([(0.0, 1.0), (1.0, 1.0)], r"space\.bounds\[1\]"),
        ([(2.0, 1.0)], r"space\.bounds\[0\] is \[2\.0, 1\.0\]"),
        ([(0.0, float("inf"))], "finite"),
        ([(0.0, float("nan"))], "finite"),
    ],
)
def test_wrong_bounds_are_refused(bounds: list[tuple[float, float]], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        BoxSpace(bounds=bounds)


def test_strangers_are_refused() -> None:
    space = BoxSpace(bounds=[(0.0, 1.0)])
    with pytest.raises(ValueError, match=r"parameter 0 is 1\.5"):
        space.validate(BoxCandidate((1.5,)))
    with pytest.raises(ValueError, match="2 values"):
        space.validate(BoxCandidate((0.5, 0.5)))
    with pytest.raises(ValueError, match="CrystalCandidate"):
        space.features([CrystalCandidate(225, {"Li": 4, "F": 4}, (4.03, 4.03, 4.03, 90, 90, 90))])

"""An oracle of one's own: the Branin function, and by a bias a cheap version of it that is off."""

from math import cos, pi

from activelearning.candidate import BoxCandidate
from oracles import Oracle


class Branin(Oracle):
    """Branin on [-5, 10] x [0, 15]; its minimum, 0.398, lies at three points."""

    def __init__(self, bias: float = 0.0) -> None:
        self.bias = bias

    def evaluate_one(self, candidate: BoxCandidate) -> float:
        """The function's value at a point, with its valley shifted by the bias."""
        x, y = candidate.values
        valley = y - 5.1 / (4 * pi**2) * x**2 + 5 / pi * x - 6 - self.bias
        return valley**2 + 10 * (1 - 1 / (8 * pi)) * cos(x) + 10
